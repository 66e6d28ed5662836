// Resizing frames of bytes in whole numbers: the sums of featx/resize.py, which says where each form comes from and lays out
// the taps. First along the columns, then along the rows; only what a window keeps.
//
//     row of a frame  ->  wide pixels (colours.h)  ->  line of `out_width` pixels, 16 bits a colour; the last ones are kept
//     kept lines      ->  row of the result
//
// Row r of the frame lies in the kept line r % kept: the taps of one row of the result are at most so many rows in sequence.
// The processor multiplies pairs of 16-bit numbers and adds the two products, so taps are taken by twos; Pillow's weights of
// 22 bits come as an upper and a lower part of 11, whose sums are put together at the end.
#pragma once

#include "colours.h"

namespace featx {

constexpr int kPillowBits = 22, kPartBits = 11;
constexpr int kTogether = 4;  // pixels of a line that are made at once

static inline __m256i add_products(__m256i sums, __m256i a, __m256i b) { return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)); }

// Sums over the two parts of weights of 22 bits, to grey levels; weights that were rounded up may make them more than 255.
static inline __m256i grey_levels(__m256i upper, __m256i lower) {
    const __m256i sums = _mm256_add_epi32(_mm256_slli_epi32(upper, kPartBits), lower);
    return _mm256_srai_epi32(_mm256_add_epi32(sums, _mm256_set1_epi32(1 << (kPillowBits - 1))), kPillowBits);
}

// ---------------------------------------------------------------------------------------------------------- along a row

// Of four wide pixels in each half of a vector the first two, or the last two: 16 bits a colour, each beside its neighbour.
static inline __m256i neighbours(__m256i pixels, bool last) {
    const __m256i first_two = _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, -1, -1, -1, -1,  //
                                               0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, -1, -1, -1, -1);
    const __m256i last_two = _mm256_setr_epi8(8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, -1, -1, -1, -1,  //
                                              8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, -1, -1, -1, -1);
    return _mm256_shuffle_epi8(pixels, last ? last_two : first_two);
}

// Two pixels, 32 bits a colour: the sums over `taps` wide pixels from `left` on and from `right` on.
template <bool pillow>
static inline __m256i two_pixels(const unsigned char* left, const unsigned char* right, const short* weights, int taps) {
    __m256i upper = _mm256_setzero_si256(), lower = upper;
    for (int k = 0; k < taps; k += 4) {
        const __m256i fours = _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen_bytes(left + kWide * k)), sixteen_bytes(right + kWide * k), 1);
        for (int j = 0; j < 4 && k + j < taps; j += 2, weights += pillow ? 32 : 16) {
            const __m256i pixels = neighbours(fours, j == 2);
            upper = add_products(upper, pixels, all_bytes(weights));
            if (pillow) lower = add_products(lower, pixels, all_bytes(weights + 16));
        }
    }
    // of OpenCV's sums, weighted with 11 bits, four are dropped so that they fit into 16: below 2^15
    return pillow ? grey_levels(upper, lower) : _mm256_srai_epi32(upper, 4);
}

// A line, four pixels at a time: 0 and 2 in the halves of one vector, 1 and 3 in those of another, which packs them in order.
// `fixed` is the number of taps where the compiler is to know it, else 0.
template <bool pillow, int fixed>
static void make_line(const Resize& r, const unsigned char* row, short* line) {
    const __m256i without_fourth = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, -1, -1, -1, -1,  //
                                                    0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, -1, -1, -1, -1);
    const __m256i together = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
    const int taps = fixed ? fixed : r.taps_x, words = taps * (pillow ? 16 : 8);  // of weights for two pixels
    const int *at = r.columns, *end = at + r.out_width;
    for (const short* weights = r.column_weights; at < end; at += kTogether, weights += 2 * words, line += kChannels * kTogether) {
        const __m256i even = two_pixels<pillow>(row + kWide * at[0], row + kWide * at[2], weights, taps);
        const __m256i odd = two_pixels<pillow>(row + kWide * at[1], row + kWide * at[3], weights + words, taps);
        __m256i pixels = _mm256_packs_epi32(even, odd);
        if (pillow) pixels = _mm256_min_epi16(pixels, _mm256_set1_epi16(255));
        store_all(line, _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(pixels, without_fourth), together));
    }
}

using MakeLine = void (*)(const Resize& r, const unsigned char* row, short* line);

static MakeLine line_maker(const Resize& r) {
    if (r.form == Resize::kOpencv) return make_line<false, 2>;
    if (r.taps_x == 2) return make_line<true, 2>;
    if (r.taps_x == 4) return make_line<true, 4>;
    if (r.taps_x == 6) return make_line<true, 6>;
    return make_line<true, 0>;
}

// ------------------------------------------------------------------------------------------------------- along a column

// Two lines; of each product the upper 16 bits, and then two more are dropped, rounded.
static void opencv_row(int bytes, const short* upper, const short* lower, const int* weights, unsigned char* out) {
    const __m256i u = _mm256_set1_epi16(short(weights[0])), l = _mm256_set1_epi16(short(weights[1]));
    for (int x = 0; x < bytes; x += 16) {
        const __m256i a = _mm256_mulhi_epi16(all_bytes(upper + x), u), b = _mm256_mulhi_epi16(all_bytes(lower + x), l);
        const __m256i sum = _mm256_srai_epi16(_mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(2)), 2);
        store_sixteen(out + x, _mm_packus_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
    }
}

