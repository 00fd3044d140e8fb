// The functions of zlib that Verilator's FST writer calls, on machines without zlib: a legal stream of stored blocks.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;
constexpr int Z_OK = 0, Z_BUF_ERROR = -5;

inline uLong compressBound(uLong size) { return size + 5 * (size / 65535 + 1) + 6; }

inline int compress2(Bytef* made, uLongf* room, const Bytef* source, uLong size, int) {
    if (*room < compressBound(size)) return Z_BUF_ERROR;
    Bytef* at = made;
    *at++ = 0x78, *at++ = 0x01;
    uLong done = 0;
    do {
        const uint16_t part = static_cast<uint16_t>(std::min<uLong>(size - done, 65535)), other = ~part;
        *at++ = done + part == size;
        *at++ = part & 255, *at++ = part >> 8, *at++ = other & 255, *at++ = other >> 8;
        std::memcpy(at, source + done, part);
        at += part, done += part;
    } while (done < size);
    uint32_t low = 1, high = 0;
    for (uLong i = 0; i < size; ++i) low = (low + source[i]) % 65521, high = (high + low) % 65521;
    *at++ = high >> 8, *at++ = high & 255, *at++ = low >> 8, *at++ = low & 255;
    *room = static_cast<uLongf>(at - made);
    return Z_OK;
}
