// The products of the gradients with bfloat16 numbers: those of inputs a row at a time, those of weights a chunk of rows.

#pragma once

#include "gated_layer/bf16_plan.h"
#include "gated_layer/backward.h"

#ifdef HAS_AMX

// (rows, width) shortened; ``sums`` get the sum of the rows.
inline void shorten_and_add(int64_t rows, int64_t width, const float* from, Short* to, float* sums) {
    for (int64_t c = 0; c < width; c += WIDTH) {
        V sum = load(sums + c);
        for (int64_t r = 0; r < rows; r++) {
            const V own = load(from + r * width + c);
            sum += own;
            store_number(to + r * width + c, own);
        }
        store(sums + c, sum);
    }
}

struct Bf16Backward {
    typedef Short Number;
    const Layer& l;
    const AmxPlan p;
    const int64_t wide_step, length;
    const bool both;
    float *outs, *exact, *slope, *wide, *linked, *back, *reads, *totals, *sums;
    Short *row_v, *row_h, *row_read, *gated, *out, *dh, *dv, *dv_above;
    // Of a chunk: features, place after place; and gradients, places paired.
    Short *all_v, *all_h, *all_z, *all_gated, *all_read, *pairs_v, *pairs_h, *pairs_out;
    const Short *z_v = nullptr, *active_h = nullptr;  // what was saved of a row
    Prefetcher prefetcher;

    Bf16Backward(Scratch& scratch, const Layer& l, int64_t thread)
        : l(l), p(l), wide_step(padded(p.gates)), length(CHUNK * p.pitch + DEPTH), both(l.taps > 1) {
        const int64_t W = l.width, C = l.inputs, rows = p.blocks * p.rows;
        outs = scratch.take(W * p.outputs, true), exact = scratch.take(W * p.z);
        slope = scratch.take(W * p.gates, true), wide = scratch.take(rows * wide_step);
        linked = scratch.take(rows * p.z), back = scratch.take(rows * p.inputs_long);
        reads = scratch.take(rows * p.reads_long), totals = scratch.take(2 * p.z);
        Shorts shorts(scratch, p);
        row_v = shorts.take((W + 2) * C), row_h = shorts.take((W + 2) * C), row_read = shorts.take(W * l.reads);
        gated = shorts.take((W + 2) * p.gates), out = shorts.take((W + 2) * p.outputs);
        dh = shorts.take((W + 2) * p.z), dv = shorts.take((W + 3) * p.z), dv_above = shorts.take((W + 3) * p.z);
        all_v = shorts.take(p.positions * p.inputs_long), all_h = shorts.take(p.positions * p.inputs_long);
        all_z = shorts.take(p.positions * p.z), all_gated = shorts.take(p.positions * p.gates_long);
        all_read = shorts.take(p.positions * p.reads_long);
        pairs_v = shorts.take(length * p.z), pairs_h = shorts.take(length * p.z);
        pairs_out = shorts.take(length * p.outputs), sums = l.sums + thread * p.sums;
    }
    float* out_of(int64_t) { return outs; }
    Short* gated_of(int64_t) { return gated; }
    Short* dh_of(int64_t) { return dh; }
    float* dv_of() { return linked; }

    void begin_image() {
        for (int64_t c = 0; c < p.inputs_long; c++) std::memset(line_v(c), 0, p.pitch * sizeof(Short));
    }

    void keep_last_row(int64_t before) {  // it is now the one above
        for (int64_t c = 0; c < p.inputs_long; c++)
            std::memcpy(line_v(c), line_v(c) + before * p.pitch, p.pitch * sizeof(Short));
    }

    void begin_row(int64_t image, int64_t i, int64_t, int64_t) {
        z_v = (const Short*)(l.saved + image * p.saved) + i * l.width * p.z;
        active_h = z_v + l.height * l.width * p.z;
        if (i + 1 == l.height) return;
        prefetcher.prefetch((const float*)(z_v + l.width * p.z), l.width * p.z / 2);
        prefetcher.prefetch((const float*)(active_h + l.width * p.z), l.width * p.z / 2);
    }

    void inputs_of(int64_t r, int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        shorten(W * C, l.v + place * C, row_v + C);
        shorten(W * C, l.h + place * C, row_h + C);
        transpose(p.pitch, C, row_v + C, C, line_v(0) + (r + 1) * p.pitch, p.positions);
        transpose(p.pitch, C, row_h + C, C, all_h + DEPTH + r * p.pitch, p.positions);
        transpose(W, p.z, z_v, p.z, all_z + r * p.pitch, p.positions);
    }

    void through_outputs(int64_t) {
        add_rows(l.width, p.outputs, outs, sums + p.grad_out_bias);
        shorten(l.width * p.outputs, outs, out);
        product(wide_step, {part(l, p.out_back, out, p.outputs)}, wide, false);
    }

