// The products of the forward pass with bfloat16 numbers, a row at a time.

#pragma once

#include "gated_layer/bf16_plan.h"
#include "gated_layer/forward.h"

#ifdef HAS_AMX

// (rows, width) += bias, rows of it ``step`` apart; shortened as well, if asked for.
inline void add_to_rows(int64_t rows, int64_t width, float* to, const float* bias, int64_t step, Short* shorter) {
    for (int64_t j = 0; j < rows; j++)
        for (int64_t c = 0; c < width; c += WIDTH) {
            const V sum = load(to + j * width + c) + load(bias + j * step + c);
            store(to + j * width + c, sum);
            if (shorter) store_number(shorter + j * width + c, sum);
        }
}

struct Bf16Forward {
    const Layer& l;
    const AmxPlan p;
    const int64_t row_in, bias_step;
    float *zv, *zh, *out, *bias_v, *bias_h, *active, *gated, *out_bias;
    Short *above, *own, *row_h, *z, *gate, *read;
    Short *saved_z, *saved_active;  // of the row before, and where they go
    float* to = nullptr;
    Prefetcher prefetcher;

    Bf16Forward(Scratch& scratch, const Layer& l)
        : l(l), p(l), row_in((l.width + 2) * l.inputs), bias_step(l.places > 1 ? p.z : 0) {
        const int64_t W = l.width, rows = p.blocks * p.rows;
        zv = scratch.take(rows * p.z), zh = scratch.take(rows * p.z), out = scratch.take(rows * p.outputs);
        bias_v = scratch.take(W * p.z, true), bias_h = scratch.take(W * p.z, true);
        active = scratch.take(W * p.z), gated = scratch.take(W * p.gates), out_bias = scratch.take(p.outputs, true);
        Shorts shorts(scratch, p);
        above = shorts.take(row_in), own = shorts.take(row_in), row_h = shorts.take(row_in);
        z = shorts.take(W * p.z), saved_z = shorts.take(W * p.z), saved_active = shorts.take(W * p.z);
        gate = shorts.take(W * p.gates), read = shorts.take(W * l.reads);
        if (out_bias) std::copy(l.out_bias, l.out_bias + l.planes + l.skip, out_bias);
    }

    void begin_image() { std::memset(above, 0, row_in * sizeof(Short)); }
    void begin_chunk(int64_t, int64_t, int64_t) {}

    void vertical(int64_t, int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        shorten(W * C, l.v + place * C, own + C);
        product(zv, {part(l, p.vertical[0], above, C), part(l, p.vertical[1], own, C)}, l.taps, p.columns, p.z);
        gates(zv, bias_v, z);
        std::swap(above, own);
    }

    void horizontal(int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        shorten(W * C, l.h + place * C, row_h + C);
        if (l.reads) shorten(W * l.reads, l.attended + place * l.reads, read);
        product(zh, {part(l, p.horizontal, row_h, C), part(l, p.link, z, p.z), part(l, p.read, read, l.reads)},
                l.reads ? 3 : 2, p.columns, p.z);
        gates(zh, bias_h, nullptr);
    }

    void outputs() {
        shorten(l.width * p.gates, gated, gate);
        product(out, {part(l, p.out, gate, p.gates)}, 1, p.outputs / WIDTH, p.outputs);
        add_to_rows(l.width, p.outputs, out, out_bias, 0, nullptr);
    }

    void save(int64_t image, int64_t i) {
        prefetcher.finish();
        std::swap(z, saved_z);
        shorten(l.width * p.z, active, saved_active);
        to = l.saved + image * p.saved + i * l.width * p.z / 2;
    }
    void stream_saved() {
        if (!to) return;
        const int64_t size = l.width * p.z / 2;
        prefetcher.stream((float*)saved_z, to, size);
        prefetcher.stream((float*)saved_active, to + l.height * size, size);
    }

   private:
    void product(float* to, std::initializer_list<Part> parts, int64_t count, int64_t columns, int64_t step) {
        multiply_tiles(p.blocks, p.rows, columns, parts.begin(), (int)count, to, step, false, prefetcher);
    }
    // total [and ``shorter``] += bias; its activations and gates.
    void gates(float* total, const float* bias, Short* shorter) {
        add_to_rows(l.width, p.z, total, bias, bias_step, shorter);
        activate(l.width * p.columns, total, active, gated);
    }
};

#endif
