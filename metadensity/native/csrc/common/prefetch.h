// Vectors, and memory traffic on the side.

#pragma once

#include <cstdint>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

// Numbers of a vector, as many as the processor's registers hold: compilers make very slow code of wider ones. What
// lies side by side is padded to a multiple of it.
#ifdef __AVX512F__
constexpr int64_t WIDTH = 16, REGISTERS = 32;
#else
constexpr int64_t WIDTH = 8, REGISTERS = 16;
#endif
typedef float V __attribute__((vector_size(WIDTH * sizeof(float)), aligned(alignof(float)), may_alias));

inline int64_t padded(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }
inline V load(const float* at) { return *(const V*)at; }
inline void store(float* at, V value) { *(V*)at = value; }

// Memory traffic that is spread over a row of products, so that neither waits for the other: rows that will be read or
// written next are called into the second cache, and what will not be read soon is written around the caches.
class Errands {
   public:
    void will_read(const float* from, int64_t count) { add({READ, from, nullptr, count}); }
    void will_write(float* to, int64_t count) { add({WRITE, to, nullptr, count}); }
    // ``from`` must stay as it is until ``finish``.
    void stream(const float* from, float* to, int64_t count) { add({STREAM, from, to, count}); }
    void some(int64_t lines = LINES) {
        while (lines > 0 && at_ < count_) {
            Errand& now = errands_[at_];
            const int64_t size = now.count < lines * WIDTH ? now.count : lines * WIDTH;
            run(now, size);
            now.from += size, now.to += now.to ? size : 0, now.count -= size;
            lines -= (size + WIDTH - 1) / WIDTH;
            if (!now.count) at_++;
        }
    }
    void finish() {
        while (at_ < count_) some();
        at_ = count_ = 0;
    }
    static void written() {  // before others may read it
#ifdef __AVX512F__
        _mm_sfence();
#endif
    }

   private:
    enum Kind { READ, WRITE, STREAM };
    struct Errand {
        Kind kind;
        const float* from;
        float* to;
        int64_t count;
    };
    static constexpr int64_t LINES = 12;
    Errand errands_[12];
    int at_ = 0, count_ = 0;

    void add(const Errand& errand) {
        if (errand.count) errands_[count_++] = errand;
    }
    static void run(const Errand& now, int64_t size) {
        int64_t c = 0;
        if (now.kind == READ)
            for (; c < size; c += WIDTH) __builtin_prefetch(now.from + c, 0, 2);
        else if (now.kind == WRITE)
            for (; c < size; c += WIDTH) __builtin_prefetch(now.from + c, 1, 2);
        else {
#ifdef __AVX512F__
            if ((uintptr_t)now.to % sizeof(V) == 0)
                for (; c + WIDTH <= size; c += WIDTH) _mm512_stream_ps(now.to + c, (__m512)load(now.from + c));
#endif
            for (; c < size; c++) now.to[c] = now.from[c];
        }
    }
};
