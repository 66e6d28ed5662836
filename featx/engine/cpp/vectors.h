// Eight floats at a time, and the sixteen of a panel's row: the one instruction set that the kernels use is AVX2 with FMA.
// (With AVX-512, whose products are no faster on Zen 4, the layers took as long.)
//
// Every file of kernels includes this one first, so that only they are compiled for it: the library itself loads, and
// answers "unsupported", on any x86-64 processor.
#pragma once

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma")
#endif

#include <immintrin.h>

namespace featx {

using Vector = __m256;
constexpr int kLanes = 8;

static inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
static inline void prefetch(const float* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }  // anywhere is allowed
static inline Vector zero() { return _mm256_setzero_ps(); }
static inline Vector all(float x) { return _mm256_set1_ps(x); }
static inline Vector broadcast(const float* p) { return _mm256_set1_ps(*p); }
static inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
static inline Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
static inline Vector larger(Vector a, Vector b) { return _mm256_max_ps(a, b); }  // b where one of them is no number
static inline Vector larger_or_nan(Vector a, Vector b) {                           // no number where one of them is none
    return _mm256_or_ps(_mm256_max_ps(a, b), _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
static inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }        // a * b + c
static inline Vector subtract_product(Vector c, Vector a, Vector b) { return _mm256_fnmadd_ps(a, b, c); }  // c - a * b

// A row of a panel: sixteen floats, in two registers.
struct Row {
    Vector low, high;
};
static inline Row load_row(const float* p) { return {load(p), load(p + kLanes)}; }
static inline void store_row(float* p, Row v) {
    store(p, v.low);
    store(p + kLanes, v.high);
}
static inline Row zero_row() { return {zero(), zero()}; }
static inline Row add(Row a, Row b) { return {add(a.low, b.low), add(a.high, b.high)}; }
static inline Row subtract(Row a, Row b) { return {subtract(a.low, b.low), subtract(a.high, b.high)}; }
static inline Row multiply_add(float a, Row b, Row c) { return {multiply_add(all(a), b.low, c.low), multiply_add(all(a), b.high, c.high)}; }

static inline int larger(int a, int b) { return a > b ? a : b; }
static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline long smaller(long a, long b) { return a < b ? a : b; }
static inline int round_up(int value, int step) { return (value + step - 1) / step; }  // in steps

}  // namespace featx
