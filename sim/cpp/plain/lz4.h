// The two functions of lz4 that Verilator's FST writer calls, on machines without lz4: a legal block of literals alone.
#pragma once
#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* source, char* made, int size, int room) {
    if (room < LZ4_compressBound(size)) return 0;
    char* at = made;
    // Token: how many literals, 15 and more in further bytes; no match behind the last ones.
    *at++ = static_cast<char>((size < 15 ? size : 15) << 4);
    if (size >= 15) {
        int rest = size - 15;
        for (; rest >= 255; rest -= 255) *at++ = static_cast<char>(255);
        *at++ = static_cast<char>(rest);
    }
    std::memcpy(at, source, size);
    return static_cast<int>(at - made) + size;
}
