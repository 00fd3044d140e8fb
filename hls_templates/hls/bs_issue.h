// Issue and array: the words of every row tile of one position tile, one a cycle. RTL: bs_issue, bs_array.
#ifndef BS_ISSUE_H
#define BS_ISSUE_H

#include "bs_fill.h"

namespace bs {

constexpr uint32_t WEIGHT_MASK = C::WEIGHT_DEPTH - 1;

// The accumulators of a row tile.
struct Array {
  uint32_t acc[C::D_M][C::D_N];
  uint32_t column_acc[C::D_N];

  // One word: all dot units in one cycle.
  void step(const ArrayWord (&weights)[C::D_M], const ArrayWord (&words)[C::D_N], const uint16_t (&counts)[C::D_N],
            bool clear, bool shift, bool negative, bool counted) {
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a count for each column
      const uint32_t before = clear ? 0 : column_acc[column] << int(shift);
      column_acc[column] = before + (counted ? counts[column] : 0);
    }
    for (int row = 0; row < C::D_M; row++) {
#pragma HLS UNROLL  // D_M x D_N dot units
      for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // as above
        const uint32_t previous = clear ? 0 : acc[row][column] << int(shift);
        const uint32_t count = uint32_t(count_and(weights[row], words[column]));
        acc[row][column] = negative ? previous - count : previous + count;
      }
    }
  }
};

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

// Which word comes next in a row tile.
// Plain words: significances from the top; in each the plane pairs from the highest activation plane down.
// Merged words: each significance reads the words in which one of its planes has a slot, with a weight row for each.
struct Issue {
  uint32_t taken;           // words of the row tile so far
  bool first;               // the first word of its significance
  int weight_start, plane_start, weight, plane;  // plain; planes count from the lowest
  uint32_t word;            // plain: of the plane pair
  Slots start, stop;        // merged
  uint32_t significance;    // merged
  uint32_t at;              // merged: column word

  void begin(const Conv& conv) {
    taken = 0;
    first = true;
    weight_start = weight = int(conv.weight_bits) - 1;
    plane_start = plane = int(conv.in_bits) - 1;
    word = 0;
    start = {0, 0};
    stop = {conv.plane_words, conv.plane_rest};
    significance = (conv.significances - 1) & 31;
    at = 0;
  }
  uint32_t merged_last() const { return stop.word - (stop.rest == 0); }
  // False where a significance of merged words has none.
  bool valid(const Conv& conv) const { return !conv.merged || (at <= merged_last() && at < uint32_t(C::COLUMN_DEPTH)); }
  uint32_t weight_row(const Conv& conv) const {
    return conv.merged ? taken : (conv.weight_bits - 1 - uint32_t(weight)) * conv.plane_words + word;
  }
  uint32_t column_word(const Conv& conv) const {
    return conv.merged ? at : (conv.in_bits - 1 - uint32_t(plane)) * conv.column_pitch + word;
  }
  bool negative(const Conv& conv) const {
    return !conv.merged && conv.negative_top && weight == int(conv.weight_bits) - 1;
  }
  // The sum of all codes, with the last merged word, weighs 2**weight_bits - 1: it enters at the lowest significances.
  bool counted(const Conv& conv) const { return !conv.merged || (at == merged_last() && significance < conv.weight_bits); }

  // To the next word; true at the end of the row tile.
  bool next(const Conv& conv) {
    const bool took = valid(conv);
    taken += took;
    first = first && !took;
    return conv.merged ? next_merged(conv) : next_plain(conv);
  }

 private:
  bool next_plain(const Conv& conv) {
    if (++word < conv.plane_words) return false;
    word = 0;
    weight++;
    plane--;
    if (weight < int(conv.weight_bits) && plane >= 0) return false;
    if (weight_start > 0) weight_start--;
    else plane_start--;
    weight = weight_start;
    plane = plane_start;
    first = true;
    return plane_start < 0;
  }
  bool next_merged(const Conv& conv) {
    at++;
    if (valid(conv)) return false;
    const bool nibble_start = (significance & 3) == 0 && significance / 4 < conv.in_bits;
    const bool nibble_stop = ((significance + 1 - conv.weight_bits) & 3) == 0;
    if (conv.nibbles ? nibble_start : significance < conv.in_bits) start.add_plane(conv);
    if (significance >= conv.weight_bits && (!conv.nibbles || nibble_stop)) stop.add_plane(conv);
    at = start.word;
    first = true;
    return significance-- == 0;
  }
};

constexpr uint32_t ARRAY_STEPS = 0xffffffffu;  // row tiles times their words: the fields bound both

// Every row tile of one position tile. `cycles`: words over the tiles so far.
inline void multiply_tile(uint32_t tile, const Conv& conv, const WeightBuffer& weights, const Columns& columns,
                          RowStreams& rows, Stream<Row>& counts, uint32_t& cycles) {
  static uint32_t taken;
  if (tile == 0) taken = 0;
  Array array = {};
#pragma HLS ARRAY_PARTITION variable=array.acc complete dim=0    // registers: all are read and written each cycle
#pragma HLS ARRAY_PARTITION variable=array.column_acc complete   // as above
  Issue issue;
  issue.begin(conv);
  uint32_t row_tile = 0, weight_base = conv.weight_base, column_base = 0, chunk = 0;
  for (uint32_t step = 0; step < ARRAY_STEPS; step++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=65536
#pragma HLS PIPELINE II=1  // one word a cycle through the whole array, over all row tiles
    if (issue.valid(conv)) {
      const uint32_t row = (weight_base + issue.weight_row(conv)) & WEIGHT_MASK;
      const uint32_t at = (column_base + issue.column_word(conv)) & COLUMN_MASK;
      touch(SHARED_WEIGHTS, STAGE_EXECUTE, false, row);
      array.step(weights[row], columns.word[at], columns.count[at], issue.taken == 0, issue.first && issue.taken != 0,
                 issue.negative(conv), issue.counted(conv));
      taken++;
    }
    if (issue.next(conv)) {
      Row sums;
      for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a row is one element of its queue
        sums.acc[column] = array.column_acc[column];
      }
      counts.write(sums);
      for (int row = 0; row < C::D_M; row++) {
#pragma HLS UNROLL  // all queues in one cycle
        Row made;
        for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // as above
          made.acc[column] = array.acc[row][column];
        }
        rows[row].write(made);
      }
      issue.begin(conv);
      weight_base += conv.weight_pitch;
      if (++chunk == uint32_t(C::ROWS_G)) {
        chunk = 0;
        if (conv.depthwise) column_base += conv.plane_words;
      }
      if (++row_tile == conv.row_tiles) break;
    }
  }
  cycles = taken;
}

}  // namespace bs

#endif
