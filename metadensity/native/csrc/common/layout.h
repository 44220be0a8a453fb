// How a struct of arguments lies in memory, for Python to compare with its own when it loads a kernel.

#pragma once

#include <cstddef>
#include <cstdint>

struct Field {  // _Field in native/build.py
    const char* name;
    int64_t offset;
};

// LAYOUT(prefix, type, FIELDS) with FIELDS(F) = F(type, field) ...: defines prefix_layout(), which gives the fields and,
// as "end", the size of the struct.
#define LAYOUT_FIELD(type, field) {#field, offsetof(type, field)},
#define LAYOUT(prefix, type, FIELDS)                                                           \
    extern "C" const Field* prefix##_layout() {                                                \
        static const Field fields[] = {FIELDS(LAYOUT_FIELD, type) {"end", sizeof(type)}};      \
        return fields;                                                                         \
    }
