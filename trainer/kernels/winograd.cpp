// Convolution by Winograd's F(4x4, 3x3), and its gradients, of contiguous float32 images on the CPU.
//
// A block of tiles goes to its 36 points, the products with the weights' points are summed over the channels, and the
// sums go back to pixels, so that a block stays in the cache. Vectors run over channels.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "winograd_matrices.h"

namespace {

using namespace winograd;

constexpr int64_t ROWS = 8, PANEL = 2 * LANES;     // of a product kept in registers
constexpr int64_t CACHED = 170'000;                // floats: the values of a block of tiles stay in the L2 cache
constexpr int64_t SUMMED_TILES = 64;               // of a product that is added to a weight's gradient

constexpr int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }
constexpr int64_t padded(int64_t count, int64_t size) { return parts(count, size) * size; }

// 36 matrices, one a point. Columns lie in panels, whose rows follow each other. One line more between the
// matrices keeps the 36 values of a tile from falling into one set of the cache.
struct Points {
    int64_t rows, panel, size;
    at::Tensor memory;
    float* data;

    Points(int64_t rows, int64_t columns, int64_t panel)
        : rows(rows), panel(panel), size(rows * columns + LANES),
          memory(at::empty({POINTS * size}, at::kFloat)), data(memory.mutable_data_ptr<float>()) {}

    float* at(int64_t point, int64_t row, int64_t column) const {
        return data + point * size + (column / panel * rows + row) * panel + column % panel;
    }
    void put(const Vec* values, int64_t row, int64_t column) const {
        float* to = at(0, row, column);
#pragma GCC unroll 36
        for (int64_t k = 0; k < POINTS; ++k) store(to + k * size, values[k]);
    }
    void get(int64_t row, int64_t column, Vec* values) const {
        const float* from = at(0, row, column);
#pragma GCC unroll 36
        for (int64_t k = 0; k < POINTS; ++k) values[k] = load(from + k * size);
    }
};

// sum (ROWS x PANEL) = [sum +] left (ROWS x depth) right (depth x PANEL)
inline void multiply(int64_t depth, const float* left, int64_t row, int64_t step, const float* right,
                     float* sum, bool add) {
    Vec values[ROWS][2];
#pragma GCC unroll 8
    for (int64_t r = 0; r < ROWS; ++r) {
        values[r][0] = add ? load(sum + r * PANEL) : Vec{};
        values[r][1] = add ? load(sum + r * PANEL + LANES) : Vec{};
    }
    for (int64_t d = 0; d < depth; ++d, left += step, right += PANEL) {
        const Vec low = load(right), high = load(right + LANES);
#pragma GCC unroll 8
        for (int64_t r = 0; r < ROWS; ++r) {
            values[r][0] += left[r * row] * low;
            values[r][1] += left[r * row] * high;
        }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < ROWS; ++r) {
        store(sum + r * PANEL, values[r][0]);
        store(sum + r * PANEL + LANES, values[r][1]);
    }
}

// A contiguous (N, C, H, W) image batch, cut into strips one tile high.
struct Images {
    int64_t channels, height, width, plane, across, down, strips;

    explicit Images(const at::Tensor& x)
        : channels(x.size(1)), height(x.size(2)), width(x.size(3)), plane(height * width),
          across(parts(width, TILE)), down(parts(height, TILE)), strips(x.size(0) * down) {}

    int64_t offset(int64_t strip, int64_t channel, int64_t y) const {
        return (strip / down * channels + channel) * plane + y * width;
    }

    // Writes the points of the tiles of strips [first, last) to the rows from `row` on.
    template <class Matrix>
    void to_points(const float* x, int64_t first, int64_t last, const Points& points, int64_t row) const {
        const int64_t halo = (Matrix::FROM - TILE) / 2, stride = across * TILE + 2 * halo;
        std::vector<Vec> patch(Matrix::FROM * stride);
        for (int64_t strip = first; strip < last; ++strip, row += across) {
            const int64_t top = strip % down * TILE - halo, begin = std::max<int64_t>(top, 0);
            const int64_t end = std::min(top + Matrix::FROM, height);
            std::fill(patch.begin(), patch.end(), Vec{});
            for (int64_t channel = 0; channel < channels; channel += LANES) {
                read(x + offset(strip, channel, begin), channels - channel, (end - begin) * width,
                     patch.data() + (begin - top) * stride + halo, stride);
                for (int64_t tile = 0; tile < across; ++tile) {
                    Vec values[POINTS];
                    transform<Matrix>(patch.data() + tile * TILE, stride, values);
                    points.put(values, row + tile, channel);
                }
            }
        }
    }

