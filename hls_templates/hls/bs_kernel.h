// The top function.
#ifndef BS_KERNEL_H
#define BS_KERNEL_H

#include <cstdint>

#include "bs_isa.h"

// Runs a program over image_count images.
//   registers: the register map of bs_isa.h, 32-bit words. Settings are read, results are written.
//   images, logits: master 0 (programs and images; logits). loads: master 1 (weights and parameters). Byte addresses of the
//   registers and the program count from these pointers.
extern "C" void bs_kernel(volatile uint32_t registers[bs::REGISTER_WORDS], const volatile uint64_t* images,
                          const volatile uint64_t* loads, volatile uint64_t* logits);

#endif
