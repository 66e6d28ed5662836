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

#include "direct.h"
#include "matrix.h"
#include "matrix_in_time.h"
#include "transforms.h"

namespace featx {

constexpr int kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;
constexpr long kStagger = 48;  // floats between points, so that they do not all fall on the same lines of the cache
constexpr int kPanelsATask = 4;  // 64 output channels: small enough to share out, large enough to be worth a task
constexpr int kNearInputs = 24576, kMaxNearRows = 96;  // four times as many floats stay in the second-level cache

static inline int padded(int channels) { return round_up(channels, kPanel) * kPanel; }

// What a chunk of `tiles` tiles occupies.
struct Layout {
    int tiles_y, tiles_x;
    long num_tiles;  // of the whole batch
    int columns;     // c_out, padded to whole panels
    int pairs;       // of frames, with time_tile 2
    int near_rows;   // rows that are transformed in time together

    explicit Layout(const Convolution& c)
        : tiles_y(round_up(c.h, kTile)),
          tiles_x(round_up(c.w, kTile)),
          num_tiles(static_cast<long>(c.n) * tiles_y * tiles_x),
          columns(padded(c.c_out)),
          pairs(c.time_tile == kTimeTile ? round_up(c.t, kTimeTile) : 0),
          near_rows(larger(kTileRows, smaller(kMaxNearRows, kNearInputs / c.c_in / kTileRows * kTileRows))) {}

    // Where the products of frame `t` are among the frames: with time_tile 2 the even ones lie before the odd ones.
    int product_frame(int t) const { return pairs ? t % kTimeTile * pairs + t / kTimeTile : t; }
    long input_step(const Convolution& c, long tiles) const { return c.t * tiles * c.c_in + kStagger; }
    long product_step(const Convolution& c, long tiles) const { return (pairs ? kTimeTile * pairs : c.t) * tiles * columns + kStagger; }
    int near_step(const Convolution& c) const { return c.c_in + kPanel; }  // so that rows do not all fall on the same lines of the cache
    // a thread's own, with time_tile 2: four points of the inputs
    long near_floats(const Convolution& c) const { return pairs ? static_cast<long>(kTimePatch) * near_rows * near_step(c) : 0; }
    long workspace_floats(const Convolution& c, long tiles, int threads) const {
        return kPoints * (input_step(c, tiles) + product_step(c, tiles)) + threads * near_floats(c);
    }
};

// ------------------------------------------------------------------------------------------------ the filters

// From (c_out, c_in, kernel_t, 3, 3) to points, each packed in panels: (point, panel, kernel_t, c_in, 16), or with
// time_tile 2 (point, panel, then as matrix_in_time.h reads them).
void winograd_pack(const float* weight, int c_out, int c_in, int kernel_t, int time_tile, float* filters, int threads) {
    const bool in_time = time_tile == kTimeTile;
    const int steps_t = in_time ? kTimePatch : kernel_t;  // points in time, or taps
    const int panels = padded(c_out) / kPanel;
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
                for (int q = 0; q < steps_t; q++) {
                    const int y = p / kPatch, x = p % kPatch;
                    double value = 0;
                    for (int d = 0; d < kernel_t; d++) value += (in_time ? kFilter2[kOrderInTime[q]][d] : d == q) * point[d][y][x];
                    const long panel = (static_cast<long>(p) * panels + o / kPanel) * steps_t * c_in * kPanel;
                    const long place = in_time ? packed_in_time(q, i, c_in) : (static_cast<long>(q) * c_in + i) * kPanel;
                    filters[panel + place + o % kPanel] = static_cast<float>(value);
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
        for (int q = 0; q < kTimePatch; q++) store(to + q * step + channel, v[kOrderInTime[q]]);
    }
}

// The products of one point by F(2, 3) in time, for `rows` rows (pair of frames, tile) from `first` on: their four points
// stay in `near`.
static void multiply_point_in_time(const Convolution& c, const Layout& layout, long tiles, const float* a, const float* b,
                                   float* products, long first, long rows, float* near) {
    const long step = layout.near_step(c), point_step = rows * step, frame = tiles * c.c_in;
    for (long r = 0; r < rows; r++) {
        const long pair = (first + r) / tiles, tile = (first + r) % tiles;
        transform_row_in_time(c, a + tile * c.c_in, frame, static_cast<int>(pair) * kTimeTile, near + r * step, point_step);
    }
    float *even = products + first * layout.columns, *odd = even + layout.pairs * tiles * layout.columns;
    multiply_in_time(near, rows, step, point_step, c.c_in, b, layout.columns / kPanel, even, odd, layout.columns);
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
                transform_products(products + (layout.product_frame(t + f) * tiles + r) * layout.columns + channel, step, outputs[f]);
            write_tile(c, tile, t, frames, channel, outputs);
        }
    }
}