    // Writes 16 channels of a strip from the rows of `points` from `row` on, 16 columns from `column` on.
    void from_points(const Points& points, int64_t row, int64_t column, const float* bias, float* y, int64_t strip,
                     int64_t channel) const {
        Vec shift = {};
        if (bias) std::memcpy(&shift, bias + channel, std::min(LANES, channels - channel) * sizeof(float));
        const int64_t top = strip % down * TILE, rows = std::min(TILE, height - top);
        std::vector<Vec> pixels(rows * width);
        for (int64_t x = 0; x < width; x += TILE) {
            Vec values[POINTS], tile[TILE * TILE];
            points.get(row + x / TILE, column, values);
            transform<PointsToOutput>(values, PATCH, tile);
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < std::min(TILE, width - x); ++j)
                    pixels[i * width + x + j] = tile[i * TILE + j] + shift;
        }
        write(pixels.data(), rows * width, y + offset(strip, channel, top), channels - channel);
    }

    // Moves pixels of up to 16 planes to one Vec a pixel, in rows `stride` apart; lanes beyond are zero. It goes by 16
    // pixels, the last of which overlap those before, so that only images of fewer pixels are slow.
    void read(const float* from, int64_t planes, int64_t length, Vec* to, int64_t stride) const {
        const int64_t count = std::min(LANES, length);
        for (int64_t done = 0; done < length; done += LANES) {
            const int64_t first = std::min(done, length - count);
            Vec square[LANES];
            if (planes >= LANES && count == LANES) {
#pragma GCC unroll 16
                for (int64_t c = 0; c < LANES; ++c) square[c] = load(from + c * plane + first);
            } else {
                std::fill_n(square, LANES, Vec{});
                for (int64_t c = 0; c < std::min(planes, LANES); ++c)
                    std::memcpy(square + c, from + c * plane + first, count * sizeof(float));
            }
            transpose(square);
            int64_t x = first % width;
            Vec* line = to + first / width * stride;
            for (int64_t i = 0; i < count; ++i) {
                line[x] = square[i];
                if (++x == width) x = 0, line += stride;
            }
        }
    }

    void write(const Vec* from, int64_t length, float* to, int64_t planes) const {
        const int64_t count = std::min(LANES, length);
        for (int64_t done = 0; done < length; done += LANES) {
            const int64_t first = std::min(done, length - count);
            Vec square[LANES];
            if (planes >= LANES && count == LANES) {
                std::copy_n(from + first, LANES, square);
                transpose(square);
#pragma GCC unroll 16
                for (int64_t c = 0; c < LANES; ++c) store(to + c * plane + first, square[c]);
            } else {
                std::fill_n(square, LANES, Vec{});
                std::copy_n(from + first, count, square);
                transpose(square);
                for (int64_t c = 0; c < std::min(planes, LANES); ++c)
                    std::memcpy(to + c * plane + first, square + c, count * sizeof(float));
            }
        }
    }
};

// The points of weights (outs, ins, 3, 3) by (in, out); for the gradient of the input they swap and turn by 180 degrees.
Points weight_points(const at::Tensor& weight, bool gradient) {
    const int64_t outs = weight.size(gradient ? 1 : 0), ins = weight.size(gradient ? 0 : 1);
    const int64_t out_step = gradient ? TAPS : ins * TAPS, in_step = gradient ? outs * TAPS : TAPS;
    const int64_t rows = padded(ins, LANES), columns = padded(outs, PANEL);
    const Points points(rows, columns, PANEL);
    const float* w = weight.const_data_ptr<float>();
    at::parallel_for(0, columns / LANES, 1, [&](int64_t begin, int64_t end) {
        for (int64_t out = begin * LANES; out < end * LANES; out += LANES)
            for (int64_t in = 0; in < rows; ++in) {
                Vec taps[TAPS] = {}, values[POINTS];
                for (int64_t lane = 0; lane < std::min(LANES, outs - out) && in < ins; ++lane)
                    for (int64_t t = 0; t < TAPS; ++t)
                        taps[gradient ? TAPS - 1 - t : t][lane] = w[(out + lane) * out_step + in * in_step + t];
                transform<WeightToPoints>(taps, 3, values);
                points.put(values, in, out);
            }
    });
    return points;
}

