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

// D_N accumulators: of one array row, or the column counts. A row tile is D_M of the one and one of the other.
struct Row {
  uint32_t acc[C::D_N];
};

// A queue for each array row: one of whole tiles would be wider than Vitis allows.
typedef Stream<Row> RowStreams[C::D_M];

// Bits for a row of the plane buffer.
struct PlaneRow {
  uint32_t row;
  uint32_t chunks;   // which D_M channels of a slot are written, a bit each
  uint32_t columns;  // which columns
  uint16_t bits[C::D_N];
  bool last;         // nothing in it: no row follows
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

constexpr uint32_t ALL_CHUNKS = (1u << C::ROWS_G) - 1, ALL_COLUMNS = uint32_t((uint64_t(1) << C::D_N) - 1);
constexpr PlaneRow NO_MORE_ROWS = {0, 0, 0, {}, true};

// The buffers. All depths are powers of two; addresses wrap as the RTL's do. In a region each has one stage that reads it and
// a later one that writes it, or a single one that does both.
typedef ArrayWord WeightBuffer[C::WEIGHT_DEPTH][C::D_M];                   // execute reads, fetch writes
typedef Bits<C::D_M> PlaneBuffer[2][C::PLANE_DEPTH][C::D_N][C::ROWS_G];    // execute reads, store writes; twice, as in the RTL
typedef Param ParamBuffer[C::PARAM_DEPTH];                                 // write-back reads, fetch writes
typedef uint8_t ByteBuffer[C::BYTE_DEPTH][C::D_N][C::LANE_ROWS];           // write-back alone
typedef uint32_t SumBuffer[SUM_GROUPS][C::LANE_ROWS];                   // write-back alone, 18 bits each

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