// ------------------------------------------------------------------------------------------------ all of it

// Phase 2 shared out in tasks of one point: by F(2, 3) in time blocks of rows, or else groups of panels.
struct Tasks {
    int panels, groups;
    long block_rows, all_rows;
    Tasks(const Layout& layout, long tiles) : panels(layout.columns / kPanel), block_rows(0), all_rows(layout.pairs * tiles) {
        if (layout.pairs) {
            groups = static_cast<int>((all_rows + layout.near_rows - 1) / layout.near_rows);
            block_rows = (all_rows + groups - 1) / groups;
        } else {
            groups = round_up(panels, kPanelsATask);
        }
    }
};

static void multiply_task(const Convolution& c, const Layout& layout, const Tasks& tasks, long tiles, long task, const float* inputs,
                          float* products, float* near) {
    const long point = task / tasks.groups, group = task % tasks.groups;
    const long filter_step = static_cast<long>(layout.pairs ? kTimePatch : c.kernel_t) * c.c_in * layout.columns;
    const float *a = inputs + point * layout.input_step(c, tiles), *b = c.filters + point * filter_step;
    float* to = products + point * layout.product_step(c, tiles);
    if (layout.pairs) {
        const long first = group * tasks.block_rows, rows = smaller(tasks.block_rows, tasks.all_rows - first);
        if (rows > 0) multiply_point_in_time(c, layout, tiles, a, b, to, first, rows, near);
    } else {
        const int panel = static_cast<int>(group) * kPanelsATask;
        multiply_point(c, layout, tiles, a, b, to, panel, smaller(kPanelsATask, tasks.panels - panel));
    }
}

void winograd(const Convolution& c, float* workspace, long chunk, int threads) {
    const Layout layout(c);
    for (long first = 0; first < layout.num_tiles; first += chunk) {
        const long tiles = smaller(chunk, layout.num_tiles - first);
        const Tasks tasks(layout, tiles);
        float* inputs = workspace + threads * layout.near_floats(c);
        float* products = inputs + kPoints * layout.input_step(c, tiles);
#pragma omp parallel num_threads(threads)
        {
            float* near = workspace + omp_get_thread_num() * layout.near_floats(c);
#pragma omp for schedule(dynamic, 4)
            for (long r = 0; r < tiles; r++) transform_input(c, layout, first, tiles, r, inputs);
#pragma omp for schedule(dynamic, 1)
            for (long task = 0; task < kPoints * tasks.groups; task++) multiply_task(c, layout, tasks, tiles, task, inputs, products, near);
#pragma omp for schedule(dynamic, 4)
            for (long r = 0; r < tiles; r++) transform_output(c, layout, first, tiles, r, products);
        }
    }
}

long winograd_workspace_floats(const Convolution& c, long tiles, int threads) { return Layout(c).workspace_floats(c, tiles, threads); }
long winograd_num_tiles(const Convolution& c) { return Layout(c).num_tiles; }

}  // namespace featx
