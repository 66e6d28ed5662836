// Rows of decoded frames as rows of wide pixels, four bytes each: blue, green, red, 0. Of planes by the rule of featx/yuv.py,
// whose `part` is the upper half of a product of 16-bit numbers; of BGR as it is.
//
// 32 pixels at a time. Two pixels beside each other share a sample of chroma, so luma is taken apart into even and odd ones:
//
//     Y0 Y1 Y2 Y3 ...   ->   Y0 Y2 Y4 ...  + chroma  ->  B0 B2 ...                                   ->  B0 G0 R0 0 B1 G1 ...
//                            Y1 Y3 Y5 ...  + chroma  ->  B1 B3 ...  cut to bytes  ->  B0 B1 B2 ...
#pragma once

#include "convolution.h"
#include "vectors.h"

namespace featx {

constexpr int kChannels = 3;
constexpr int kWide = 4;    // bytes of a wide pixel
constexpr int kAtOnce = 32;  // pixels

static inline __m128i sixteen_bytes(const unsigned char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
static inline void store_sixteen(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }
static inline __m256i all_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void store_all(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

static inline void copy_bytes(const unsigned char* from, int count, unsigned char* to) {
    for (int i = 0; i < count; i++) to[i] = from[i];
}

// ((sample - offset << 3) * factor) >> 16
static inline __m256i yuv_part(__m256i samples, int offset, int factor) {
    const __m256i shifted = _mm256_slli_epi16(_mm256_sub_epi16(samples, _mm256_set1_epi16(short(offset))), 3);
    return _mm256_mulhi_epi16(shifted, _mm256_set1_epi16(short(factor)));
}

// One colour of 32 pixels, cut to bytes, from luma and what chroma adds to it: pixels 0 .. 3, 8 .. 11, 16 .. 19, 24 .. 27 in
// the lower half of the vector and those between them in the upper one, so that what is put together half by half is in order.
static inline __m256i colour(__m256i even, __m256i odd, __m256i chroma) {
    const __m256i in_turn = _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15,  //
                                             0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    const __m256i bytes = _mm256_packus_epi16(_mm256_add_epi16(even, chroma), _mm256_add_epi16(odd, chroma));
    return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(bytes, in_turn), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

// 32 samples of luma, 16 of U and of V -> 32 wide pixels.
static inline void wide_from_yuv(const YuvForm& form, const unsigned char* luma, const unsigned char* u, const unsigned char* v, unsigned char* to) {
    const __m256i y = all_bytes(luma);
    const __m256i even = yuv_part(_mm256_and_si256(y, _mm256_set1_epi16(255)), form.offset, form.luma);
    const __m256i odd = yuv_part(_mm256_srli_epi16(y, 8), form.offset, form.luma);
    const __m256i cb = _mm256_cvtepu8_epi16(sixteen_bytes(u)), cr = _mm256_cvtepu8_epi16(sixteen_bytes(v));
    const __m256i of_both = _mm256_add_epi16(yuv_part(cb, 128, form.green_of_u), yuv_part(cr, 128, form.green_of_v));
    const __m256i blue = colour(even, odd, yuv_part(cb, 128, form.blue_of_u));
    const __m256i green = colour(even, odd, of_both);
    const __m256i red = colour(even, odd, yuv_part(cr, 128, form.red_of_v));
    const __m256i none = _mm256_setzero_si256();
    const __m256i bg[2] = {_mm256_unpacklo_epi8(blue, green), _mm256_unpackhi_epi8(blue, green)};
    const __m256i r0[2] = {_mm256_unpacklo_epi8(red, none), _mm256_unpackhi_epi8(red, none)};
    for (int i = 0; i < 2; i++, to += 16 * kWide) {
        store_all(to, _mm256_unpacklo_epi16(bg[i], r0[i]));
        store_all(to + 8 * kWide, _mm256_unpackhi_epi16(bg[i], r0[i]));
    }
}

// Pixels `first` .. `last` - 1 of a row of planes, and what comes before 32 are full; `first` is even.
static void wide_row(const YuvForm& form, const unsigned char* luma, const unsigned char* u, const unsigned char* v, int first, int last, unsigned char* to) {
    int x = first;
    for (; x + kAtOnce <= last; x += kAtOnce) wide_from_yuv(form, luma + x, u + x / 2, v + x / 2, to + kWide * (x - first));
    if (x == last) return;
    unsigned char tail[3][kAtOnce] = {};  // a plane may end with its row
    copy_bytes(luma + x, last - x, tail[0]);
    copy_bytes(u + x / 2, (last - x + 1) / 2, tail[1]);
    copy_bytes(v + x / 2, (last - x + 1) / 2, tail[2]);
    wide_from_yuv(form, tail[0], tail[1], tail[2], to + kWide * (x - first));
}

// The same of a row of BGR; four pixels at a time, read as sixteen bytes.
static void wide_row(const unsigned char* bgr, int first, int last, unsigned char* to) {
    const __m128i apart = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const unsigned char *at = bgr + kChannels * first, *end = bgr + kChannels * last;
    for (; end - at >= 16; at += 4 * kChannels, to += 4 * kWide) store_sixteen(to, _mm_shuffle_epi8(sixteen_bytes(at), apart));
    for (; at < end; at += kChannels, to += kWide) {
        copy_bytes(at, kChannels, to);
        to[kChannels] = 0;
    }
}

// Wide pixels to bytes side by side; up to four more than `count` are read, and sixteen bytes more written.
static void narrow_row(const unsigned char* wide, int count, unsigned char* bgr) {
    const __m128i together = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    for (int x = 0; x < count; x += 4) store_sixteen(bgr + kChannels * x, _mm_shuffle_epi8(sixteen_bytes(wide + kWide * x), together));
}

}  // namespace featx
