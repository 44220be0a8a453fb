// The layer with products of bfloat16 numbers: sizes, packed weights, and what becomes of the sums of their gradients.
//
// Convolutions are plain: combined inputs as in gated_layer/winograd.h lose too much in bfloat16. The three places around one
// lie side by side, so that a row of images is itself the matrix that a kernel is multiplied with.

#pragma once

#include "common/amx_tiles.h"
#include "gated_layer/layer.h"

#ifdef HAS_AMX

struct AmxPlan {
    int64_t z, gates, outputs, columns, blocks, rows, pitch, positions, saved, slack;
    int64_t inputs_long, gates_long, reads_long;  // rounded up to WIDTH
    Packed vertical[2], horizontal, link, read, out, out_back, link_back, read_back, vertical_back[2], horizontal_back;
    int64_t packed;  // Shorts
    int64_t grad_vertical, grad_horizontal, grad_link, grad_read, grad_out, grad_out_bias, sums;

    explicit AmxPlan(const Layer& l) {
        gates = (l.planes + HALF - 1) / HALF * HALF, z = 2 * gates, columns = z / WIDTH;
        outputs = padded(l.planes + l.skip);
        inputs_long = padded(l.inputs), gates_long = padded(gates), reads_long = padded(l.reads);
        blocks = tiles_of(l.width, LONGEST), rows = tiles_of(l.width, blocks);
        pitch = (l.width + 2) / 2 * 2;  // of the rows of a chunk, with a zero or two between them
        // Of the features of a chunk, with the row above; more by a line, as powers of two apart they share cache sets.
        positions = ((CHUNK + 1) * pitch + 2 * DEPTH + 63) / 64 * 64 + 32;
        saved = l.height * l.width * z;  // floats' room: pre-activations of v and activations of h, in bfloat16
        slack = blocks * std::max({z, outputs, l.inputs, l.reads}) + DEPTH * LONGEST;
        int64_t at = 0;
        auto take = [&](int64_t k, int64_t n) {
            const Packed found = {at, tiles_of(k, DEPTH), tiles_of(n, WIDTH)};
            at += found.size();
            return found;
        };
        for (Packed& tap : vertical) tap = take(3 * l.inputs, z);
        horizontal = take(l.taps * l.inputs, z), link = take(z, z), read = take(l.reads, z);
        out = take(gates, outputs), out_back = take(l.planes + l.skip, gates), link_back = take(z, z);
        read_back = take(z, l.reads), horizontal_back = take(l.taps * z, l.inputs);
        for (Packed& tap : vertical_back) tap = take(3 * z, l.inputs);
        packed = at, at = 0;
        auto sum = [&](int64_t size) { return at += size, at - size; };
        grad_vertical = sum(l.taps * 3 * inputs_long * z), grad_horizontal = sum(l.taps * inputs_long * z);
        grad_link = sum(z * z), grad_read = sum(reads_long * z), grad_out = sum(gates_long * outputs);
        grad_out_bias = sum(outputs), sums = at;
    }
};

inline Part part(const Layer& l, const Packed& b, const Short* a, int64_t step) {
    return {a, step, b.deep, (const Short*)l.packed + b.at, DEPTH, b.deep * TILE_SIZE, TILE_SIZE};
}

// ``call(which, own, sum, packed, packed for the gradient of the inputs)`` for all weights; -1 where not packed.
template <class F>
void each_amx_weight(const Layer& l, const AmxPlan& p, const F& call) {
    const int64_t C = l.inputs, last = l.taps - 1;
    for (int64_t o = 0; o < 2 * l.planes; o++) {
        const int64_t q = packed_index(o, l.planes);
        for (int64_t c = 0; c < C; c++)
            for (int64_t tap = 0; tap < l.taps; tap++) {
                for (int64_t b = 0; b < 3; b++)
                    call(0, ((o * C + c) * l.taps + tap) * 3 + b,
                         p.grad_vertical + ((tap * 3 + b) * p.inputs_long + c) * p.z + q,
                         p.vertical[tap].place(b * C + c, q), p.vertical_back[tap].place((2 - b) * p.z + q, c));
                call(1, (o * C + c) * l.taps + tap, p.grad_horizontal + (tap * p.inputs_long + c) * p.z + q,
                     p.horizontal.place(tap * C + c, q), p.horizontal_back.place((last - tap) * p.z + q, c));
            }
        for (int64_t c = 0; c < 2 * l.planes; c++) {
            const int64_t other = packed_index(c, l.planes);
            call(2, o * 2 * l.planes + c, p.grad_link + other * p.z + q, p.link.place(other, q),
                 p.link_back.place(q, other));
        }
        for (int64_t c = 0; c < l.reads; c++)
            call(3, o * l.reads + c, p.grad_read + c * p.z + q, p.read.place(c, q), p.read_back.place(q, c));
    }
    for (int64_t o = 0; o < l.planes + l.skip; o++) {
        for (int64_t c = 0; c < l.planes; c++)
            call(4, o * l.planes + c, p.grad_out + c * p.outputs + o, p.out.place(c, o), p.out_back.place(o, c));
        call(5, o, p.grad_out_bias + o, -1, -1);
    }
}

static void amx_pack(const Layer& l) {
    const AmxPlan p(l);
    const float* weights[] = {l.vertical, l.horizontal, l.link, l.from_attention, l.out};
    Short* packed = (Short*)l.packed;
    std::memset(packed, 0, p.packed * sizeof(Short));
    each_amx_weight(l, p, [&](int which, int64_t own, int64_t, int64_t forth, int64_t back) {
        if (forth >= 0) packed[forth] = packed[back] = shortened(weights[which][own]);
    });
}

static void amx_finish(const Layer& l) {
    const AmxPlan p(l);
    add_threads(l, p.sums);
    float* gradients[] = {l.grad_vertical, l.grad_horizontal, l.grad_link, l.grad_from_attention, l.grad_out, l.grad_out_bias};
    each_amx_weight(l, p, [&](int which, int64_t own, int64_t sum, int64_t, int64_t) {
        gradients[which][own] = l.sums[sum];
    });
}

// Numbers in bfloat16 on the way, zero at first, with room for what tiles read past the end.
class Shorts {
   public:
    Shorts(Scratch& scratch, const AmxPlan& p) : scratch_(scratch), p_(p) {}
    static int64_t room(const AmxPlan& p, int64_t size) { return padded((size + p.slack) / 2 + 1) + WIDTH; }
    Short* take(int64_t size) { return (Short*)scratch_.take((size + p_.slack) / 2 + 1, true); }

   private:
    Scratch& scratch_;
    const AmxPlan& p_;
};

#endif
