// Max pools that no convolution has taken in. Padding never wins.
#pragma once

#include <omp.h>

#include "convolution.h"
#include "vectors.h"

namespace featx {

void max_pool(const MaxPool& p, int threads) {
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(threads)
    for (int frame = 0; frame < p.n * p.out_t; frame++)
        for (int row = 0; row < p.out_h; row++) {
            const int n = frame / p.out_t, t0 = frame % p.out_t * p.stride_t - p.pad_t, y0 = row * p.stride_h - p.pad_h;
            float* to = p.output + (static_cast<long>(frame) * p.out_h + row) * p.out_w * p.c;
            for (int column = 0; column < p.out_w; column++, to += p.c) {
                const int x0 = column * p.stride_w - p.pad_w;
                bool first = true;
                for (int t = larger(t0, 0); t < smaller(t0 + p.kernel_t, p.t); t++)
                    for (int y = larger(y0, 0); y < smaller(y0 + p.kernel_h, p.h); y++)
                        for (int x = larger(x0, 0); x < smaller(x0 + p.kernel_w, p.w); x++) {
                            const float* from = p.input + (((static_cast<long>(n) * p.t + t) * p.h + y) * p.w + x) * p.c;
                            for (int channel = 0; channel < p.c; channel += kLanes)
                                store(to + channel, first ? load(from + channel) : larger_or_nan(load(from + channel), load(to + channel)));
                            first = false;
                        }
            }
        }
}

}  // namespace featx
