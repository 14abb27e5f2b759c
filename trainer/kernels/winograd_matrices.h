// Winograd's minimal filtering F(4x4, 3x3) and its gradients (Lavin & Gray 2016, arXiv 1509.09308, Eq. 8):
//     Y = A^T [(G g G^T) . (B^T d B)] A
// A tile of 4x4 outputs is a polynomial product known from its values at 6x6 points, so that a convolution is 36
// matrix products with a quarter of the multiplications. Points 0, 5/8, -5/8, 3/2, -3/2 and infinity: half the
// rounding error of the usual 0, 1, -1, 2, -2 (how the choice matters: Barabasz et al. 2020, arXiv 1803.10986).

#pragma once

#include <cstdint>

namespace winograd {

constexpr int64_t LANES = 16, TILE = 4, PATCH = 6, POINTS = PATCH * PATCH, TAPS = 9;

using Vec = float __attribute__((vector_size(LANES * sizeof(float))));
using LooseVec = float __attribute__((vector_size(LANES * sizeof(float)), aligned(alignof(float))));
using Index = int __attribute__((vector_size(LANES * sizeof(int))));

inline Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }

// The five matrices, each applied to a vector of Vecs whose elements lie `in` and `out` apart.
constexpr float P = 5.f / 8, Q = 3.f / 2, P2 = P * P, Q2 = Q * Q;
constexpr float GO = 1 / (P2 * Q2), GP = 1 / (2 * P2 * (P2 - Q2)), GQ = 1 / (2 * Q2 * (Q2 - P2));

struct InputToPoints {  // B^T
    static constexpr int FROM = PATCH, TO = PATCH;
    static void apply(const Vec* d, int64_t in, Vec* to, int64_t out) {
        const Vec d1 = d[in], d2 = d[2 * in], d3 = d[3 * in], d4 = d[4 * in];
        const Vec even_p = d4 - Q2 * d2, odd_p = P * (d3 - Q2 * d1);
        const Vec even_q = d4 - P2 * d2, odd_q = Q * (d3 - P2 * d1);
        to[0] = P2 * Q2 * d[0] + (d4 - (P2 + Q2) * d2);
        to[out] = even_p + odd_p;
        to[2 * out] = even_p - odd_p;
        to[3 * out] = even_q + odd_q;
        to[4 * out] = even_q - odd_q;
        to[5 * out] = P2 * Q2 * d1 + (d[5 * in] - (P2 + Q2) * d3);
    }
};

struct WeightToPoints {  // G
    static constexpr int FROM = 3, TO = PATCH;
    static void apply(const Vec* g, int64_t in, Vec* to, int64_t out) {
        const Vec even_p = GP * g[0] + GP * P2 * g[2 * in], odd_p = GP * P * g[in];
        const Vec even_q = GQ * g[0] + GQ * Q2 * g[2 * in], odd_q = GQ * Q * g[in];
        to[0] = GO * g[0];
        to[out] = even_p + odd_p;
        to[2 * out] = even_p - odd_p;
        to[3 * out] = even_q + odd_q;
        to[4 * out] = even_q - odd_q;
        to[5 * out] = g[2 * in];
    }
};

struct PointsToOutput {  // A^T
    static constexpr int FROM = PATCH, TO = TILE;
    static void apply(const Vec* m, int64_t in, Vec* to, int64_t out) {
        const Vec even_p = m[in] + m[2 * in], odd_p = m[in] - m[2 * in];
        const Vec even_q = m[3 * in] + m[4 * in], odd_q = m[3 * in] - m[4 * in];
        to[0] = m[0] + even_p + even_q;
        to[out] = P * odd_p + Q * odd_q;
        to[2 * out] = P2 * even_p + Q2 * even_q;
        to[3 * out] = m[5 * in] + P * P2 * odd_p + Q * Q2 * odd_q;
    }
};

struct OutputToPoints {  // A: the transposed A^T takes a gradient back
    static constexpr int FROM = TILE, TO = PATCH;
    static void apply(const Vec* y, int64_t in, Vec* to, int64_t out) {
        const Vec even_p = y[0] + P2 * y[2 * in], odd_p = P * y[in] + P * P2 * y[3 * in];
        const Vec even_q = y[0] + Q2 * y[2 * in], odd_q = Q * y[in] + Q * Q2 * y[3 * in];
        to[0] = y[0];
        to[out] = even_p + odd_p;
        to[2 * out] = even_p - odd_p;
        to[3 * out] = even_q + odd_q;
        to[4 * out] = even_q - odd_q;
        to[5 * out] = y[3 * in];
    }
};

struct PointsToWeight {  // G^T
    static constexpr int FROM = PATCH, TO = 3;
    static void apply(const Vec* m, int64_t in, Vec* to, int64_t out) {
        const Vec even_p = m[in] + m[2 * in], odd_p = m[in] - m[2 * in];
        const Vec even_q = m[3 * in] + m[4 * in], odd_q = m[3 * in] - m[4 * in];
        to[0] = GO * m[0] + GP * even_p + GQ * even_q;
        to[out] = GP * P * odd_p + GQ * Q * odd_q;
        to[2 * out] = GP * P2 * even_p + GQ * Q2 * even_q + m[5 * in];
    }
};

// Applies a matrix to the columns, then to the rows, of a square of 16 channels; its rows lie `stride` apart.
template <class Matrix>
inline __attribute__((always_inline)) void transform(const Vec* square, int64_t stride, Vec* to) {
    Vec half[Matrix::TO * Matrix::FROM];
#pragma GCC unroll 6
    for (int x = 0; x < Matrix::FROM; ++x) Matrix::apply(square + x, stride, half + x, Matrix::FROM);
#pragma GCC unroll 6
    for (int y = 0; y < Matrix::TO; ++y) Matrix::apply(half + y * Matrix::FROM, 1, to + y * Matrix::TO, 1);
}

// Swaps channels and pixels: four rounds of interleaving the halves.
inline __attribute__((always_inline)) void transpose(Vec (&square)[LANES]) {
    const Index low{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}, high = low + 8;
#pragma GCC unroll 4
    for (int round = 0; round < 4; ++round) {
        Vec mixed[LANES];
#pragma GCC unroll 8
        for (int64_t i = 0; i < LANES / 2; ++i) {
            mixed[2 * i] = __builtin_shuffle(square[i], square[i + LANES / 2], low);
            mixed[2 * i + 1] = __builtin_shuffle(square[i], square[i + LANES / 2], high);
        }
#pragma GCC unroll 16
        for (int64_t i = 0; i < LANES; ++i) square[i] = mixed[i];
    }
}

}  // namespace winograd
