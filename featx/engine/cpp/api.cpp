// The library's plain C interface, called through ctypes, which lets Python's other threads run meanwhile.
//
// Every function but the first two needs `featx_supported` to have returned 1. Pointers and sizes are trusted:
// featx/engine/native.py checks them.
#include "convolution.h"

#if defined(__x86_64__)

extern "C" {

int featx_interface() { return featx::kInterface; }

int featx_supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

void featx_winograd_pack(const float* weight, int c_out, int c_in, int kernel_t, int time_tile, float* filters, int threads) {
    featx::winograd_pack(weight, c_out, c_in, kernel_t, time_tile, filters, threads);
}

long featx_winograd_num_tiles(const featx::Convolution* c) { return featx::winograd_num_tiles(*c); }

long featx_winograd_workspace_floats(const featx::Convolution* c, long tiles, int threads) {
    return featx::winograd_workspace_floats(*c, tiles, threads);
}

void featx_winograd(const featx::Convolution* c, float* workspace, long tiles, int threads) {
    featx::winograd(*c, workspace, tiles, threads);
}

void featx_direct(const featx::DirectConvolution* c, int threads) { featx::direct(*c, threads); }

long featx_in_time_workspace_floats(const featx::TimeConvolution* c, int threads) { return featx::in_time_workspace_floats(*c, threads); }

void featx_direct_in_time(const featx::TimeConvolution* c, float* workspace, int threads) {
    featx::direct_in_time(*c, workspace, threads);
}

void featx_max_pool(const featx::MaxPool* p, int threads) { featx::max_pool(*p, threads); }

long featx_resize_workspace_bytes(const featx::Resize* r) { return featx::resize_workspace_bytes(*r); }

void featx_resize(const featx::Resize* r, unsigned char* workspace) { featx::resize(*r, workspace); }

double featx_multiply_add_gflops(int threads, double seconds) { return featx::multiply_add_gflops(threads, seconds); }
}

#else

extern "C" int featx_interface() { return featx::kInterface; }
extern "C" int featx_supported() { return 0; }

#endif