// Correlates x (N, ins, H, W) with weights of `outs` channels, given as points, padding by one.
at::Tensor correlate(const at::Tensor& x, const Points& weights, int64_t outs, const float* bias) {
    const at::Tensor y = at::empty({x.size(0), outs, x.size(2), x.size(3)}, x.options());
    const Images from(x), to(y);
    const float* read = x.const_data_ptr<float>();
    float* write = y.mutable_data_ptr<float>();
    const int64_t depth = weights.rows, fitting = CACHED / (POINTS * depth) / ROWS * ROWS;
    const int64_t strips = std::max<int64_t>(1, std::max(fitting, ROWS) / from.across);
    at::parallel_for(0, parts(from.strips, strips), 1, [&](int64_t begin, int64_t end) {
        const int64_t most = padded(strips * from.across, ROWS);
        const Points inputs(most, depth, depth), products(most, PANEL, PANEL);
        for (int64_t first = begin * strips; first < std::min(end * strips, from.strips); first += strips) {
            const int64_t last = std::min(first + strips, from.strips), tiles = (last - first) * from.across;
            from.to_points<InputToPoints>(read, first, last, inputs, 0);
            for (int64_t out = 0; out < outs; out += PANEL) {
                for (int64_t k = 0; k < POINTS; ++k)
                    for (int64_t tile = 0; tile < tiles; tile += ROWS)
                        multiply(depth, inputs.at(k, tile, 0), depth, 1, weights.at(k, 0, out),
                                 products.at(k, tile, 0), false);
                for (int64_t strip = first; strip < last; ++strip)
                    for (int64_t channel = out; channel < std::min(out + PANEL, outs); channel += LANES)
                        to.from_points(products, (strip - first) * from.across, channel - out, bias, write, strip,
                                       channel);
            }
        }
    });
    return y;
}

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    const at::Tensor shift = bias ? bias->contiguous() : at::Tensor();
    return correlate(x.contiguous(), weight_points(weight.contiguous(), false), weight.size(0),
                     bias ? shift.const_data_ptr<float>() : nullptr);
}

at::Tensor input_gradient(const at::Tensor& gradient, const at::Tensor& weight) {
    return correlate(gradient.contiguous(), weight_points(weight.contiguous(), true), weight.size(1), nullptr);
}

// Sums over blocks of tiles, always in the same order: the result does not depend on the threads.
at::Tensor weight_gradient(const at::Tensor& strided_x, const at::Tensor& strided_gradient) {
    const at::Tensor x = strided_x.contiguous(), gradient = strided_gradient.contiguous();
    const Images from(x), to(gradient);
    const int64_t ins = padded(from.channels, LANES), outs = padded(to.channels, PANEL);
    const int64_t strips = std::max<int64_t>(1, SUMMED_TILES / from.across), most = strips * from.across;
    const Points inputs(most, ins, ins), outputs(most, outs, PANEL), sums(ins, outs, PANEL);
    for (int64_t first = 0; first < from.strips; first += strips) {
        const int64_t count = std::min(strips, from.strips - first);
        at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
            const int64_t row = begin * from.across;
            from.to_points<InputToPoints>(x.const_data_ptr<float>(), first + begin, first + end, inputs, row);
            to.to_points<OutputToPoints>(gradient.const_data_ptr<float>(), first + begin, first + end, outputs, row);
        });
        at::parallel_for(0, POINTS, 1, [&](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k)
                for (int64_t out = 0; out < outs; out += PANEL)
                    for (int64_t in = 0; in < ins; in += ROWS)
                        multiply(count * from.across, inputs.at(k, 0, in), 1, ins, outputs.at(k, 0, out),
                                 sums.at(k, in, out), first > 0);
        });
    }
    const at::Tensor result = at::empty({to.channels, from.channels, 3, 3}, x.options());
    float* write = result.mutable_data_ptr<float>();
    at::parallel_for(0, parts(to.channels, LANES), 1, [&](int64_t begin, int64_t end) {
        for (int64_t out = begin * LANES; out < end * LANES; out += LANES)
            for (int64_t in = 0; in < from.channels; ++in) {
                Vec values[POINTS], taps[TAPS];
                sums.get(in, out, values);
                transform<PointsToWeight>(values, PATCH, taps);
                for (int64_t lane = 0; lane < std::min(LANES, to.channels - out); ++lane)
                    for (int64_t t = 0; t < TAPS; ++t)
                        write[((out + lane) * from.channels + in) * TAPS + t] = taps[t][lane];
            }
    });
    return result;
}

}  // namespace

TORCH_LIBRARY(winograd, library) {
    library.def("convolve(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
    library.def("input_gradient(Tensor gradient, Tensor weight) -> Tensor");
    library.def("weight_gradient(Tensor x, Tensor gradient) -> Tensor");
}

TORCH_LIBRARY_IMPL(winograd, CPU, library) {
    library.impl("convolve", &convolve);
    library.impl("input_gradient", &input_gradient);
    library.impl("weight_gradient", &weight_gradient);
}
