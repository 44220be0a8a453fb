// What the two directions of a gated layer share: its arguments, sizes, and packed weights.

#pragma once

#include "common/gemm.h"
#include "common/layout.h"
#include "common/scratch.h"
#include "gated_layer/winograd.h"

struct Layer {  // _Layer in native/gated_layer.py, in the same order
    int64_t batch, tasks, height, width, inputs, planes, skip, reads, taps, residual, places, threads, amx;
    const float *vertical, *horizontal, *link, *from_attention, *out, *out_bias;  // weights, contiguous
    const float *bias_v, *bias_h;  // (tasks, places, 2 * planes), places 1 or all
    const float *v, *h, *attended, *skip_sum;  // skip_sum: null, or what the skip outputs are added to
    float *new_v, *new_h, *skips, *saved;  // saved: for the gradient, or null
    // Of the gradient only. Null: that gradient is zero, or not asked for.
    const float *grad_new_v, *grad_new_h, *grad_skips;
    float *grad_v, *grad_h, *grad_attended;
    float *grad_bias_v, *grad_bias_h;  // (batch, places, 2 * planes)
    float *grad_vertical, *grad_horizontal, *grad_link, *grad_from_attention, *grad_out, *grad_out_bias;
    float *packed, *sums;  // weights as they are used, bfloat16 with ``amx``; gradients of the first six, a thread each

    const float* bias(int stack) const { return stack ? bias_h : bias_v; }
    float* grad_bias(int stack) const { return stack ? grad_bias_h : grad_bias_v; }
};

#define LAYER_FIELDS(F, T)                                                                                              \
    F(T, batch) F(T, tasks) F(T, height) F(T, width) F(T, inputs) F(T, planes) F(T, skip) F(T, reads) F(T, taps)        \
    F(T, residual) F(T, places) F(T, threads) F(T, amx) F(T, vertical) F(T, horizontal) F(T, link) F(T, from_attention)    \
    F(T, out) F(T, out_bias) F(T, bias_v) F(T, bias_h) F(T, v) F(T, h) F(T, attended) F(T, skip_sum) F(T, new_v) F(T, new_h)   \
    F(T, skips) F(T, saved) F(T, grad_new_v) F(T, grad_new_h) F(T, grad_skips) F(T, grad_v) F(T, grad_h)                \
    F(T, grad_attended) F(T, grad_bias_v) F(T, grad_bias_h) F(T, grad_vertical) F(T, grad_horizontal) F(T, grad_link)       \
    F(T, grad_from_attention) F(T, grad_out) F(T, grad_out_bias) F(T, packed) F(T, sums)

// Sizes that follow, and where the packed weights lie.
struct Plan {
    int64_t z, gates, outputs, gates_wide, inputs_wide, taps_wide, reads_wide, pitch, tiles, saved;
    int64_t vertical, horizontal, link, read, out, out_bias, sums, out_back, link_back, read_back, vertical_back,
        horizontal_back, packed;

    explicit Plan(const Layer& l) {
        gates = (l.planes + HALF - 1) / HALF * HALF, z = 2 * gates;
        outputs = padded(l.planes + l.skip), gates_wide = padded(gates);
        inputs_wide = padded(l.inputs), taps_wide = padded(l.taps * l.inputs);
        reads_wide = padded(l.reads);
        pitch = l.width + 1;  // of rows with a zero between them
        tiles = (l.width + TILE - 1) / TILE;
        saved = l.height * (pitch + l.width) * z;  // an image: pre-activations of v, padded; activations of h
        int64_t at = 0;
        auto take = [&](int64_t size) { const int64_t found = at; at += size; return found; };
        vertical = take(PRODUCTS * l.taps * l.inputs * z), horizontal = take(l.taps * l.inputs * z);
        link = take(z * z), read = take(l.reads * z), out = take(gates * outputs), out_bias = take(outputs);
        sums = at;
        out_back = take(outputs * gates_wide), link_back = take(z * z), read_back = take(z * reads_wide);
        vertical_back = take(PRODUCTS * z * taps_wide), horizontal_back = take(z * taps_wide);
        packed = at;
    }
};

// Rows that are taken together at most, and how an image is divided into such chunks, as equal as can be.
constexpr int64_t CHUNK = 8;

struct Chunks {
    int64_t count, height;
    explicit Chunks(int64_t height) : count((height + CHUNK - 1) / CHUNK), height(height) {}
    int64_t rows(int64_t chunk) const { return height / count + (chunk < height % count); }
};

// The sums of all threads, ``size`` each, in the first's place.
inline void add_threads(const Layer& l, int64_t size) {
    for (int64_t thread = 1; thread < l.threads; thread++)
        for (int64_t i = 0; i < size; i++) l.sums[i] += l.sums[thread * size + i];
}

// ``call(which, packed, own, packed for the gradient of the inputs)`` for all weights but the vertical ones.
template <class F>
void each_weight(const Layer& l, const Plan& p, const F& call) {
    for (int64_t o = 0; o < 2 * l.planes; o++) {
        const int64_t q = packed_index(o, l.planes);
        for (int64_t c = 0; c < l.inputs; c++)
            for (int64_t b = 0; b < l.taps; b++)
                call(0, p.horizontal + (b * l.inputs + c) * p.z + q, (o * l.inputs + c) * l.taps + b,
                     p.horizontal_back + q * p.taps_wide + b * l.inputs + c);
        for (int64_t c = 0; c < 2 * l.planes; c++) {
            const int64_t other = packed_index(c, l.planes);
            call(1, p.link + other * p.z + q, o * 2 * l.planes + c, p.link_back + q * p.z + other);
        }
        for (int64_t c = 0; c < l.reads; c++)
            call(2, p.read + c * p.z + q, o * l.reads + c, p.read_back + q * p.reads_wide + c);
    }
    for (int64_t o = 0; o < l.planes + l.skip; o++) {
        for (int64_t c = 0; c < l.planes; c++)
            call(3, p.out + c * p.outputs + o, o * l.planes + c, p.out_back + o * p.gates_wide + c);
        call(4, p.out_bias + o, o, -1);
    }
}

// ``call(packed, the three own weights, packed for the gradient of the inputs)`` for the vertical weights. From product
// to product it is ``taps * inputs * z`` and ``z * taps_wide`` further.
template <class F>
void each_vertical(const Layer& l, const Plan& p, const F& call) {
    for (int64_t o = 0; o < 2 * l.planes; o++)
        for (int64_t c = 0; c < l.inputs; c++)
            for (int64_t a = 0; a < l.taps; a++) {
                const int64_t q = packed_index(o, l.planes);
                call(p.vertical + (a * l.inputs + c) * p.z + q, ((o * l.inputs + c) * l.taps + a) * 3,
                     p.vertical_back + q * p.taps_wide + a * l.inputs + c);
            }
}
