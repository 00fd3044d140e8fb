// The fetch stage: weights and parameters to their buffers, images cut into bit planes.
#ifndef BS_FETCH_H
#define BS_FETCH_H

#include "bs_memory.h"
#include "bs_state.h"

namespace bs {

// Rows of weights beyond the buffer, or channels beyond theirs. The RTL looks when it takes the instruction.
inline bool load_beyond(const Instruction& instruction) {
  if ((instruction.word[0] & 255) == OP_LOAD_WEIGHTS) {
    const LoadWeights load(instruction);
    return load.base + load.rows > uint32_t(C::WEIGHT_DEPTH);
  }
  const LoadParams load(instruction);
  return load.base + load.channels > uint32_t(C::PARAM_DEPTH);
}

inline uint32_t fetch_weights(const LoadWeights& load, uint32_t address, const volatile uint64_t* memory,
                              Buffers& buffers) {
  // A memory row is D_M words without a gap; 64-bit words are cut where an array row ends.
  for (uint32_t row = 0; row < load.rows; row++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=16384
    uint64_t raw[C::ROW_CHUNKS + 1];
    for (int chunk = 0; chunk < C::ROW_CHUNKS; chunk++) {
#pragma HLS PIPELINE II=1  // one word a cycle, a burst
      raw[chunk] = read_word(memory, address);
      address += 8;
    }
    raw[C::ROW_CHUNKS] = 0;
    const uint32_t at_row = (load.base + row) & (C::WEIGHT_DEPTH - 1);
    touch(SHARED_WEIGHTS, STAGE_FETCH, true, at_row);
    for (int channel = 0; channel < C::D_M; channel++) {
#pragma HLS UNROLL  // wiring
      ArrayWord word;
      word.clear();
      for (int chunk = 0; chunk < (C::D_K + 63) / 64; chunk++) {
        const int bit = channel * C::D_K + 64 * chunk, at = bit / 64, shift = bit % 64;
        const uint64_t above = shift ? raw[at + 1] << (64 - shift) : 0;
        word.set_chunk(chunk, raw[at] >> shift | above);
      }
      buffers.weights[at_row][channel] = word;
    }
  }
  return load.rows * C::ROW_CHUNKS;
}

inline uint32_t fetch_params(const LoadParams& load, uint32_t address, const volatile uint64_t* memory,
                             Buffers& buffers) {
  for (uint32_t channel = 0; channel < load.channels; channel++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8192
#pragma HLS PIPELINE II=2  // two words a channel
    Param param;
    param.bias = sign_extend(int64_t(read_word(memory, address)), 48);
    param.mul = int32_t(sign_extend(int64_t(read_word(memory, address + 8)), 18));
    address += 16;
    const uint32_t at = (load.base + channel) & (C::PARAM_DEPTH - 1);
    touch(SHARED_PARAMS, STAGE_FETCH, true, at);
    buffers.params[at] = param;
  }
  return load.channels * 2;
}

// The bytes of an image one after the other, each memory word read once.
struct ByteReader {
  const volatile uint64_t* memory;
  uint32_t held_address;
  uint64_t held;
  bool valid;

  uint8_t read(uint32_t address) {
    const uint32_t word = address & ~uint32_t(7);
    if (!valid || word != held_address) {
      held = read_word(memory, word);
      held_address = word;
      valid = true;
    }
    return uint8_t(held >> (address % 8 * 8));
  }
};

// Planes of up to D_N pixels of up to G channels; false where a row lies beyond the buffer.
inline bool store_planes(const LoadImage& load, const uint8_t (&stage)[C::D_N][C::G], uint32_t& row, Buffers& buffers) {
  for (uint32_t plane = 0; plane < load.bits; plane++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8
    if (row >= uint32_t(C::PLANE_DEPTH)) return false;
    touch(SHARED_PLANES, STAGE_FETCH, true, row);
    for (int lane = 0; lane < C::D_N; lane++) {
#pragma HLS UNROLL  // a row of all banks at a time
      uint32_t bits = 0;
      for (int slot = 0; slot < C::G; slot++) {
        const uint32_t bit = load.nibbles ? stage[lane][slot / 4] >> ((plane & 1) * 4 + slot % 4) & 1
                                          : stage[lane][slot] >> plane & 1;
        bits |= bit << slot;
      }
      buffers.planes[row][lane] = uint16_t(bits);
    }
    row = (row + load.pitch) & 0x1ffff;
  }
  return true;
}

inline void fetch_image(const LoadImage& load, uint32_t address, bool planar, const volatile uint64_t* memory,
                        Buffers& buffers, FetchDone& done) {
  const bool wide = load.channels > uint32_t(C::G);
  if (load.pixels == 0 || load.channels == 0 || load.bits == 0 || load.bits > 8 || (wide && load.pixels != 1) ||
      (load.nibbles && (load.channels > uint32_t(C::G / 4) || load.bits > 2))) {
    done.failed = true;
    return;
  }
  // An image of one pixel lies in the same order either way.
  const bool split = planar && load.image_pixels != 1;
  ByteReader bytes = {memory, 0, 0, false};
  address = (address + (planar ? load.first_pixel : load.offset)) & ~uint32_t(7);
  uint32_t row = load.base, block_row = load.base;
  for (uint32_t first = 0; first < load.pixels; first += C::D_N) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=65536
    const uint32_t left = load.pixels - first, pixels = left < uint32_t(C::D_N) ? left : C::D_N;
    for (uint32_t group = 0; group < load.channels; group += C::G) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=512
      const uint32_t rest = load.channels - group, channels = rest < uint32_t(C::G) ? rest : C::G;
      uint8_t stage[C::D_N][C::G] = {};
#pragma HLS ARRAY_PARTITION variable=stage complete dim=0  // planes are cut from all bytes at once
      for (uint32_t outer = 0; outer < (split ? channels : pixels); outer++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=32
        for (uint32_t inner = 0; inner < (split ? pixels : channels); inner++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=32
#pragma HLS PIPELINE II=1  // one byte a cycle
          const uint32_t pixel = split ? inner : outer, channel = split ? outer : inner;
          const uint32_t offset = split ? channel * load.image_pixels + first + pixel
                                        : (first + pixel) * load.channels + group + channel;
          stage[pixel][channel] = bytes.read(address + offset);
        }
        if (split) {
          const uint32_t start = (address + outer * load.image_pixels + first) % 8;
          done.read_words += (start + pixels + 7) / 8;
        }
      }
      if (!store_planes(load, stage, row, buffers)) {
        done.failed = true;
        return;
      }
    }
    if (!wide) row = block_row = (block_row + 1) & 0x1ffff;
  }
  if (!split) done.read_words += (load.pixels * load.channels + 7) / 8;
}

inline void fetch(const FetchJob& job, const volatile uint64_t* images, const volatile uint64_t* loads, Buffers& buffers,
                  FetchDone& done) {
  done.read_words = 0;
  done.failed = false;
  if (!job.active) return;
  const uint32_t opcode = job.instruction.word[0] & 255;
  if (opcode == OP_LOAD_WEIGHTS) {
    const LoadWeights load(job.instruction);
    done.read_words = fetch_weights(load, job.program_addr + load.offset, loads, buffers);
  } else if (opcode == OP_LOAD_PARAMS) {
    const LoadParams load(job.instruction);
    done.read_words = fetch_params(load, job.program_addr + load.offset, loads, buffers);
  } else {
    fetch_image(LoadImage(job.instruction), job.image_addr, job.planar, images, buffers, done);
  }
}

}  // namespace bs

#endif
