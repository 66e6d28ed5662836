// Convolutions with 3x3x3 or 1x3x3 kernels, stride 1, zero padding of 1 (in time: 1 or none), by Winograd's algorithm.
//
// Activations are (N, T, H, W, C). A picture is cut into tiles of 4x4 outputs; each needs 6x6 inputs, so neighbours
// overlap by two. In time either two outputs are made of four inputs, or each of three as it is (`time_tile` 2 or 1).
//
//            x0-1 x0             x0+4
//       y0-1  +----+----+----+----+----+----+        36 numbers go in (times 4 in time), 36 come out of B^T d B:
//       y0    |    |####|####|####|####|    |        the `points`. A point of all tiles and channels is a matrix,
//             |    |####|####|####|####|    |            (tiles x frames, C_in)
//             |    |####|####|####|####|    |        and is multiplied by the same point of the filters,
//             |    |####|####|####|####|    |            (C_in, C_out).
//       y0+4  +----+----+----+----+----+----+        A^T m A makes the 16 outputs (#) of the 36 products.
//
// Three phases a chunk of tiles, each shared out over the threads; a chunk's points fill `workspace` and are about as
// large as the processor's last cache: more would go to memory, less would read the filters too often.
//
//     1  tiles   ->  inputs'  points   (point, frame, tile, C_in)
//     2  points  ->  products          (point, frame, tile, C_out)
//     3  tiles   ->  outputs, with bias, residual, ReLU and max-pooling while they are in registers
#pragma once

#include "convolution.h"
#include "matrix.h"
#include "transforms.h"

namespace featx {

constexpr int kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;
constexpr int kTimeTile = 2, kTimePatch = 4;
constexpr long kStagger = 48;  // floats between points, so that they do not all fall on the same lines of the cache

static inline int padded(int channels) { return round_up(channels, kPanel) * kPanel; }

// What a chunk of `tiles` tiles occupies.
struct Layout {
    int tiles_y, tiles_x, frames;  // frames: of points, after the transform in time
    long num_points, num_tiles;    // num_tiles: of the whole batch
    int columns;                   // c_out, padded to whole panels

    explicit Layout(const Convolution& c)
        : tiles_y(round_up(c.h, kTile)),
          tiles_x(round_up(c.w, kTile)),
          frames(c.time_tile == kTimeTile ? round_up(c.t, kTimeTile) : c.t),
          num_points(c.time_tile == kTimeTile ? kTimePatch * kPoints : kPoints),
          num_tiles(static_cast<long>(c.n) * tiles_y * tiles_x),
          columns(padded(c.c_out)) {}

    long input_step(const Convolution& c, long tiles) const { return frames * tiles * c.c_in + kStagger; }
    long product_step(long tiles) const { return frames * tiles * columns + kStagger; }
    long workspace_floats(const Convolution& c, long tiles) const {
        return num_points * (input_step(c, tiles) + product_step(tiles));
    }
};

// ------------------------------------------------------------------------------------------------ the filters

// From (c_out, c_in, kernel_t, 3, 3) to points, each packed in panels: (point, panel, [kernel_t,] c_in, 16).
void winograd_pack(const float* weight, int c_out, int c_in, int kernel_t, int time_tile, float* filters, int threads) {
    const int taps_t = time_tile == kTimeTile ? 1 : kernel_t;  // left to sum over in the product
    const int points_t = time_tile == kTimeTile ? kTimePatch : 1;
    const int panels = padded(c_out) / kPanel;
    const long point_floats = static_cast<long>(panels) * taps_t * c_in * kPanel;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int o = 0; o < panels * kPanel; o++)
        for (int i = 0; i < c_in; i++) {
            double point[3][kPatch][kPatch];  // transformed in space, one a tap in time
            for (int d = 0; d < kernel_t; d++) {
                const float* g = weight + ((static_cast<long>(o) * c_in + i) * kernel_t + d) * 9;
                double half[kPatch][3];
                for (int p = 0; p < kPatch; p++)
                    for (int x = 0; x < 3; x++)
                        half[p][x] = o < c_out ? kFilter4[p][0] * g[x] + kFilter4[p][1] * g[3 + x] + kFilter4[p][2] * g[6 + x] : 0;
                for (int p = 0; p < kPatch; p++)
                    for (int q = 0; q < kPatch; q++)
                        point[d][p][q] = half[p][0] * kFilter4[q][0] + half[p][1] * kFilter4[q][1] + half[p][2] * kFilter4[q][2];
            }
            for (int p = 0; p < kPoints; p++)
                for (int pt = 0; pt < points_t; pt++)
                    for (int d = 0; d < taps_t; d++) {
                        const int y = p / kPatch, x = p % kPatch;
                        const double value = time_tile == kTimeTile ? kFilter2[pt][0] * point[0][y][x] + kFilter2[pt][1] * point[1][y][x] +
                                                                          kFilter2[pt][2] * point[2][y][x]
                                                                    : point[d][y][x];
                        filters[(static_cast<long>(p) * points_t + pt) * point_floats +
                                ((static_cast<long>(o / kPanel) * taps_t + d) * c_in + i) * kPanel + o % kPanel] = static_cast<float>(value);
                    }
        }
}

