// Winograd's minimal filtering in one dimension, for three taps: the matrices of F(4, 3) and F(2, 3) as Lavin and Gray
// ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4) print them.
//
//     outputs = A^T [ (G filter) * (B^T inputs) ]         * number by number
//
//     F(4, 3): 6 inputs, 4 outputs, 6 products instead of 12; points 0, 1, -1, 2, -2, infinity
//     F(2, 3): 4 inputs, 2 outputs, 4 products instead of 6;  points 0, 1, -1, infinity
//
// Nested they give F(4x4, 3x3) for a picture and F(2x4x4, 3x3x3) for a clip.
#pragma once

#include "vectors.h"

namespace featx {

// B^T of F(4, 3)
static inline void input_4(Vector d0, Vector d1, Vector d2, Vector d3, Vector d4, Vector d5, Vector* v) {
    const Vector two = all(2), four = all(4), five = all(5);
    v[0] = multiply_add(four, d0, subtract_product(d4, five, d2));  //  4 d0 - 5 d2 + d4
    const Vector even = subtract_product(d4, four, d2), odd = subtract_product(d3, four, d1);
    v[1] = add(even, odd);       // -4 d1 - 4 d2 + d3 + d4
    v[2] = subtract(even, odd);  //  4 d1 - 4 d2 - d3 + d4
    const Vector even2 = subtract(d4, d2), odd2 = subtract(d3, d1);
    v[3] = multiply_add(two, odd2, even2);                          // -2 d1 - d2 + 2 d3 + d4
    v[4] = subtract_product(even2, two, odd2);                      //  2 d1 - d2 - 2 d3 + d4
    v[5] = multiply_add(four, d1, subtract_product(d5, five, d3));  //  4 d1 - 5 d3 + d5
}

// A^T of F(4, 3)
static inline void output_4(Vector m0, Vector m1, Vector m2, Vector m3, Vector m4, Vector m5, Vector* y) {
    const Vector sum1 = add(m1, m2), difference1 = subtract(m1, m2);
    const Vector sum2 = add(m3, m4), difference2 = subtract(m3, m4);
    y[0] = add(m0, add(sum1, sum2));
    y[1] = multiply_add(all(2), difference2, difference1);
    y[2] = multiply_add(all(4), sum2, sum1);
    y[3] = add(multiply_add(all(8), difference2, difference1), m5);
}

// B^T of F(2, 3), the last row with the other sign; A^T, whose last column has it too, is in matrix_in_time.h
static inline void input_2(Vector d0, Vector d1, Vector d2, Vector d3, Vector* v) {
    v[0] = subtract(d0, d2);
    v[1] = add(d1, d2);
    v[2] = subtract(d2, d1);
    v[3] = subtract(d3, d1);
}

// G of F(4, 3) and F(2, 3), applied once to the weights, in double precision
constexpr double kFilter4[6][3] = {{1 / 4., 0, 0},           {-1 / 6., -1 / 6., -1 / 6.}, {-1 / 6., 1 / 6., -1 / 6.},
                                   {1 / 24., 1 / 12., 1 / 6.}, {1 / 24., -1 / 12., 1 / 6.}, {0, 0, 1}};
constexpr double kFilter2[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};

}  // namespace featx
