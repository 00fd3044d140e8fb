// The execute stage: for each position tile, fill makes the column words (im2col), then the array multiplies them with the
// weight rows of every row tile. Orders of slots and words: bs_fill and bs_issue of the RTL.
#ifndef BS_EXECUTE_H
#define BS_EXECUTE_H

#include "bs_fill.h"
#include "bs_issue.h"

namespace bs {

// The tiles of a conv. A canonical DATAFLOW loop: it counts from 0 to an argument, its body is calls, and what a call keeps
// from one tile to the next it keeps to itself.
static void execute_tiles(uint32_t tiles, const Conv& conv, const WeightBuffer& weights, const PlaneBuffer& planes,
                          RowStreams& rows, Stream<Row>& counts, ExecuteDone& done) {
  for (uint32_t tile = 0; tile < tiles; tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=4096
#pragma HLS DATAFLOW  // fill makes the next tile's words while the array reads this one's
#if defined(__SYNTHESIS__)
    Columns columns;  // a local array between two calls becomes a ping-pong buffer
#else
    static Columns columns;  // beside the stack
#endif
#pragma HLS ARRAY_PARTITION variable=columns.word complete dim=2   // a bank for each column
#pragma HLS ARRAY_PARTITION variable=columns.count complete dim=2  // as above
    fill_tile(tile, conv, planes, columns, done.fill_cycles);
    multiply_tile(tile, conv, weights, columns, rows, counts, done.issue_cycles);
  }
}

static void execute(const ExecuteJob& job, const WeightBuffer& weights, const PlaneBuffer& planes, RowStreams& rows,
                    Stream<Row>& counts, ExecuteDone& done) {
  done.fill_cycles = 0;
  done.issue_cycles = 0;
  if (!job.active) return;
  const Conv conv(job.instruction);
  execute_tiles(conv.tiles, conv, weights, planes, rows, counts, done);
}

}  // namespace bs

#endif
