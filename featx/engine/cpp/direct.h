// Convolutions as they are written: any kernel, stride and zero padding.
//
// Every output is a row of a matrix product: the numbers under the kernel, which lie in runs of C floats (one a tap), times
// the weights. Where there is no padding in space, the taps of a line lie together and are one run of kernel_w * C:
//
//     line of the picture  |c c c|c c c|c c c|c c c|c c c|c c c|c c c| ...      C = 3, kernel_w = 3, stride_w = 1
//     output 0              \_______________/
//     output 1                     \_______________/
//
// A table says where the runs of a block of outputs begin; taps beyond the border point to zeros. Nothing is copied.
#pragma once

#include <omp.h>

#include <vector>

#include "matrix.h"

namespace featx {

alignas(64) static const float kZeros[kMaxChannels] = {};

constexpr int kBlockRows = 96;       // outputs at a time, about: their runs stay in the second-level cache
constexpr int kPanelsABlock = 4;     // of 16 channels: small enough to share out, large enough to be worth a task
constexpr long kNearFloats = 80000;  // weights that stay in the second-level cache beside a block: it then takes all panels

// The runs under a kernel.
struct Runs {
    int a_line, a_frame, length;
    explicit Runs(const DirectConvolution& c)
        : a_line(c.pad_h || c.pad_w ? c.kernel_w : 1), a_frame(a_line * c.kernel_h), length(c.kernel_w / a_line * c.c_in) {}
};

// Where the runs of outputs `first` to `first` + `rows` of frame (n, t) begin, to `table` (num_runs, rows); for taps in time
// from `tap` to `end`.
static void list_runs(const DirectConvolution& c, const Runs& runs, int n, int t, int tap, int end, long first, long rows,
                      const float** table) {
    const int out_w = c.out_w();
    for (int d = tap; d < end; d++) {
        const float* frame = c.input + (static_cast<long>(n) * c.t + t * c.stride_t - c.pad_t + d) * c.h * c.w * c.c_in;
        for (int i = 0; i < c.kernel_h; i++)
            for (int j = 0; j < runs.a_line; j++) {
                int y = static_cast<int>(first / out_w) * c.stride_h - c.pad_h + i, x = static_cast<int>(first % out_w);
                for (long r = 0; r < rows; r++) {
                    const int column = x * c.stride_w - c.pad_w + j;
                    const bool inside = y >= 0 && y < c.h && column >= 0 && column < c.w;
                    *table++ = inside ? frame + (static_cast<long>(y) * c.w + column) * c.c_in : kZeros;
                    if (++x == out_w) {
                        x = 0;
                        y += c.stride_h;
                    }
                }
            }
    }
}

// Bias, residual and ReLU of `rows` outputs of `channels` channels, from `computed` to their place.
static void finish_rows(const DirectConvolution& c, const float* computed, long rows, int channels, const float* bias,
                        const float* residual, float* to) {
    const Vector factor = all(c.residual_factor);
    for (long r = 0; r < rows; r++, computed += channels, to += c.c_out)
        for (int channel = 0; channel < channels; channel += kLanes) {
            Vector y = add(load(computed + channel), load(bias + channel));
            if (residual) y = multiply_add(factor, load(residual + r * c.c_out + channel), y);
            store(to + channel, c.relu ? larger(zero(), y) : y);
        }
}

// Bias, ReLU and 2x2 pooling of one or two lines of outputs, to one line of the result.
static void pool_lines(const DirectConvolution& c, const float* computed, int lines, int channels, const float* bias, float* to) {
    const int width = c.out_w();
    for (int x = 0; x < width; x += 2, to += c.c_out)
        for (int channel = 0; channel < channels; channel += kLanes) {
            Vector y = load(computed + static_cast<long>(x) * channels + channel);
            for (int i = 0; i < lines; i++)
                for (int j = x; j < smaller(x + 2, width); j++)
                    y = larger_or_nan(load(computed + (static_cast<long>(i) * width + j) * channels + channel), y);
            y = add(y, load(bias + channel));
            store(to + channel, c.relu ? larger(zero(), y) : y);
        }
}

// How a layer's outputs are shared out: blocks of `rows` outputs of a frame (two lines, where they are pooled).
struct Blocks {
    long frame_rows, a_frame, rows;
    explicit Blocks(const DirectConvolution& c) : frame_rows(static_cast<long>(c.out_h()) * c.out_w()) {
        a_frame = c.pool_hw == 2 ? round_up(c.out_h(), 2) : (frame_rows + kBlockRows - 1) / kBlockRows;
        rows = c.pool_hw == 2 ? 2L * c.out_w() : (frame_rows + a_frame - 1) / a_frame;
    }
};

// One block of outputs, for the channels of `panels` panels from `panel` on.
static void convolve_block(const DirectConvolution& c, const Runs& runs, const Blocks& blocks, long frame, long block, int panel,
                           int panels, const float** table, float* computed) {
    const int out_t = c.out_t(), n = static_cast<int>(frame / out_t), t = static_cast<int>(frame % out_t);
    const long first = block * blocks.rows, rows = smaller(blocks.rows, blocks.frame_rows - first);
    // taps that meet padding in time only are left out
    const int start = t * c.stride_t - c.pad_t, tap = start < 0 ? -start : 0, end = smaller(c.kernel_t, c.t - start);
    list_runs(c, runs, n, t, tap, end, first, rows, table);
    const int channels = panels * kPanel, channel = panel * kPanel;
    const long tap_floats = static_cast<long>(runs.a_frame) * runs.length * kPanel, panel_step = c.kernel_t * tap_floats;
    multiply(ListedRows{table, rows, 0}, rows, (end - tap) * runs.a_frame, runs.length,
             c.weight + panel * panel_step + tap * tap_floats, panels, panel_step, computed, channels);
    if (c.pool_hw == 2) {
        const int pooled_h = round_up(c.out_h(), 2), pooled_w = round_up(c.out_w(), 2);
        float* to = c.output + ((frame * pooled_h + block) * pooled_w) * c.c_out + channel;
        pool_lines(c, computed, static_cast<int>(rows / c.out_w()), channels, c.bias + channel, to);
    } else {
        const long at = (frame * blocks.frame_rows + first) * c.c_out + channel;
        finish_rows(c, computed, rows, channels, c.bias + channel, c.residual ? c.residual + at : nullptr, c.output + at);
    }
}

void direct(const DirectConvolution& c, int threads) {
    const Runs runs(c);
    const Blocks blocks(c);
    const long frames = static_cast<long>(c.n) * c.out_t(), tasks = frames * blocks.a_frame;
    const long weight_floats = static_cast<long>(c.c_out) * c.kernel_t * runs.a_frame * runs.length;
    const bool near = weight_floats <= kNearFloats && tasks >= 8L * threads;
    const int panels = c.c_out / kPanel, a_group = near ? panels : smaller(panels, kPanelsABlock), groups = round_up(panels, a_group);
#pragma omp parallel num_threads(threads)
    {
        std::vector<const float*> table(static_cast<long>(c.kernel_t) * runs.a_frame * blocks.rows);
        std::vector<float> computed(blocks.rows * a_group * kPanel);
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < groups * tasks; task++) {  // one group's weights pass by all outputs before the next's
            const int panel = static_cast<int>(task / tasks) * a_group;
            const long frame = task % tasks / blocks.a_frame, block = task % blocks.a_frame;
            convolve_block(c, runs, blocks, frame, block, panel, smaller(a_group, panels - panel), table.data(), computed.data());
        }
    }
}

}  // namespace featx
