// The products of the forward pass in float32: the vertical convolution of a chunk of rows by combined inputs, as in
// gated_layer/winograd.h; all others a row at a time.

#pragma once

#include "gated_layer/forward.h"

struct Float32Forward {
    const Layer& l;
    const Plan p;
    const bool bias_at_places;
    const int64_t row_in, apart, product;  // of the rows of a chunk and, of the combined inputs, the one above it
    float *row_v, *row_h, *inputs, *products, *z, *zh, *active, *bias_v, *bias_h, *gated, *out;
    float *saved_z, *saved_active, *to_z = nullptr, *to_active = nullptr;  // of the row before, and where they go
    Prefetcher prefetcher;

    Float32Forward(Scratch& scratch, const Layer& l)
        : l(l), p(l), bias_at_places(l.places > 1), row_in(p.tiles * l.inputs), apart((CHUNK + 1) * row_in + WIDTH),
          product(CHUNK * p.tiles * p.z) {
        const int64_t W = l.width, C = l.inputs;
        row_v = scratch.take((TILE * p.tiles + 2) * C, true), row_h = scratch.take(p.pitch * C, true);
        inputs = scratch.take(PRODUCTS * apart), products = scratch.take(PRODUCTS * product);
        z = scratch.take(p.pitch * p.z, true), zh = scratch.take(W * p.z), active = scratch.take(W * p.z);
        bias_v = scratch.take(W * p.z, true), bias_h = scratch.take(W * p.z, true);
        gated = scratch.take(W * p.gates), out = scratch.take(W * p.outputs);
        saved_z = scratch.take(p.pitch * p.z, true), saved_active = scratch.take(W * p.z);
    }

    void begin_image() { std::memset(inputs, 0, PRODUCTS * apart * sizeof(float)); }

    // ``rows`` rows from row ``top`` of all images on; before: those of the chunk before, none in the first of an image.
    void begin_chunk(int64_t top, int64_t rows, int64_t before) {
        const int64_t W = l.width, C = l.inputs;
        for (int64_t k = 0; k < PRODUCTS && before; k++)  // the last row is now the one above
            copy(row_in, inputs + k * apart + before * row_in, nullptr, inputs + k * apart);
        for (int64_t r = 0; r < rows; r++) {
            copy(W * C, l.v + (top + r) * W * C, nullptr, row_v + C);
            combine_inputs(p.tiles, C, row_v, inputs + (r + 1) * row_in, apart);
        }
        for (int64_t k = 0; k < PRODUCTS; k++)  // the bias goes with product 1, which all four places have once
            multiply<BY_ROWS>(rows * p.tiles, p.z, {inputs + k * apart, C, C, l.taps, row_in},
                              l.packed + p.vertical + k * l.taps * C * p.z, p.z, products + k * product, p.z,
                              {k == 1 && !bias_at_places ? bias_v : nullptr, 0}, prefetcher);
    }

    void vertical(int64_t r, int64_t) {
        combine_products(l.width, p.z, products + r * p.tiles * p.z, nullptr, p.z, product,
                         bias_at_places ? bias_v : nullptr, z, p.z);
        activate(l.width * p.z / WIDTH, z, active, gated);
    }

    void horizontal(int64_t place) {
        const int64_t W = l.width, C = l.inputs;
        copy(W * C, l.h + place * C, nullptr, row_h + C);
        multiply<BY_ROWS>(W, p.z, {row_h, C, l.taps * C}, l.packed + p.horizontal, p.z, zh, p.z,
                          {bias_h, bias_at_places ? p.z : 0}, prefetcher);
        multiply<BY_ROWS>(W, p.z, {z, p.z, p.z}, l.packed + p.link, p.z, zh, p.z, {zh, p.z}, prefetcher);
        if (l.reads)
            multiply<BY_ROWS>(W, p.z, {l.attended + place * l.reads, l.reads, l.reads}, l.packed + p.read, p.z, zh, p.z,
                              {zh, p.z}, prefetcher);
        activate(W * p.z / WIDTH, zh, active, gated);
    }

    void outputs() {
        multiply<BY_ROWS>(l.width, p.outputs, {gated, p.gates, p.gates}, l.packed + p.out, p.outputs, out, p.outputs,
                          {l.packed + p.out_bias, 0}, prefetcher);
    }

    void save(int64_t image, int64_t i) {
        to_z = l.saved + image * p.saved + i * p.pitch * p.z;
        to_active = l.saved + image * p.saved + (l.height * p.pitch + i * l.width) * p.z;
        std::swap(z, saved_z), std::swap(active, saved_active);
    }
    void stream_saved() {
        if (!to_z) return;
        prefetcher.stream(saved_z, to_z, p.pitch * p.z), prefetcher.stream(saved_active, to_active, l.width * p.z);
    }
};
