// The gate tanh(a) * sigmoid(b) and its gradient on vectors whose first half is a and whose second is b.

#pragma once

#include "common/simd.h"

inline V both(float first, float second) {
    V result;
    for (int i = 0; i < WIDTH; i++) result[i] = i < HALF ? first : second;
    return result;
}

// exp to about one unit in the last place for |x| < 80 (Cephes, S. Moshier: expf).
inline V exponential(V x) {
    const V shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to a whole number
    const V n = shifted - 12582912.0f;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Integers bits = (__builtin_convertvector(n, Integers) + 127) << 23;
    return p * (V)bits;
}

// 1 / x to about one unit in the last place.
inline V reciprocal(V x) {
#ifdef __AVX512F__
    const V near = (V)_mm512_rcp14_ps((__m512)x);
    return near * (2.0f - x * near);
#else
    return 1.0f / x;
#endif
}

// (e - less) / (e + 1) of e = exp(x): of less = 1 the tanh of x / 2, of 0 the sigmoid. Where one is within rounding of
// its limit the argument is cut off. Vectors share no reciprocal, though it would be faster: no place is seen by another,
// not even in the last bit.
inline V squashed(V x, V limit, V less) {
    V cut = x < -limit ? -limit : x;  // comparisons with a NaN are false: it stays one
    cut = cut > limit ? limit : cut;
    const V e = exponential(cut);
    return (e - less) * reciprocal(e + 1.0f);
}
inline V sigmoid(V x) { return squashed(x, both(40, 40), V{}); }
inline V hyperbolic_tangent(V x) { return squashed(2.0f * x, both(18, 18), both(1, 1)); }

// Of a and b: (tanh(a), sigmoid(b)).
inline V activated(V z) { return squashed(z * both(2, 1), both(18, 40), both(1, 0)); }

// ``count`` vectors of (a, b) to (tanh(a), sigmoid(b)), and their products, half a vector each. active may be z.
inline void activate(int64_t count, const float* z, float* active, float* gated) {
    int64_t i = 0;
    for (; i + 2 <= count; i += 2) {
        const V p = activated(load(z + i * WIDTH)), q = activated(load(z + (i + 1) * WIDTH));
        store(active + i * WIDTH, p), store(active + (i + 1) * WIDTH, q);
        store(gated + i * HALF, shuffled<0, WIDTH>(p, q) * shuffled<HALF, WIDTH + HALF>(p, q));
    }
    for (; i < count; i++) {
        const V p = activated(load(z + i * WIDTH));
        store(active + i * WIDTH, p);
        for (int64_t c = 0; c < HALF; c++) gated[i * HALF + c] = p[c] * p[c + HALF];
    }
}

// The products alone, of one vector.
inline void store_gates(float* at, V active) {
    float both[WIDTH];
    store(both, active);
    *(Half*)at = *(const Half*)both * *(const Half*)(both + HALF);
}

inline V load_number(const float* at) { return load(at); }
inline void store_number(float* at, V value) { store(at, value); }

// The gradients of (a, b) from that of the gates and what ``activate`` gave: tanh' = 1 - tanh^2, sigmoid' =
// sigmoid - sigmoid^2. Reads, and leaves, half a vector more than those of the gradient.
inline V gate_slopes(const float* gradient, V active) {
    const V slope = both(1, 0) + both(0, 1) * active - active * active;
    const V given = load(gradient);
    return shuffled<0, 0>(given, given) * shuffled<HALF, 0>(active, active) * slope;
}
