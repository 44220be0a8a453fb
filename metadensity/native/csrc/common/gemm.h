// Products of small matrices in registers, the one shape of work that layers are made of.
//
// Matrices are float32 and row after row. C = start + A @ B, where B and C are (.., width), width a multiple of WIDTH.
// A block of C, all vectors but a few, is held in registers while a column of A and a row of B after another pass by.

#pragma once

#include <algorithm>
#include <utility>

#include "common/prefetch.h"
#include "common/scratch.h"

// A. BY_ROWS: A[m][k] is a[m * step + k]. BY_COLUMNS: A[m][k] is a[k * step + m], a product with A transposed, as
// gradients of weights are. Of ``parts`` parts, each of ``depth`` columns, ``jump`` apart, that meet the rows of B one
// after another.
enum Order { BY_ROWS, BY_COLUMNS };

struct Factor {
    const float* a;
    int64_t step, depth, parts = 1, jump = 0;
};

// Rows a step apart; step 0: one row that is all of them.
struct Start {
    const float* at;
    int64_t step;
};
constexpr int64_t WIDEST = REGISTERS == 32 ? 4 : 2;  // vectors of a block
#ifdef __SANITIZE_ADDRESS__
constexpr int MOST_ROWS = 2;  // these functions are what a sanitizer takes its time to compile
#else
constexpr int MOST_ROWS = 8;
#endif
alignas(64) constexpr float ZEROS[WIDEST * WIDTH] = {};

// f(0), ..., f(COUNT - 1) as if written out: compilers keep arrays in registers only if all indices are constants.
template <class F, int... I>
[[gnu::always_inline]] inline void each(std::integer_sequence<int, I...>, const F& f) {
    (f(std::integral_constant<int, I>()), ...);
}
template <int COUNT, class F>
[[gnu::always_inline]] inline void each(const F& f) {
    each(std::make_integer_sequence<int, COUNT>(), f);
}

template <int ROWS, int VECTORS, Order ORDER>
void block(const Factor& f, int64_t row, const float* b, int64_t b_step, float* c, int64_t c_step, Start start) {
    constexpr int GROUPS = (ROWS + 2) / 3;  // three rows to a pointer, as an address holds an index times 1 or 2
    const int64_t step = f.step, start_step = start.step, depth = f.depth;
    const float *from = start.at, *part = f.a + row * (ORDER == BY_ROWS ? step : 1);
    V sums[ROWS][VECTORS];
    each<ROWS>([&](auto m) __attribute__((always_inline)) {
        each<VECTORS>([&](auto n) __attribute__((always_inline)) {
            sums[m][n] = load(from + m * start_step + n * WIDTH);
        });
    });
    for (int64_t left = f.parts; left > 0; left--, part += f.jump) {
        const float* a = part;
        const float* rows[GROUPS];
        each<GROUPS>([&](auto i) __attribute__((always_inline)) { rows[i] = a + i * 3 * step; });
        for (int64_t k = 0; k < depth; k++, b += b_step) {
            V own[VECTORS];
            each<VECTORS>([&](auto n) __attribute__((always_inline)) { own[n] = load(b + n * WIDTH); });
            each<ROWS>([&](auto m) __attribute__((always_inline)) {
                const float factor = ORDER == BY_ROWS ? rows[m / 3][m % 3 * step + k] : a[m];
                each<VECTORS>([&](auto n) __attribute__((always_inline)) { sums[m][n] += factor * own[n]; });
            });
            if (ORDER == BY_COLUMNS) a += step;
        }
    }
    each<ROWS>([&](auto m) __attribute__((always_inline)) {
        each<VECTORS>([&](auto n) __attribute__((always_inline)) { store(c + m * c_step + n * WIDTH, sums[m][n]); });
    });
}

typedef void (*Block)(const Factor&, int64_t, const float*, int64_t, float*, int64_t, Start);

template <int VECTORS, Order ORDER, int... LESS>
inline Block block_of(int64_t rows, std::integer_sequence<int, LESS...>) {
    static constexpr Block blocks[] = {block<LESS + 1, VECTORS, ORDER>...};
    return blocks[rows - 1];
}

template <int VECTORS, Order ORDER>
inline void strip(int64_t rows, const Factor& f, const float* b, int64_t b_step, float* c, int64_t c_step, Start start,
                  Prefetcher& prefetcher) {
    constexpr int MOST = std::min<int>(MOST_ROWS, (REGISTERS == 32 ? 24 : 12) / VECTORS);
    const int64_t blocks = (rows + MOST - 1) / MOST;  // as equal as can be
    for (int64_t i = 0, row = 0; i < blocks; i++) {
        const int64_t now = rows / blocks + (i < rows % blocks);
        block_of<VECTORS, ORDER>(now, std::make_integer_sequence<int, MOST>())(
            f, row, b, b_step, c + row * c_step, c_step,
            {start.at + row * start.step, start.step});
        row += now;
        prefetcher.some();
    }
}

typedef void (*Strip)(int64_t, const Factor&, const float*, int64_t, float*, int64_t, Start, Prefetcher&);

template <Order ORDER, int... LESS>
inline Strip strip_of(int64_t vectors, std::integer_sequence<int, LESS...>) {
    static constexpr Strip strips[] = {strip<LESS + 1, ORDER>...};
    return strips[vectors - 1];
}

// C (rows, width) = start, or zeros if that is null, + A @ B (depth, width); the rows of B, C lie b_step, c_step apart.
template <Order ORDER>
inline void multiply(int64_t rows, int64_t width, const Factor& f, const float* b, int64_t b_step, float* c,
                     int64_t c_step, Start start, Prefetcher& prefetcher) {
    for (int64_t done = 0; done < width;) {
        const int64_t left = (width - done) / WIDTH, strips = (left + WIDEST - 1) / WIDEST;
        const int64_t now = (left + strips - 1) / strips;  // as equal as can be
        strip_of<ORDER>(now, std::make_integer_sequence<int, WIDEST>())(
            rows, f, b + done, b_step, c + done, c_step,
            start.at ? Start{start.at + done, start.step} : Start{ZEROS, 0}, prefetcher);
        done += now * WIDTH;
    }
}

template <Order ORDER>
inline void multiply(int64_t rows, int64_t width, const Factor& f, const float* b, int64_t b_step, float* c,
                     int64_t c_step, Start start) {
    Prefetcher none;
    multiply<ORDER>(rows, width, f, b, b_step, c, c_step, start, none);
}
