// The matrix product under every convolution here: C += A B for rows of A that lie anywhere, and B packed in panels.
//
//   A   `rows` rows; the numbers of a row lie in `num_segments` runs of `length` floats (a convolution's kernel touches
//       several rows of the picture): number k of run s of row r is segments[s][r * row_step + k]
//   B   num_segments * length rows of `num_panels` * 16 columns, panel after panel, each (k, 16) contiguous;
//       `panel_step` floats from one panel to the next
//   C   rows of `c_step` floats
#pragma once

#include "convolution.h"
#include "vectors.h"

namespace featx {

constexpr int kPanel = 2 * kLanes;  // columns of B that one tile of the product covers
constexpr int kTileRows = 6;        // rows of it: 6 x 2 sums, 2 vectors of B and one of A fill the 16 registers
constexpr int kBlock = 256;         // rows of B at a time: 16 KB, half of the first-level cache

// One tile of C, kept in registers: `Rows` x 16. The sums begin at 0, or at C with `accumulate`. With `Length` other than 0
// the runs have that length, which the compiler then knows: short runs are worth it.
template <int Rows, int Length>
static void multiply_tile(const float* const* segments, int num_segments, int any_length, long row_step, long row_offset,
                          const float* b, float* c, long c_step, bool accumulate) {
    const int length = Length ? Length : any_length;
    Vector low[Rows], high[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) {
        low[r] = accumulate ? load(c + r * c_step) : zero();
        high[r] = accumulate ? load(c + r * c_step + kLanes) : zero();
    }
    for (int s = 0; s < num_segments; s++) {
        const float* a0 = segments[s] + row_offset;
        const float* a3 = a0 + 3 * row_step;
#pragma GCC unroll 4
        for (int k = 0; k < length; k++) {
            const Vector b_low = load(b), b_high = load(b + kLanes);
            b += kPanel;
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) {
                const Vector a = broadcast((r < 3 ? a0 + r * row_step : a3 + (r - 3) * row_step) + k);
                low[r] = multiply_add(a, b_low, low[r]);
                high[r] = multiply_add(a, b_high, high[r]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) {
        store(c + r * c_step, low[r]);
        store(c + r * c_step + kLanes, high[r]);
    }
}

// Rows that the next tile takes of those that are left: six, but never so many that only one or two stay behind, since
// a tile of few rows waits for its own sums.
static inline int next_tile(long rows_left) {
    if (rows_left >= 2 * kTileRows || rows_left <= kTileRows) return static_cast<int>(smaller(rows_left, (long)kTileRows));
    return static_cast<int>((rows_left + 1) / 2);
}

template <int Length>
static void multiply_rows(const float* const* segments, int num_segments, int length, long row_step, long rows,
                          const float* b, float* c, long c_step, bool accumulate) {
    for (long row = 0; row < rows;) {
        const int tile = next_tile(rows - row);
        const long offset = row * row_step;
        float* to = c + row * c_step;
        switch (tile) {
            case 1: multiply_tile<1, Length>(segments, num_segments, length, row_step, offset, b, to, c_step, accumulate); break;
            case 2: multiply_tile<2, Length>(segments, num_segments, length, row_step, offset, b, to, c_step, accumulate); break;
            case 3: multiply_tile<3, Length>(segments, num_segments, length, row_step, offset, b, to, c_step, accumulate); break;
            case 4: multiply_tile<4, Length>(segments, num_segments, length, row_step, offset, b, to, c_step, accumulate); break;
            case 5: multiply_tile<5, Length>(segments, num_segments, length, row_step, offset, b, to, c_step, accumulate); break;
            default: multiply_tile<6, Length>(segments, num_segments, length, row_step, offset, b, to, c_step, accumulate);
        }
        row += tile;
    }
}

// The whole product, in blocks of kBlock rows of B, so that a panel's block stays in the first-level cache while all rows
// of A pass by it.
static void multiply(const float* const* segments, int num_segments, int length, long row_step, long rows, const float* b,
                     int num_panels, long panel_step, float* c, long c_step) {
    bool accumulate = false;
    for (int segment = 0; segment < num_segments;) {
        const int count = length >= kBlock ? 1 : smaller(num_segments - segment, kBlock / length);
        for (int k = 0; k < length; k += kBlock) {
            const int block = smaller(length - k, kBlock);  // less than `length` only where one run is a block's worth
            const float* shifted[kMaxSegments];
            for (int s = 0; s < count; s++) shifted[s] = segments[segment + s] + k;
            // 9 and 21: three channels under a kernel 3 or 7 wide, the first layers of all our networks
            const auto rows_of = block == 21 ? multiply_rows<21> : block == 9 ? multiply_rows<9> : multiply_rows<0>;
            for (int panel = 0; panel < num_panels; panel++)
                rows_of(shifted, count, block, row_step, rows,
                              b + panel * panel_step + (static_cast<long>(segment) * length + k) * kPanel,
                              c + static_cast<long>(panel) * kPanel, c_step, accumulate);
            accumulate = true;
        }
        segment += count;
    }
}

}  // namespace featx
