// The gradients of a range of images.

#pragma once

#include "gated_layer/layer.h"

// Adds the rows of (rows, width) to ``sums``.
inline void add_rows(int64_t rows, int64_t width, const float* from, float* sums) {
    for (int64_t c = 0; c < width; c += WIDTH) {
        V sum = load(sums + c);
        for (int64_t r = 0; r < rows; r++) sum += load(from + r * width + c);
        store(sums + c, sum);
    }
}

// to (rows, size) = the second ``size`` of each row of ``from``, if both, + the first of the next [+ add (rows, size)].
inline void add_taps(int64_t rows, int64_t size, const float* from, int64_t step, bool both, const float* add,
                     float* to) {
    for (int64_t r = 0; r < rows; r++, from += step, to += size) {
        copy(size, from + step, add, to);
        if (both) copy(size, from + size, to, to);
        if (add) add += size;
    }
}

// Calls for what the gradients of the row of places from ``next`` on will need; that of v is given a row later.
inline void call_next_back(const Layer& l, int64_t place, int64_t next, Prefetcher& prefetcher) {
    const int64_t W = l.width, P = l.planes, C = l.inputs;
    prefetcher.prefetch(l.v + next * C, W * C), prefetcher.prefetch(l.h + next * C, W * C);
    if (l.grad_new_v) prefetcher.prefetch(l.grad_new_v + next * P, W * P);
    if (l.grad_new_h) prefetcher.prefetch(l.grad_new_h + next * P, W * P);
    if (l.grad_skips) prefetcher.prefetch(l.grad_skips + next * l.skip, W * l.skip);
    if (l.grad_v) prefetcher.prefetch_for_write(l.grad_v + place * C, W * C);
    if (l.grad_v) prefetcher.prefetch_for_write(l.grad_h + next * C, W * C);
    if (l.reads) prefetcher.prefetch(l.read + next * l.reads, W * l.reads);
    if (l.grad_read) prefetcher.prefetch_for_write(l.grad_read + next * l.reads, W * l.reads);
}

