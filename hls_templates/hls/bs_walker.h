// Walks the output positions of a band in runs: columns of one position tile that lie in one output row and that one window
// serves: up to D_N at stride 1, D_N/2 at stride 2 (aligned to half a tile), one at other strides.
#ifndef BS_WALKER_H
#define BS_WALKER_H

#include "bs_state.h"

namespace bs {

struct Walker {
  uint32_t stride, out_width, out_height;
  uint32_t x, y;            // output position of the run's first column
  uint32_t column, end;     // columns of the run: [column, end)
  uint32_t next_x, next_y;
  bool last;                // last run of the tile

  void start(uint32_t start_x, uint32_t start_y) {
    x = start_x;
    y = start_y;
    column = 0;
    look();
  }
  void next() {
    x = next_x;
    y = next_y;
    column = last ? 0 : end;
    look();
  }
  // Columns between the first of the window and the first of the run, in pixels.
  uint32_t shift() const { return stride == 2 ? (column & (C::D_N / 2 - 1)) * 2 : column; }
  // The pixel of a column in the window.
  uint32_t lane(uint32_t at) const { return stride == 2 ? 2 * (at % (C::D_N / 2)) : at; }

 private:
  void look() {
    const uint32_t half = C::D_N / 2;
    const uint32_t room = stride == 1 ? C::D_N - column : stride == 2 ? half - (column & (half - 1)) : 1;
    const uint32_t row_left = (out_width - x) & 1023;
    const bool row_done = row_left <= room;
    const uint32_t count = row_done ? row_left : room;
    end = column + count;
    next_x = row_done ? 0 : (x + count) & 1023;
    next_y = (y + row_done) & 1023;
    last = end >= C::D_N || next_y >= out_height;
  }
};

// Coordinates have 12 bits in two's complement, as in bs_window.
inline int32_t coordinate(uint32_t position, uint32_t stride, uint32_t tap, uint32_t pad, uint32_t shift) {
  return int32_t(sign_extend(int64_t(position * stride + tap - pad - shift), 12));
}

}  // namespace bs

#endif
