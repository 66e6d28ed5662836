// Convolutions with 3x3x3 or 1x3x3 kernels, stride 1, zero padding of 1 (in time: 1 or none), by Winograd's algorithm.
//
// Activations are (N, T, H, W, C). A picture is cut into tiles of 4x4 outputs; each needs 6x6 inputs, so neighbours
// overlap by two.
//
//            x0-1 x0             x0+4
//       y0-1  +----+----+----+----+----+----+        36 numbers go in, 36 come out of B^T d B: the `points`.
//       y0    |    |####|####|####|####|    |        A point of all frames, tiles and channels is a matrix,
//             |    |####|####|####|####|    |            (frames x tiles, C_in)
//             |    |####|####|####|####|    |        and is multiplied by the same point of the filters,
//             |    |####|####|####|####|    |            (C_in, C_out).
//       y0+4  +----+----+----+----+----+----+        A^T m A makes the 16 outputs (#) of the 36 products.
//
// In time either the products of three frames are summed (`time_tile` 1), or two frames of products are made of four
// frames of points by F(2, 3) (`time_tile` 2). The latter happens within phase 2, in memory near to the processor: four
// times the points would be twice as much to write and to read again.
//
// Three phases a chunk of tiles, each shared out over the threads; a chunk's points and products fill `workspace` and are
// about as large as the processor's last cache: more would go to memory, less would read the filters too often.
//
//     1  tiles   ->  inputs'  points   (point, frame, tile, C_in)
//     2  points  ->  products          (point, frame, tile, C_out)
//     3  tiles   ->  outputs, with bias, residual, ReLU and max-pooling while they are in registers
#pragma once

#include "convolution.h"
#include "direct.h"
#include "matrix.h"
#include "transforms.h"

namespace featx {

constexpr int kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;
constexpr int kTimeTile = 2, kTimePatch = 4;
constexpr long kStagger = 48;  // floats between points, so that they do not all fall on the same lines of the cache
constexpr int kPanelsATask = 4;  // 64 output channels: small enough to share out, large enough to be worth a task
constexpr int kNearInputs = 12288, kMaxNearRows = 96;  // four times as many floats stay in the second-level cache

static inline int padded(int channels) { return round_up(channels, kPanel) * kPanel; }

// What a chunk of `tiles` tiles occupies.
struct Layout {
    int tiles_y, tiles_x;
    long num_tiles;  // of the whole batch
    int columns;     // c_out, padded to whole panels
    int near_rows;   // rows that are transformed in time together

    explicit Layout(const Convolution& c)
        : tiles_y(round_up(c.h, kTile)),
          tiles_x(round_up(c.w, kTile)),
          num_tiles(static_cast<long>(c.n) * tiles_y * tiles_x),
          columns(padded(c.c_out)),
          near_rows(larger(kTileRows, smaller(kMaxNearRows, kNearInputs / c.c_in / kTileRows * kTileRows))) {}

