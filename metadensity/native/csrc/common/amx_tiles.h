// Products of bfloat16 matrices, summed up in float32, in the tiles of processors that have them (Intel's AMX).
//
// A tile of A is ``rows`` x DEPTH numbers of a matrix that is row after row, and one of B is DEPTH x WIDTH of a matrix
// whose rows are paired: the numbers of rows 2 i and 2 i + 1 after one another, column by column. C is float32.

#pragma once

#include <algorithm>

#include "common/prefetch.h"
#include "common/scratch.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && \
    defined(__AVX512VL__) && defined(__AVX512DQ__)
#define HAS_AMX 1

#include <sys/syscall.h>
#include <unistd.h>

typedef uint16_t Short;  // the bits of a bfloat16: the upper half of a float's

constexpr int64_t DEPTH = 32, LONGEST = 16, ACROSS = 4;  // of a tile; rows of one at most; tiles of C that are held
constexpr int64_t TILE_SIZE = DEPTH * WIDTH;

// Asks the system for the use of tiles, once in a process.
inline bool may_use_tiles() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool may = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return may;
}

// Tiles of this thread while it lives: 0 to 3 are C and 4 is A, of ``rows`` rows, and 5 to 7 are B.
class Tiles {
   public:
    explicit Tiles(int64_t rows) { configure(rows); }
    ~Tiles() { _tile_release(); }
    static void configure(int64_t rows) {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } wanted;
        for (int tile = 0; tile < 8; tile++) wanted.bytes[tile] = 64, wanted.rows[tile] = tile < 5 ? rows : LONGEST;
        _tile_loadconfig(&wanted);
    }
};

inline int64_t tiles_of(int64_t numbers, int64_t size) { return (numbers + size - 1) / size; }

// A packed B: ``deep`` tiles down and ``wide`` across, from number ``at`` on.
struct Packed {
    int64_t at = 0, deep = 0, wide = 0;
    int64_t size() const { return deep * wide * TILE_SIZE; }
    int64_t place(int64_t k, int64_t n) const {
        return at + (n / WIDTH * deep + k / DEPTH) * TILE_SIZE + k % DEPTH / 2 * DEPTH + n % WIDTH * 2 + k % 2;
    }
};

// What is summed up: A, its rows ``step`` apart, of ``deep`` tiles, and B. A may be longer than what is meant, where B
// is zero: what lies there must be finite. b_step: from pair to pair of rows; n: from tile to tile to the right; k: from
// tile to tile down.
struct Part {
    const Short* a;
    int64_t step, deep;
    const Short* b;
    int64_t b_step, n, k;
};

// N tiles of C beside each other = the sum of the parts [+ C].
template <int N>
void tile_block(const Part* parts, int count, int64_t row, int64_t column, float* c, int64_t c_step, bool add) {
    const int64_t bytes = c_step * sizeof(float);
    asm volatile("" ::: "memory");  // compilers do not know that tiles are loaded from memory
    if (add) {
        _tile_loadd(0, c, bytes);
        if constexpr (N > 1) { _tile_loadd(1, c + WIDTH, bytes); }
        if constexpr (N > 2) { _tile_loadd(2, c + 2 * WIDTH, bytes); }
        if constexpr (N > 3) { _tile_loadd(3, c + 3 * WIDTH, bytes); }
    } else {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    }
    for (const Part* part = parts; part < parts + count; part++) {
        const int64_t a_bytes = part->step * sizeof(Short), b_bytes = part->b_step * sizeof(Short), n = part->n;
        const Short *a = part->a + row * part->step, *b = part->b + column * n;
        for (int64_t k = 0; k < part->deep; k++, a += DEPTH, b += part->k) {
            _tile_loadd(4, a, a_bytes);
            _tile_loadd(5, b, b_bytes); _tile_dpbf16ps(0, 4, 5);
            if constexpr (N > 1) { _tile_loadd(6, b + n, b_bytes); _tile_dpbf16ps(1, 4, 6); }
            if constexpr (N > 2) { _tile_loadd(7, b + 2 * n, b_bytes); _tile_dpbf16ps(2, 4, 7); }
            if constexpr (N > 3) { _tile_loadd(5, b + 3 * n, b_bytes); _tile_dpbf16ps(3, 4, 5); }
        }
    }
    _tile_stored(0, c, bytes);
    if constexpr (N > 1) { _tile_stored(1, c + WIDTH, bytes); }
    if constexpr (N > 2) { _tile_stored(2, c + 2 * WIDTH, bytes); }
    if constexpr (N > 3) { _tile_stored(3, c + 3 * WIDTH, bytes); }
}

