// Rows of places: copied, added up, and the gradient of their gates.

#pragma once

#include "common/activations.h"
#include "common/amx_tiles.h"

// Where pre-activation c of 2 * planes lies.
inline int64_t packed_index(int64_t c, int64_t planes) {
    const int64_t own = c < planes ? c : c - planes;
    return own / HALF * WIDTH + own % HALF + (c < planes ? 0 : HALF);
}

// n numbers: to = from [+ add].
inline void copy(int64_t n, const float* from, const float* add, float* to) {
    int64_t c = 0;
    for (; c + WIDTH <= n; c += WIDTH) store(to + c, add ? load(from + c) + load(add + c) : load(from + c));
    for (; c + HALF <= n; c += HALF) {
        const Half own = *(const Half*)(from + c);
        *(Half*)(to + c) = add ? own + *(const Half*)(add + c) : own;
    }
    for (; c < n; c++) to[c] = add ? from[c] + add[c] : from[c];
}

// to (rows, size) = from (rows, of them ``size`` a step apart) [+ add (rows, size)].
inline void rows_out(int64_t rows, int64_t size, const float* from, int64_t step, const float* add, float* to) {
    if (step == size) return copy(rows * size, from, add, to);
    for (int64_t r = 0; r < rows; r++) copy(size, from + r * step, add ? add + r * size : nullptr, to + r * size);
}

// to (rows, the first ``size`` a step apart) = from (rows, size).
inline void rows_in(int64_t rows, int64_t size, const float* from, float* to, int64_t step) {
    if (step == size) return copy(rows * size, from, nullptr, to);
    for (int64_t r = 0; r < rows; r++) copy(size, from + r * size, nullptr, to + r * step);
}

// Adds the rows of (rows, width) to ``sums``.
inline void add_rows(int64_t rows, int64_t width, const float* from, float* sums) {
    for (int64_t c = 0; c < width; c += WIDTH) {
        V sum = load(sums + c);
        for (int64_t r = 0; r < rows; r++) sum += load(from + r * width + c);
        store(sums + c, sum);
    }
}

// These take sizes and pointers by value: compilers cannot know that what is stored is none of those. The gradient of the
// pre-activations of a row from that of the gates; ``sums`` get their sum over the places, and
// ``exact``, if EXACT, a copy.
template <bool EXACT, class Number>
void through_gates(int64_t width, int64_t z, int64_t gates, const float* slopes, int64_t step, const Number* active,
                   Number* gated, Number* to, float* sums, float* exact) {
    for (int64_t c = 0; c < z; c += WIDTH) {
        V sum = load(sums + c);
        for (int64_t j = 0; j < width; j++) {
            const V own = load_number(active + j * z + c);
            const V found = gate_slopes(slopes + j * step + c / 2, own);
            sum += found;
            store_number(to + j * z + c, found);
            store_gates(gated + j * gates + c / 2, own);
            if (EXACT) store(exact + j * z + c, found);
        }
        store(sums + c, sum);
    }
}
