// Memory traffic that is spread over a row of products, so that neither waits for the other: rows that will be read or
// written next are called into the second cache, and what will not be read soon is written around the caches.

#pragma once

#include "common/simd.h"

class Prefetcher {
   public:
    void prefetch(const float* from, int64_t count) { add({READ, from, nullptr, count}); }
    void prefetch_for_write(float* to, int64_t count) { add({WRITE, to, nullptr, count}); }
    // ``from`` must stay as it is until ``finish``.
    void stream(const float* from, float* to, int64_t count) { add({STREAM, from, to, count}); }
    // The next ``lines`` lines of what is queued.
    void some(int64_t lines = LINES) {
        while (lines > 0 && at_ < count_) {
            Task& now = queue_[at_];
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
    static void fence() {  // before others may read what was streamed
#ifdef __AVX512F__
        _mm_sfence();
#endif
    }

   private:
    enum Kind { READ, WRITE, STREAM };
    struct Task {
        Kind kind;
        const float* from;
        float* to;
        int64_t count;
    };
    static constexpr int64_t LINES = 12;
    static constexpr int MOST = 12;
    Task queue_[MOST];
    int at_ = 0, count_ = 0;

    void add(const Task& task) {
        if (!task.count) return;
        if (count_ == MOST) finish();  // does all of it now, and is empty
        queue_[count_++] = task;
    }
    static void run(const Task& now, int64_t size) {
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
