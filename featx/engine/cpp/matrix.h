// The matrix product under every convolution here: C += A B for rows of A that lie anywhere, and B packed in panels.
//
//   A   `rows` rows; the numbers of a row lie in `num_segments` runs of `length` floats (a convolution's kernel touches
//       several places of the clip): run s of row r begins at where(s, r)
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

// Rows that lie `row_step` floats apart.
struct EvenRows {
    const float* const* segments;
    long row_step;
    const float* operator()(int s, long r) const { return segments[s] + r * row_step; }
};

// Rows whose runs are listed one by one: (num_segments, step) pointers, all moved by `shift` floats.
struct ListedRows {
    const float* const* table;
    long step, shift;
    const float* operator()(int s, long r) const { return table[s * step + r] + shift; }
};

// Lines that are fetched into the second-level cache, one by one, while others are read: all at once they would be in the way.
struct Ahead {
    const float *next, *end;
    Ahead(const float* next, long lines) : next(next), end(next + lines * kPanel) {}
    void fetch() {
        prefetch(next);
        next += next < end ? kPanel : 0;
    }
};

// One tile of C, kept in registers: `Rows` x 16. The sums begin at 0, or at C with `accumulate`. Of every run the numbers
// from `from` to `from` + `length` count. With `Length` other than 0 the runs have that length, which the compiler then
// knows: short runs are worth it.
template <int Rows, int Length, class Where>
static void multiply_tile(const Where& where, long row, int segment, int num_segments, int from, int any_length, const float* b,
                          float* c, long c_step, bool accumulate, Ahead& ahead) {
    const int length = Length ? Length : any_length;
    Row sums[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) sums[r] = accumulate ? load_row(c + r * c_step) : zero_row();
    for (int s = segment; s < segment + num_segments; s++) {
        const float* a[Rows];
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++) a[r] = where(s, row + r) + from;
#pragma GCC unroll 4
        for (int k = 0; k < length; k++, b += kPanel) {
            if (k % 2 == 0) ahead.fetch();
            const Row line = load_row(b);
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) sums[r] = multiply_add(a[r][k], line, sums[r]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) store_row(c + r * c_step, sums[r]);
}

// Rows that the next tile takes of those that are left: `full`, but never so many that only one or two stay behind, since
// a tile of few rows waits for its own sums.
static inline int next_tile(long rows_left, int full) {
    if (rows_left >= 2 * full || rows_left <= full) return static_cast<int>(smaller(rows_left, (long)full));
    return static_cast<int>((rows_left + 1) / 2);
}

// A number that the compiler knows.
template <int Number>
struct Known {
    constexpr operator int() const { return Number; }
};

// Calls f with `rows`, 1 to `Most`, as such a number.
template <int Most, class Function>
static inline void with_known(int rows, const Function& f) {
    if constexpr (Most > 1)
        if (rows < Most) return with_known<Most - 1>(rows, f);
    f(Known<Most>());
}

// All rows past one block of a panel; meanwhile the block that comes `next` is fetched.
template <int Length, class Where>
static void multiply_rows(const Where& where, long rows, int segment, int num_segments, int from, int length, const float* b,
                          float* c, long c_step, bool accumulate, const float* next) {
    Ahead ahead(next, static_cast<long>(num_segments) * length);
    for (long row = 0; row < rows;) {
        const int tile = next_tile(rows - row, kTileRows);
        with_known<kTileRows>(tile, [&](auto known) {
            multiply_tile<known, Length>(where, row, segment, num_segments, from, length, b, c + row * c_step, c_step, accumulate, ahead);
        });
        row += tile;
    }
}

// The whole product, in blocks of kBlock rows of B, so that a panel's block stays in the first-level cache while all rows
// of A pass by it.
template <class Where>
static void multiply(const Where& where, long rows, int num_segments, int length, const float* b, int num_panels,
                     long panel_step, float* c, long c_step) {
    bool accumulate = false;
    for (int segment = 0; segment < num_segments;) {
        const int count = length >= kBlock ? 1 : smaller(num_segments - segment, kBlock / length);
        for (int k = 0; k < length; k += kBlock) {
            const int block = smaller(length - k, kBlock);  // less than `length` only where one run is a block's worth
            const long at = (static_cast<long>(segment) * length + k) * kPanel;
            // 9 and 21: three channels under a kernel 3 or 7 wide, the first layers of all our networks
            const auto rows_of = block == 21 ? multiply_rows<21, Where> : block == 9 ? multiply_rows<9, Where> : multiply_rows<0, Where>;
            for (int panel = 0; panel < num_panels; panel++) {
                const float* here = b + panel * panel_step + at;
                const float* next = panel + 1 < num_panels ? here + panel_step : b + at + static_cast<long>(count) * block * kPanel;
                rows_of(where, rows, segment, count, k, block, here, c + static_cast<long>(panel) * kPanel, c_step, accumulate, next);
            }
            accumulate = true;
        }
        segment += count;
    }
}

}  // namespace featx
