// What the kernels are asked to do: plain records, filled in by featx/engine/native.py, which checks them.
#pragma once

namespace featx {

constexpr int kInterface = 4;  // raised with every change of the records or the functions; native.py has it too
constexpr int kMaxChannels = 4096;
constexpr int kMaxSegments = 64;   // runs of the input under a kernel of `direct`
constexpr int kMaxTimePoints = 10;  // of `direct_in_time`

// A 3x3x3 or 1x3x3 convolution of stride 1 with zero padding, for winograd.h.
struct Convolution {
    int n, t, h, w, c_in, c_out;
    int kernel_t;   // 3 or 1
    int time_tile;  // 2 (only with kernel_t 3) or 1
    int relu;
    int pool_t, pool_hw;  // 1 or 2: size and stride of the max pool that follows; rounds up
    const float* input;
    const float* filters;   // as `pack` leaves them
    const float* bias;      // (c_out padded to 16)
    const float* residual;  // of the output's shape, or null; not with a pool
    float residual_factor;  // what the residual is multiplied by
    float* output;
};

// A convolution of any kernel, stride and zero padding, for direct.h.
struct DirectConvolution {
    int n, t, h, w, c_in;
    int c_out;  // a multiple of 16
    int kernel_t, kernel_h, kernel_w, stride_t, stride_h, stride_w, pad_t, pad_h, pad_w;
    int relu, pool_hw;  // pool_hw 1 or 2; an odd row or column more is pooled alone
    const float* input;
    const float* weight;  // (c_out / 16, kernel_t, kernel_h, kernel_w, c_in, 16)
    const float* bias;
    const float* residual;  // of the output's shape, or null; not with a pool
    float residual_factor;  // what the residual is multiplied by
    float* output;

    int out_t() const { return (t + 2 * pad_t - kernel_t) / stride_t + 1; }
    int out_h() const { return (h + 2 * pad_h - kernel_h) / stride_h + 1; }
    int out_w() const { return (w + 2 * pad_w - kernel_w) / stride_w + 1; }
};

// The same of stride 1 in time, by minimal filtering in time, for in_time.h: `tile` outputs of `points` products each.
struct TimeConvolution {
    DirectConvolution layer;  // without any padding; layer.t = groups * tile + kernel_t - 1, of which out_t are wanted
    int out_t, tile, points;  // points = tile + kernel_t - 1
    const float* input_matrix;   // B^T (points, points)
    const float* output_matrix;  // A^T (tile, points)
    const float* filters;        // (points, c_out / 16, kernel_h, kernel_w, c_in, 16)
};

// A max pool whose windows all reach into the input, for pool.h.
struct MaxPool {
    int n, t, h, w, c;  // c a multiple of 8
    int kernel_t, kernel_h, kernel_w, stride_t, stride_h, stride_w, pad_t, pad_h, pad_w, out_t, out_h, out_w;
    const float* input;
    float* output;
};

// How planes of luma and chroma become BGR: `YuvForm` of featx/yuv.py. All fit into 16 bits.
struct YuvForm {
    int offset, luma, blue_of_u, green_of_u, green_of_v, red_of_v;
};

// Frames to be resized and cropped, for resize.h. The taps of pixel x are pixels columns[x], columns[x] + 1, ... of a row; those
// beyond it weigh 0. The taps of row y are the rows named; both grow.
struct Resize {
    enum Form { kCrop, kOpencv, kPillow };
    int n, height, width;       // of frames
    int out_height, out_width;  // output (n, out_height, out_width, 3): the window
    int taps_y, taps_x;         // to crop 1 and 1, of OpenCV's form 2 and 2; of Pillow's taps_x is even
    int form;
    const YuvForm* yuv;           // or null, for BGR
    const unsigned char* frames;  // BGR (n, height, width, 3), or of each frame luma, U and V, without padding
    const int *rows, *row_weights;  // (out_height, taps_y)
    const int* columns;             // (out_width padded to 4)
    const short* column_weights;    // as make_line reads them; none to crop
    unsigned char* output;
};

// In kernels_avx2.cpp. `threads` at least 1; the sizes are described where they are defined.
long winograd_workspace_floats(const Convolution& c, long tiles, int threads);
long winograd_num_tiles(const Convolution& c);
void winograd_pack(const float* weight, int c_out, int c_in, int kernel_t, int time_tile, float* filters, int threads);
void winograd(const Convolution& c, float* workspace, long chunk, int threads);
void direct(const DirectConvolution& c, int threads);
long in_time_workspace_floats(const TimeConvolution& c, int threads);
void direct_in_time(const TimeConvolution& c, float* workspace, int threads);
void max_pool(const MaxPool& p, int threads);
double multiply_add_gflops(int threads, double seconds);
long resize_workspace_bytes(const Resize& r);
void resize(const Resize& r, unsigned char* workspace);

}  // namespace featx
