// A range of images through a layer, with products of bfloat16 numbers.

#pragma once

#include "gated_layer/bf16_plan.h"
#include "gated_layer/forward.h"

#ifdef HAS_AMX

static void amx_forward(const Layer& l, int64_t first, int64_t last) {
    const AmxPlan p(l);
    const int64_t H = l.height, W = l.width, P = l.planes, C = l.inputs;
    const bool bias_at_places = l.places > 1;
    const int64_t rows = p.blocks * p.rows, row_in = (W + 2) * C;
    Scratch scratch(rows * (2 * p.z + p.outputs) + W * (3 * p.z + p.gates) + p.outputs + 3 * Shorts::room(p, row_in) +
                    3 * Shorts::room(p, W * p.z) + Shorts::room(p, W * p.gates) + Shorts::room(p, W * l.reads) + 1024);
    float *zv = scratch.take(rows * p.z), *zh = scratch.take(rows * p.z), *out = scratch.take(rows * p.outputs);
    float *bias_v = scratch.take(W * p.z, true), *bias_h = scratch.take(W * p.z, true);
    float *active = scratch.take(W * p.z), *gated = scratch.take(W * p.gates), *out_bias = scratch.take(p.outputs, true);
    Shorts shorts(scratch, p);
    Short *above = shorts.take(row_in), *own = shorts.take(row_in), *row_h = shorts.take(row_in);
    Short *z = shorts.take(W * p.z), *keep_z = shorts.take(W * p.z), *keep_active = shorts.take(W * p.z);
    Short *gate = shorts.take(W * p.gates), *read = shorts.take(W * l.reads);
    const int64_t bias_step = bias_at_places ? p.z : 0;
    float* saved = nullptr;  // where what is saved of the row before goes, while this one is computed
    std::copy(l.out_bias, l.out_bias + P + l.skip, out_bias);
    const Tiles tiles(p.rows);
    Prefetcher prefetcher;

    auto keep = [&] {
        if (!saved) return;
        prefetcher.stream((float*)keep_z, saved, W * p.z / 2);
        prefetcher.stream((float*)keep_active, saved + H * W * p.z / 2, W * p.z / 2);
    };
    // total [and ``shorter``] += start; its activations and gates.
    auto gates_of = [&](float* total, const float* start, Short* shorter) {
        for (int64_t j = 0; j < W; j++)
            for (int64_t c = 0; c < p.z; c += WIDTH) {
                const V sum = load(total + j * p.z + c) + load(start + j * bias_step + c);
                store(total + j * p.z + c, sum);
                if (shorter) store_short(shorter + j * p.z + c, sum);
            }
        activate(W * p.columns, total, active, gated);
    };

    for (int64_t image = first; image < last; image++) {
        std::memset(above, 0, row_in * sizeof(Short));
        if (!bias_at_places) biases(l, p.z, 0, image, 0, bias_v), biases(l, p.z, 1, image, 0, bias_h);
        for (int64_t i = 0; i < H; i++) {
            const int64_t place = (image * H + i) * W, next = place + W;
            prefetcher.finish();
            if (i + 1 < H || image + 1 < last) {
                call_next(l, next, prefetcher);
            }
            keep();
            if (bias_at_places) biases(l, p.z, 0, image, i, bias_v), biases(l, p.z, 1, image, i, bias_h);
            shorten(W * C, l.v + place * C, own + C);
            shorten(W * C, l.h + place * C, row_h + C);
            const Part of_v[] = {part(l, p.vertical[0], above, C), part(l, p.vertical[1], own, C)};
            multiply_tiles(p.blocks, p.rows, p.columns, of_v, l.taps, zv, p.z, false, prefetcher);
            gates_of(zv, bias_v, z);
            rows_out(W, P, gated, p.gates, l.residual ? l.v + place * P : nullptr, l.new_v + place * P);

            if (l.reads) shorten(W * l.reads, l.read + place * l.reads, read);
            const Part of_h[] = {part(l, p.horizontal, row_h, C), part(l, p.link, z, p.z),
                                 part(l, p.read, read, l.reads)};
            multiply_tiles(p.blocks, p.rows, p.columns, of_h, l.reads ? 3 : 2, zh, p.z, false, prefetcher);
            gates_of(zh, bias_h, nullptr);
            shorten(W * p.gates, gated, gate);
            const Part of_out = part(l, p.out, gate, p.gates);
            multiply_tiles(p.blocks, p.rows, p.outputs / WIDTH, &of_out, 1, out, p.outputs, false, prefetcher);
            for (int64_t j = 0; j < W; j++)
                for (int64_t c = 0; c < p.outputs; c += WIDTH)
                    store(out + j * p.outputs + c, load(out + j * p.outputs + c) + load(out_bias + c));
            rows_out(W, P, out, p.outputs, l.residual ? l.h + place * P : nullptr, l.new_h + place * P);
            rows_out(W, l.skip, out + P, p.outputs, l.total ? l.total + place * l.skip : nullptr,
                     l.skips + place * l.skip);
            if (l.saved) {
                prefetcher.finish();
                std::swap(z, keep_z);
                shorten(W * p.z, active, keep_active);
                saved = l.saved + image * p.saved + i * W * p.z / 2;
            }
            std::swap(above, own);
        }
    }
    keep();
    prefetcher.finish();
    Prefetcher::fence();
}

#endif
