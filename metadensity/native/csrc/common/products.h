// The two products that layers over sequences are made of, in float32 or with bfloat16 numbers: by weights, which are
// packed, and the gradient of the weights. Features of a place lie after one another (channels last).

#pragma once

#include "common/gemm.h"
#include "common/rows.h"

// A matrix from number ``at`` on: rows by columns, the latter a multiple of WIDTH.
struct Matrix {
    int64_t at = 0, rows = 0, columns = 0;
};

struct Float32 {
    typedef float Number;
    static constexpr int64_t ROWS = 1;  // a product may write rows up to a multiple of these
    struct Scope {};

    static int64_t size(const Matrix& m) { return m.rows * m.columns; }
    // A matrix, row after row, into its place among the packed ones.
    static void pack(const float* from, const Matrix& m, float* packed) { std::copy_n(from, size(m), packed + m.at); }
    static int64_t floats(int64_t numbers) { return numbers; }  // room for so many
    // The same numbers as the products take them: these, or at ``to``.
    static const float* converted(int64_t, const float* from, float*) { return from; }
    static void convert(int64_t n, const float* from, float* to) { std::memcpy(to, from, n * sizeof(float)); }

    // to (rows, columns of m) += the sum over ``count`` of a (rows, rows of m; ``step`` apart) @ m.
    static void multiply_add(int64_t rows, size_t count, const float* const* a, int64_t step, const float* packed,
                             const Matrix* m, float* to) {
        for (size_t i = 0; i < count; i++) {
            const int64_t columns = m[i].columns;
            multiply<BY_ROWS>(rows, columns, {a[i], step, m[i].rows}, packed + m[i].at, columns, to, columns,
                              {to, columns});
        }
    }

    // sum (rows of m, its columns) += a (places, rows of m; ``step`` apart) transposed @ slopes (places, columns of m).
    static void add_gradient(int64_t places, const float* a, int64_t step, const float* slopes, const Matrix& m,
                             float* sum, float*, float*) {
        multiply<BY_COLUMNS>(m.rows, m.columns, {a, step, places}, slopes, m.columns, sum + m.at, m.columns,
                             {sum + m.at, m.columns});
    }
    static void pair(int64_t, int64_t, const float*, float*) {}
};

#ifdef HAS_AMX
struct Bf16 {
    typedef Short Number;
    static constexpr int64_t ROWS = LONGEST;
    struct Scope : Tiles {
        Scope() : Tiles(LONGEST) {}
    };

    static int64_t size(const Matrix& m) { return packed(m).size(); }
    static void pack(const float* from, const Matrix& m, float* packed_) {
        Short rows[2][WIDTH];
        Short* to = (Short*)packed_ + m.at;
        for (int64_t column = 0; column < m.columns; column += WIDTH)
            for (int64_t row = 0; row < tiles_of(m.rows, DEPTH) * DEPTH; row += 2, to += 2 * WIDTH) {
                for (int64_t k = 0; k < 2; k++)
                    store_number(rows[k], row + k < m.rows ? load(from + (row + k) * m.columns + column) : V{});
                _mm512_storeu_si512(to, paired(rows[0], rows[1]));
            }
    }
    static int64_t floats(int64_t numbers) { return (numbers + 1) / 2; }
    static const Short* converted(int64_t n, const float* from, Short* to) { return shorten(n, from, to), to; }
    static void convert(int64_t n, const float* from, Short* to) { shorten(n, from, to); }

    // As those of Float32, of 8 at most. Rows of ``a`` are read to a multiple of ROWS, and of DEPTH numbers, which must
    // be finite.
    static void multiply_add(int64_t rows, size_t count, const Short* const* a, int64_t step, const float* weights,
                             const Matrix* m, float* to) {
        Part parts[8];
        for (size_t i = 0; i < count; i++) {
            const Packed p = packed(m[i]);
            parts[i] = {a[i], step, p.deep, (const Short*)weights + p.at, DEPTH, p.deep * TILE_SIZE, TILE_SIZE};
        }
        Prefetcher none;
        multiply_tiles(tiles_of(rows, ROWS), ROWS, m->columns / WIDTH, parts, (int)count, to, m->columns, true, none);
    }

    // pairs: of the slopes, see ``pair``; turned: room for a transposed, its places up to a multiple of DEPTH.
    static void add_gradient(int64_t places, const Short* a, int64_t step, const Short*, const Matrix& m, float* sum,
                             Short* turned, const Short* pairs) {
        const int64_t deep = tiles_of(places, DEPTH), long_step = deep * DEPTH + DEPTH;
        transpose(places, m.rows, a, step, turned, long_step);
        const Part part = {turned, long_step, deep, pairs, 2 * m.columns, DEPTH, LONGEST * 2 * m.columns};
        Prefetcher none;
        multiply_tiles(tiles_of(m.rows, LONGEST), LONGEST, m.columns / WIDTH, &part, 1, sum + m.at, m.columns, true,
                       none);
    }
    // Slopes (places, width), paired, and zeros up to a multiple of DEPTH. Those after the last, if odd, must be zero.
    static void pair(int64_t places, int64_t width, const Short* slopes, Short* pairs) {
        const int64_t own = (places + 1) / 2, all = tiles_of(places, DEPTH) * DEPTH / 2;
        pair_rows(own, width, slopes, pairs);
        std::memset(pairs + own * 2 * width, 0, (all - own) * 2 * width * sizeof(Short));
    }

   private:
    static Packed packed(const Matrix& m) { return {m.at, tiles_of(m.rows, DEPTH), m.columns / WIDTH}; }
};
#endif
