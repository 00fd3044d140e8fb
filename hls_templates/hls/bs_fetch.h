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

inline uint32_t fetch_weights(const LoadWeights& load, uint32_t address, const uint64_t* memory, WeightBuffer& weights) {
  // A memory row is D_M words without a gap; 64-bit words are cut where an array row ends.
  const uint32_t start = address / 8, words = load.rows * C::ROW_CHUNKS;
  uint64_t raw[C::ROW_CHUNKS + 1] = {};
#pragma HLS ARRAY_PARTITION variable=raw complete  // registers: a row is cut from all of them
  uint32_t row = load.base, chunk = 0;
  for (uint32_t index = 0; index < words; index++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=65536
#pragma HLS PIPELINE II=1  // one word a cycle, one burst after the other
    raw[chunk] = read_word(memory, start + index);
    if (++chunk != uint32_t(C::ROW_CHUNKS)) continue;
    chunk = 0;
    const uint32_t at_row = row++ & (C::WEIGHT_DEPTH - 1);
    touch(SHARED_WEIGHTS, STAGE_FETCH, true, at_row);
    for (int channel = 0; channel < C::D_M; channel++) {
#pragma HLS UNROLL  // wiring
      ArrayWord word;
      word.clear();
      for (int part = 0; part < (C::D_K + 63) / 64; part++) {
#pragma HLS UNROLL  // wiring
        const int bit = channel * C::D_K + 64 * part, at = bit / 64, shift = bit % 64;
        const uint64_t above = shift ? raw[at + 1] << (64 - shift) : 0;
        word.set_chunk(part, raw[at] >> shift | above);
      }
      weights[at_row][channel] = word;
    }
  }
  return words;
}

inline uint32_t fetch_params(const LoadParams& load, uint32_t address, const uint64_t* memory, ParamBuffer& params) {
  const uint32_t start = address / 8, words = load.channels * 2;
  Param param = {};
  for (uint32_t index = 0; index < words; index++) {
#pragma HLS LOOP_TRIPCOUNT min=2 max=16384
#pragma HLS PIPELINE II=1  // one word a cycle, one burst after the other; two words are a channel
    const int64_t word = int64_t(read_word(memory, start + index));
    if (index % 2 == 0) {
      param.bias = sign_extend(word, 48);
      continue;
    }
    param.mul = int32_t(sign_extend(word, 18));
    const uint32_t at = (load.base + index / 2) & (C::PARAM_DEPTH - 1);
    touch(SHARED_PARAMS, STAGE_FETCH, true, at);
    params[at] = param;
  }
  return words;
}

// The bytes of an image one after the other, each memory word read once.
struct ByteReader {
  const uint64_t* memory;
  uint32_t held_index;
  uint64_t held;
  bool valid;

  uint8_t read(uint32_t address) {
    const uint32_t index = address / 8;
    if (!valid || index != held_index) {
      held = read_word(memory, index);
      held_index = index;
      valid = true;
    }
    return uint8_t(held >> (address % 8 * 8));
  }
};

// Planes of up to D_N pixels of up to G channels; false where a row lies beyond the buffer.
inline bool cut_planes(const LoadImage& load, const uint8_t (&stage)[C::D_N][C::G], uint32_t& row, Stream<PlaneRow>& out) {
  for (uint32_t plane = 0; plane < load.bits; plane++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8
#pragma HLS PIPELINE II=1  // a plane a cycle
    if (row >= uint32_t(C::PLANE_DEPTH)) return false;
    PlaneRow made = {row, ALL_CHUNKS, ALL_COLUMNS, {}, false};
    for (int lane = 0; lane < C::D_N; lane++) {
#pragma HLS UNROLL  // a row of all banks at a time
      uint32_t bits = 0;
      for (int slot = 0; slot < C::G; slot++) {
#pragma HLS UNROLL  // wiring
        const uint32_t bit = load.nibbles ? stage[lane][slot / 4] >> ((plane & 1) * 4 + slot % 4) & 1
                                          : stage[lane][slot] >> plane & 1;
        bits |= bit << slot;
      }
      made.bits[lane] = uint16_t(bits);
    }
    out.write(made);
    row = (row + load.pitch) & 0x1ffff;
  }
  return true;
}

inline void fetch_image(const LoadImage& load, uint32_t address, bool planar, const uint64_t* memory,
                        Stream<PlaneRow>& out, FetchDone& done) {
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
      if (!cut_planes(load, stage, row, out)) {
        done.failed = true;
        return;
      }
    }
    if (!wide) row = block_row = (block_row + 1) & 0x1ffff;
  }
  if (!split) done.read_words += (load.pixels * load.channels + 7) / 8;
}

static void fetch(const FetchJob& job, const uint64_t* images, const uint64_t* loads, WeightBuffer& weights,
                  ParamBuffer& params, Stream<PlaneRow>& out, FetchDone& done) {
  done.read_words = 0;
  done.failed = false;
  const uint32_t opcode = job.instruction.word[0] & 255;
  if (job.active && opcode == OP_LOAD_IMAGE) {
    fetch_image(LoadImage(job.instruction), job.image_addr, job.planar, images, out, done);
  }
  // Before weights are loaded: store does not wait for them.
  out.write(NO_MORE_ROWS);
  if (job.active && opcode == OP_LOAD_WEIGHTS) {
    const LoadWeights load(job.instruction);
    done.read_words = fetch_weights(load, job.program_addr + load.offset, loads, weights);
  }
  if (job.active && opcode == OP_LOAD_PARAMS) {
    const LoadParams load(job.instruction);
    done.read_words = fetch_params(load, job.program_addr + load.offset, loads, params);
  }
}

}  // namespace bs

#endif