// The weights of a row of the result as the kept lines lie: pairs of upper parts (kept / 2), then of lower parts.
static void place_weights(const Resize& r, const int* rows, const int* weights, int kept, int* placed) {
    for (int k = 0; k < kept; k++) placed[k] = 0;
    for (int k = 0; k < r.taps_y; k++) {
        if (!weights[k]) continue;  // beyond the frame
        const int line = rows[k] % kept, shift = line % 2 * 16;
        placed[line / 2] |= weights[k] >> kPartBits << shift;
        placed[(kept + line) / 2] |= (weights[k] & ((1 << kPartBits) - 1)) << shift;
    }
}

// All kept lines, `step` apart, an even number of them; those that are no taps weigh 0.
static void pillow_row(int bytes, const short* lines, long step, int kept, const int* weights, unsigned char* out) {
    for (int x = 0; x < bytes; x += 16) {
        __m256i upper[2], lower[2];
        for (int i = 0; i < 2; i++) upper[i] = lower[i] = _mm256_setzero_si256();
        for (int k = 0; k < kept / 2; k++) {
            const __m256i a = all_bytes(lines + 2 * k * step + x), b = all_bytes(lines + (2 * k + 1) * step + x);
            const __m256i pairs[2] = {_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)};
            const __m256i upper_parts = _mm256_set1_epi32(weights[k]), lower_parts = _mm256_set1_epi32(weights[kept / 2 + k]);
            for (int i = 0; i < 2; i++) {
                upper[i] = add_products(upper[i], pairs[i], upper_parts);
                lower[i] = add_products(lower[i], pairs[i], lower_parts);
            }
        }
        const __m256i words = _mm256_packs_epi32(grey_levels(upper[0], lower[0]), grey_levels(upper[1], lower[1]));
        store_sixteen(out + x, _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    }
}

// ------------------------------------------------------------------------------------------------------------- together

// Words of a kept line or bytes of a row of the result, with what the widest store writes beyond it.
static long line_size(const Resize& r) { return 16 * long(round_up(kChannels * r.out_width + 16, 16)); }

// Bytes of a row of wide pixels, with what wide_row writes and taps beyond the frame, which weigh 0, look at.
static long row_size(const Resize& r) { return kWide * (long(r.width) + kAtOnce + r.taps_x + 2); }

static int num_kept(const Resize& r) { return 2 * round_up(r.taps_y, 2); }

long resize_workspace_bytes(const Resize& r) {
    return num_kept(r) * (long(sizeof(int)) + long(sizeof(short)) * line_size(r)) + line_size(r) + row_size(r);
}

// Pixels `first` .. `last` - 1 of a row, wide.
static void read_row(const Resize& r, int frame, int row, int first, int last, unsigned char* to) {
    const long width = r.width, half_width = (r.width + 1) / 2, luma_bytes = r.height * width, chroma_bytes = (r.height + 1) / 2 * half_width;
    if (!r.yuv) return wide_row(r.frames + kChannels * (frame * luma_bytes + row * width), first, last, to);
    const unsigned char* luma = r.frames + frame * (luma_bytes + 2 * chroma_bytes);
    const unsigned char* u = luma + luma_bytes + row / 2 * half_width;
    wide_row(*r.yuv, luma + row * width, u, u + chroma_bytes, first, last, to);
}

void resize(const Resize& r, unsigned char* workspace) {
    const int bytes = kChannels * r.out_width, kept = num_kept(r);
    const int first = r.columns[0] / 2 * 2, last = smaller(r.width, r.columns[r.out_width - 1] + r.taps_x);
    const long step = line_size(r);
    const MakeLine make_line = line_maker(r);
    int* placed = reinterpret_cast<int*>(workspace);
    short* lines = reinterpret_cast<short*>(placed + kept);
    unsigned char *out = reinterpret_cast<unsigned char*>(lines + kept * step), *row = out + step;
    for (int i = 0; i < r.n; i++) {
        int next = 0;  // what lies above it and is still needed has been made
        for (int y = 0; y < r.out_height; y++) {
            const int *rows = r.rows + long(r.taps_y) * y, *weights = r.row_weights + long(r.taps_y) * y;
            for (int k = 0; k < r.taps_y; k++) {
                if (rows[k] < next) continue;
                next = rows[k] + 1;
                read_row(r, i, rows[k], first, last, row + kWide * first);
                if (r.form != Resize::kCrop) make_line(r, row, lines + rows[k] % kept * step);
            }
            if (r.form == Resize::kCrop) {
                narrow_row(row + kWide * r.columns[0], r.out_width, out);
            } else if (r.form == Resize::kOpencv) {
                opencv_row(bytes, lines + rows[0] % kept * step, lines + rows[1] % kept * step, weights, out);
            } else {
                place_weights(r, rows, weights, kept, placed);
                pillow_row(bytes, lines, step, kept, placed, out);
            }
            copy_bytes(out, bytes, r.output + (long(i) * r.out_height + y) * bytes);
        }
    }
}

}  // namespace featx
