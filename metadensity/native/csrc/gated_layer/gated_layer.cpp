// One gated layer in two dimensions, forward and backward, for a range of images: GatedLayer.forward in nn/causal.py,
// with kernels three wide.
//
// Images are float32 with the features of a place after one another (channels last). They are taken through the whole
// layer by rows, in the nearest caches. Pre-activations are ordered by half vectors: a, their b, and so on, with zeros up
// to a multiple of half a vector of planes. Each thread adds up its own gradients of weights, image after image, and
// ``finish`` adds those of the threads in order: for a number of threads the result is the same each time.

#include "gated_layer/bf16_backward.h"
#include "gated_layer/bf16_forward.h"
#include "gated_layer/float32_backward.h"
#include "gated_layer/float32_forward.h"

LAYOUT(gated_layer, Layer, LAYER_FIELDS)

extern "C" {
// Whether products of bfloat16 numbers can be had: ``amx`` may be 1.
int64_t layer_amx() {
#ifdef HAS_AMX
    return may_use_tiles();
#else
    return 0;
#endif
}

// Numbers in ``packed``; in ``sums``, a thread; and in ``saved``, an image.
void layer_sizes(const Layer* l, int64_t* sizes) {
#ifdef HAS_AMX
    if (l->amx) {
        const AmxPlan p(*l);
        sizes[0] = (p.packed + 1) / 2, sizes[1] = p.sums, sizes[2] = p.saved;
        return;
    }
#endif
    const Plan p(*l);
    sizes[0] = p.packed, sizes[1] = p.sums, sizes[2] = p.saved;
}

void layer_pack(const Layer* l) {
#ifdef HAS_AMX
    if (l->amx) return amx_pack(*l);
#endif
    const Plan p(*l);
    std::memset(l->packed, 0, p.packed * sizeof(float));
    const float* weights[] = {l->horizontal, l->link, l->from_attention, l->out, l->out_bias};
    each_weight(*l, p, [&](int which, int64_t to, int64_t from, int64_t back) {
        l->packed[to] = weights[which][from];
        if (back >= 0) l->packed[back] = weights[which][from];
    });
    each_vertical(*l, p, [&](int64_t to, int64_t from, int64_t back) {
        const float* g = l->vertical + from;
        float forth[PRODUCTS], mirrored[PRODUCTS];
        combine_weights(g[0], g[1], g[2], forth);
        combine_weights(g[2], g[1], g[0], mirrored);
        for (int64_t k = 0; k < PRODUCTS; k++) {
            l->packed[to + k * l->taps * l->inputs * p.z] = forth[k];
            l->packed[back + k * p.z * p.taps_wide] = mirrored[k];
        }
    });
}

void layer_forward(const Layer* l, int64_t, int64_t first, int64_t last) {
#ifdef HAS_AMX
    if (l->amx) {
        const Tiles tiles(AmxPlan(*l).rows);
        return forward<Bf16Forward>(*l, first, last);
    }
#endif
    forward<Float32Forward>(*l, first, last);
}

void layer_backward(const Layer* l, int64_t thread, int64_t first, int64_t last) {
#ifdef HAS_AMX
    if (l->amx) {
        const Tiles tiles(AmxPlan(*l).rows);
        return backward<Bf16Backward>(*l, thread, first, last);
    }
#endif
    backward<Float32Backward>(*l, thread, first, last);
}

// After all threads: the gradients of the weights.
void layer_finish(const Layer* l) {
#ifdef HAS_AMX
    if (l->amx) return amx_finish(*l);
#endif
    const Plan p(*l);
    add_threads(*l, p.sums);
    float* gradients[] = {l->grad_horizontal, l->grad_link, l->grad_from_attention, l->grad_out, l->grad_out_bias};
    each_weight(*l, p, [&](int which, int64_t from, int64_t to, int64_t) { gradients[which][to] = l->sums[from]; });
    each_vertical(*l, p, [&](int64_t from, int64_t to, int64_t) {
        float m[PRODUCTS];
        for (int64_t k = 0; k < PRODUCTS; k++) m[k] = l->sums[from + k * l->taps * l->inputs * p.z];
        combine_gradients(m, l->grad_vertical + to);
    });
}
}
