// Runs the kernels on drawn cases; the memory that they get is of exactly the size that they may touch, so that the
// sanitizers see what goes beyond. Built and run by test_sanitizers.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "convolution.h"

using featx::Convolution;
using featx::DirectConvolution;
using featx::MaxPool;
using featx::TimeConvolution;

extern "C" {
int featx_supported();
void featx_winograd_pack(const float*, int, int, int, int, float*, int);
long featx_winograd_num_tiles(const Convolution*);
long featx_winograd_workspace_floats(const Convolution*, long, int);
void featx_winograd(const Convolution*, float*, long, int);
void featx_direct(const DirectConvolution*, int);
long featx_in_time_workspace_floats(const TimeConvolution*, int);
void featx_direct_in_time(const TimeConvolution*, float*, int);
void featx_max_pool(const MaxPool*, int);
double featx_multiply_add_gflops(int, double);
long featx_resize_workspace_bytes(const featx::Resize*);
void featx_resize(const featx::Resize*, unsigned char*);
}

static std::mt19937 random_numbers(0);
static int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_numbers); }

// Floats that end where the allocation ends, and begin at an address that is a multiple of 4 only.
struct Floats {
    long size;
    std::unique_ptr<float[]> memory;
    explicit Floats(long n) : size(n), memory(new float[n + 1]) {
        for (long i = 0; i <= n; i++) memory[i] = std::uniform_real_distribution<float>(-1, 1)(random_numbers);
    }
    float* get() { return memory.get() + 1; }
};

static int up(int n, int step) { return (n + step - 1) / step; }

static void check(float got, double expected, const char* what) {
    if (!(std::fabs(got - expected) < 1e-3)) {
        std::printf("%s: %g, not %g\n", what, got, expected);
        std::exit(1);
    }
}

static void winograd_case(int c_in, int c_out) {
    Convolution c{};
    c.n = draw(1, 3), c.t = draw(1, 5), c.h = draw(1, 11), c.w = draw(1, 11), c.c_in = c_in, c.c_out = c_out;
    c.kernel_t = draw(0, 2) ? 3 : 1;
    c.time_tile = c.kernel_t == 3 ? draw(1, 2) : 1;
    c.relu = draw(0, 1), c.pool_t = draw(1, 2), c.pool_hw = draw(1, 2);
    const int padded = up(c_out, 16) * 16, points = c.time_tile == 2 ? 144 : 36 * c.kernel_t;
    const long out_t = up(c.t, c.pool_t), out_h = up(c.h, c.pool_hw), out_w = up(c.w, c.pool_hw);
    Floats input(static_cast<long>(c.n) * c.t * c.h * c.w * c_in), weight(static_cast<long>(c_out) * c_in * c.kernel_t * 9), bias(padded);
    Floats filters(static_cast<long>(points) * padded * c_in), output(c.n * out_t * out_h * out_w * c_out), residual(output.size);
    const bool add = c.pool_t == 1 && c.pool_hw == 1 && draw(0, 1);
    featx_winograd_pack(weight.get(), c_out, c_in, c.kernel_t, c.time_tile, filters.get(), draw(1, 3));
    c.input = input.get(), c.filters = filters.get(), c.bias = bias.get(), c.output = output.get();
    c.residual = add ? residual.get() : nullptr;
    c.residual_factor = static_cast<float>(draw(-2, 2));
    const long chunk = draw(1, static_cast<int>(featx_winograd_num_tiles(&c)) + 1);
    const int threads = draw(1, 4);
    Floats workspace(featx_winograd_workspace_floats(&c, chunk, threads));
    featx_winograd(&c, workspace.get(), chunk, threads);
    if (c.pool_t != 1 || c.pool_hw != 1) return;
    for (int i = 0; i < 20; i++) {  // some results beside the definition
        const int n = draw(0, c.n - 1), t = draw(0, c.t - 1), y = draw(0, c.h - 1), x = draw(0, c.w - 1), o = draw(0, c_out - 1);
        double sum = bias.get()[o];
        for (int k = 0; k < c_in; k++)
            for (int d = 0; d < c.kernel_t; d++)
                for (int p = 0; p < 3; p++)
                    for (int q = 0; q < 3; q++) {
                        const int ft = t + d - c.kernel_t / 2, fy = y + p - 1, fx = x + q - 1;
                        if (ft < 0 || ft >= c.t || fy < 0 || fy >= c.h || fx < 0 || fx >= c.w) continue;
                        sum += static_cast<double>(input.get()[(((static_cast<long>(n) * c.t + ft) * c.h + fy) * c.w + fx) * c_in + k]) *
                               weight.get()[((static_cast<long>(o) * c_in + k) * c.kernel_t + d) * 9 + p * 3 + q];
                    }
        const long at = (((static_cast<long>(n) * c.t + t) * c.h + y) * c.w + x) * c_out + o;
        if (add) sum += c.residual_factor * residual.get()[at];
        check(output.get()[at], c.relu && sum < 0 ? 0 : sum, "winograd");
    }
}

