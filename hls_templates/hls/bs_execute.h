// The execute stage: for each position tile, fill makes the column words (im2col), then the array multiplies them with the
// weight rows of every row tile. Orders of slots and words: bs_fill and bs_issue of the RTL.
#ifndef BS_EXECUTE_H
#define BS_EXECUTE_H

#include "bs_state.h"
#include "bs_walker.h"

namespace bs {

// Column words of one position tile. A local array of a DATAFLOW region becomes a ping-pong buffer.
struct Columns {
  ArrayWord word[C::COLUMN_DEPTH][C::D_N];
  uint16_t count[C::COLUMN_DEPTH][C::D_N];
};

constexpr uint32_t COLUMN_MASK = C::COLUMN_DEPTH - 1;
constexpr uint32_t WEIGHT_MASK = C::WEIGHT_DEPTH - 1;

// One channel group of a pixel, or what stands for it outside the map.
inline uint32_t window_pixel(const Conv& conv, const Buffers& buffers, uint32_t row, int32_t y, int32_t x,
                             uint32_t mask, uint32_t pad) {
  if (y < 0 || y >= int32_t(conv.in_height) || x < 0 || x >= int32_t(conv.in_width)) return pad;
  const uint32_t pixel = uint32_t(y) * conv.in_width + uint32_t(x);
  const uint32_t at = bank_row(row, pixel / C::D_N, conv.ring, C::PLANE_DEPTH);
  touch(SHARED_PLANES, STAGE_EXECUTE, false, at);
  return buffers.planes[at][pixel % C::D_N] & mask;
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

// Fills the words of one run; the cycles that the RTL's fill takes for it.
inline uint32_t fill_run(const Conv& conv, const Walker& walker, const Buffers& buffers, Columns& columns) {
  ArrayWord word[C::D_N];
  uint32_t count[C::D_N] = {};
#pragma HLS ARRAY_PARTITION variable=word complete  // all columns of a run are written in one cycle
#pragma HLS ARRAY_PARTITION variable=count complete
  for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
    word[column].clear();
  }
  uint32_t slot = 0, at = 0, cycles = 0;
  const uint32_t group_pitch = (conv.in_pitch * conv.in_bits) & 0xffff;
  for (uint32_t planes_left = conv.in_bits; planes_left != 0; planes_left--) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=15
    const uint32_t plane = planes_left - 1;
    if (conv.merged) {
      // Merged words count the codes themselves: a plane further down, all before weigh twice (a nibble 16 times).
      for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
        count[column] <<= conv.nibbles ? 4 : 1;
      }
    }
    for (uint32_t group = 0; group < conv.in_groups; group++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=1023
      const bool group_last = group == conv.in_groups - 1;
      const uint32_t row = conv.in_base + group * group_pitch + conv.in_pitch * plane;
      uint32_t mask = (1u << C::G) - 1, pad = conv.pad_full >> (plane & 7) & 1 ? mask : 0;
      if (group_last) {
        const uint32_t bit = (plane & 7) * PAD_PLANE_BITS;
        pad = uint32_t(conv.pad_planes[bit / 64] >> (bit % 64)) & mask;
        mask = (uint64_t(1) << conv.last_channels) - 1 < mask ? uint32_t((uint64_t(1) << conv.last_channels) - 1) : mask;
      }
      for (uint32_t ky = 0; ky < conv.kernel_h; ky++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=15
        const int32_t y = coordinate(walker.position_y(), conv.stride, ky, conv.pad, 0);
        uint32_t taps = 0;
        for (uint32_t kx = 0; kx < conv.kernel_w; kx += taps) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=15
#pragma HLS PIPELINE II=1  // up to three taps for all columns of the run in each cycle
          const uint32_t room = 3 - slot % 3, kx_left = conv.kernel_w - kx;
          taps = kx_left < room ? kx_left : room;
          const int32_t x = coordinate(walker.position_x(), conv.stride, kx, conv.pad, walker.shift());
          for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL  // columns work side by side
            if (column < walker.column || column >= walker.end) continue;
            for (uint32_t tap = 0; tap < 3; tap++) {
#pragma HLS UNROLL
              if (tap >= taps) continue;
              const uint32_t pixel = window_pixel(conv, buffers, row, y, x + int32_t(walker.lane(column) + tap), mask, pad);
              word[column].template set_slot<C::G>(int(slot + tap), pixel);
              count[column] += weigh(pixel, conv.nibbles);
            }
          }
          cycles++;
          slot += taps;
          const bool window_last = kx + taps == conv.kernel_w && ky == conv.kernel_h - 1;
          const bool ends = conv.depthwise || (group_last && (!conv.merged || plane == 0));
          if (slot == uint32_t(C::SLOTS) || (window_last && ends)) {
            for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL
              if (column < walker.column || column >= walker.end) continue;
              columns.word[at & COLUMN_MASK][column] = word[column];
              columns.count[at & COLUMN_MASK][column] = uint16_t(count[column]);
              word[column].clear();
              if (!conv.merged) count[column] = 0;
            }
            slot = 0;
            at++;
          }
        }
      }
    }
  }
  return cycles;
}

