// A word of D_K bits: what the array multiplies. In synthesis, and where BS_AP_INT is set, it is AMD's ap_uint; else an array
// of 64-bit words, on which a processor counts bits ten times faster. Both give the same results.
#ifndef BS_WORD_H
#define BS_WORD_H

#include <cstdint>

#if defined(__SYNTHESIS__) || defined(BS_AP_INT)
#include <ap_int.h>
#endif

namespace bs {

// The lowest `bits` bits of a number as two's complement, bits in 1..64.
inline int64_t sign_extend(int64_t value, int bits) { return int64_t(uint64_t(value) << (64 - bits)) >> (64 - bits); }

inline int count_ones(uint64_t value) {
#if defined(__SYNTHESIS__)
  int count = 0;
  for (int bit = 0; bit < 64; bit++) {
#pragma HLS UNROLL  // an adder tree
    count += int(value >> bit & 1);
  }
  return count;
#else
  return __builtin_popcountll(value);
#endif
}

#if defined(__SYNTHESIS__) || defined(BS_AP_INT)

// A number of BITS bits, of 16 at most, as a memory holds it.
template <int BITS>
using Bits = ap_uint<BITS>;

template <int BITS>
struct Word {
  ap_uint<BITS> bits;

  void clear() { bits = 0; }
  template <int WIDTH>
  void set_slot(int slot, uint32_t value) {
    bits.range(slot * WIDTH + WIDTH - 1, slot * WIDTH) = ap_uint<WIDTH>(value);
  }
  // Bits [64*chunk, 64*chunk+64), what lies beyond BITS dropped.
  void set_chunk(int chunk, uint64_t value) {
    ap_uint<BITS + 64> wide = ap_uint<64>(value);
    bits |= ap_uint<BITS>(wide << (64 * chunk));
  }
};

template <int BITS>
inline int count_and(const Word<BITS>& a, const Word<BITS>& b) {
  const ap_uint<BITS> both = a.bits & b.bits;
  int count = 0;
  for (int bit = 0; bit < BITS; bit++) {
#pragma HLS UNROLL  // an adder tree
    count += int(both[bit]);
  }
  return count;
}

#else

template <bool BYTE>
struct Held { typedef uint16_t type; };
template <>
struct Held<true> { typedef uint8_t type; };
template <int BITS>
using Bits = typename Held<BITS <= 8>::type;

template <int BITS>
struct Word {
  static constexpr int CHUNKS = (BITS + 63) / 64;
  uint64_t chunk[CHUNKS];

  void clear() {
    for (int i = 0; i < CHUNKS; i++) chunk[i] = 0;
  }
  // WIDTH divides 64, so that a slot lies in one chunk.
  template <int WIDTH>
  void set_slot(int slot, uint32_t value) {
    const int shift = slot * WIDTH % 64;
    uint64_t& at = chunk[slot * WIDTH / 64];
    at = (at & ~(((uint64_t(1) << WIDTH) - 1) << shift)) | uint64_t(value) << shift;
  }
  void set_chunk(int index, uint64_t value) {
    const int rest = BITS - 64 * index;
    chunk[index] = rest >= 64 ? value : value & ((uint64_t(1) << (rest & 63)) - 1);
  }
};

template <int BITS>
inline int count_and(const Word<BITS>& a, const Word<BITS>& b) {
  int count = 0;
  for (int i = 0; i < Word<BITS>::CHUNKS; i++) count += count_ones(a.chunk[i] & b.chunk[i]);
  return count;
}

#endif

}  // namespace bs

#endif
