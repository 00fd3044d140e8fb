// The top function.
#ifndef BS_KERNEL_H
#define BS_KERNEL_H

#include <cstdint>

#include "bs_isa.h"

// Runs a program over image_count images.
//   registers: the register map of bs_isa.h, 32-bit words. Settings are read, results are written.
//   images, logits: master 0 (programs and images; logits). loads: master 1 (weights and parameters). Byte addresses of the
//   registers and the program count from these pointers.
namespace bs {
// Words behind each pointer in co-simulation: hls.tcl gives the size of its test data.
#if defined(BS_MEMORY_WORDS)
constexpr int MEMORY_WORDS = BS_MEMORY_WORDS;
#else
constexpr int MEMORY_WORDS = 1 << 16;
#endif
}  // namespace bs

extern "C" void bs_kernel(uint32_t registers[bs::REGISTER_WORDS], const uint64_t* images, const uint64_t* loads,
                          uint64_t* logits);

#endif