// Fills the words of one position tile and moves the walker to the next.
inline void fill_tile(const Conv& conv, Walker& walker, const Buffers& buffers, Columns& columns, uint32_t& cycles) {
  bool last = false;
  for (int run = 0; run < C::D_N && !last; run++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=32
    cycles += fill_run(conv, walker, buffers, columns);
    last = walker.last;
    walker.next();
  }
}

// The accumulators of a row tile.
struct Array {
  Tile tile;

  // One word: all dot units in one cycle.
  void step(const ArrayWord (&weights)[C::D_M], const ArrayWord (&words)[C::D_N], const uint16_t (&counts)[C::D_N],
            bool clear, bool shift, bool negative, bool counted) {
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // D_M x D_N dot units
      const uint32_t before = clear ? 0 : tile.column_acc[column] << int(shift);
      tile.column_acc[column] = before + (counted ? counts[column] : 0);
    }
    for (int row = 0; row < C::D_M; row++) {
#pragma HLS UNROLL
      for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
        const uint32_t previous = clear ? 0 : uint32_t(tile.acc[row][column]) << int(shift);
        const uint32_t count = uint32_t(count_and(weights[row], words[column]));
        tile.acc[row][column] = int32_t(negative ? previous - count : previous + count);
      }
    }
  }

  // Accumulators have ACC_BITS; sums are the same whether they are cut each cycle or at the end.
  void cut() {
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
      tile.column_acc[column] &= uint32_t((uint64_t(1) << C::ACC_BITS) - 1);
      for (int row = 0; row < C::D_M; row++) {
#pragma HLS UNROLL
        tile.acc[row][column] = int32_t(sign_extend(tile.acc[row][column], C::ACC_BITS));
      }
    }
  }
};

// Plain words: significances from the top; in each the plane pairs from the highest activation plane down.
inline uint32_t multiply_plain(const Conv& conv, uint32_t weight_base, uint32_t column_base, const Buffers& buffers,
                               const Columns& columns, Array& array) {
  uint32_t cycles = 0;
  int weight_start = int(conv.weight_bits) - 1, plane_start = int(conv.in_bits) - 1;
  for (int significance = 0; significance < 30 && plane_start >= 0; significance++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=16
    bool first = true;
    int plane = plane_start;
    for (int weight = weight_start; weight < int(conv.weight_bits) && plane >= 0; weight++, plane--) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8
      for (uint32_t word = 0; word < conv.plane_words; word++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=512
#pragma HLS PIPELINE II=1  // one word a cycle through the whole array
        const uint32_t row = (weight_base + (conv.weight_bits - 1 - uint32_t(weight)) * conv.plane_words + word) & WEIGHT_MASK;
        const uint32_t at = column_base + (conv.in_bits - 1 - uint32_t(plane)) * conv.column_pitch + word;
        touch(SHARED_WEIGHTS, STAGE_EXECUTE, false, row);
        array.step(buffers.weights[row], columns.word[at & COLUMN_MASK], columns.count[at & COLUMN_MASK],
                   cycles == 0, first && cycles != 0, conv.negative_top && weight == int(conv.weight_bits) - 1, true);
        first = false;
        cycles++;
      }
    }
    if (weight_start > 0) weight_start--;
    else plane_start--;
  }
  return cycles;
}

