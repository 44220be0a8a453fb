// The products of the gradients in float32. The gradient of v and that of its weights are taken by combined inputs, as in
// gated_layer/winograd.h, a chunk of rows at a time.

#pragma once

#include "gated_layer/backward.h"

struct Float32Backward {
    typedef float Number;
    const Layer& l;
    const Plan p;
    // Of the rows of a chunk and, of the combined inputs and of the products for the gradient of v, the one above it.
    const int64_t row_in, apart_in, row_z, apart_z, row_back, product, wide_step;
    float *row_v, *rows_h, *inputs, *slopes, *backs, *products, *dv, *dh;  // dv, dh: of the pre-activations
    float *outs, *gated, *wide, *exact, *back, *reads, *taps, *totals, *slope, *sums;
    const float *z_v = nullptr, *active_h = nullptr;  // what was saved of a row
    Prefetcher prefetcher;

    Float32Backward(Scratch& scratch, const Layer& l, int64_t thread)
        : l(l), p(l), row_in(p.tiles * l.inputs), apart_in((CHUNK + 1) * row_in + WIDTH), row_z(p.tiles * p.z),
          apart_z(CHUNK * row_z), row_back(p.tiles * p.taps_wide), product((CHUNK + 1) * row_back),
          wide_step(p.gates_wide) {
        const int64_t W = l.width, C = l.inputs;
        row_v = scratch.take((TILE * p.tiles + 2) * C, true), rows_h = scratch.take(CHUNK * p.pitch * C, true);
        inputs = scratch.take(PRODUCTS * apart_in), slopes = scratch.take(PRODUCTS * apart_z);
        backs = scratch.take(PRODUCTS * apart_z), products = scratch.take(PRODUCTS * product);
        dv = scratch.take((TILE * p.tiles + 2) * p.z, true), dh = scratch.take(CHUNK * p.pitch * p.z, true);
        outs = scratch.take(CHUNK * W * p.outputs, true), gated = scratch.take(CHUNK * W * p.gates);
        wide = scratch.take(W * p.gates_wide), exact = scratch.take(W * p.z);
        back = scratch.take(W * p.inputs_wide), reads = scratch.take(W * p.reads_wide);
        taps = scratch.take(p.pitch * p.taps_wide, true), totals = scratch.take(2 * p.z);
        slope = scratch.take(W * p.gates, true), sums = l.sums + thread * p.sums;
    }
    float* out_of(int64_t r) { return outs + r * l.width * p.outputs; }
    float* gated_of(int64_t r) { return gated + r * l.width * p.gates; }
    float* dh_of(int64_t r) { return dh + r * p.pitch * p.z; }
    float* dv_of() { return dv + p.z; }

    void begin_image() { std::memset(inputs, 0, PRODUCTS * apart_in * sizeof(float)); }

    void keep_last_row(int64_t before) {  // it is now the one above
        for (int64_t k = 0; k < PRODUCTS; k++) {
            copy(row_in, inputs + k * apart_in + before * row_in, nullptr, inputs + k * apart_in);
            copy(row_back, products + k * product + before * row_back, nullptr, products + k * product);
        }
    }

    void begin_row(int64_t image, int64_t i, int64_t, int64_t) {
        z_v = l.saved + image * p.saved + i * p.pitch * p.z;
        active_h = l.saved + image * p.saved + (l.height * p.pitch + i * l.width) * p.z;
        if (i + 1 == l.height) return;
        prefetcher.prefetch(z_v + p.pitch * p.z, p.pitch * p.z);
        prefetcher.prefetch(active_h + l.width * p.z, l.width * p.z);
    }

    void inputs_of(int64_t r, int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        copy(W * C, l.v + place * C, nullptr, row_v + C);
        copy(W * C, l.h + place * C, nullptr, rows_h + r * p.pitch * C + C);
        combine_inputs(p.tiles, C, row_v, inputs + (r + 1) * row_in, apart_in);
    }

    void through_outputs(int64_t r) {
        multiply<BY_ROWS>(l.width, p.gates_wide, {out_of(r), p.outputs, l.planes + l.skip}, l.packed + p.out_back,
                          p.gates_wide, wide, p.gates_wide, {nullptr, 0}, prefetcher);
    }

