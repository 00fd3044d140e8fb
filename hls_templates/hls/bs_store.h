// Store: the one writer of the plane buffer. It takes rows from write-back and fetch in turn, as long as both have some.
#ifndef BS_STORE_H
#define BS_STORE_H

#include "bs_state.h"

namespace bs {

inline void store_row(const PlaneRow& made, PlaneBuffer& planes) {
  for (int copy = 0; copy < 2; copy++) {
#pragma HLS UNROLL  // both copies of the buffer
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a row of all banks at a time
      for (int chunk = 0; chunk < C::ROWS_G; chunk++) {
#pragma HLS UNROLL  // a bank for each part of a slot: nothing is read to write a part
        if ((made.chunks >> chunk & 1) && (made.columns >> column & 1)) {
          planes[copy][made.row][column][chunk] = Bits<C::D_M>(made.bits[column] >> (chunk * C::D_M) & ((1u << C::D_M) - 1));
        }
      }
    }
  }
}

// `most`: rows that come at most, the two ends included.
static void store(Stream<PlaneRow>& made, Stream<PlaneRow>& loaded, uint64_t most, PlaneBuffer& planes) {
  bool made_left = true, loaded_left = true, turn = true;
  for (uint64_t step = 0; step < most && (made_left || loaded_left); step++) {
#pragma HLS LOOP_TRIPCOUNT min=2 max=8192
#pragma HLS PIPELINE II=1  // a row a cycle
    const bool from_made = made_left && (turn || !loaded_left);
    const PlaneRow row = from_made ? made.read() : loaded.read();
    turn = !turn;
    if (row.last) {
      if (from_made) made_left = false;
      else loaded_left = false;
      continue;
    }
    touch(SHARED_PLANES, from_made ? STAGE_WRITE_BACK : STAGE_FETCH, true, row.row);
    store_row(row, planes);
  }
}

}  // namespace bs

#endif
