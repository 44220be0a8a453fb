// Rows of places, combined for a convolution three places wide.

#pragma once

#include <algorithm>

#include "common/rows.h"

// A convolution three places wide gives TILE = 4 places y of a row from six inputs d around them and the weights g by
// six products m, where plain sums need twelve: Winograd's F(4, 3) (Lavin and Gray 2015, "Fast Algorithms for
// Convolutional Neural Networks", the one-dimensional part of its F(4x4, 3x3)), y = A' [(G g) (B' d)]. The gradient of
// g is G' [(A y) (B' d)]; that of d is a convolution of its own, with g from right to left. B' is in combine_inputs, A'
// in combine_products, A in combine_slopes, G in combine_weights and G' in combine_gradients.
constexpr int64_t TILE = 4, PRODUCTS = 6;

// The combinations of inputs of all tiles of a row of ``size`` features that begins with the place before the first,
// (tiles, size) each, ``apart`` from one another. Writes up to a vector past the end of each.
inline void combine_inputs(int64_t tiles, int64_t size, const float* row, float* to, int64_t apart) {
    for (int64_t t = 0; t < tiles; t++, row += TILE * size, to += size)
        for (int64_t c = 0; c < size; c += WIDTH) {
            V d[PRODUCTS];
            for (int i = 0; i < PRODUCTS; i++) d[i] = load(row + i * size + c);
            const V even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], far = d[4] - d[2], near = 2 * (d[3] - d[1]);
            float* own = to + c;
            store(own, 4 * d[0] - 5 * d[2] + d[4]);
            store(own + apart, even + odd);
            store(own + 2 * apart, even - odd);
            store(own + 3 * apart, far + near);
            store(own + 4 * apart, far - near);
            store(own + 5 * apart, 4 * d[1] - 5 * d[3] + d[5]);
        }
}

// (width, size) places [+ add] of a row, ``to_step`` apart, from the products of its tiles [+ ``other`` ones], which
// lie ``step`` and ``apart`` apart. Writes up to a vector past each place.
inline void combine_products(int64_t width, int64_t size, const float* from, const float* other, int64_t step,
                             int64_t apart, const float* add, float* to, int64_t to_step) {
    for (int64_t j = 0; j < width; j += TILE, from += step)
        for (int64_t c = 0; c < size; c += WIDTH) {
            V m[PRODUCTS];
            for (int k = 0; k < PRODUCTS; k++) {
                m[k] = load(from + k * apart + c);
                if (other) m[k] += load(other + j / TILE * step + k * apart + c);
            }
            const V one = m[1] + m[2], one_odd = m[1] - m[2], two = m[3] + m[4], two_odd = m[3] - m[4];
            const V y[TILE] = {m[0] + one + two, one_odd + 2 * two_odd, one + 4 * two, one_odd + 8 * two_odd + m[5]};
            for (int64_t i = 0; i < TILE && j + i < width; i++)
                store(to + (j + i) * to_step + c, add ? y[i] + load(add + (j + i) * to_step + c) : y[i]);
        }
}

// The gradients of the products of all tiles from those of the places of a row, zero after the last. size: a multiple
// of WIDTH.
inline void combine_slopes(int64_t tiles, int64_t size, const float* row, float* to, int64_t apart) {
    for (int64_t t = 0; t < tiles; t++, row += TILE * size, to += size)
        for (int64_t c = 0; c < size; c += WIDTH) {
            V y[TILE];
            for (int i = 0; i < TILE; i++) y[i] = load(row + i * size + c);
            const V even = y[0] + y[2], odd = y[1] + y[3], far = y[0] + 4 * y[2], far_odd = 2 * y[1] + 8 * y[3];
            float* own = to + c;
            store(own, y[0]);
            store(own + apart, even + odd);
            store(own + 2 * apart, even - odd);
            store(own + 3 * apart, far + far_odd);
            store(own + 4 * apart, far - far_odd);
            store(own + 5 * apart, y[3]);
        }
}

// Three weights g as the products take them.
inline void combine_weights(float g0, float g1, float g2, float* to) {
    const float even = (g0 + g2) / -6, odd = g1 / -6, far = g0 / 24 + g2 / 6, far_odd = g1 / 12;
    const float combined[PRODUCTS] = {g0 / 4, even + odd, even - odd, far + far_odd, far - far_odd, g2};
    std::copy(combined, combined + PRODUCTS, to);
}

// The gradients of three weights from those of the products.
inline void combine_gradients(const float* m, float* g) {
    const float one = (m[1] + m[2]) / -6, two = m[3] + m[4];
    g[0] = m[0] / 4 + one + two / 24;
    g[1] = (m[1] - m[2]) / -6 + (m[3] - m[4]) / 12;
    g[2] = one + two / 6 + m[5];
}
