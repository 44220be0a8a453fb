// The gradients of a range of images, with products of bfloat16 numbers.

#pragma once

#include "gated_layer/bf16_plan.h"
#include "gated_layer/backward.h"

#ifdef HAS_AMX

// thread: whose ``sums`` get the gradients of the weights.
static void amx_backward(const Layer& l, int64_t thread, int64_t first, int64_t last) {
    const AmxPlan p(l);
    const int64_t H = l.height, W = l.width, P = l.planes, C = l.inputs, rows_at_once = p.blocks * p.rows;
    const int64_t wide = padded(p.gates) / WIDTH, length = CHUNK * p.pitch + DEPTH;
    const bool bias_at_places = l.places > 1, both = l.taps > 1;
    auto shorts_room = [&](std::initializer_list<int64_t> sizes) {
        int64_t sum = 0;
        for (int64_t size : sizes) sum += Shorts::room(p, size);
        return sum;
    };
    Scratch scratch(
        W * (p.outputs + p.z + p.gates) + rows_at_once * (padded(p.gates) + p.z + p.inputs_long + p.reads_long) +
        2 * p.z +
        shorts_room({(W + 2) * C, (W + 2) * C, W * l.reads, (W + 2) * p.gates, (W + 2) * p.outputs, (W + 2) * p.z,
                     (W + 3) * p.z, (W + 3) * p.z, p.positions * p.inputs_long, p.positions * p.inputs_long,
                     p.positions * p.z, p.positions * p.gates_long, p.positions * p.reads_long, length * p.z,
                     length * p.z, length * p.outputs}) +
        2048);
    float *outs = scratch.take(W * p.outputs, true), *activity = scratch.take(W * p.z);
    float *slope = scratch.take(W * p.gates, true);
    float *wides = scratch.take(rows_at_once * padded(p.gates)), *linked = scratch.take(rows_at_once * p.z);
    float *back = scratch.take(rows_at_once * p.inputs_long), *reads = scratch.take(rows_at_once * p.reads_long);
    float *totals = scratch.take(2 * p.z);
    Shorts shorts(scratch, p);
    Short *row_v = shorts.take((W + 2) * C), *row_h = shorts.take((W + 2) * C), *row_read = shorts.take(W * l.reads);
    Short *gated = shorts.take((W + 2) * p.gates), *out = shorts.take((W + 2) * p.outputs);
    Short *dh = shorts.take((W + 2) * p.z), *dv = shorts.take((W + 3) * p.z), *dv_above = shorts.take((W + 3) * p.z);
    // Of a chunk: features, place after place; and gradients, places paired.
    Short *all_v = shorts.take(p.positions * p.inputs_long), *all_h = shorts.take(p.positions * p.inputs_long);
    Short *all_z = shorts.take(p.positions * p.z), *all_gated = shorts.take(p.positions * p.gates_long);
    Short *all_read = shorts.take(p.positions * p.reads_long);
    Short *pairs_v = shorts.take(length * p.z), *pairs_h = shorts.take(length * p.z);
    Short* pairs_out = shorts.take(length * p.outputs);
    float* sums = l.sums + thread * p.sums;
    const Chunks chunks(H);
    const Tiles tiles(p.rows);
    Prefetcher prefetcher;
    std::memset(sums, 0, p.sums * sizeof(float));
    all_v += DEPTH, all_h += DEPTH;  // a kernel reaches a place further to the left

    auto product = [&](int64_t columns, std::initializer_list<Part> parts, float* to, int64_t step) {
        multiply_tiles(p.blocks, p.rows, columns, parts.begin(), (int)parts.size(), to, step, false, prefetcher);
    };
    // The gradient of row i of v from the pre-activations' ones of the row below and of its own.
    auto give_v = [&](int64_t image, int64_t i, const Short* below, const Short* own) {
        const int64_t place = (image * H + i) * W * C;
        Part parts[2];
        int count = 0;
        if (below) parts[count++] = part(l, p.vertical_back[0], below, p.z);
        if (own) parts[count++] = part(l, p.vertical_back[1], own, p.z);
        if (count)
            multiply_tiles(p.blocks, p.rows, p.inputs_long / WIDTH, parts, count, back, p.inputs_long, false, prefetcher);
        else
            std::memset(back, 0, W * p.inputs_long * sizeof(float));
        rows_out(W, C, back, p.inputs_long, l.residual && l.grad_new_v ? l.grad_new_v + place : nullptr, l.grad_v + place);
    };
    // sums += the product of features, from position ``from`` of a chunk on, and gradients.
    auto add_gradient = [&](int64_t features, const Short* all, int64_t deep, const Short* pairs, int64_t size,
                            int64_t sum) {
        const Part one = {all, p.positions, deep, pairs, 2 * size, DEPTH, LONGEST * 2 * size};
        multiply_tiles(features / LONGEST, LONGEST, size / WIDTH, &one, 1, sums + sum, size, true, prefetcher);
    };

    for (int64_t image = first; image < last; image++) {
        std::memset(totals, 0, 2 * p.z * sizeof(float));
        for (int64_t c = 0; c < p.inputs_long; c++) std::memset(all_v + c * p.positions, 0, p.pitch * sizeof(Short));
        for (int64_t chunk = 0, top = 0, rows; chunk < chunks.count; chunk++, top += rows) {
            rows = chunks.rows(chunk);
            for (int64_t c = 0; c < p.inputs_long && chunk; c++) {  // the last row is now the one above
                Short* line = all_v + c * p.positions;
                std::memcpy(line, line + chunks.rows(chunk - 1) * p.pitch, p.pitch * sizeof(Short));
            }
            for (int64_t r = 0; r < rows; r++) {
                const int64_t i = top + r, place = (image * H + i) * W, next = place + W;
                const Short* zv = (const Short*)(l.saved + image * p.saved) + i * W * p.z;
                const Short* qh = zv + H * W * p.z;
                prefetcher.finish();
                if (i + 1 < H) {
                    prefetcher.prefetch((const float*)(zv + W * p.z), W * p.z / 2);
                    prefetcher.prefetch((const float*)(qh + W * p.z), W * p.z / 2);
                    call_next_back(l, place, next, prefetcher);
                }
                shorten(W * C, l.v + place * C, row_v + C);
                shorten(W * C, l.h + place * C, row_h + C);
                transpose(p.pitch, C, row_v + C, C, all_v + (r + 1) * p.pitch, p.positions);
                transpose(p.pitch, C, row_h + C, C, all_h + r * p.pitch, p.positions);
                transpose(W, p.z, zv, p.z, all_z + r * p.pitch, p.positions);

                // Through the outputs and the gate of h.
                if (l.grad_new_h) rows_in(W, P, l.grad_new_h + place * P, outs, p.outputs);
                if (l.grad_skips) rows_in(W, l.skip, l.grad_skips + place * l.skip, outs + P, p.outputs);
                add_rows(W, p.outputs, outs, sums + p.grad_out_bias);
                shorten(W * p.outputs, outs, out);
                product(wide, {part(l, p.out_back, out, p.outputs)}, wides, wide * WIDTH);
                for (int64_t c = 0; c < p.columns; c++) {
                    V sum = load(totals + p.z + c * WIDTH);
                    for (int64_t j = 0; j < W; j++) {
                        const V active = load_short(qh + j * p.z + c * WIDTH);
                        const V found = gate_slopes(wides + j * wide * WIDTH + c * HALF, active);
                        sum += found;
                        store_short(dh + j * p.z + c * WIDTH, found);
                        store_gates(gated + j * p.gates + c * HALF, active);
                        if (bias_at_places) store(activity + j * p.z + c * WIDTH, found);
                    }
                    store(totals + p.z + c * WIDTH, sum);
                }
                transpose(W, p.gates, gated, p.gates, all_gated + r * p.pitch, p.positions);
                auto for_places = [&](int stack) {
                    for (int64_t j = 0; j < W; j++)
                        for (int64_t c = 0; c < 2 * P; c++)
                            l.grad_bias(stack)[(place + j) * 2 * P + c] = activity[j * p.z + packed_index(c, P)];
                };
                if (bias_at_places) for_places(1);

                // Through the gate of v, and the link.
                product(p.columns, {part(l, p.link_back, dh, p.z)}, linked, p.z);
                if (l.grad_new_v) {
                    rows_in(W, P, l.grad_new_v + place * P, slope, p.gates);
                    for (int64_t c = 0; c < W * p.z; c += WIDTH) store(activity + c, activated(load_short(zv + c)));
                }
                for (int64_t c = 0; c < p.columns; c++) {
                    V sum = load(totals + c * WIDTH);
                    for (int64_t j = 0; j < W; j++) {
                        const int64_t at = j * p.z + c * WIDTH;
                        V found = load(linked + at);
                        if (l.grad_new_v) found += gate_slopes(slope + j * p.gates + c * HALF, load(activity + at));
                        sum += found;
                        store_short(dv + p.z + at, found);
                        if (bias_at_places) store(linked + at, found);
                    }
                    store(totals + c * WIDTH, sum);
                }
                if (bias_at_places) std::swap(activity, linked), for_places(0), std::swap(activity, linked);

                pair_rows(p.pitch / 2, p.z, dh, pairs_h + r * p.pitch * p.z);
                pair_rows(p.pitch / 2, p.z, dv + p.z, pairs_v + r * p.pitch * p.z);
                pair_rows(p.pitch / 2, p.outputs, out, pairs_out + r * p.pitch * p.outputs);

                if (l.grad_v) {
                    if (i) give_v(image, i - 1, dv, both ? dv_above : nullptr);
                    if (i == H - 1) give_v(image, i, nullptr, both ? dv : nullptr);
                    product(p.inputs_long / WIDTH, {part(l, p.horizontal_back, dh + (both ? 0 : p.z), p.z)}, back,
                            p.inputs_long);
                    rows_out(W, C, back, p.inputs_long, l.residual && l.grad_new_h ? l.grad_new_h + place * C : nullptr,
                             l.grad_h + place * C);
                }
                if (l.grad_read) {
                    product(p.reads_long / WIDTH, {part(l, p.read_back, dh, p.z)}, reads, p.reads_long);
                    rows_out(W, l.reads, reads, p.reads_long, nullptr, l.grad_read + place * l.reads);
                }
                if (l.reads) {
                    shorten(W * l.reads, l.read + place * l.reads, row_read);
                    transpose(W, l.reads, row_read, l.reads, all_read + r * p.pitch, p.positions);
                }
                std::swap(dv, dv_above);
            }

            // Gradients of the weights. Between rows and after the last lie zeros, over which a product may pass.
            const int64_t deep = tiles_of(rows * p.pitch, DEPTH), left = deep * DEPTH - rows * p.pitch;
            std::memset(pairs_v + rows * p.pitch * p.z, 0, left * p.z * sizeof(Short));
            std::memset(pairs_h + rows * p.pitch * p.z, 0, left * p.z * sizeof(Short));
            std::memset(pairs_out + rows * p.pitch * p.outputs, 0, left * p.outputs * sizeof(Short));
            Tiles::configure(LONGEST);
            for (int64_t tap = 0; tap < l.taps; tap++) {
                for (int64_t b = 0; b < 3; b++)
                    add_gradient(p.inputs_long, all_v + tap * p.pitch + b - 1, deep, pairs_v, p.z,
                                 p.grad_vertical + (tap * 3 + b) * p.inputs_long * p.z);
                add_gradient(p.inputs_long, all_h + tap - 1, deep, pairs_h, p.z,
                             p.grad_horizontal + tap * p.inputs_long * p.z);
            }
            add_gradient(p.z, all_z, deep, pairs_h, p.z, p.grad_link);
            if (l.reads) add_gradient(p.reads_long, all_read, deep, pairs_h, p.z, p.grad_read);
            add_gradient(p.gates_long, all_gated, deep, pairs_out, p.outputs, p.grad_out);
            Tiles::configure(p.rows);
        }
        for (int stack = 0; stack < 2 && !bias_at_places; stack++)
            for (int64_t c = 0; c < 2 * P; c++)
                l.grad_bias(stack)[image * 2 * P + c] = totals[stack * p.z + packed_index(c, P)];
    }
}

#endif
