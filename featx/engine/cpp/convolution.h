// What the kernels are asked to do: plain records, filled in by featx/engine/native.py, which checks them.
#pragma once

namespace featx {

constexpr int kInterface = 1;  // raised with every change of the records or the functions; native.py has it too
constexpr int kMaxChannels = 4096;
constexpr int kMaxSegments = 64;  // rows of the picture under a kernel of `direct`: kernel_t * kernel_h

// A 3x3x3 or 1x3x3 convolution of stride 1 with zero padding, for winograd.h.
struct Convolution {
    int n, t, h, w, c_in, c_out;
    int kernel_t;   // 3 or 1
    int time_tile;  // 2 (only with kernel_t 3) or 1
    int relu;
    int pool_t, pool_hw;  // 1 or 2: size and stride of the max pool that follows; rounds up
    const float* input;
    const float* filters;   // as `pack` leaves them
    const float* bias;      // (c_out padded to 16)
    const float* residual;  // of the output's shape, or null; not with a pool
    float* output;
};

// A convolution of any kernel and stride over an input that is padded already, for direct.h.
struct DirectConvolution {
    int n, t, h, w, c_in;  // of the padded input
    int c_out;             // a multiple of 16
    int kernel_t, kernel_h, kernel_w, stride_t, stride_h, stride_w;
    int relu, pool_hw;  // pool_hw 1 or 2; an odd row or column more is pooled alone
    const float* input;
    const float* weight;  // (c_out / 16, kernel_t, kernel_h, kernel_w * c_in, 16)
    const float* bias;
    float* output;

    int out_t() const { return (t - kernel_t) / stride_t + 1; }
    int out_h() const { return (h - kernel_h) / stride_h + 1; }
    int out_w() const { return (w - kernel_w) / stride_w + 1; }
};

// In kernels_avx2.cpp. `threads` at least 1; the sizes are described where they are defined.
long winograd_workspace_floats(const Convolution& c, long tiles);
long winograd_num_tiles(const Convolution& c);
void winograd_pack(const float* weight, int c_out, int c_in, int kernel_t, int time_tile, float* filters, int threads);
void winograd(const Convolution& c, float* workspace, long chunk, int threads);
void direct(const DirectConvolution& c, float* rows, int threads);
double multiply_add_gflops(int threads, double seconds);

}  // namespace featx
