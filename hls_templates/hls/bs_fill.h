// Fill: the column words of one position tile, three taps of a kernel row each cycle (im2col). RTL: bs_fill, bs_window.
#ifndef BS_FILL_H
#define BS_FILL_H

#include "bs_state.h"
#include "bs_walker.h"

namespace bs {

// Column words of one position tile, and the bits (merged: the codes) that each holds.
struct Columns {
  ArrayWord word[C::COLUMN_DEPTH][C::D_N];
  uint16_t count[C::COLUMN_DEPTH][C::D_N];
};

constexpr uint32_t COLUMN_MASK = C::COLUMN_DEPTH - 1;
constexpr int TAPS = 3;                     // placed in a cycle
constexpr int WINDOW = C::D_N + TAPS - 1;   // pixels that D_N columns need for them

inline uint32_t plane_word(const PlaneBuffer& planes, int copy, uint32_t row, int bank) {
  uint32_t bits = 0;
  for (int chunk = 0; chunk < C::ROWS_G; chunk++) {
#pragma HLS UNROLL  // wiring
    bits |= uint32_t(planes[copy][row][bank][chunk]) << (chunk * C::D_M);
  }
  return bits;
}

// WINDOW pixels from pixel `first` (it may be negative) of the map at row `base`. Each bank is read once: a copy of the buffer
// gives the first D_N pixels, the other one those behind them.
inline void read_window(const PlaneBuffer& planes, uint32_t base, int32_t first, uint32_t ring, uint32_t (&window)[WINDOW]) {
  const uint32_t start = uint32_t(first) % C::D_N, at = (uint32_t(first) - start) / C::D_N;
  const uint32_t rows[3] = {bank_row(base, at, ring, C::PLANE_DEPTH), bank_row(base, at + 1, ring, C::PLANE_DEPTH),
                            bank_row(base, at + 2, ring, C::PLANE_DEPTH)};
  uint32_t near[C::D_N], far[C::D_N];
#pragma HLS ARRAY_PARTITION variable=near complete  // the outputs of the banks
#pragma HLS ARRAY_PARTITION variable=far complete   // as above
  for (int bank = 0; bank < C::D_N; bank++) {
#pragma HLS UNROLL  // a read of every bank
    const int beyond = uint32_t(bank) < start;
    near[bank] = plane_word(planes, 0, rows[beyond], bank);
    far[bank] = plane_word(planes, 1, rows[beyond + 1], bank);
  }
  for (int pixel = 0; pixel < C::D_N; pixel++) {
#pragma HLS UNROLL  // a rotation
    window[pixel] = near[(start + uint32_t(pixel)) % C::D_N];
    if (pixel < TAPS - 1) window[C::D_N + pixel] = far[(start + uint32_t(pixel)) % C::D_N];
  }
}

inline uint32_t weigh(uint32_t bits, bool nibbles) {
  if (!nibbles) return uint32_t(count_ones(bits));
  uint32_t sum = 0;
  for (int nibble = 0; nibble < C::G / 4; nibble++) {
#pragma HLS UNROLL  // an adder tree
    sum += bits >> (4 * nibble) & 15;
  }
  return sum;
}

// Where fill is in the words of a run: planes from the top, in a plane groups, in a group kernel rows, then taps.
struct FillPlace {
  uint32_t plane, group, ky, kx;

