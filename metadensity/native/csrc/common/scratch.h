// Memory for what is computed on the way.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/simd.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // as GCC says it
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

// Memory of this thread that is kept from call to call, handed out piece by piece; or, made without a size, a count of
// what would be. Under the address sanitizer what lies between the pieces may not be touched.
class Scratch {
   public:
    Scratch() = default;
    explicit Scratch(int64_t size) : end_(size) {
        static thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, &std::free);
        static thread_local int64_t room = 0;
        if (room < size) {
            room = 0, memory.reset();
            const size_t bytes = (size * sizeof(float) + LINE - 1) / LINE * LINE;  // aligned_alloc wants a multiple
            memory.reset((float*)std::aligned_alloc(LINE, bytes));
            if (!memory) fail("out of memory: %lld bytes of scratch cannot be had", (long long)bytes);
            room = size;
        }
        memory_ = memory.get();
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(memory_, room * sizeof(float));
#endif
    }
    // ``size`` numbers, with room for a vector more, which loops may write or read past the end. Null if this counts.
    float* take(int64_t size, bool zero = false) {
        const int64_t room = padded(size) + WIDTH;
        float* found = memory_ ? memory_ + taken_ : nullptr;
        taken_ += room + FENCE;
        if (!memory_) return nullptr;
        if (taken_ > end_) fail("scratch of %lld numbers is too small for %lld", (long long)end_, (long long)taken_);
#ifdef __SANITIZE_ADDRESS__
        __asan_poison_memory_region(found + room, FENCE * sizeof(float));
#endif
        if (zero) std::memset(found, 0, room * sizeof(float));
        return found;
    }
    int64_t taken() const { return taken_; }

   private:
    static constexpr int64_t LINE = 64;  // bytes, of the cache
#ifdef __SANITIZE_ADDRESS__
    static constexpr int64_t FENCE = LINE / sizeof(float);
#else
    static constexpr int64_t FENCE = 0;
#endif
    float* memory_ = nullptr;
    int64_t taken_ = 0, end_ = 0;

    template <class... Numbers>
    [[noreturn]] static void fail(const char* what, Numbers... numbers) {
        std::fputs("metadensity's native kernel: ", stderr);
        std::fprintf(stderr, what, numbers...);
        std::fputs("\n", stderr);
        std::abort();
    }
};

// ``Buffers``, a struct that takes all it needs from a Scratch when it is made, in memory of exactly that size.
template <class Buffers, class... Sizes>
Buffers in_scratch(const Sizes&... sizes) {
    Scratch counter;
    Buffers(counter, sizes...);
    Scratch scratch(counter.taken());
    return Buffers(scratch, sizes...);
}
