// Vectors of float32: as many numbers as the processor's registers hold. GCC 12 or Clang (whose __builtin_shufflevector
// GCC has from 12 on).

#pragma once

#include <cstdint>
#include <utility>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

// Compilers make very slow code of vectors wider than a register. What lies side by side is padded to a multiple.
#ifdef __AVX512F__
constexpr int64_t WIDTH = 16, REGISTERS = 32;
#else
constexpr int64_t WIDTH = 8, REGISTERS = 16;
#endif
constexpr int64_t HALF = WIDTH / 2;
typedef float V __attribute__((vector_size(WIDTH * sizeof(float)), aligned(alignof(float)), may_alias));
typedef int32_t Integers __attribute__((vector_size(WIDTH * sizeof(int32_t)), may_alias));
typedef float Half __attribute__((vector_size(HALF * sizeof(float)), aligned(alignof(float)), may_alias));

inline int64_t padded(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }
inline V load(const float* at) { return *(const V*)at; }
inline void store(float* at, V value) { *(V*)at = value; }

template <int FIRST, int SECOND, int... I>
inline V shuffled(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I < HALF ? FIRST + I : SECOND + I - int(HALF))...);
}
// Of the numbers of a and b, one after the other: half a vector from FIRST on, then as many from SECOND on.
template <int FIRST, int SECOND>
inline V shuffled(V a, V b) {
    return shuffled<FIRST, SECOND>(a, b, std::make_integer_sequence<int, WIDTH>());
}
