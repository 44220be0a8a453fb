// Memory for what is computed on the way.

#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/gemm.h"

// Memory of this thread that is kept from call to call, zero where asked.
class Scratch {
   public:
    explicit Scratch(int64_t size) {
        static thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, &std::free);
        static thread_local int64_t room = 0;
        if (room < size) {
            memory.reset((float*)std::aligned_alloc(64, padded(size) * sizeof(float)));
            room = memory ? size : 0;
        }
        at_ = memory.get();
    }
    // With room for a vector more, which loops may write or read past the end.
    float* take(int64_t size, bool zero = false) {
        float* found = at_;
        at_ += padded(size) + WIDTH;
        if (zero) std::memset(found, 0, (padded(size) + WIDTH) * sizeof(float));
        return found;
    }

   private:
    float* at_;
};
