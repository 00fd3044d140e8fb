// Walks the output positions of a band in runs: columns of one position tile that lie in one output row and that one window
// serves: up to D_N at stride 1, D_N/2 at stride 2 (aligned to half a tile), one at other strides. Pooled (at stride 1 only),
// a tile is D_N/4 windows of 2x2 positions, and start, width and height count windows: their upper positions are the tile's
// lower half of columns, their lower positions the upper half.
#ifndef BS_WALKER_H
#define BS_WALKER_H

#include "bs_state.h"

namespace bs {

struct Walker {
  uint32_t stride, out_width, out_height;
  bool pooled;
  uint32_t x, y;            // output position of the run's first column; pooled: its window
  uint32_t tile_x, tile_y;  // of the tile's first column
  uint32_t column, end;     // columns of the run: [column, end)
  uint32_t next_x, next_y;
  bool lower;               // pooled: the lower positions of the windows
  bool half_done;           // pooled: last run of the upper positions
  bool last;                // last run of the tile

  void start(uint32_t start_x, uint32_t start_y) {
    x = tile_x = start_x;
    y = tile_y = start_y;
    column = 0;
    lower = false;
    look();
  }
  void next() {
    if (half_done) {
      x = tile_x;
      y = tile_y;
      column = C::D_N / 2;
      lower = true;
    } else {
      x = next_x;
      y = next_y;
      column = last ? 0 : end;
      if (last) {
        tile_x = x;
        tile_y = y;
        lower = false;
      }
    }
    look();
  }
  uint32_t position_x() const { return pooled ? x << 1 & 1023 : x; }
  uint32_t position_y() const { return pooled ? (y << 1 & 1023) | lower : y; }
  // Columns between the first of the window and the first of the run, in pixels.
  uint32_t shift() const { return stride == 2 ? (column & (C::D_N / 2 - 1)) * 2 : column; }
  // The pixel of a column in the window.
  uint32_t lane(uint32_t at) const { return stride == 2 ? 2 * (at % (C::D_N / 2)) : at; }

 private:
  void look() {
    const uint32_t half = C::D_N / 2, half_room = half - (column & (half - 1));
    const uint32_t room = stride == 1 ? (pooled ? half_room : C::D_N - column) : stride == 2 ? half_room : 1;
    const uint32_t row_left = (pooled ? (out_width - x) << 1 : out_width - x) & 1023;
    const bool row_done = row_left <= room;
    const uint32_t count = row_done ? row_left : room;
    end = column + count;
    next_x = row_done ? 0 : (x + (pooled ? count / 2 : count)) & 1023;
    next_y = (y + row_done) & 1023;
    const bool map_done = next_y >= out_height;
    half_done = pooled && !lower && (end == half || map_done);
    last = !half_done && (end >= uint32_t(C::D_N) || map_done);
  }
};

// Coordinates have 12 bits in two's complement, as in bs_window.
inline int32_t coordinate(uint32_t position, uint32_t stride, uint32_t tap, uint32_t pad, uint32_t shift) {
  return int32_t(sign_extend(int64_t(position * stride + tap - pad - shift), 12));
}

// The row of a bank that holds row `at` of a map that begins at row `base`. Of a map in a ring the buffer holds 2**ring rows,
// base a multiple of them; 0: the map lies there whole.
inline uint32_t bank_row(uint32_t base, uint32_t at, uint32_t ring, uint32_t depth) {
  const uint32_t fixed = ring == 0 ? 0 : ~((1u << ring) - 1);
  return (((base + at) & ~fixed) | (base & fixed)) & (depth - 1);
}

}  // namespace bs

#endif