// thread: whose ``sums`` get the gradients of the weights.
static void backward(const Layer& l, int64_t thread, int64_t first, int64_t last) {
    const Plan p(l);
    const int64_t H = l.height, W = l.width, P = l.planes, C = l.inputs, vectors = p.z / WIDTH;
    const bool bias_at_places = l.places > 1;
    // Of the rows of a chunk and, of the combined inputs and of the products for the gradient of v, the one above it.
    const int64_t row_in = p.tiles * C, apart_in = (CHUNK + 1) * row_in + WIDTH;
    const int64_t row_z = p.tiles * p.z, apart_z = CHUNK * row_z;
    const int64_t row_back = p.tiles * p.taps_wide, product = (CHUNK + 1) * row_back;
    const int64_t size_v = (TILE * p.tiles + 2) * p.z;
    Scratch scratch((TILE * p.tiles + 2) * C + CHUNK * p.pitch * (C + p.z) + size_v +
                    PRODUCTS * (apart_in + 2 * apart_z + product) + CHUNK * W * (p.outputs + p.gates) +
                    W * (p.gates_wide + p.z + p.inputs_wide + p.reads_wide + 2 * p.gates) + p.pitch * p.taps_wide +
                    2 * p.z + 1024);
    float *row_v = scratch.take((TILE * p.tiles + 2) * C, true), *rows_h = scratch.take(CHUNK * p.pitch * C, true);
    float *inputs = scratch.take(PRODUCTS * apart_in), *slopes = scratch.take(PRODUCTS * apart_z);
    float *backs = scratch.take(PRODUCTS * apart_z), *products = scratch.take(PRODUCTS * product);
    float *dv = scratch.take(size_v, true), *dh = scratch.take(CHUNK * p.pitch * p.z, true);  // of the pre-activations
    float *outs = scratch.take(CHUNK * W * p.outputs, true), *gated = scratch.take(CHUNK * W * p.gates);
    float *wide = scratch.take(W * p.gates_wide), *active = scratch.take(W * p.z);
    float *back = scratch.take(W * p.inputs_wide), *reads = scratch.take(W * p.reads_wide);
    float *taps = scratch.take(p.pitch * p.taps_wide, true), *totals = scratch.take(2 * p.z);
    float *slope = scratch.take(W * p.gates, true), *unused = scratch.take(W * p.gates);
    float *sums = l.sums + thread * p.sums, *own_v = dv + p.z;
    const float* w = l.packed;
    const Chunks chunks(H);
    Prefetcher prefetcher;
    std::memset(sums, 0, p.sums * sizeof(float));

    // The gradient of row i of v from the products of the row below and of its own.
    auto give_v = [&](int64_t image, int64_t i, const float* below, const float* own) {
        const int64_t place = (image * H + i) * W * C;
        if (below || own)
            combine_products(W, C, below ? below : own, below ? own : nullptr, p.taps_wide, product, nullptr, back,
                             p.inputs_wide);
        else
            std::memset(back, 0, W * p.inputs_wide * sizeof(float));
        rows_out(W, C, back, p.inputs_wide, l.residual && l.grad_new_v ? l.grad_new_v + place : nullptr, l.grad_v + place);
    };

    for (int64_t image = first; image < last; image++) {
        std::memset(totals, 0, 2 * p.z * sizeof(float));
        std::memset(inputs, 0, PRODUCTS * apart_in * sizeof(float));
        for (int64_t chunk = 0, top = 0, rows; chunk < chunks.count; chunk++, top += rows) {
            rows = chunks.rows(chunk);
            for (int64_t k = 0; k < PRODUCTS && chunk; k++) {  // the last row is now the one above
                const int64_t before = chunks.rows(chunk - 1);
                copy(row_in, inputs + k * apart_in + before * row_in, nullptr, inputs + k * apart_in);
                copy(row_back, products + k * product + before * row_back, nullptr, products + k * product);
            }
            for (int64_t r = 0; r < rows; r++) {
                const int64_t i = top + r, place = (image * H + i) * W, next = place + W;
                const float* zv = l.saved + image * p.saved + i * p.pitch * p.z;
                const float* qh = l.saved + image * p.saved + (H * p.pitch + i * W) * p.z;
                float *out = outs + r * W * p.outputs, *own_h = dh + r * p.pitch * p.z;
                prefetcher.finish();
                if (i + 1 < H) {
                    prefetcher.prefetch(zv + p.pitch * p.z, p.pitch * p.z), prefetcher.prefetch(qh + W * p.z, W * p.z);
                    call_next_back(l, place, next, prefetcher);
                }
                copy(W * C, l.v + place * C, nullptr, row_v + C);
                copy(W * C, l.h + place * C, nullptr, rows_h + r * p.pitch * C + C);
                combine_inputs(p.tiles, C, row_v, inputs + (r + 1) * row_in, apart_in);

                // Through the outputs and the gate of h.
                if (l.grad_new_h) rows_in(W, P, l.grad_new_h + place * P, out, p.outputs);
                if (l.grad_skips) rows_in(W, l.skip, l.grad_skips + place * l.skip, out + P, p.outputs);
                multiply<BY_ROWS>(W, p.gates_wide, {out, p.outputs, P + l.skip}, w + p.out_back, p.gates_wide, wide,
                                  p.gates_wide, {nullptr, 0}, prefetcher);
                gates(W * vectors, qh, gated + r * W * p.gates);
                for (int64_t j = 0; j < W; j++)
                    for (int64_t c = 0; c < vectors; c++)
                        store(own_h + j * p.z + c * WIDTH,
                              gate_slopes(wide + j * p.gates_wide + c * HALF, load(qh + j * p.z + c * WIDTH)));

                // Through the gate of v, and the link.
                Start start = {nullptr, 0};
                if (l.grad_new_v) {
                    rows_in(W, P, l.grad_new_v + place * P, slope, p.gates);
                    activate(W * vectors, zv, active, unused);
                    for (int64_t j = 0; j < W * vectors; j++)
                        store(own_v + j * WIDTH, gate_slopes(slope + j * HALF, load(active + j * WIDTH)));
                    start = {own_v, p.z};
                }
                multiply<BY_ROWS>(W, p.z, {own_h, p.z, p.z}, w + p.link_back, p.z, own_v, p.z, start, prefetcher);
                add_rows(W, p.z, own_v, totals);
                add_rows(W, p.z, own_h, totals + p.z);
                for (int stack = 0; stack < 2 && bias_at_places; stack++)
                    for (int64_t j = 0; j < W; j++)
                        for (int64_t c = 0; c < 2 * P; c++)
                            l.grad_bias(stack)[(place + j) * 2 * P + c] =
                                (stack ? own_h : own_v)[j * p.z + packed_index(c, P)];

                combine_slopes(p.tiles, p.z, own_v, slopes + r * row_z, apart_z);
                if (l.grad_v) {
                    combine_inputs(p.tiles, p.z, dv, backs + r * row_z, apart_z);
                    multiply<BY_ROWS>(W, p.taps_wide, {own_h, p.z, p.z}, w + p.horizontal_back, p.taps_wide, taps,
                                      p.taps_wide, {nullptr, 0}, prefetcher);
                    add_taps(W, C, taps, p.taps_wide, l.taps > 1,
                             l.residual && l.grad_new_h ? l.grad_new_h + place * C : nullptr, l.grad_h + place * C);
                }
                if (l.grad_read) {
                    multiply<BY_ROWS>(W, p.reads_wide, {own_h, p.z, p.z}, w + p.read_back, p.reads_wide, reads,
                                      p.reads_wide, {nullptr, 0}, prefetcher);
                    rows_out(W, l.reads, reads, p.reads_wide, nullptr, l.grad_read + place * l.reads);
                }
                if (l.reads)
                    multiply<BY_COLUMNS>(l.reads, p.z, {l.read + place * l.reads, l.reads, W}, own_h, p.z,
                                         sums + p.read, p.z, {sums + p.read, p.z}, prefetcher);
            }

            // Gradients of the weights. Between rows lie zeros, over which a product may pass.
            const float* linked = l.saved + image * p.saved + top * p.pitch * p.z;
            const int64_t depth = rows * p.pitch - 1;
            for (int64_t k = 0; k < PRODUCTS; k++)
                for (int64_t a = 0; a < l.taps; a++) {
                    float* own = sums + p.vertical + (k * l.taps + a) * C * p.z;
                    multiply<BY_COLUMNS>(C, p.z, {inputs + k * apart_in + a * row_in, C, rows * p.tiles},
                                         slopes + k * apart_z, p.z, own, p.z, {own, p.z}, prefetcher);
                }
            multiply<BY_COLUMNS>(l.taps * C, p.z, {rows_h, C, depth}, dh, p.z, sums + p.horizontal, p.z,
                                 {sums + p.horizontal, p.z}, prefetcher);
            multiply<BY_COLUMNS>(p.z, p.z, {linked, p.z, depth}, dh, p.z, sums + p.link, p.z, {sums + p.link, p.z},
                                 prefetcher);
            multiply<BY_COLUMNS>(p.gates, p.outputs, {gated, p.gates, rows * W}, outs, p.outputs, sums + p.out,
                                 p.outputs, {sums + p.out, p.outputs}, prefetcher);
            add_rows(rows * W, p.outputs, outs, sums + p.out_bias);

            if (!l.grad_v) continue;
            for (int64_t k = 0; k < PRODUCTS; k++)
                multiply<BY_ROWS>(rows * p.tiles, p.taps_wide, {backs + k * apart_z, p.z, p.z},
                                  w + p.vertical_back + k * p.z * p.taps_wide, p.taps_wide,
                                  products + k * product + row_back, p.taps_wide, {nullptr, 0}, prefetcher);
            for (int64_t r = 0; r < rows; r++) {  // each row of slopes is for the row above and, with two taps, its own
                const float* here = products + (r + 1) * row_back;
                const bool both = l.taps > 1;
                if (top + r) give_v(image, top + r - 1, here, both ? here - row_back + C : nullptr);
                if (top + r == H - 1) give_v(image, H - 1, nullptr, both ? here + C : nullptr);
            }
        }
        for (int stack = 0; stack < 2 && !bias_at_places; stack++)
            for (int64_t c = 0; c < 2 * P; c++)
                l.grad_bias(stack)[image * 2 * P + c] = totals[stack * p.z + packed_index(c, P)];
    }
}