// C, ``blocks`` tiles of ``rows`` rows high and ``wide`` ones wide, = the sum of the parts [+ C].
inline void multiply_tiles(int64_t blocks, int64_t rows, int64_t wide, const Part* parts, int count, float* c,
                           int64_t c_step, bool add, Prefetcher& prefetcher) {
    static constexpr decltype(&tile_block<1>) of[] = {tile_block<1>, tile_block<2>, tile_block<3>, tile_block<4>};
    for (int64_t row = 0; row < blocks * rows; row += rows)
        for (int64_t column = 0; column < wide; column += ACROSS) {
            const int64_t now = std::min(wide - column, ACROSS);
            of[now - 1](parts, count, row, column, c + row * c_step + column * WIDTH, c_step, add);
            prefetcher.some(40);  // these are short products
        }
}

inline Short shortened(float value) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;  // stays not a number
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline void store_number(Short* at, V value) {
    const __m256bh found = _mm512_cvtneps_pbh((__m512)value);
    std::memcpy(at, &found, sizeof found);
}
// The gates of (tanh(a), sigmoid(b)).
inline void store_gates(Short* at, V active) {
    const __m256 low = _mm512_castps512_ps256((__m512)active), high = _mm512_extractf32x8_ps((__m512)active, 1);
    const __m128bh found = _mm256_cvtneps_pbh(_mm256_mul_ps(low, high));
    std::memcpy(at, &found, sizeof found);
}
inline V load_number(const Short* at) {
    __m256i found;
    std::memcpy(&found, at, sizeof found);
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(found), 16);
}
inline void shorten(int64_t n, const float* from, Short* to) {
    int64_t c = 0;
    for (; c + WIDTH <= n; c += WIDTH) store_number(to + c, load(from + c));
    for (; c < n; c++) to[c] = shortened(from[c]);
}

// The numbers of 16 columns of two rows, paired.
inline __m512i paired(const Short* first, const Short* second) {
    __m256i low, high;
    std::memcpy(&low, first, sizeof low), std::memcpy(&high, second, sizeof high);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// ``pairs`` pairs of rows of ``width``, a multiple of WIDTH, as a matrix B has them.
inline void pair_rows(int64_t pairs, int64_t width, const Short* from, Short* to) {
    for (int64_t i = 0; i < pairs; i++, from += 2 * width, to += 2 * width)
        for (int64_t c = 0; c < width; c += WIDTH) _mm512_storeu_si512(to + 2 * c, paired(from + c, from + width + c));
}

// 16 columns of 32 rows ``step`` apart, of which those from ``count`` on are zero, to 16 rows ``to_step`` apart.
inline void transpose_block(int64_t count, const Short* from, int64_t step, Short* to, int64_t to_step) {
    alignas(64) static constexpr Short none[WIDTH] = {};
    __m512i x[16], y[16];
    for (int i = 0; i < 16; i++) {
        const Short* row = from + 2 * i * step;
        x[i] = paired(2 * i < count ? row : none, 2 * i + 1 < count ? row + step : none);
    }
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            x[i + 2 * k] = _mm512_unpacklo_epi64(y[i + k], y[i + k + 2]);
            x[i + 2 * k + 1] = _mm512_unpackhi_epi64(y[i + k], y[i + k + 2]);
        }
    // x[i + k], i = 0, 4, 8, 12: of pairs i to i + 3 the columns k, k + 4, k + 8 and k + 12.
    for (int k = 0; k < 4; k++) {
        const __m512i even = _mm512_shuffle_i32x4(x[k], x[4 + k], 0x88), odd = _mm512_shuffle_i32x4(x[k], x[4 + k], 0xdd);
        const __m512i even2 = _mm512_shuffle_i32x4(x[8 + k], x[12 + k], 0x88),
                      odd2 = _mm512_shuffle_i32x4(x[8 + k], x[12 + k], 0xdd);
        _mm512_storeu_si512(to + k * to_step, _mm512_shuffle_i32x4(even, even2, 0x88));
        _mm512_storeu_si512(to + (k + 8) * to_step, _mm512_shuffle_i32x4(even, even2, 0xdd));
        _mm512_storeu_si512(to + (k + 4) * to_step, _mm512_shuffle_i32x4(odd, odd2, 0x88));
        _mm512_storeu_si512(to + (k + 12) * to_step, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
}

// to (columns, rows; zero up to a multiple of DEPTH) = from (rows, columns), columns rounded up to a multiple of WIDTH.
inline void transpose(int64_t rows, int64_t columns, const Short* from, int64_t step, Short* to, int64_t to_step) {
    for (int64_t c = 0; c < columns; c += WIDTH)
        for (int64_t r = 0; r < rows; r += DEPTH)
            transpose_block(rows - r, from + r * step + c, step, to + c * to_step + r, to_step);
}
#endif