// Words and slots beyond them, as the merged words of a significance begin or end.
struct Slots {
  uint32_t word, rest;

  void add_plane(const Conv& conv) {
    word += conv.plane_words;
    rest += conv.plane_rest;
    if (rest >= uint32_t(C::SLOTS)) {
      rest -= C::SLOTS;
      word++;
    }
  }
};

// Merged words: each significance reads the words in which one of its planes has a slot, with a weight row for each.
inline uint32_t multiply_merged(const Conv& conv, uint32_t weight_base, const Buffers& buffers, const Columns& columns,
                                Array& array) {
  uint32_t cycles = 0;
  Slots start = {0, 0}, stop = {conv.plane_words, conv.plane_rest};
  for (uint32_t left = conv.significances; left != 0; left--) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=16
    const uint32_t significance = left - 1;
    const uint32_t last = stop.word - (stop.rest == 0);
    bool first = true;
    for (uint32_t at = start.word; at <= last && at < uint32_t(C::COLUMN_DEPTH); at++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=512
#pragma HLS PIPELINE II=1  // one word a cycle through the whole array
      const uint32_t row = (weight_base + cycles) & WEIGHT_MASK;
      touch(SHARED_WEIGHTS, STAGE_EXECUTE, false, row);
      // The sum of all codes, with the last word, weighs 2**weight_bits - 1: it enters at the lowest significances.
      array.step(buffers.weights[row], columns.word[at & COLUMN_MASK],
                 columns.count[at & COLUMN_MASK], cycles == 0, first && cycles != 0, false,
                 at == last && significance < conv.weight_bits);
      first = false;
      cycles++;
    }
    const bool nibble_start = (significance & 3) == 0 && significance / 4 < conv.in_bits;
    const bool nibble_stop = ((significance + 1 - conv.weight_bits) & 3) == 0;
    if (conv.nibbles ? nibble_start : significance < conv.in_bits) start.add_plane(conv);
    if (significance >= conv.weight_bits && (!conv.nibbles || nibble_stop)) stop.add_plane(conv);
  }
  return cycles;
}

// Every row tile of one position tile.
inline void multiply_tile(const Conv& conv, const Buffers& buffers, const Columns& columns, Stream<Tile>& out,
                          uint32_t& cycles) {
  uint32_t group_base = 0;
  for (uint32_t row_tile = 0; row_tile < conv.row_tiles; row_tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=1023
    Array array = {};
#pragma HLS ARRAY_PARTITION variable=array.tile.acc complete dim=0  // registers: all are read and written each cycle
#pragma HLS ARRAY_PARTITION variable=array.tile.column_acc complete
    const uint32_t base = conv.weight_base + row_tile * conv.weight_pitch;
    cycles += conv.merged ? multiply_merged(conv, base, buffers, columns, array)
                          : multiply_plain(conv, base, group_base, buffers, columns, array);
    array.cut();
    out.write(array.tile);
    if (conv.depthwise && row_tile % C::ROWS_G == C::ROWS_G - 1) group_base += conv.plane_words;
  }
}

inline void execute(const ExecuteJob& job, const Buffers& buffers, Stream<Tile>& out, ExecuteDone& done) {
  done.fill_cycles = 0;
  done.issue_cycles = 0;
  if (!job.active) return;
  const Conv conv(job.instruction);
  Walker walker = {};
  walker.stride = conv.stride;
  walker.out_width = conv.out_width;
  walker.out_height = conv.out_height;
  walker.pooled = conv.pooled;
  walker.start(conv.start_x, conv.start_y);
  for (uint32_t tile = 0; tile < conv.tiles; tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=4096
#pragma HLS DATAFLOW  // fill makes the next tile's words while the array reads this one's
    static Columns columns;
#pragma HLS ARRAY_PARTITION variable=columns.word complete dim=2   // a bank for each column
#pragma HLS ARRAY_PARTITION variable=columns.count complete dim=2
    fill_tile(conv, walker, buffers, columns, done.fill_cycles);
    multiply_tile(conv, buffers, columns, out, done.issue_cycles);
  }
}

}  // namespace bs

#endif