    void through_link(int64_t, float* to) {
        product(p.z, {part(l, p.link_back, dh, p.z)}, to, l.grad_new_v);
        shorten_and_add(l.width, p.z, to, dv + p.z, totals);
    }

    void finish_row(int64_t image, int64_t i, int64_t r, int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        transpose(W, p.gates, gated, p.gates, all_gated + r * p.pitch, p.positions);
        pair_rows(p.pitch / 2, p.z, dh, pairs_h + r * p.pitch * p.z);
        pair_rows(p.pitch / 2, p.z, dv + p.z, pairs_v + r * p.pitch * p.z);
        pair_rows(p.pitch / 2, p.outputs, out, pairs_out + r * p.pitch * p.outputs);
        if (l.grad_v) {
            if (i) give(image, i - 1, dv, both ? dv_above : nullptr);
            if (i == l.height - 1) give(image, i, nullptr, both ? dv : nullptr);
            product(p.inputs_long, {part(l, p.horizontal_back, dh + (both ? 0 : p.z), p.z)}, back, false);
            rows_out(W, C, back, p.inputs_long, l.residual && l.grad_new_h ? l.grad_new_h + place * C : nullptr,
                     l.grad_h + place * C);
        }
        if (l.grad_attended) {
            product(p.reads_long, {part(l, p.read_back, dh, p.z)}, reads, false);
            rows_out(W, l.reads, reads, p.reads_long, nullptr, l.grad_attended + place * l.reads);
        }
        if (l.reads) {
            shorten(W * l.reads, l.attended + place * l.reads, row_read);
            transpose(W, l.reads, row_read, l.reads, all_read + r * p.pitch, p.positions);
        }
        std::swap(dv, dv_above);
    }

    // Of ``rows`` rows. Between them and after the last lie zeros, over which a product may pass.
    void weights_of(int64_t, int64_t, int64_t rows) {
        const int64_t deep = tiles_of(rows * p.pitch, DEPTH), left = deep * DEPTH - rows * p.pitch;
        std::memset(pairs_v + rows * p.pitch * p.z, 0, left * p.z * sizeof(Short));
        std::memset(pairs_h + rows * p.pitch * p.z, 0, left * p.z * sizeof(Short));
        std::memset(pairs_out + rows * p.pitch * p.outputs, 0, left * p.outputs * sizeof(Short));
        Tiles::configure(LONGEST);
        for (int64_t tap = 0; tap < l.taps; tap++) {
            for (int64_t b = 0; b < 3; b++)
                add(p.grad_vertical + (tap * 3 + b) * p.inputs_long * p.z, p.inputs_long,
                    line_v(0) + tap * p.pitch + b - 1, deep, pairs_v, p.z);
            add(p.grad_horizontal + tap * p.inputs_long * p.z, p.inputs_long, all_h + DEPTH + tap - 1, deep, pairs_h,
                p.z);
        }
        add(p.grad_link, p.z, all_z, deep, pairs_h, p.z);
        if (l.reads) add(p.grad_read, p.reads_long, all_read, deep, pairs_h, p.z);
        add(p.grad_out, p.gates_long, all_gated, deep, pairs_out, p.outputs);
        Tiles::configure(p.rows);
    }

   private:
    // Feature c of v, all places of a chunk from the row above it on: a kernel reaches a place further to the left.
    Short* line_v(int64_t c) { return all_v + DEPTH + c * p.positions; }

    void product(int64_t size, std::initializer_list<Part> parts, float* to, bool add, int64_t count = 1) {
        multiply_tiles(p.blocks, p.rows, size / WIDTH, parts.begin(), (int)count, to, size, add, prefetcher);
    }
    // sums += the product of features of all places and gradients.
    void add(int64_t sum, int64_t features, const Short* all, int64_t deep, const Short* pairs, int64_t size) {
        const Part one = {all, p.positions, deep, pairs, 2 * size, DEPTH, LONGEST * 2 * size};
        multiply_tiles(features / LONGEST, LONGEST, size / WIDTH, &one, 1, sums + sum, size, true, prefetcher);
    }
    // The gradient of row i of v from the pre-activations' ones of the row below and of its own.
    void give(int64_t image, int64_t i, const Short* below, const Short* own) {
        const Part of_own = part(l, p.vertical_back[1], own, p.z);
        if (below)
            product(p.inputs_long, {part(l, p.vertical_back[0], below, p.z), of_own}, back, false, own ? 2 : 1);
        else if (own)
            product(p.inputs_long, {of_own}, back, false);
        give_v(l, image, i, below || own ? back : nullptr, p.inputs_long);
    }
};

#endif
