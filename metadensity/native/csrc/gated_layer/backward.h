// The gradients of a range of images: what is the same whatever multiplies the matrices.

#pragma once

#include "gated_layer/layer.h"

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
    if (l.reads) prefetcher.prefetch(l.attended + next * l.reads, W * l.reads);
    if (l.grad_attended) prefetcher.prefetch_for_write(l.grad_attended + next * l.reads, W * l.reads);
}

// The same from pre-activations.
template <class Number>
void through_gate(int64_t size, const float* slopes, const Number* z, float* to) {
    for (int64_t c = 0; c < size; c += WIDTH)
        store(to + c, gate_slopes(slopes + c / 2, activated(load_number(z + c))));
}

// thread: whose ``sums`` get the gradients of the weights. Products: Float32Backward or Bf16Backward. It multiplies, and
// keeps of a chunk of rows what the gradients of the weights are made of.
template <class Products>
void backward(const Layer& l, int64_t thread, int64_t first, int64_t last) {
    typedef typename Products::Number Number;
    Products own = in_scratch<Products>(l, thread);
    const auto& p = own.p;
    const int64_t H = l.height, W = l.width, P = l.planes;
    const bool bias_at_places = l.places > 1;
    const Chunks chunks(H);
    std::memset(own.sums, 0, p.sums * sizeof(float));

    auto for_places = [&](int stack, int64_t place, const float* exact) {
        for (int64_t j = 0; j < W; j++)
            for (int64_t c = 0; c < 2 * P; c++)
                l.grad_bias(stack)[(place + j) * 2 * P + c] = exact[j * p.z + packed_index(c, P)];
    };
    for (int64_t image = first; image < last; image++) {
        std::memset(own.totals, 0, 2 * p.z * sizeof(float));
        own.begin_image();
        for (int64_t chunk = 0, top = 0, rows; chunk < chunks.count; chunk++, top += rows) {
            rows = chunks.rows(chunk);
            if (chunk) own.keep_last_row(chunks.rows(chunk - 1));
            for (int64_t r = 0; r < rows; r++) {
                const int64_t i = top + r, place = (image * H + i) * W;
                own.prefetcher.finish();
                own.begin_row(image, i, r, place);
                if (i + 1 < H) call_next_back(l, place, place + W, own.prefetcher);
                own.inputs_of(r, place);

                // Through the outputs and the gate of h.
                float* out = own.out_of(r);
                if (l.grad_new_h) rows_in(W, P, l.grad_new_h + place * P, out, p.outputs);
                if (l.grad_skips) rows_in(W, l.skip, l.grad_skips + place * l.skip, out + P, p.outputs);
                own.through_outputs(r);
                auto* through = bias_at_places ? through_gates<true, Number> : through_gates<false, Number>;
                through(W, p.z, p.gates, own.wide, own.wide_step, own.active_h, own.gated_of(r), own.dh_of(r),
                        own.totals + p.z, own.exact);
                if (bias_at_places) for_places(1, place, own.exact);

                // Through the gate of v, and the link.
                float* dv = own.dv_of();
                if (l.grad_new_v) {
                    rows_in(W, P, l.grad_new_v + place * P, own.slope, p.gates);
                    through_gate(W * p.z, own.slope, own.z_v, dv);
                }
                own.through_link(r, dv);
                if (bias_at_places) for_places(0, place, dv);
                own.finish_row(image, i, r, place);
            }
            own.weights_of(image, top, rows);
        }
        for (int stack = 0; stack < 2 && !bias_at_places; stack++)
            for (int64_t c = 0; c < 2 * P; c++)
                l.grad_bias(stack)[image * 2 * P + c] = own.totals[stack * p.z + packed_index(c, P)];
    }
}

// The gradient of row i of v, ``back`` or zero if that is null, and what goes past the layer.
inline void give_v(const Layer& l, int64_t image, int64_t i, const float* back, int64_t step) {
    const int64_t size = l.width * l.inputs, place = (image * l.height + i) * size;
    const float* past = l.residual && l.grad_new_v ? l.grad_new_v + place : nullptr;
    if (back)
        rows_out(l.width, l.inputs, back, step, past, l.grad_v + place);
    else if (past)
        std::memcpy(l.grad_v + place, past, size * sizeof(float));
    else
        std::memset(l.grad_v + place, 0, size * sizeof(float));
}
