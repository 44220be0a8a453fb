// A range of images through a layer: what is the same whatever multiplies the matrices.

#pragma once

#include "gated_layer/layer.h"

// Calls for what the row of places from ``next`` on will need.
inline void call_next(const Layer& l, int64_t next, Prefetcher& prefetcher) {
    const int64_t W = l.width, P = l.planes, C = l.inputs;
    prefetcher.prefetch(l.v + next * C, W * C), prefetcher.prefetch(l.h + next * C, W * C);
    prefetcher.prefetch_for_write(l.new_v + next * P, W * P), prefetcher.prefetch_for_write(l.new_h + next * P, W * P);
    prefetcher.prefetch_for_write(l.skips + next * l.skip, W * l.skip);
    if (l.skip_sum) prefetcher.prefetch(l.skip_sum + next * l.skip, W * l.skip);
    if (l.reads) prefetcher.prefetch(l.attended + next * l.reads, W * l.reads);
}

// The biases of a task, or of the places of a row of it, as pre-activations are ordered.
inline void biases(const Layer& l, int64_t z, int stack, int64_t image, int64_t row, float* to) {
    const int64_t count = l.places > 1 ? l.width : 1, size = 2 * l.planes;
    const float* from = l.bias(stack) + ((image % l.tasks) * l.places + (l.places > 1 ? row * l.width : 0)) * size;
    for (int64_t j = 0; j < count; j++)
        for (int64_t c = 0; c < size; c++) to[j * z + packed_index(c, l.planes)] = from[j * size + c];
}

// Products: Float32Forward or Bf16Forward. It multiplies, keeps the rows on the way, and writes what is saved of a row
// while the next one is computed.
template <class Products>
void forward(const Layer& l, int64_t first, int64_t last) {
    Products own = in_scratch<Products>(l);
    const auto& p = own.p;
    const int64_t H = l.height, W = l.width, P = l.planes;
    const bool bias_at_places = l.places > 1;
    const Chunks chunks(H);
    for (int64_t image = first; image < last; image++) {
        own.begin_image();
        if (!bias_at_places) biases(l, p.z, 0, image, 0, own.bias_v), biases(l, p.z, 1, image, 0, own.bias_h);
        for (int64_t chunk = 0, top = 0, rows; chunk < chunks.count; chunk++, top += rows) {
            rows = chunks.rows(chunk);
            own.begin_chunk(image * H + top, rows, chunk ? chunks.rows(chunk - 1) : 0);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t i = top + r, place = (image * H + i) * W, next = place + W;
                own.prefetcher.finish();
                if (i + 1 < H || image + 1 < last) call_next(l, next, own.prefetcher);
                own.stream_saved();
                if (bias_at_places) biases(l, p.z, 0, image, i, own.bias_v), biases(l, p.z, 1, image, i, own.bias_h);
                own.vertical(r, place);
                rows_out(W, P, own.gated, p.gates, l.residual ? l.v + place * P : nullptr, l.new_v + place * P);
                own.horizontal(place);
                own.outputs();
                rows_out(W, P, own.out, p.outputs, l.residual ? l.h + place * P : nullptr, l.new_h + place * P);
                rows_out(W, l.skip, own.out + P, p.outputs, l.skip_sum ? l.skip_sum + place * l.skip : nullptr,
                         l.skips + place * l.skip);
                if (l.saved) own.save(image, i);
            }
        }
    }
    own.prefetcher.finish();
    own.stream_saved();
    own.prefetcher.finish();
    Prefetcher::fence();
}