static void direct_case(int c_in) {
    DirectConvolution c{};
    c.kernel_t = draw(1, 4), c.kernel_h = draw(1, 4), c.kernel_w = draw(1, 4);
    c.pad_t = draw(0, c.kernel_t - 1), c.pad_h = draw(0, c.kernel_h - 1), c.pad_w = draw(0, c.kernel_w - 1);
    c.stride_t = draw(1, 2), c.stride_h = draw(1, 3), c.stride_w = draw(1, 3);
    c.n = draw(1, 2), c.t = c.kernel_t + draw(0, 3), c.h = c.kernel_h + draw(0, 9), c.w = c.kernel_w + draw(0, 17);
    c.c_in = c_in, c.c_out = 16 * draw(1, 6), c.relu = draw(0, 1), c.pool_hw = draw(1, 2);
    const int taps = c.kernel_t * c.kernel_h * c.kernel_w * c_in;
    Floats input(static_cast<long>(c.n) * c.t * c.h * c.w * c_in), weight(static_cast<long>(taps) * c.c_out), bias(c.c_out);
    Floats output(static_cast<long>(c.n) * c.out_t() * up(c.out_h(), c.pool_hw) * up(c.out_w(), c.pool_hw) * c.c_out), residual(output.size);
    const bool add = c.pool_hw == 1 && draw(0, 1);
    c.input = input.get(), c.weight = weight.get(), c.bias = bias.get(), c.output = output.get();
    c.residual = add ? residual.get() : nullptr, c.residual_factor = static_cast<float>(draw(-2, 2));
    featx_direct(&c, draw(1, 4));
    if (c.pool_hw != 1) return;
    for (int i = 0; i < 20; i++) {
        const int n = draw(0, c.n - 1), t = draw(0, c.out_t() - 1), y = draw(0, c.out_h() - 1), x = draw(0, c.out_w() - 1), o = draw(0, c.c_out - 1);
        double sum = bias.get()[o];
        for (int tap = 0; tap < taps; tap++) {
            const int k = tap % c_in, q = tap / c_in % c.kernel_w, p = tap / c_in / c.kernel_w % c.kernel_h, d = tap / c_in / c.kernel_w / c.kernel_h;
            const int ft = t * c.stride_t - c.pad_t + d, fy = y * c.stride_h - c.pad_h + p, fx = x * c.stride_w - c.pad_w + q;
            if (ft < 0 || ft >= c.t || fy < 0 || fy >= c.h || fx < 0 || fx >= c.w) continue;
            sum += static_cast<double>(input.get()[(((static_cast<long>(n) * c.t + ft) * c.h + fy) * c.w + fx) * c_in + k]) *
                   weight.get()[(static_cast<long>(o / 16) * taps + tap) * 16 + o % 16];
        }
        const long at = (((static_cast<long>(n) * c.out_t() + t) * c.out_h() + y) * c.out_w() + x) * c.c_out + o;
        if (add) sum += c.residual_factor * residual.get()[at];
        check(output.get()[at], c.relu && sum < 0 ? 0 : sum, "direct");
    }
}

// Only that nothing is touched that must not be: the numbers are the business of test_layers.py.
static void time_case() {
    TimeConvolution c{};
    DirectConvolution& layer = c.layer;
    const int kernel_t = draw(1, 7);
    c.tile = draw(1, 4), c.points = c.tile + kernel_t - 1, c.out_t = draw(1, 9);
    layer.n = draw(1, 2), layer.c_in = draw(1, 15), layer.c_out = 16 * draw(1, 3), layer.relu = draw(0, 1), layer.pool_hw = draw(1, 2);
    layer.kernel_t = layer.stride_t = 1, layer.kernel_h = draw(1, 7), layer.kernel_w = draw(1, 7);
    layer.stride_h = draw(1, 3), layer.stride_w = draw(1, 3), layer.h = layer.kernel_h + draw(0, 9), layer.w = layer.kernel_w + draw(0, 40);
    layer.t = up(c.out_t, c.tile) * c.tile + kernel_t - 1;
    const int threads = draw(1, 4);
    Floats input(static_cast<long>(layer.n) * layer.t * layer.h * layer.w * layer.c_in), bias(layer.c_out);
    Floats output(static_cast<long>(layer.n) * c.out_t * up(layer.out_h(), layer.pool_hw) * up(layer.out_w(), layer.pool_hw) * layer.c_out);
    Floats filters(static_cast<long>(c.points) * layer.kernel_h * layer.kernel_w * layer.c_in * layer.c_out);
    Floats input_matrix(c.points * c.points), output_matrix(c.tile * c.points), workspace(featx_in_time_workspace_floats(&c, threads));
    layer.input = input.get(), layer.bias = bias.get(), layer.output = output.get(), c.filters = filters.get();
    c.input_matrix = input_matrix.get(), c.output_matrix = output_matrix.get();
    featx_direct_in_time(&c, workspace.get(), threads);
}