// ------------------------------------------------------------------------------------------------ phase 1

alignas(64) static const float kZeros[kMaxChannels] = {};

// A tile of the batch: its picture and its first output.
struct Tile {
    int n, y, x;
    Tile(long index, const Layout& layout)
        : n(static_cast<int>(index / (layout.tiles_y * layout.tiles_x))),
          y(static_cast<int>(index / layout.tiles_x % layout.tiles_y) * kTile),
          x(static_cast<int>(index % layout.tiles_x) * kTile) {}
};

// Where the 6x6 inputs of a tile lie in frame `t`; zeros stand in for what is outside.
static inline void find_patch(const Convolution& c, const Tile& tile, int t, const float** patch) {
    const bool inside_t = t >= 0 && t < c.t;
    const float* frame = c.input + (static_cast<long>(tile.n) * c.t + (inside_t ? t : 0)) * c.h * c.w * c.c_in;
    for (int i = 0; i < kPatch; i++)
        for (int j = 0; j < kPatch; j++) {
            const int y = tile.y - 1 + i, x = tile.x - 1 + j;
            const bool inside = inside_t && y >= 0 && y < c.h && x >= 0 && x < c.w;
            patch[i * kPatch + j] = inside ? frame + (static_cast<long>(y) * c.w + x) * c.c_in : kZeros;
        }
}

// B^T d B of eight channels.
static inline void transform_patch(const float* const* patch, int channel, Vector* points) {
    Vector half[kPatch][kPatch];
    for (int j = 0; j < kPatch; j++) {
        const float* const* p = patch + j;
        Vector column[kPatch];
        input_4(load(p[0] + channel), load(p[6] + channel), load(p[12] + channel), load(p[18] + channel), load(p[24] + channel),
                load(p[30] + channel), column);
        for (int i = 0; i < kPatch; i++) half[i][j] = column[i];
    }
    for (int i = 0; i < kPatch; i++)
        input_4(half[i][0], half[i][1], half[i][2], half[i][3], half[i][4], half[i][5], points + kPatch * i);
}