    void through_link(int64_t r, float* to) {
        multiply<BY_ROWS>(l.width, p.z, {dh_of(r), p.z, p.z}, l.packed + p.link_back, p.z, to, p.z,
                          {l.grad_new_v ? to : nullptr, p.z}, prefetcher);
        add_rows(l.width, p.z, to, totals);
    }

    void finish_row(int64_t, int64_t, int64_t r, int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        const float* own = dh_of(r);
        combine_slopes(p.tiles, p.z, dv + p.z, slopes + r * row_z, apart_z);
        if (l.grad_v) {
            combine_inputs(p.tiles, p.z, dv, backs + r * row_z, apart_z);
            multiply<BY_ROWS>(W, p.taps_wide, {own, p.z, p.z}, l.packed + p.horizontal_back, p.taps_wide, taps,
                              p.taps_wide, {nullptr, 0}, prefetcher);
            add_taps(W, C, taps, p.taps_wide, l.taps > 1,
                     l.residual && l.grad_new_h ? l.grad_new_h + place * C : nullptr, l.grad_h + place * C);
        }
        if (l.grad_attended) {
            multiply<BY_ROWS>(W, p.reads_wide, {own, p.z, p.z}, l.packed + p.read_back, p.reads_wide, reads,
                              p.reads_wide, {nullptr, 0}, prefetcher);
            rows_out(W, l.reads, reads, p.reads_wide, nullptr, l.grad_attended + place * l.reads);
        }
        if (l.reads) add(p.read, l.reads, {l.attended + place * l.reads, l.reads, W}, own, p.z);
    }

    // Of ``rows`` rows from row ``top`` on. Between rows lie zeros, over which a product may pass.
    void weights_of(int64_t image, int64_t top, int64_t rows) {
        const int64_t C = l.inputs, depth = rows * p.pitch - 1;
        for (int64_t k = 0; k < PRODUCTS; k++)
            for (int64_t a = 0; a < l.taps; a++)
                add(p.vertical + (k * l.taps + a) * C * p.z, C,
                    {inputs + k * apart_in + a * row_in, C, rows * p.tiles}, slopes + k * apart_z, p.z);
        add(p.horizontal, l.taps * C, {rows_h, C, depth}, dh, p.z);
        add(p.link, p.z, {l.saved + image * p.saved + top * p.pitch * p.z, p.z, depth}, dh, p.z);
        add(p.out, p.gates, {gated, p.gates, rows * l.width}, outs, p.outputs);
        add_rows(rows * l.width, p.outputs, outs, sums + p.out_bias);

        if (!l.grad_v) return;
        for (int64_t k = 0; k < PRODUCTS; k++)
            multiply<BY_ROWS>(rows * p.tiles, p.taps_wide, {backs + k * apart_z, p.z, p.z},
                              l.packed + p.vertical_back + k * p.z * p.taps_wide, p.taps_wide,
                              products + k * product + row_back, p.taps_wide, {nullptr, 0}, prefetcher);
        for (int64_t r = 0; r < rows; r++) {  // each row of slopes is for the row above and, with two taps, its own
            const float* here = products + (r + 1) * row_back;
            const bool both = l.taps > 1;
            if (top + r) give(image, top + r - 1, here, both ? here - row_back + C : nullptr);
            if (top + r == l.height - 1) give(image, top + r, nullptr, both ? here + C : nullptr);
        }
    }

   private:
    // sums += the product of a factor, transposed, and gradients.
    void add(int64_t sum, int64_t rows, const Factor& factor, const float* gradients, int64_t width) {
        multiply<BY_COLUMNS>(rows, width, factor, gradients, width, sums + sum, width, {sums + sum, width}, prefetcher);
    }
    // The gradient of row i of v from the products of the row below and of its own.
    void give(int64_t image, int64_t i, const float* below, const float* own) {
        if (below || own)
            combine_products(l.width, l.inputs, below ? below : own, below ? own : nullptr, p.taps_wide, product, nullptr,
                             back, p.inputs_wide);
        give_v(l, image, i, below || own ? back : nullptr, p.inputs_wide);
    }
};
