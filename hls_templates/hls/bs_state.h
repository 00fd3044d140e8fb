// What the stages share: the on-chip buffers, their counters, the jobs that the sequencer gives them.
#ifndef BS_STATE_H
#define BS_STATE_H

#include "bs_config.h"
#include "bs_isa.h"
#include "bs_region.h"
#include "bs_stream.h"
#include "bs_word.h"

namespace bs {

using C = Config;
using ArrayWord = Word<C::D_K>;

// One row tile of one position tile: D_M x D_N accumulators and the column counts.
struct Tile {
  int32_t acc[C::D_M][C::D_N];
  uint32_t column_acc[C::D_N];
};

struct Param {
  int64_t bias;  // 48 bits
  int32_t mul;   // 18 bits
};

// Where the logits of an image have got to.
struct Logits {
  uint32_t offset;  // bytes written
  uint32_t low;     // a logit that waits for its neighbour
  bool half;
};

// The buffers. All depths are powers of two; addresses wrap as the RTL's do.
struct Buffers {
  ArrayWord weights[C::WEIGHT_DEPTH][C::D_M];                 // fetch writes, execute reads
  uint16_t planes[C::PLANE_DEPTH][C::D_N];                    // fetch and write-back write, execute reads
  Param params[C::PARAM_DEPTH];                               // fetch writes, write-back reads
  uint8_t bytes[C::BYTE_DEPTH][C::D_N][C::LANE_ROWS];         // write-back alone
  uint32_t sums[C::SUM_GROUPS][C::LANE_ROWS];                 // write-back alone, 18 bits each
  Logits logits;                                              // write-back alone
};

// What a stage did in a region; the sequencer adds it to the registers.
struct FetchDone {
  uint32_t read_words;
  bool failed;
};
struct ExecuteDone {
  uint32_t fill_cycles;
  uint32_t issue_cycles;
};
struct WriteBackDone {
  uint32_t beats;
  uint32_t written_words;
  uint32_t images;
};

// What a stage is to do in a region; active is false where it has nothing to do.
struct FetchJob {
  bool active;
  Instruction instruction;
  uint32_t program_addr;
  uint32_t image_addr;
  bool planar;
};
struct ExecuteJob {
  bool active;
  Instruction instruction;
};
struct WriteBackJob {
  bool active;
  Instruction instruction;
  uint32_t output_addr;
};

#if !defined(__SYNTHESIS__)
// Simulation only: what the tensor monitor sees of the write ports.
void trace_planes(uint32_t enables, uint32_t row, const uint16_t (&data)[C::D_N]);
void trace_bytes(uint32_t enables, uint32_t row, const uint8_t (&data)[C::D_N][C::LANE_ROWS]);
#endif

}  // namespace bs

#endif