    long input_step(const Convolution& c, long tiles) const { return c.t * tiles * c.c_in + kStagger; }
    long product_step(const Convolution& c, long tiles) const { return c.t * tiles * columns + kStagger; }
    // a thread's own, with time_tile 2: inputs' points and products, four of each
    long near_floats(const Convolution& c) const {
        return c.time_tile == kTimeTile ? static_cast<long>(kTimePatch) * near_rows * (c.c_in + kPanelsATask * kPanel) : 0;
    }
    long workspace_floats(const Convolution& c, long tiles, int threads) const {
        return kPoints * (input_step(c, tiles) + product_step(c, tiles)) + threads * near_floats(c);
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
    const float* frame = c.input + (static_cast<long>(tile.n) * c.t + t) * c.h * c.w * c.c_in;
    for (int i = 0; i < kPatch; i++)
        for (int j = 0; j < kPatch; j++) {
            const int y = tile.y - 1 + i, x = tile.x - 1 + j;
            const bool inside = y >= 0 && y < c.h && x >= 0 && x < c.w;
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
    const float* patch[kPoints];
    for (int t = 0; t < c.t; t++) {
        float* to = points + (t * tiles + r) * c.c_in;
        find_patch(c, tile, t, patch);
        for (int channel = 0; channel < c.c_in; channel += kLanes) {
            Vector v[kPoints];
            transform_patch(patch, channel, v);
            for (int p = 0; p < kPoints; p++) store(to + p * step + channel, v[p]);
        }
    }
}

// ------------------------------------------------------------------------------------------------ phase 2

// The products of one point, for panels `panel` to `panel` + `count`, as sums over the taps in time.
static void multiply_point(const Convolution& c, const Layout& layout, long tiles, const float* a, const float* b, float* products,
                           int panel, int count) {
    const int taps = c.kernel_t;
    const long panel_step = static_cast<long>(taps) * c.c_in * kPanel, frame = tiles * c.c_in;
    b += panel * panel_step;
    products += static_cast<long>(panel) * kPanel;
    // output frames `t` to `t` + `frames` are the sum over taps `tap` to `tap` + `num_taps` of input frames t + tap - taps / 2 on
    auto sum_taps = [&](int t, int frames, int tap, int num_taps) {
        if (frames <= 0) return;
        const float* segments[3];
        for (int d = 0; d < num_taps; d++) segments[d] = a + (t + tap + d - taps / 2) * frame;
        multiply(EvenRows{segments, c.c_in}, frames * tiles, num_taps, c.c_in, b + static_cast<long>(tap) * c.c_in * kPanel, count,
                 panel_step, products + t * tiles * layout.columns, layout.columns);
    };
    if (taps == 1) {
        sum_taps(0, c.t, 0, 1);
    } else if (c.t == 1) {
        sum_taps(0, 1, 1, 1);
    } else {  // the first and the last frame have only two of three neighbours
        sum_taps(0, 1, 1, 2);
        sum_taps(1, c.t - 2, 0, 3);
        sum_taps(c.t - 1, 1, 0, 2);
    }
}

// B^T in time of one tile's point in the four frames from `t` - 1 on, to four rows `step` floats apart.
static void transform_row_in_time(const Convolution& c, const float* a, long frame, int t, float* to, long step) {
    const float* d[kTimePatch];
    for (int q = 0; q < kTimePatch; q++) d[q] = t - 1 + q >= 0 && t - 1 + q < c.t ? a + (t - 1 + q) * frame : kZeros;
    for (int channel = 0; channel < c.c_in; channel += kLanes) {
        Vector v[kTimePatch];
        input_2(load(d[0] + channel), load(d[1] + channel), load(d[2] + channel), load(d[3] + channel), v);
        for (int q = 0; q < kTimePatch; q++) store(to + q * step + channel, v[q]);
    }
}

// A^T in time of one row of four products, `step` floats apart, to the two frames from `t` on, as far as they are in the clip.
static void combine_row_in_time(const Convolution& c, const float* m, long step, int channels, int t, float* to, long frame) {
    for (int channel = 0; channel < channels; channel += kLanes, m += kLanes, to += kLanes) {
        Vector y[kTimeTile];
        output_2(load(m), load(m + step), load(m + 2 * step), load(m + 3 * step), y);
        store(to, y[0]);
        if (t + 1 < c.t) store(to + frame, y[1]);
    }
}

// The same as multiply_point by F(2, 3) in time, in blocks of rows whose four points and products stay in `near`.
static void multiply_point_in_time(const Convolution& c, const Layout& layout, long tiles, const float* a, const float* b,
                                   float* products, int panel, int count, float* near) {
    const long panel_step = static_cast<long>(c.c_in) * kPanel, point_step = layout.columns / kPanel * panel_step;
    const long all_rows = round_up(c.t, kTimeTile) * tiles;  // (pair of frames, tile)
    const int channels = count * kPanel;
    b += panel * panel_step;
    products += static_cast<long>(panel) * kPanel;
    const long blocks = (all_rows + layout.near_rows - 1) / layout.near_rows, block_rows = (all_rows + blocks - 1) / blocks;
    for (long first = 0; first < all_rows; first += block_rows) {
        const long rows = smaller(block_rows, all_rows - first), input_step = rows * c.c_in, product_step = rows * channels;
        float* computed = near + kTimePatch * input_step;
        for (long r = 0; r < rows; r++) {
            const long pair = (first + r) / tiles, tile = (first + r) % tiles;
            transform_row_in_time(c, a + tile * c.c_in, tiles * c.c_in, static_cast<int>(pair) * kTimeTile, near + r * c.c_in, input_step);
        }
        for (int q = 0; q < kTimePatch; q++) {
            const float* segment = near + q * input_step;
            multiply(EvenRows{&segment, c.c_in}, rows, 1, c.c_in, b + q * point_step, count, panel_step, computed + q * product_step, channels);
        }
        for (long r = 0; r < rows; r++) {
            const long pair = (first + r) / tiles, tile = (first + r) % tiles;
            float* to = products + (pair * kTimeTile * tiles + tile) * layout.columns;
            combine_row_in_time(c, computed + r * channels, product_step, channels, static_cast<int>(pair) * kTimeTile, to, tiles * layout.columns);
        }
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

// `frames` frames of 4x4 outputs of eight channels from frame `t` on, in `outputs`, to their place.
static inline void write_tile(const Convolution& c, const Tile& tile, int t, int frames, int channel, const Vector (*outputs)[kTile * kTile]) {
    const int height = smaller(kTile, c.h - tile.y), width = smaller(kTile, c.w - tile.x);
    const Vector bias = load(c.bias + channel), factor = all(c.residual_factor);
    if (c.pool_hw == 1 && c.pool_t == 1) {
        for (int f = 0; f < frames; f++)
            for (int i = 0; i < height; i++)
                for (int j = 0; j < width; j++) {
                    const long at = (((static_cast<long>(tile.n) * c.t + t + f) * c.h + tile.y + i) * c.w + tile.x + j) * c.c_out + channel;
                    Vector y = add(outputs[f][i * kTile + j], bias);
                    if (c.residual) y = multiply_add(factor, load(c.residual + at), y);
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
                        for (int l = j; l < smaller(j + c.pool_hw, width); l++) y = larger_or_nan(outputs[d][k * kTile + l], y);
                y = add(y, bias);
                if (c.relu) y = larger(zero(), y);
                const long row = (static_cast<long>(tile.n) * out_t + (t + f) / c.pool_t) * out_h + (tile.y + i) / c.pool_hw;
                store(c.output + (row * out_w + (tile.x + j) / c.pool_hw) * c.c_out + channel, y);
            }
}

static void transform_output(const Convolution& c, const Layout& layout, long first, long tiles, long r, const float* products) {
    const long step = layout.product_step(c, tiles);
    const Tile tile(first + r, layout);
    for (int t = 0; t < c.t; t += c.pool_t) {
        const int frames = smaller(c.pool_t, c.t - t);
        for (int channel = 0; channel < c.c_out; channel += kLanes) {
            Vector outputs[2][kTile * kTile];
            for (int f = 0; f < frames; f++)
                transform_products(products + ((t + f) * tiles + r) * layout.columns + channel, step, outputs[f]);
            write_tile(c, tile, t, frames, channel, outputs);
        }
    }
}

// ------------------------------------------------------------------------------------------------ all of it

void winograd(const Convolution& c, float* workspace, long chunk, int threads) {
    const Layout layout(c);
    const int panels = layout.columns / kPanel, groups = round_up(panels, kPanelsATask);
    const bool in_time = c.time_tile == kTimeTile;
    const long filter_step = static_cast<long>(in_time ? kTimePatch : c.kernel_t) * c.c_in * layout.columns;
    for (long first = 0; first < layout.num_tiles; first += chunk) {
        const long tiles = smaller(chunk, layout.num_tiles - first);
        float* inputs = workspace + threads * layout.near_floats(c);
        float* products = inputs + kPoints * layout.input_step(c, tiles);
#pragma omp parallel num_threads(threads)
        {
            float* near = workspace + omp_get_thread_num() * layout.near_floats(c);
#pragma omp for schedule(dynamic, 4)
            for (long r = 0; r < tiles; r++) transform_input(c, layout, first, tiles, r, inputs);
#pragma omp for schedule(dynamic, 1)
            for (long task = 0; task < kPoints * groups; task++) {
                const long point = task / groups;
                const int panel = static_cast<int>(task % groups) * kPanelsATask, count = smaller(kPanelsATask, panels - panel);
                const float *a = inputs + point * layout.input_step(c, tiles), *b = c.filters + point * filter_step;
                float* to = products + point * layout.product_step(c, tiles);
                if (in_time)
                    multiply_point_in_time(c, layout, tiles, a, b, to, panel, count, near);
                else
                    multiply_point(c, layout, tiles, a, b, to, panel, count);
            }
#pragma omp for schedule(dynamic, 4)
            for (long r = 0; r < tiles; r++) transform_output(c, layout, first, tiles, r, products);
        }
    }
}

long winograd_workspace_floats(const Convolution& c, long tiles, int threads) { return Layout(c).workspace_floats(c, tiles, threads); }
long winograd_num_tiles(const Convolution& c) { return Layout(c).num_tiles; }

}  // namespace featx