  void start(const Conv& conv) {
    plane = conv.in_bits - 1;
    group = ky = kx = 0;
  }
  // Behind `taps` more; true at the end of the run.
  bool next(const Conv& conv, uint32_t taps) {
    kx += taps;
    if (kx < conv.kernel_w) return false;
    kx = 0;
    if (++ky < conv.kernel_h) return false;
    ky = 0;
    if (++group < conv.in_groups) return false;
    group = 0;
    return plane-- == 0;
  }
};

constexpr uint32_t FILL_STEPS = uint32_t(C::D_N) * 15 * 1023 * 15 * 15;  // runs, planes, groups, rows, taps at most

// The words of one position tile. `cycles`: of the RTL's fill, over the tiles so far.
inline void fill_tile(uint32_t tile, const Conv& conv, const PlaneBuffer& planes, Columns& columns, uint32_t& cycles) {
  static Walker walker;  // it stays where the tile before ended
  static uint32_t taken;
  if (tile == 0) {
    walker.stride = conv.stride;
    walker.out_width = conv.out_width;
    walker.out_height = conv.out_height;
    walker.pooled = conv.pooled;
    walker.start(conv.start_x, conv.start_y);
    taken = 0;
  }
  ArrayWord word[C::D_N] = {};
  uint32_t count[C::D_N] = {};
#pragma HLS ARRAY_PARTITION variable=word complete   // all columns of a run are written in one cycle
#pragma HLS ARRAY_PARTITION variable=count complete  // as above
  FillPlace place;
  place.start(conv);
  bool begin = true;
  uint32_t slot = 0, at = 0;
  const uint32_t group_pitch = (conv.in_pitch * conv.in_bits) & 0xffff;
  for (uint32_t step = 0; step < FILL_STEPS; step++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8192
#pragma HLS PIPELINE II=1  // up to three taps for all columns of a run in each cycle, over all runs of the tile
    const bool group_last = place.group == conv.in_groups - 1, row_first = place.kx == 0;
    const uint32_t room = TAPS - slot % TAPS, kx_left = conv.kernel_w - place.kx, taps = kx_left < room ? kx_left : room;
    uint32_t mask = (1u << C::G) - 1, pad = conv.pad_full >> (place.plane & 7) & 1 ? mask : 0;
    if (group_last) {
      const uint32_t bit = (place.plane & 7) * PAD_PLANE_BITS;
      pad = uint32_t(conv.pad_planes[bit / 64] >> (bit % 64)) & mask;
      mask = (uint64_t(1) << conv.last_channels) - 1 < mask ? uint32_t((uint64_t(1) << conv.last_channels) - 1) : mask;
    }
    const int32_t y = coordinate(walker.position_y(), conv.stride, place.ky, conv.pad, 0);
    const int32_t x = coordinate(walker.position_x(), conv.stride, place.kx, conv.pad, walker.shift());
    const uint32_t row = conv.in_base + place.group * group_pitch + conv.in_pitch * place.plane;
    const int32_t first = y * int32_t(conv.in_width) + x;
    const bool inside = y >= 0 && y < int32_t(conv.in_height);
    uint32_t window[WINDOW] = {};
#pragma HLS ARRAY_PARTITION variable=window complete  // registers
    if (inside) read_window(planes, row, first, conv.ring, window);
    const bool plane_first = row_first && place.ky == 0 && place.group == 0;
    const bool window_last = place.kx + taps == conv.kernel_w && place.ky == conv.kernel_h - 1;
    const bool word_end = slot + taps == uint32_t(C::SLOTS) ||
                          (window_last && (conv.depthwise || (group_last && (!conv.merged || place.plane == 0))));
    for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL  // columns work side by side
      if (begin) {
        word[column].clear();
        count[column] = 0;
      }
      if (column < walker.column || column >= walker.end) continue;
      // Merged words count the codes themselves: a plane further down, all before weigh twice (a nibble 16 times).
      if (conv.merged && plane_first) count[column] <<= conv.nibbles ? 4 : 1;
      for (uint32_t tap = 0; tap < uint32_t(TAPS); tap++) {
#pragma HLS UNROLL  // taps go to neighbouring slots
        if (tap >= taps) continue;
        const uint32_t ahead = walker.lane(column) + tap;
        const bool on_map = inside && x + int32_t(ahead) >= 0 && x + int32_t(ahead) < int32_t(conv.in_width);
        if (on_map) {
          const uint32_t pixel = uint32_t(first + int32_t(ahead));
          touch(SHARED_PLANES, STAGE_EXECUTE, false, bank_row(row, pixel / C::D_N, conv.ring, C::PLANE_DEPTH));
        }
        const uint32_t bits = on_map ? window[ahead] & mask : pad;
        word[column].template set_slot<C::G>(int(slot + tap), bits);
        count[column] += weigh(bits, conv.nibbles);
      }
      if (word_end) {
        columns.word[at & COLUMN_MASK][column] = word[column];
        columns.count[at & COLUMN_MASK][column] = uint16_t(count[column]);
        word[column].clear();
        if (!conv.merged) count[column] = 0;
      }
    }
    taken++;
    slot = word_end ? 0 : slot + taps;
    at += word_end;
    begin = place.next(conv, taps);
    if (begin) {
      const bool last = walker.last;
      walker.next();
      place.start(conv);
      slot = at = 0;
      if (last) break;
    }
  }
  cycles = taken;
}

}  // namespace bs

#endif
