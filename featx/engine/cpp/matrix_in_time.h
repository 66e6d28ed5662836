// The products of F(2, 3) in time: of four points of the inputs with four of the filters, joined while they are in registers.
//
//     m0 = a0 B0   m1 = a1 B1   m2 = a2 B2   m3 = a3 B3          a: rows of `length` numbers, B: (length, 16) of a panel
//     y0 = (m1 + m2) + m0       y1 = (m1 - m2) + m3              -> two frames of products
//
// m1 and m2 are summed side by side, then joined; then m0 and m3 are summed on top of them, side by side again. So a panel is
// read in this order, from front to end (`packed_in_time`):
//
//     | B1[0] B2[0] | B1[1] B2[1] | ... B2[length - 1] | B0[0] B3[0] | ... B3[length - 1] |        16 floats each
#pragma once

#include "matrix.h"

namespace featx {

constexpr int kTimeTile = 2, kTimePatch = 4;
constexpr int kPairRows = 3;  // rows of a tile: 3 x 2 sums of either product, 2 vectors of B and one of A fill 15 registers
constexpr int kOrderInTime[kTimePatch] = {1, 2, 0, 3};  // of the points, in a panel and among the rows of A

// Where row `k` of B of point kOrderInTime[q] begins in its panel.
static inline long packed_in_time(int q, int k, int length) {
    return ((q / 2 * static_cast<long>(length) + k) * 2 + q % 2) * kPanel;
}

// Adds one product to `low` and another to `high`. Rows lie `row_step` floats apart, those of the second `high_step` behind.
// Lines `ahead` are fetched meanwhile.
template <int Rows>
static inline __attribute__((always_inline)) void add_two_products(const float* a, long row_step, long high_step, int length, const float* b,
                                                                   Row* low, Row* high, Ahead& ahead) {
    const float *a_low[Rows], *a_high[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) a_low[r] = a + r * row_step, a_high[r] = a_low[r] + high_step;
#pragma GCC unroll 2
    for (int k = 0; k < length; k++, b += 2 * kPanel) {
        if (k % 2 == 0) ahead.fetch();
        const Row b_low = load_row(b);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++) low[r] = multiply_add(a_low[r][k], b_low, low[r]);
        const Row b_high = load_row(b + kPanel);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++) high[r] = multiply_add(a_high[r][k], b_high, high[r]);
    }
}

// One tile: `Rows` rows of both frames, 16 columns. The points of A, in the order above, lie `point_step` floats apart.
template <int Rows>
static void multiply_tile_in_time(const float* a, long row_step, long point_step, int length, const float* b, float* even, float* odd,
                                  long c_step, Ahead& ahead) {
    Row low[Rows], high[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) low[r] = high[r] = zero_row();
    add_two_products<Rows>(a, row_step, point_step, length, b, low, high, ahead);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) {
        const Row sum = add(low[r], high[r]);
        high[r] = subtract(low[r], high[r]);
        low[r] = sum;
    }
    add_two_products<Rows>(a + 2 * point_step, row_step, point_step, length, b + packed_in_time(2, 0, length), low, high, ahead);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) {
        store_row(even + r * c_step, low[r]);
        store_row(odd + r * c_step, high[r]);
    }
}

// All rows past all panels. A panel stays in the second-level cache while the rows pass by it, and the next is fetched.
static void multiply_in_time(const float* a, long rows, long row_step, long point_step, int length, const float* b, int panels, float* even,
                             float* odd, long c_step) {
    const long panel_lines = static_cast<long>(kTimePatch) * length;
    for (int panel = 0; panel < panels; panel++, b += panel_lines * kPanel, even += kPanel, odd += kPanel) {
        Ahead ahead(b + panel_lines * kPanel, panel_lines);
        for (long row = 0; row < rows;) {
            const int tile = next_tile(rows - row, kPairRows);
            with_known<kPairRows>(tile, [&](auto known) {
                multiply_tile_in_time<known>(a + row * row_step, row_step, point_step, length, b, even + row * c_step, odd + row * c_step,
                                             c_step, ahead);
            });
            row += tile;
        }
    }
}

}  // namespace featx
