// The processor's own limit: how many multiply-adds a second it does where nothing else is to be done.
#pragma once

#include <omp.h>

#include "vectors.h"

namespace featx {

// In 10^9 operations a second of all threads together, a multiply-add being two.
double multiply_add_gflops(int threads, double seconds) {
    constexpr int kSums = 12;  // enough to hide the latency of four cycles in two units, and few enough for the registers
    double total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        Vector sums[kSums];
        for (Vector& sum : sums) sum = zero();
        Vector a = all(0.999f), b = all(0.001f);
        const double start = omp_get_wtime();
        double now = start, rounds = 0;
        for (; now - start < seconds; now = omp_get_wtime(), rounds++)
            for (int i = 0; i < 100000; i++) {
#pragma GCC unroll 12
                for (int j = 0; j < kSums; j++) sums[j] = multiply_add(sums[j], a, b);
                __asm__ volatile("" : "+x"(a), "+x"(b));  // or the loop would be run once
            }
        Vector sum = zero();
        for (const Vector& one : sums) sum = add(sum, one);
        float kept[kLanes];
        store(kept, sum);
        total += kept[0] < 1e30f ? rounds * 100000 * kSums * kLanes * 2 / (now - start) / 1e9 : 0;  // uses the sums
    }
    return total;
}

}  // namespace featx
