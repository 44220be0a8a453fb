// A range of images through a layer.

#pragma once

#include "gated_layer/layer.h"

// Calls for what the row of places from ``next`` on will need.
inline void call_next(const Layer& l, int64_t next, Prefetcher& prefetcher) {
    const int64_t W = l.width, P = l.planes, C = l.inputs;
    prefetcher.prefetch(l.v + next * C, W * C), prefetcher.prefetch(l.h + next * C, W * C);
    prefetcher.prefetch_for_write(l.new_v + next * P, W * P), prefetcher.prefetch_for_write(l.new_h + next * P, W * P);
    prefetcher.prefetch_for_write(l.skips + next * l.skip, W * l.skip);
    if (l.total) prefetcher.prefetch(l.total + next * l.skip, W * l.skip);
    if (l.reads) prefetcher.prefetch(l.read + next * l.reads, W * l.reads);
}

// The biases of a task, or of the places of a row of it, as pre-activations are ordered.
inline void biases(const Layer& l, int64_t z, int stack, int64_t image, int64_t row, float* to) {
    const int64_t count = l.places > 1 ? l.width : 1, size = 2 * l.planes;
    const float* from = l.bias(stack) + ((image % l.tasks) * l.places + (l.places > 1 ? row * l.width : 0)) * size;
    for (int64_t j = 0; j < count; j++)
        for (int64_t c = 0; c < size; c++) to[j * z + packed_index(c, l.planes)] = from[j * size + c];
}

static void forward(const Layer& l, int64_t first, int64_t last) {
    const Plan p(l);
    const int64_t H = l.height, W = l.width, P = l.planes, C = l.inputs, vectors = W * p.z / WIDTH;
    const bool bias_at_places = l.places > 1;
    // Of the rows of a chunk and, of the combined inputs, the one above it.
    const int64_t row_in = p.tiles * C, apart = (CHUNK + 1) * row_in + WIDTH, product = CHUNK * p.tiles * p.z;
    Scratch scratch((TILE * p.tiles + 2) * C + p.pitch * (C + 2 * p.z) + PRODUCTS * (apart + product) +
                    W * (5 * p.z + p.gates + p.outputs) + 1024);
    float *row_v = scratch.take((TILE * p.tiles + 2) * C, true), *row_h = scratch.take(p.pitch * C, true);
    float *inputs = scratch.take(PRODUCTS * apart), *products = scratch.take(PRODUCTS * product);
    float *z = scratch.take(p.pitch * p.z, true), *zh = scratch.take(W * p.z), *active = scratch.take(W * p.z);
    float *bias_v = scratch.take(W * p.z, true), *bias_h = scratch.take(W * p.z, true);
    float *gated = scratch.take(W * p.gates), *out = scratch.take(W * p.outputs);
    // What is saved of a row is written out while the next one is computed.
    float *other_z = scratch.take(p.pitch * p.z, true), *other_active = scratch.take(W * p.z);
    float *keep_z = nullptr, *keep_active = nullptr;
    const float* w = l.packed;
    const Chunks chunks(H);
    Prefetcher prefetcher;

    auto keep = [&] {
        if (keep_z) prefetcher.stream(z, keep_z, p.pitch * p.z), prefetcher.stream(active, keep_active, W * p.z);
    };
    for (int64_t image = first; image < last; image++) {
        std::memset(inputs, 0, PRODUCTS * apart * sizeof(float));
        if (!bias_at_places) biases(l, p.z, 0, image, 0, bias_v), biases(l, p.z, 1, image, 0, bias_h);
        for (int64_t chunk = 0, top = 0, rows; chunk < chunks.count; chunk++, top += rows) {
            rows = chunks.rows(chunk);
            for (int64_t k = 0; k < PRODUCTS && chunk; k++)  // the last row is now the one above
                copy(row_in, inputs + k * apart + chunks.rows(chunk - 1) * row_in, nullptr, inputs + k * apart);
            for (int64_t r = 0; r < rows; r++) {
                copy(W * C, l.v + (image * H + top + r) * W * C, nullptr, row_v + C);
                combine_inputs(p.tiles, C, row_v, inputs + (r + 1) * row_in, apart);
            }
            for (int64_t k = 0; k < PRODUCTS; k++)  // the bias goes with product 1, which all four places have once
                multiply<BY_ROWS>(rows * p.tiles, p.z, {inputs + k * apart, C, C, l.taps, row_in},
                                  w + p.vertical + k * l.taps * C * p.z, p.z, products + k * product, p.z,
                                  {k == 1 && !bias_at_places ? bias_v : nullptr, 0}, prefetcher);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t i = top + r, place = (image * H + i) * W, next = place + W;
                prefetcher.finish();
                if (i + 1 < H || image + 1 < last) {
                    call_next(l, next, prefetcher);
                }
                keep();
                std::swap(z, other_z), std::swap(active, other_active);
                if (l.saved) {
                    keep_z = l.saved + image * p.saved + i * p.pitch * p.z;
                    keep_active = l.saved + image * p.saved + (H * p.pitch + i * W) * p.z;
                }
                if (bias_at_places) biases(l, p.z, 0, image, i, bias_v), biases(l, p.z, 1, image, i, bias_h);
                combine_products(W, p.z, products + r * p.tiles * p.z, nullptr, p.z, product,
                                 bias_at_places ? bias_v : nullptr, z, p.z);
                activate(vectors, z, active, gated);
                rows_out(W, P, gated, p.gates, l.residual ? l.v + place * P : nullptr, l.new_v + place * P);
                copy(W * C, l.h + place * C, nullptr, row_h + C);
                multiply<BY_ROWS>(W, p.z, {row_h, C, l.taps * C}, w + p.horizontal, p.z, zh, p.z,
                                  {bias_h, bias_at_places ? p.z : 0}, prefetcher);
                multiply<BY_ROWS>(W, p.z, {z, p.z, p.z}, w + p.link, p.z, zh, p.z, {zh, p.z}, prefetcher);
                if (l.reads)
                    multiply<BY_ROWS>(W, p.z, {l.read + place * l.reads, l.reads, l.reads}, w + p.read, p.z, zh, p.z,
                                      {zh, p.z}, prefetcher);
                activate(vectors, zh, active, gated);
                multiply<BY_ROWS>(W, p.outputs, {gated, p.gates, p.gates}, w + p.out, p.outputs, out, p.outputs,
                                  {w + p.out_bias, 0}, prefetcher);
                rows_out(W, P, out, p.outputs, l.residual ? row_h + C : nullptr, l.new_h + place * P);
                rows_out(W, l.skip, out + P, p.outputs, l.total ? l.total + place * l.skip : nullptr,
                         l.skips + place * l.skip);
            }
        }
    }
    prefetcher.finish();
    keep();
    prefetcher.finish();
    Prefetcher::fence();
}
