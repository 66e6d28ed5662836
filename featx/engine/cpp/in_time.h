// Convolutions of few input channels and stride 1 in time, by minimal filtering in time: the first layers of 3D networks.
//
// `tile` outputs in time need points = tile + kernel_t - 1 inputs, and as many products instead of tile * kernel_t:
//
//     frames  x0 .. x9         -> B^T ->  points    p0 .. p9        pictures of the input's size, few channels: cheap
//     points  p0 .. p9         -> (2D) -> products  m0 .. m9        each point with its own filters, as in direct.h
//     products of one line     -> A^T ->  outputs   y0 .. y3        then bias, ReLU and pooling, while they are near
//
// The matrices come from featx/engine/filtering.py.
#pragma once

#include <omp.h>

#include "direct.h"

namespace featx {

// B^T: the frames of one group to its points, for `count` of the numbers of a picture from `first` on.
static void transform_frames(const TimeConvolution& c, const float* frames, long picture, long first, long count, float* points) {
    for (int p = 0; p < c.points; p++) {
        const float* row = c.input_matrix + p * c.points;
        float* to = points + p * picture;
        for (long i = first; i < first + count; i++) to[i] = row[0] * frames[i];
        for (int d = 1; d < c.points; d++) {
            const float factor = row[d];
            if (factor == 0) continue;
            const float* from = frames + d * picture;
            for (long i = first; i < first + count; i++) to[i] += factor * from[i];
        }
    }
}

// A^T of `num` numbers: products (points, num) to `frames` frames of outputs, at most `tile`, that lie `step` floats apart.
static void transform_products_in_time(const TimeConvolution& c, int frames, long num, const float* products, float* outputs, long step) {
    for (long i = 0; i < num; i += kLanes) {
        Vector m[kMaxTimePoints];
        for (int p = 0; p < c.points; p++) m[p] = load(products + p * num + i);
        for (int f = 0; f < frames; f++) {
            const float* row = c.output_matrix + f * c.points;
            Vector y = zero();
            for (int p = 0; p < c.points; p++) y = multiply_add(broadcast(row + p), m[p], y);
            store(outputs + f * step + i, y);
        }
    }
}

// How a block of outputs of one group is computed: panel by panel, and of a panel so many rows at a time that with the
// filters of all points their products stay in the first-level cache, or where the filters alone are too large, all.
struct Pieces {
    long block_rows, rows;
    Pieces(const TimeConvolution& c, const Runs& runs, const Blocks& blocks) : block_rows(blocks.rows), rows(blocks.rows) {
        constexpr long kNearFilters = 4096, kFewRows = 4 * kTileRows;  // 16 KB of floats
        if (static_cast<long>(c.points) * runs.a_frame * runs.length * kPanel <= kNearFilters) rows = smaller(rows, kFewRows);
    }
    long product_floats(const TimeConvolution& c) const { return c.points * rows * kPanel; }
    long output_floats(const TimeConvolution& c) const { return c.tile * block_rows * kPanel; }
    long floats(const TimeConvolution& c) const { return product_floats(c) + output_floats(c); }
};

long in_time_workspace_floats(const TimeConvolution& c, int threads) {
    const long picture = static_cast<long>(c.layer.h) * c.layer.w * c.layer.c_in, groups = (c.out_t + c.tile - 1) / c.tile;
    return groups * c.points * picture + threads * Pieces(c, Runs(c.layer), Blocks(c.layer)).floats(c);
}

// One panel of a block of `rows` outputs, whose runs are listed in `table`: a frame of outputs after the other, (rows, 16).
static void convolve_panel(const TimeConvolution& c, const Runs& runs, const Pieces& pieces, const float* const* table, long rows,
                           int panel, int frames, float* products, float* outputs) {
    const DirectConvolution& layer = c.layer;
    const long picture = static_cast<long>(layer.h) * layer.w * layer.c_in;
    const long panel_floats = static_cast<long>(runs.a_frame) * runs.length * kPanel, point_floats = panel_floats * (layer.c_out / kPanel);
    for (long first = 0; first < rows; first += pieces.rows) {
        const long count = smaller(pieces.rows, rows - first);
        for (int p = 0; p < c.points; p++)
            multiply(ListedRows{table + first, rows, p * picture}, count, runs.a_frame, runs.length,
                     c.filters + p * point_floats + panel * panel_floats, 1, panel_floats, products + p * count * kPanel, kPanel);
        transform_products_in_time(c, frames, count * kPanel, products, outputs + first * kPanel, rows * kPanel);
    }
}

// One block of outputs of the frames of a group.
static void convolve_group(const TimeConvolution& c, const Runs& runs, const Blocks& blocks, const Pieces& pieces, int n, int group,
                           long block, const float* points, const float** table, float* products) {
    const DirectConvolution& layer = c.layer;
    const long first = block * blocks.rows, rows = smaller(blocks.rows, blocks.frame_rows - first);
    const int frames = smaller(c.tile, c.out_t - group * c.tile);
    DirectConvolution pictures = layer;  // the points are what it runs over
    pictures.input = points;
    list_runs(pictures, runs, 0, 0, 0, 1, first, rows, table);
    float* outputs = products + pieces.product_floats(c);
    for (int panel = 0; panel < layer.c_out / kPanel; panel++) {
        convolve_panel(c, runs, pieces, table, rows, panel, frames, products, outputs);
        const int channel = panel * kPanel;
        for (int f = 0; f < frames; f++) {
            const float* computed = outputs + f * rows * kPanel;
            const long frame = static_cast<long>(n) * c.out_t + group * c.tile + f;
            if (layer.pool_hw == 2) {
                const long line = frame * round_up(layer.out_h(), 2) + block;
                pool_lines(layer, computed, static_cast<int>(rows / layer.out_w()), kPanel, layer.bias + channel,
                           layer.output + line * round_up(layer.out_w(), 2) * layer.c_out + channel);
            } else {
                finish_rows(layer, computed, rows, kPanel, layer.bias + channel, nullptr,
                            layer.output + (frame * blocks.frame_rows + first) * layer.c_out + channel);
            }
        }
    }
}

void direct_in_time(const TimeConvolution& c, float* workspace, int threads) {
    const DirectConvolution& layer = c.layer;
    const Runs runs(layer);
    const Blocks blocks(layer);
    const Pieces pieces(c, runs, blocks);
    const int groups = (c.out_t + c.tile - 1) / c.tile;
    const long picture = static_cast<long>(layer.h) * layer.w * layer.c_in;
    constexpr long kPiece = 2048;  // numbers of a picture that are transformed at a time: they stay in the first-level cache
    const long num_pieces = (picture + kPiece - 1) / kPiece;
#pragma omp parallel num_threads(threads)
    {
        std::vector<const float*> table(runs.a_frame * blocks.rows);
        float* products = workspace + groups * c.points * picture + omp_get_thread_num() * pieces.floats(c);
        for (int n = 0; n < layer.n; n++) {
#pragma omp for collapse(2) schedule(dynamic, 1)
            for (int group = 0; group < groups; group++)
                for (long piece = 0; piece < num_pieces; piece++)
                    transform_frames(c, layer.input + (static_cast<long>(n) * layer.t + group * c.tile) * picture, picture,
                                     piece * kPiece, smaller(kPiece, picture - piece * kPiece), workspace + group * c.points * picture);
#pragma omp for collapse(2) schedule(dynamic, 1)
            for (int group = 0; group < groups; group++)
                for (long block = 0; block < blocks.a_frame; block++)
                    convolve_group(c, runs, blocks, pieces, n, group, block, workspace + group * c.points * picture, table.data(), products);
        }
    }
}

}  // namespace featx
