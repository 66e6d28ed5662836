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

// A^T of `num` numbers: products (points, num) to outputs (frames, num), in place; `frames` at most `tile`.
static void transform_products_in_time(const TimeConvolution& c, int frames, long num, float* products) {
    for (long i = 0; i < num; i += kLanes) {
        Vector m[kMaxTimePoints];
        for (int p = 0; p < c.points; p++) m[p] = load(products + p * num + i);
        for (int f = 0; f < frames; f++) {
            const float* row = c.output_matrix + f * c.points;
            Vector y = zero();
            for (int p = 0; p < c.points; p++) y = multiply_add(broadcast(row + p), m[p], y);
            store(products + f * num + i, y);
        }
    }
}

long in_time_workspace_floats(const TimeConvolution& c, int threads) {
    const long picture = static_cast<long>(c.layer.h) * c.layer.w * c.layer.c_in, groups = (c.out_t + c.tile - 1) / c.tile;
    const Blocks blocks(c.layer);
    return groups * c.points * picture + threads * c.points * blocks.rows * c.layer.c_out;
}

void direct_in_time(const TimeConvolution& c, float* workspace, int threads) {
    const DirectConvolution& layer = c.layer;
    const Runs runs(layer);
    const Blocks blocks(layer);
    const int groups = (c.out_t + c.tile - 1) / c.tile, panels = layer.c_out / kPanel;
    const long picture = static_cast<long>(layer.h) * layer.w * layer.c_in;
    const long filter_floats = static_cast<long>(layer.c_out) * runs.a_frame * runs.length;
    float* all_products = workspace + groups * c.points * picture;
    const int pooled_h = layer.pool_hw == 2 ? round_up(layer.out_h(), 2) : layer.out_h();
    const int pooled_w = layer.pool_hw == 2 ? round_up(layer.out_w(), 2) : layer.out_w();
    constexpr long kPiece = 2048;  // numbers of a picture that are transformed at a time: they stay in the first-level cache
    const long pieces = (picture + kPiece - 1) / kPiece;
#pragma omp parallel num_threads(threads)
    {
        std::vector<const float*> table(runs.a_frame * blocks.rows);
        float* products = all_products + omp_get_thread_num() * c.points * blocks.rows * layer.c_out;
        for (int n = 0; n < layer.n; n++) {
#pragma omp for collapse(2) schedule(static)
            for (int group = 0; group < groups; group++)
                for (long piece = 0; piece < pieces; piece++)
                    transform_frames(c, layer.input + (static_cast<long>(n) * layer.t + group * c.tile) * picture, picture,
                                     piece * kPiece, smaller(kPiece, picture - piece * kPiece), workspace + group * c.points * picture);
#pragma omp for collapse(2) schedule(dynamic, 1)
            for (int group = 0; group < groups; group++)
                for (long block = 0; block < blocks.a_frame; block++) {
                    const long first = block * blocks.rows, rows = smaller(blocks.rows, blocks.frame_rows - first);
                    DirectConvolution pictures = layer;  // the points are what it runs over
                    pictures.input = workspace + group * c.points * picture;
                    list_runs(pictures, runs, 0, 0, 0, 1, first, rows, table.data());
                    for (int p = 0; p < c.points; p++)
                        multiply(ListedRows{table.data(), rows, p * picture}, rows, runs.a_frame, runs.length, c.filters + p * filter_floats,
                                 panels, filter_floats / panels, products + p * rows * layer.c_out, layer.c_out);
                    const int frames = smaller(c.tile, c.out_t - group * c.tile);
                    transform_products_in_time(c, frames, rows * layer.c_out, products);
                    for (int f = 0; f < frames; f++) {
                        const float* computed = products + f * rows * layer.c_out;
                        const long frame = static_cast<long>(n) * c.out_t + group * c.tile + f;
                        if (layer.pool_hw == 2)
                            pool_lines(layer, computed, static_cast<int>(rows / layer.out_w()), layer.c_out, layer.bias,
                                       layer.output + (frame * pooled_h + block) * pooled_w * layer.c_out);
                        else
                            finish_rows(layer, computed, rows, layer.c_out, layer.bias, nullptr,
                                        layer.output + (frame * blocks.frame_rows + first) * layer.c_out);
                    }
                }
        }
    }
}

}  // namespace featx
