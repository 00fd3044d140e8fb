// The memory behind the m_axi ports, as 64-bit words. In simulation accesses are checked: what lies beyond the memory reads as
// 0, is not written, and ends the run with the error that the RTL reports for an AXI error response.
#ifndef BS_MEMORY_H
#define BS_MEMORY_H

#include <cstdint>

namespace bs {

#if !defined(__SYNTHESIS__)
// Simulation only: words of the memory, and what went wrong. Vitis' m_axi has no way to tell of a response.
struct MemoryCheck {
  uint64_t words = ~uint64_t(0);
  bool read_failed = false;
  bool write_failed = false;
};
extern MemoryCheck memory_check;
#endif

// Indices are of words: a loop over memory[start + i] is what Vitis makes a burst of.
inline uint64_t read_word(const uint64_t* memory, uint32_t index) {
#if !defined(__SYNTHESIS__)
  if (index >= memory_check.words) {
    memory_check.read_failed = true;
    return 0;
  }
#endif
  return memory[index];
}

inline void write_word(uint64_t* memory, uint32_t index, uint64_t value) {
#if !defined(__SYNTHESIS__)
  if (index >= memory_check.words) {
    memory_check.write_failed = true;
    return;
  }
#endif
  memory[index] = value;
}

}  // namespace bs

#endif
