// Convolutions as they are written, for the first layer of a network: few input channels, any kernel and stride.
//
// The input is (N, T, H, W, C) with its zero padding already around it. A kernel touches kernel_t * kernel_h rows of the
// picture, and of each a run of kernel_w * C floats that lie together; the next output's run begins stride_w * C further
// on. So one row of outputs is one matrix product:
//
//     row of the picture   |c c c|c c c|c c c|c c c|c c c|c c c|c c c| ...      C = 3, kernel_w = 3, stride_w = 1
//     output 0              \_______________/
//     output 1                     \_______________/
//
// With a 1x2x2 max pool, two rows are computed into a buffer and pooled from there.
#pragma once

#include <omp.h>

#include "convolution.h"
#include "matrix.h"

namespace featx {

// One row of outputs, without bias, to `row` (out_w, c_out).
static void convolve_row(const DirectConvolution& c, int n, int t, int y, float* row) {
    const float* segments[kMaxSegments];
    const int num_segments = c.kernel_t * c.kernel_h, length = c.kernel_w * c.c_in;
    for (int s = 0; s < num_segments; s++) {
        const int frame = t * c.stride_t + s / c.kernel_h, line = y * c.stride_h + s % c.kernel_h;
        segments[s] = c.input + ((static_cast<long>(n) * c.t + frame) * c.h + line) * c.w * c.c_in;
    }
    multiply(segments, num_segments, length, static_cast<long>(c.stride_w) * c.c_in, c.out_w(), c.weight, c.c_out / kPanel,
             static_cast<long>(num_segments) * length * kPanel, row, c.c_out);
}

// Bias, ReLU and pooling of `rows` rows of outputs, to one row of the result.
static void finish_row(const DirectConvolution& c, const float* computed, int rows, float* to) {
    const int width = c.out_w();
    for (int x = 0; x < width; x += c.pool_hw, to += c.c_out)
        for (int channel = 0; channel < c.c_out; channel += kLanes) {
            Vector y = load(computed + static_cast<long>(x) * c.c_out + channel);
            for (int i = 0; i < rows; i++)
                for (int j = x; j < smaller(x + c.pool_hw, width); j++)
                    y = larger(load(computed + (static_cast<long>(i) * width + j) * c.c_out + channel), y);
            y = add(y, load(c.bias + channel));
            store(to + channel, c.relu ? larger(zero(), y) : y);
        }
}

// `rows` is a buffer of pool_hw * out_w * c_out floats for each thread.
void direct(const DirectConvolution& c, float* rows, int threads) {
    const int height = c.out_h(), pooled_h = round_up(height, c.pool_hw), pooled_w = round_up(c.out_w(), c.pool_hw);
    const long row_floats = static_cast<long>(c.out_w()) * c.c_out;
#pragma omp parallel num_threads(threads)
    {
        float* buffer = rows + omp_get_thread_num() * row_floats * c.pool_hw;
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int frame = 0; frame < c.n * c.out_t(); frame++)
            for (int y = 0; y < pooled_h; y++) {
                const int count = smaller(c.pool_hw, height - y * c.pool_hw);
                for (int i = 0; i < count; i++)
                    convolve_row(c, frame / c.out_t(), frame % c.out_t(), y * c.pool_hw + i, buffer + i * row_floats);
                finish_row(c, buffer, count, c.output + (static_cast<long>(frame) * pooled_h + y) * pooled_w * c.c_out);
            }
    }
}

}  // namespace featx