static void pool_case() {
    MaxPool p{};
    p.n = draw(1, 2), p.c = 8 * draw(1, 3), p.kernel_t = draw(1, 3), p.kernel_h = draw(1, 3), p.kernel_w = draw(1, 3);
    p.stride_t = draw(1, 3), p.stride_h = draw(1, 3), p.stride_w = draw(1, 3);
    p.pad_t = draw(0, p.kernel_t / 2), p.pad_h = draw(0, p.kernel_h / 2), p.pad_w = draw(0, p.kernel_w / 2);
    p.t = p.kernel_t + draw(0, 3), p.h = p.kernel_h + draw(0, 5), p.w = p.kernel_w + draw(0, 5);
    p.out_t = (p.t + 2 * p.pad_t - p.kernel_t) / p.stride_t + 1;
    p.out_h = (p.h + 2 * p.pad_h - p.kernel_h) / p.stride_h + 1;
    p.out_w = (p.w + 2 * p.pad_w - p.kernel_w) / p.stride_w + 1;
    Floats input(static_cast<long>(p.n) * p.t * p.h * p.w * p.c), output(static_cast<long>(p.n) * p.out_t * p.out_h * p.out_w * p.c);
    p.input = input.get(), p.output = output.get();
    featx_max_pool(&p, draw(1, 4));
}

// Taps at drawn places, further down from pixel to pixel, that are within `source`; of the others the weight is 0.
static void draw_taps(int source, int target, int taps, int total, std::vector<int>& places, std::vector<int>& weights) {
    int first = 0;
    for (int x = 0; x < target; x++) {
        first = std::min(source - 1, first + draw(0, 3));
        int left = total;
        for (int k = 0; k < taps; k++) {
            const bool inside = first + k < source, last = k == taps - 1 || first + k == source - 1;
            const int weight = !inside ? 0 : last ? left : draw(0, left);
            places.push_back(std::min(first + k, source - 1)), weights.push_back(weight);
            left -= weight;
        }
    }
}

// The rule of featx/yuv.py: a colour of a pixel of a frame of planes.
static int colour_of(const featx::Resize& r, long frame, int row, int column, int channel) {
    const long half_width = (r.width + 1) / 2, luma_bytes = static_cast<long>(r.height) * r.width, chroma_bytes = (r.height + 1) / 2 * half_width;
    const unsigned char* luma = r.frames + frame * (luma_bytes + 2 * chroma_bytes);
    const unsigned char* chroma = luma + luma_bytes + row / 2 * half_width + column / 2;
    const auto part = [](int sample, int factor) { return sample * 8 * factor >> 16; };
    const int u = chroma[0] - 128, v = chroma[chroma_bytes] - 128, y = part(luma[static_cast<long>(row) * r.width + column] - r.yuv->offset, r.yuv->luma);
    const int added = channel == 0   ? part(u, r.yuv->blue_of_u)
                      : channel == 1 ? part(u, r.yuv->green_of_u) + part(v, r.yuv->green_of_v)
                                     : part(v, r.yuv->red_of_v);
    return std::clamp(y + added, 0, 255);
}

// The weights of a row as `_in_fours` of featx/engine/resize.py puts them.
static std::vector<short> in_fours(const std::vector<int>& weights, int taps, int width, bool opencv) {
    std::vector<short> out;
    for (int four = 0; four < width; four += 4)
        for (int which = 0; which < 2; which++)
            for (int pair = 0; pair < taps; pair += 2)
                for (int part = opencv; part < 2; part++)
                    for (int i = 0; i < 16; i++) {
                        const int x = four + which + i / 8 * 2, weight = x < width ? weights[x * taps + pair + i % 2] : 0;
                        out.push_back(static_cast<short>(opencv ? weight : part ? weight & 2047 : weight >> 11));
                    }
    return out;
}

