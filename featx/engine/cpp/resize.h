// Resizing frames of bytes, three channels side by side, in whole numbers: the sums of featx/resize.py, which says where
// each form comes from and lays out the taps. First along the columns, then along the rows; only what a window keeps.
//
//     frame (H, W, 3)  ->  lines of `out_width` pixels, one at a time, the last `taps_y` of them kept  ->  a row of the result
//
// Row r of the frame lies in the kept line r % taps_y: the taps of one row of the result are at most taps_y rows in sequence.
#pragma once

#include "vectors.h"

namespace featx {

constexpr int kChannels = 3;
constexpr int kPillowBits = 22;

// The bytes from `begin` to `end`, of which `wanted` are to be read: in place, or where there are fewer, copied before zeros.
static inline const unsigned char* readable(const unsigned char* begin, const unsigned char* end, long wanted, unsigned char* spare) {
    const long there = end - begin;
    if (there >= wanted) return begin;
    for (long i = 0; i < wanted; i++) spare[i] = i < there ? begin[i] : 0;
    return spare;
}

static inline __m128i eight_bytes(const unsigned char* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }

// ------------------------------------------------------------------------------------------------------------- OpenCV

// Two taps of 11 bits, of which four are dropped so that the sums fit into 16: below 2^15.
static void opencv_line(const Resize& r, const unsigned char* row, const unsigned char* end, short* line) {
    const __m128i pairs = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);  // each with its neighbour
    unsigned char spare[8];
    for (int x = 0; x < r.out_width; x++) {
        const unsigned char* at = readable(row + kChannels * r.columns[x], end, 8, spare);
        const int* weights = r.column_weights + 2 * x;
        const __m128i both = _mm_set1_epi32(weights[0] | weights[1] << 16);
        const __m128i sums = _mm_srai_epi32(_mm_madd_epi16(_mm_shuffle_epi8(eight_bytes(at), pairs), both), 4);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(line + kChannels * x), _mm_packs_epi32(sums, sums));
    }
}

// The upper 16 bits of each product, and then two more are dropped, rounded.
static void opencv_row(int bytes, const short* upper, const short* lower, int upper_weight, int lower_weight, unsigned char* out) {
    const __m256i u = _mm256_set1_epi16(short(upper_weight)), l = _mm256_set1_epi16(short(lower_weight));
    for (int x = 0; x < bytes; x += 16) {
        const __m256i a = _mm256_mulhi_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(upper + x)), u);
        const __m256i b = _mm256_mulhi_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(lower + x)), l);
        const __m256i sum = _mm256_srai_epi16(_mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(2)), 2);
        const __m128i grey = _mm_packus_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x), grey);
    }
}

// ------------------------------------------------------------------------------------------------------------- Pillow

// Sums of 22 bits to grey levels.
static inline __m256i grey_levels(__m256i sums) {
    sums = _mm256_srai_epi32(_mm256_add_epi32(sums, _mm256_set1_epi32(1 << (kPillowBits - 1))), kPillowBits);
    return _mm256_min_epi32(sums, _mm256_set1_epi32(255));
}

// Any even number of taps, two at a time; a weight stands four times side by side.
static void pillow_line(const Resize& r, const unsigned char* row, const unsigned char* end, unsigned char* line, unsigned char* spare) {
    const __m128i apart = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const long wanted = kChannels * r.taps_x + 2;  // the last two taps are read as eight bytes
    for (int x = 0; x < r.out_width; x++) {
        const unsigned char* at = readable(row + kChannels * r.columns[x], end, wanted, spare);
        const int* weights = r.column_weights + long(4) * r.taps_x * x;
        __m256i sums = _mm256_setzero_si256();
        for (int k = 0; k < r.taps_x; k += 2) {
            const __m256i pixels = _mm256_cvtepu8_epi32(_mm_shuffle_epi8(eight_bytes(at + kChannels * k), apart));
            const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 4 * k));
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(pixels, both));
        }
        const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        const __m128i grey = _mm256_castsi256_si128(grey_levels(_mm256_castsi128_si256(sum)));
        _mm_storeu_si32(line + kChannels * x, _mm_packus_epi16(_mm_packus_epi32(grey, grey), grey));
    }
}

// Row y of the result from the kept lines, `step` bytes apart.
static void pillow_row(const Resize& r, int y, int bytes, const unsigned char* lines, long step, unsigned char* out) {
    for (int x = 0; x < bytes; x += 8) {
        __m256i sums = _mm256_setzero_si256();
        for (int k = 0; k < r.taps_y; k++) {
            const long tap = long(r.taps_y) * y + k;
            const __m256i pixels = _mm256_cvtepu8_epi32(eight_bytes(lines + r.rows[tap] % r.taps_y * step + x));
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(pixels, _mm256_set1_epi32(r.row_weights[tap])));
        }
        const __m256i grey = grey_levels(sums);
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(grey), _mm256_extracti128_si256(grey, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + x), _mm_packus_epi16(words, words));
    }
}

// ------------------------------------------------------------------------------------------------------------- both

// Bytes of a row of the result, with what the widest store writes beyond it.
static long line_bytes(const Resize& r) { return kChannels * long(r.out_width) + 16; }

// The kept lines, of 16-bit numbers, a row of the result, and the spare bytes.
long resize_workspace_bytes(const Resize& r) { return line_bytes(r) * (2 * r.taps_y + 1) + kChannels * long(r.taps_x) + 16; }

void resize(const Resize& r, unsigned char* workspace) {
    const long step = 2 * line_bytes(r), row_bytes = long(kChannels) * r.width;
    const int bytes = kChannels * r.out_width;
    unsigned char *out = workspace + step * r.taps_y, *spare = out + line_bytes(r);
    for (int i = 0; i < r.n; i++) {
        const unsigned char* frame = r.frames + i * r.height * row_bytes;
        int next = 0;  // what lies above it and is still needed has been made
        for (int y = 0; y < r.out_height; y++) {
            const int *rows = r.rows + long(r.taps_y) * y, *weights = r.row_weights + long(r.taps_y) * y;
            for (int k = 0; k < r.taps_y; k++) {
                if (rows[k] < next) continue;
                next = rows[k] + 1;
                const unsigned char* row = frame + rows[k] * row_bytes;
                unsigned char* line = workspace + rows[k] % r.taps_y * step;
                if (r.opencv)
                    opencv_line(r, row, row + row_bytes, reinterpret_cast<short*>(line));
                else
                    pillow_line(r, row, row + row_bytes, line, spare);
            }
            if (r.opencv) {
                const short* lines[2];
                for (int k = 0; k < 2; k++) lines[k] = reinterpret_cast<const short*>(workspace + rows[k] % 2 * step);
                opencv_row(bytes, lines[0], lines[1], weights[0], weights[1], out);
            } else {
                pillow_row(r, y, bytes, workspace, step, out);
            }
            unsigned char* to = r.output + (long(i) * r.out_height + y) * bytes;
            for (int x = 0; x < bytes; x++) to[x] = out[x];
        }
    }
}

}  // namespace featx