static void transform_input(const Convolution& c, const Layout& layout, long first, long tiles, long r, float* points) {
    const long step = layout.input_step(c, tiles);
    const Tile tile(first + r, layout);
    const float* patch[kTimePatch][kPoints];
    for (int f = 0; f < layout.frames; f++) {
        float* to = points + (f * tiles + r) * c.c_in;
        if (c.time_tile == 1) {
            find_patch(c, tile, f, patch[0]);
            for (int channel = 0; channel < c.c_in; channel += kLanes) {
                Vector v[kPoints];
                transform_patch(patch[0], channel, v);
                for (int p = 0; p < kPoints; p++) store(to + p * step + channel, v[p]);
            }
            continue;
        }
        for (int d = 0; d < kTimePatch; d++) find_patch(c, tile, kTimeTile * f - 1 + d, patch[d]);
        for (int channel = 0; channel < c.c_in; channel += kLanes) {
            Vector v[kTimePatch][kPoints];
            for (int d = 0; d < kTimePatch; d++) transform_patch(patch[d], channel, v[d]);
            for (int p = 0; p < kPoints; p++) {
                Vector in_time[kTimePatch];
                input_2(v[0][p], v[1][p], v[2][p], v[3][p], in_time);
                for (int q = 0; q < kTimePatch; q++) store(to + (kTimePatch * p + q) * step + channel, in_time[q]);
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------ phase 2

// The products of one point, for panels `panel` to `panel` + `count`.
static void multiply_point(const Convolution& c, const Layout& layout, long tiles, const float* a, const float* b, float* products,
                           int panel, int count) {
    const int taps = c.time_tile == kTimeTile ? 1 : c.kernel_t;
    const long panel_step = static_cast<long>(taps) * c.c_in * kPanel, frame = tiles * c.c_in;
    b += panel * panel_step;
    products += static_cast<long>(panel) * kPanel;
    // output frames `t` to `t` + `frames` are the sum over taps `tap` to `tap` + `num_taps` of input frames t + tap - taps / 2 on
    auto sum_taps = [&](int t, int frames, int tap, int num_taps) {
        if (frames <= 0) return;
        const float* segments[3];
        for (int d = 0; d < num_taps; d++) segments[d] = a + (t + tap + d - taps / 2) * frame;
        multiply(segments, num_taps, c.c_in, c.c_in, frames * tiles, b + static_cast<long>(tap) * c.c_in * kPanel, count, panel_step,
                 products + t * tiles * layout.columns, layout.columns);
    };
    if (taps == 1) {
        sum_taps(0, layout.frames, 0, 1);
    } else if (c.t == 1) {
        sum_taps(0, 1, 1, 1);
    } else {  // the first and the last frame have only two of three neighbours
        sum_taps(0, 1, 1, 2);
        sum_taps(1, c.t - 2, 0, 3);
        sum_taps(c.t - 1, 1, 0, 2);
    }
}

// ------------------------------------------------------------------------------------------------ phase 3

// A^T m A of eight channels: 36 products, `step` floats apart, to 4x4 outputs.
static inline void transform_products(const float* m, long step, Vector* outputs) {
    Vector half[kTile][kPatch];
    for (int j = 0; j < kPatch; j++) {
        const float* p = m + j * step;
        Vector column[kTile];
        output_4(load(p), load(p + 6 * step), load(p + 12 * step), load(p + 18 * step), load(p + 24 * step), load(p + 30 * step), column);
        for (int i = 0; i < kTile; i++) half[i][j] = column[i];
    }
    for (int i = 0; i < kTile; i++)
        output_4(half[i][0], half[i][1], half[i][2], half[i][3], half[i][4], half[i][5], outputs + kTile * i);
}

// Two frames of 4x4 outputs of eight channels, in `outputs`, to their place; `frames` 1 or 2 of them are in the clip.
static inline void write_tile(const Convolution& c, const Tile& tile, int t, int frames, int channel, const Vector (*outputs)[kTile * kTile]) {
    const int height = smaller(kTile, c.h - tile.y), width = smaller(kTile, c.w - tile.x);
    const Vector bias = load(c.bias + channel);
    if (c.pool_hw == 1 && c.pool_t == 1) {
        for (int f = 0; f < frames; f++)
            for (int i = 0; i < height; i++)
                for (int j = 0; j < width; j++) {
                    const long at = (((static_cast<long>(tile.n) * c.t + t + f) * c.h + tile.y + i) * c.w + tile.x + j) * c.c_out + channel;
                    Vector y = add(outputs[f][i * kTile + j], bias);
                    if (c.residual) y = add(y, load(c.residual + at));
                    store(c.output + at, c.relu ? larger(zero(), y) : y);
                }
        return;
    }
    const int out_t = round_up(c.t, c.pool_t), out_h = round_up(c.h, c.pool_hw), out_w = round_up(c.w, c.pool_hw);
    for (int f = 0; f < frames; f += c.pool_t)
        for (int i = 0; i < height; i += c.pool_hw)
            for (int j = 0; j < width; j += c.pool_hw) {
                Vector y = outputs[f][i * kTile + j];
                for (int d = f; d < smaller(f + c.pool_t, frames); d++)
                    for (int k = i; k < smaller(i + c.pool_hw, height); k++)
                        for (int l = j; l < smaller(j + c.pool_hw, width); l++) y = larger(outputs[d][k * kTile + l], y);
                y = add(y, bias);
                if (c.relu) y = larger(zero(), y);
                const long row = (static_cast<long>(tile.n) * out_t + (t + f) / c.pool_t) * out_h + (tile.y + i) / c.pool_hw;
                store(c.output + (row * out_w + (tile.x + j) / c.pool_hw) * c.c_out + channel, y);
            }
}

static void transform_output(const Convolution& c, const Layout& layout, long first, long tiles, long r, const float* products) {
    const long step = layout.product_step(tiles);
    const Tile tile(first + r, layout);
    for (int t = 0; t < c.t; t += kTimeTile) {
        const int frames = smaller(kTimeTile, c.t - t);
        for (int channel = 0; channel < c.c_out; channel += kLanes) {
            Vector outputs[kTimeTile][kTile * kTile];
            if (c.time_tile == 1) {
                for (int f = 0; f < frames; f++)
                    transform_products(products + ((t + f) * tiles + r) * layout.columns + channel, step, outputs[f]);
            } else {
                alignas(32) float in_time[kTimeTile][kPoints * kLanes];
                const float* m = products + (t / kTimeTile * tiles + r) * layout.columns + channel;
                for (int p = 0; p < kPoints; p++) {
                    const float* at = m + static_cast<long>(kTimePatch) * p * step;
                    Vector y[kTimeTile];
                    output_2(load(at), load(at + step), load(at + 2 * step), load(at + 3 * step), y);
                    store(in_time[0] + p * kLanes, y[0]);
                    store(in_time[1] + p * kLanes, y[1]);
                }
                for (int f = 0; f < frames; f++) transform_products(in_time[f], kLanes, outputs[f]);
            }
            write_tile(c, tile, t, frames, channel, outputs);
        }
    }
}

// ------------------------------------------------------------------------------------------------ all of it

constexpr int kPanelsATask = 4;  // 64 output channels: small enough to share out, large enough to be worth a task

void winograd(const Convolution& c, float* workspace, long chunk, int threads) {
    const Layout layout(c);
    const int panels = layout.columns / kPanel, groups = round_up(panels, kPanelsATask);
    const int taps = c.time_tile == kTimeTile ? 1 : c.kernel_t;
    const long filter_step = static_cast<long>(taps) * c.c_in * layout.columns;
    for (long first = 0; first < layout.num_tiles; first += chunk) {
        const long tiles = smaller(chunk, layout.num_tiles - first);
        float* inputs = workspace;
        float* products = workspace + layout.num_points * layout.input_step(c, tiles);
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(dynamic, 4)
            for (long r = 0; r < tiles; r++) transform_input(c, layout, first, tiles, r, inputs);
#pragma omp for schedule(dynamic, 1)
            for (long task = 0; task < layout.num_points * groups; task++) {
                const long point = task / groups;
                const int panel = static_cast<int>(task % groups) * kPanelsATask;
                multiply_point(c, layout, tiles, inputs + point * layout.input_step(c, tiles), c.filters + point * filter_step,
                               products + point * layout.product_step(tiles), panel, smaller(kPanelsATask, panels - panel));
            }
#pragma omp for schedule(dynamic, 4)
            for (long r = 0; r < tiles; r++) transform_output(c, layout, first, tiles, r, products);
        }
    }
}

long winograd_workspace_floats(const Convolution& c, long tiles) { return Layout(c).workspace_floats(c, tiles); }
long winograd_num_tiles(const Convolution& c) { return Layout(c).num_tiles; }

}  // namespace featx