static void resize_case(featx::Resize::Form form, bool planar) {
    featx::Resize r{};
    const bool opencv = form == featx::Resize::kOpencv, crop = form == featx::Resize::kCrop;
    r.n = draw(1, 2), r.height = draw(1, 20), r.width = draw(1, 90), r.out_height = draw(1, 20), r.out_width = draw(1, 20), r.form = form;
    r.taps_y = opencv ? 2 : draw(1, 7), r.taps_x = opencv ? 2 : 2 * draw(1, 5);
    if (crop) r.taps_y = r.taps_x = 1, r.out_height = draw(1, r.height), r.out_width = draw(1, r.width);
    std::vector<int> rows, row_weights, places, weights, columns;
    const int total = crop ? 1 : 1 << (opencv ? 11 : 22);
    draw_taps(r.height, r.out_height, r.taps_y, total, rows, row_weights);
    draw_taps(r.width, r.out_width, r.taps_x, total, places, weights);
    if (crop)
        for (int i = 0, top = draw(0, r.height - r.out_height); i < r.out_height; i++) rows[i] = top + i;
    if (crop)
        for (int i = 0, left = draw(0, r.width - r.out_width); i < r.out_width; i++) places[i] = left + i;
    for (int x = 0; x < up(r.out_width, 4) * 4; x++) columns.push_back(places[std::min(x, r.out_width - 1) * r.taps_x]);
    const std::vector<short> column_weights = crop ? std::vector<short>() : in_fours(weights, r.taps_x, r.out_width, opencv);
    const long chroma_bytes = static_cast<long>((r.height + 1) / 2) * ((r.width + 1) / 2), pixels = static_cast<long>(r.height) * r.width;
    std::vector<unsigned char> frames(r.n * (planar ? pixels + 2 * chroma_bytes : 3 * pixels)), output(3L * r.n * r.out_height * r.out_width);
    for (unsigned char& byte : frames) byte = static_cast<unsigned char>(draw(0, 255));
    const featx::YuvForm yuv{draw(0, 1) * 16, draw(8000, 9600), draw(13000, 18000), -draw(1000, 4000), -draw(3000, 7000), draw(11000, 16000)};
    r.yuv = planar ? &yuv : nullptr;
    r.frames = frames.data(), r.rows = rows.data(), r.row_weights = row_weights.data(), r.output = output.data();
    r.columns = columns.data(), r.column_weights = column_weights.data();
    std::vector<unsigned char> workspace(featx_resize_workspace_bytes(&r));
    featx_resize(&r, workspace.data());
    for (long at = 0; at < static_cast<long>(output.size()); at++) {
        const int channel = at % 3, x = at / 3 % r.out_width, y = at / 3 / r.out_width % r.out_height;
        const long frame = at / 3 / r.out_width / r.out_height;
        const auto source = [&](int row, int column) {
            return planar ? colour_of(r, frame, row, column, channel) : frames[3 * ((frame * r.height + row) * r.width + column) + channel];
        };
        if (crop) {
            check(output[at], source(rows[y], places[x]), "crop");
            continue;
        }
        const int half = opencv ? 2 : total / 2;
        int sum = half;
        for (int j = 0; j < r.taps_y; j++) {
            int line = opencv ? 0 : half;
            for (int k = 0; k < r.taps_x; k++) line += source(rows[y * r.taps_y + j], places[x * r.taps_x + k]) * weights[x * r.taps_x + k];
            const int weight = row_weights[y * r.taps_y + j];
            sum += opencv ? (line >> 4) * weight >> 16 : (line >> 22) * weight;
        }
        check(output[at], opencv ? sum >> 2 : sum >> 22, "resize");
    }
}

int main() {
    if (!featx_supported()) return std::puts("unsupported"), 0;
    for (int i = 0; i < 150; i++) winograd_case(8 * draw(1, 5), 8 * draw(1, 12));
    for (int c_in : {264, 520, 4096}) winograd_case(c_in, 8);  // blocks of the product; as many zeros as there are
    for (int i = 0; i < 200; i++) direct_case(draw(1, 7));
    for (int c_in : {16, 37, 64, 300}) direct_case(c_in);
    for (int i = 0; i < 100; i++) time_case(), pool_case();
    for (int i = 0; i < 600; i++) resize_case(static_cast<featx::Resize::Form>(i % 3), i / 3 % 2);
    featx_multiply_add_gflops(2, 0.01);
    std::puts("clean");
}
