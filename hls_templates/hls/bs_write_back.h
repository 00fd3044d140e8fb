// The write-back stage: rounds what the array gives (conv_out) or the maximum over windows of a byte map (pool), and stores
// bytes, bit planes, sums over the map, or logits.
#ifndef BS_WRITE_BACK_H
#define BS_WRITE_BACK_H

#include "bs_memory.h"
#include "bs_state.h"
#include "bs_walker.h"

namespace bs {

constexpr uint32_t BYTE_MASK = C::BYTE_DEPTH - 1;
constexpr int SUM_BITS = 18;
constexpr uint32_t ACC_MASK = uint32_t((uint64_t(1) << C::ACC_BITS) - 1);

// Where and how codes are stored: the fields that conv_out and pool share.
struct Store {
  uint32_t tiles, row_tiles, start_tile;
  bool bytes, byte_requant, planes, flip, requant, subsample, pooled;
  uint32_t byte_base, byte_pitch, plane_base, plane_pitch, plane_bits;
  int32_t rq_mul, rq_bias, rq_lo, rq_hi;
  uint32_t rq_shift;

  template <typename Op>
  explicit Store(const Op& op)
      : tiles(op.tiles), row_tiles(op.row_tiles), start_tile(op.start_tile), bytes(op.store_bytes),
        byte_requant(op.byte_requant), planes(op.store_planes), flip(op.plane_flip), requant(op.requant),
        subsample(false), pooled(false), byte_base(op.byte_base), byte_pitch(op.byte_pitch), plane_base(op.plane_base),
        plane_pitch(op.plane_pitch), plane_bits(op.plane_bits), rq_mul(op.rq_mul), rq_bias(op.rq_bias),
        rq_lo(op.rq_lo), rq_hi(op.rq_hi), rq_shift(op.rq_shift) {}
};

// The codes of a beat or of a row tile: as the first rounding gives them and as the second one does.
struct Codes {
  uint8_t code[C::D_N][C::LANE_ROWS];
  uint8_t stored[C::D_N][C::LANE_ROWS];
};

inline int32_t clip(int64_t value, int32_t lo, int32_t hi) {
  return value < lo ? lo : value > hi ? hi : int32_t(value);
}

// The second rounding of a code.
inline uint8_t requantise(const Store& store, int32_t code) {
  if (!store.requant) return uint8_t(code);
  const int64_t sum = int64_t(code) * store.rq_mul + store.rq_bias;
  return uint8_t(clip(sum >> store.rq_shift, store.rq_lo, store.rq_hi));
}

// Rows that the beats of a tile go to, the half rows of a subsampled map and the quarter rows of a pooled one. A band begins
// with a kept row and the lowest part of a row.
struct Place {
  uint32_t byte_row, tile_byte, plane_row, tile_plane;
  uint32_t map_column;
  bool map_row_odd, half;
  uint32_t quarter;

  explicit Place(const Store& store)
      : byte_row(store.byte_base + (store.subsample ? store.start_tile >> 2 : store.start_tile)), tile_byte(byte_row),
        plane_row(store.plane_base + (store.pooled ? store.start_tile >> 2 : store.start_tile)), tile_plane(plane_row),
        map_column(0), map_row_odd(false), half(false), quarter(0) {}

  // Halves of the banks that bytes go to.
  uint32_t halves(const Store& store) const { return !store.subsample ? 3 : map_row_odd ? 0 : half ? 2 : 1; }

  void next_tile(const Store& store, uint32_t row_position_tiles) {
    tile_byte += !store.subsample || (!map_row_odd && half);
    byte_row = tile_byte;
    tile_plane += !store.pooled || quarter == 3;
    plane_row = tile_plane;
    quarter = (quarter + 1) & 3;
    if (!map_row_odd) half = !half;
    map_column = (map_column + 1) & 63;
    if (map_column == row_position_tiles) {
      map_column = 0;
      map_row_odd = !map_row_odd;
    }
  }
};

inline void store_bytes(const Store& store, const Place& place, const Codes& codes, ByteBuffer& bytes) {
  const uint32_t halves = place.halves(store), row = place.byte_row & BYTE_MASK;
  if (!store.bytes || halves == 0) return;
  uint8_t made[C::D_N][C::LANE_ROWS];
  for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a row of all banks in a cycle
    const int from = store.subsample ? 2 * (column % (C::D_N / 2)) : column;
    for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // wiring
      made[column][lane] = store.byte_requant ? codes.stored[from][lane] : codes.code[from][lane];
      if (halves >> (column / (C::D_N / 2)) & 1) bytes[row][column][lane] = made[column][lane];
    }
  }
#if !defined(__SYNTHESIS__)
  trace_bytes(halves, row, made);
#endif
}

// The maximum over the 2x2 positions of each window, bit by bit while the planes are written from the top.
struct Windows {
  static constexpr int COUNT = C::D_N / 4;
  uint8_t alive[C::D_M][COUNT];  // positions of a window that may still be its maximum, a bit each

  // `plane`: bits of the channels by position. Returns those of the maxima.
  void look(const uint32_t (&plane)[C::D_N], bool first, uint32_t (&largest)[COUNT]) {
    for (int window = 0; window < COUNT; window++) {
#pragma HLS UNROLL  // windows side by side
      largest[window] = 0;
      for (int channel = 0; channel < C::D_M; channel++) {
#pragma HLS UNROLL  // channels side by side
        uint8_t ones = 0;
        for (int position = 0; position < 4; position++) {
#pragma HLS UNROLL  // wiring
          const int column = position / 2 * (C::D_N / 2) + 2 * window + position % 2;
          ones = uint8_t(ones | (plane[column] >> channel & 1) << position);
        }
        if (!first) ones &= alive[channel][window];
        if (ones || first) alive[channel][window] = ones ? ones : 15;
        largest[window] |= uint32_t(ones != 0) << channel;
      }
    }
  }
};

// The planes of a row tile: codes of D_M channels at D_N positions. Pooled, they come from the top, of the windows' maxima,
// and go to a quarter of the columns.
inline void cut_code_planes(const Store& store, const Place& place, uint32_t chunk, const uint8_t (&held)[C::D_N][C::D_M],
                            Windows& windows, Stream<PlaneRow>& out) {
  if (!store.planes) return;
  const uint32_t top = (store.plane_bits - 1) & 15, quarter = uint32_t((uint64_t(1) << Windows::COUNT) - 1);
  const uint32_t columns = store.pooled ? quarter << (place.quarter * Windows::COUNT) : ALL_COLUMNS;
  uint32_t row = place.plane_row;
  for (uint32_t step = 0; step <= top; step++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8
#pragma HLS PIPELINE II=1  // a plane a cycle
    const uint32_t plane = store.pooled ? top - step : step;
    uint32_t bits[C::D_N], largest[Windows::COUNT];
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a row of all columns at a time
      bits[column] = 0;
      for (int channel = 0; channel < C::D_M; channel++) {
#pragma HLS UNROLL  // wiring
        bits[column] |= uint32_t((held[column][channel] >> (plane & 7) & 1) ^ (store.flip && plane == top)) << channel;
      }
    }
    if (store.pooled) windows.look(bits, step == 0, largest);
    PlaneRow made = {row & (C::PLANE_DEPTH - 1), 1u << chunk, columns, {}, false};
#if !defined(__SYNTHESIS__)
    uint16_t traced[C::D_N];
#endif
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // as above
      const uint32_t stored = store.pooled ? largest[column % Windows::COUNT] : bits[column];
      made.bits[column] = uint16_t(stored << (chunk * C::D_M));
#if !defined(__SYNTHESIS__)
      traced[column] = uint16_t(stored);
#endif
    }
    out.write(made);
#if !defined(__SYNTHESIS__)
    trace_planes(1u << chunk, made.row, traced);
#endif
    row += store.plane_pitch;
  }
}

// Adds the stored bytes of a beat to the sums of their channels.
inline void add_sums(const Store& store, const Codes& codes, bool is_signed, bool first, uint32_t columns, uint32_t group,
                     SumBuffer& sums) {
  for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // lanes side by side
    uint32_t sum = first ? 0 : sums[group][lane];
    for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL  // an adder tree
      const uint8_t code = store.byte_requant ? codes.stored[column][lane] : codes.code[column][lane];
      if (column < columns) sum += uint32_t(is_signed ? int32_t(int8_t(code)) : int32_t(code));
    }
    sums[group][lane] = sum & ((1u << SUM_BITS) - 1);
  }
}

// Joins logits to memory words; those of an image may come from several instructions.
struct LogitsWriter {
  uint64_t* memory;
  uint32_t output_addr;
  Logits& logits;
  uint32_t words;

  void add(uint32_t value) {
    if (logits.half) write(logits.low | uint64_t(value) << 32);
    logits.low = value;
    logits.half = !logits.half;
  }
  void end_image() {
    if (logits.half) write(logits.low);
    logits.half = false;
    logits.offset = 0;
  }

 private:
  void write(uint64_t word) {
    write_word(memory, (output_addr + logits.offset) / 8, word);
    logits.offset += 8;
    words++;
  }
};

// One lane: code = clip((value * mul + skip * skip_mul + bias) >> shift, lo, hi); `sum` before the shift.
inline int64_t lane_sum(const ConvOut& op, int32_t acc, uint32_t column_acc, const Param& param, int32_t skip) {
  const int64_t value = op.bipolar ? sign_extend(2 * int64_t(acc) - int64_t(column_acc), C::ACC_BITS + 1) : int64_t(acc);
  const int64_t sum = value * param.mul + int64_t(skip) * int64_t(op.skip_mul) + param.bias;
  return sign_extend(sum, 48);
}

// conv_out: beats of LANE_ROWS channels of each row tile.
inline void write_back_conv(const WriteBackJob& job, RowStreams& rows, Stream<Row>& column_counts,
                            const ParamBuffer& params, uint64_t* memory, ByteBuffer& bytes, SumBuffer& sums, Logits& held_logits, Stream<PlaneRow>& out,
                            WriteBackDone& done) {
  const ConvOut op(job.instruction);
  Store store(op);
  store.subsample = op.subsample;
  store.pooled = op.pooled;
  Place place(store);
  LogitsWriter logits = {memory, job.output_addr, held_logits, 0};
  uint32_t tile_skip = op.skip_base + op.start_tile;
  const uint32_t planes_pitch = store.plane_pitch * store.plane_bits, group_pitch = op.pooled ? 0 - planes_pitch : planes_pitch;
  for (uint32_t tile = 0; tile < op.tiles; tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=4096
    const uint32_t columns = tile == op.tiles - 1 ? op.sums_columns : C::D_N;
    uint32_t group = 0, chunk = 0, skip_row = tile_skip;
    for (uint32_t row_tile = 0; row_tile < op.row_tiles; row_tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=1023
      Row counts = {};
      if (!op.from_sums) counts = column_counts.read();
      Windows windows = {};
#pragma HLS ARRAY_PARTITION variable=windows.alive complete dim=0  // registers: all windows are looked at in a cycle
      uint8_t held[C::D_N][C::D_M];
#pragma HLS ARRAY_PARTITION variable=held complete dim=0  // planes are cut from all codes at once
      for (int beat = 0; beat < C::BEATS; beat++) {
#pragma HLS PIPELINE II=1  // a beat a cycle
        Row results[C::LANE_ROWS] = {};
        for (int row = 0; row < C::D_M; row++) {
#pragma HLS UNROLL  // the queues of the beat's rows
          if (!op.from_sums && row / C::LANE_ROWS == beat) results[row % C::LANE_ROWS] = rows[row].read();
        }
        const uint32_t skip_group = group & 1023, skipped = (skip_group - op.skip_zero_groups) & 1023;
        const bool skip_here = skip_group >= op.skip_zero_groups && skipped < op.skip_groups;
        const uint32_t sum_group = (op.sum_group + group) % SUM_GROUPS;
        Codes codes;
        for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // LANE_ROWS x D_N lanes
          const uint32_t channel = (op.param_base / C::LANE_ROWS + group) * C::LANE_ROWS + uint32_t(lane);
          touch(SHARED_PARAMS, STAGE_WRITE_BACK, false, channel & (C::PARAM_DEPTH - 1));
          const Param param = params[channel & (C::PARAM_DEPTH - 1)];
          for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // as above
            const uint8_t raw = bytes[skip_row & BYTE_MASK][column][lane];
            const int32_t skip = !(op.skip && skip_here) ? 0 : op.skip_signed ? int32_t(int8_t(raw)) : int32_t(raw);
            int32_t acc = int32_t(sign_extend(results[lane].acc[column], C::ACC_BITS));
            if (op.from_sums) {
              acc = column ? 0 : int32_t(sign_extend(sums[sum_group][lane], SUM_BITS));
            }
            const int64_t sum = lane_sum(op, acc, counts.acc[column] & ACC_MASK, param, skip);
            if (column == 0 && op.logits) logits.add(uint32_t(sum));
            const int32_t code = clip(sum >> op.shift, op.lo, op.hi);
            codes.code[column][lane] = uint8_t(code);
            codes.stored[column][lane] = requantise(store, code);
            held[column][beat * C::LANE_ROWS + lane] = codes.stored[column][lane];
          }
        }
        store_bytes(store, place, codes, bytes);
        if (op.sums) {
          add_sums(store, codes, op.sums_signed, tile == 0 && op.start_tile == 0, columns, sum_group, sums);
        }
        if (skip_here) skip_row += op.skip_pitch;
        place.byte_row += op.byte_pitch;
        group++;
        done.beats++;
      }
      cut_code_planes(store, place, chunk, held, windows, out);
      if (++chunk == uint32_t(C::ROWS_G)) {
        chunk = 0;
        place.plane_row += group_pitch;
      }
    }
    tile_skip++;
    place.next_tile(store, op.row_position_tiles);
  }
  if (op.logits && op.logits_last) {
    logits.end_image();
    done.images++;
  }
  done.written_words = logits.words;
}

// Raises the maxima of one beat's positions by one tap of all columns of a run, in offset binary where signed: the lowest code
// is 0. Each bank is read once, as in fill.
inline void pool_tap(const Pool& op, const Walker& walker, uint32_t row, uint32_t ky, uint32_t kx, const ByteBuffer& bytes,
                     uint8_t (&largest)[C::D_N][C::LANE_ROWS]) {
  const uint8_t flip = op.in_signed ? 128 : 0;
  const int32_t y = coordinate(walker.position_y(), op.stride, ky, op.pad, 0);
  const int32_t x = coordinate(walker.position_x(), op.stride, kx, op.pad, walker.shift());
  if (y < 0 || y >= int32_t(op.in_height)) return;
  const uint32_t first = uint32_t(y * int32_t(op.in_width) + x), start = first % C::D_N, at = (first - start) / C::D_N;
  const uint32_t rows[2] = {bank_row(row, at, op.ring, C::BYTE_DEPTH), bank_row(row, at + 1, op.ring, C::BYTE_DEPTH)};
  uint8_t window[C::D_N][C::LANE_ROWS];
#pragma HLS ARRAY_PARTITION variable=window complete dim=0  // the outputs of the banks
  for (uint32_t bank = 0; bank < uint32_t(C::D_N); bank++) {
#pragma HLS UNROLL  // a read of every bank
    for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // as above
      window[bank][lane] = bytes[rows[bank < start]][bank][lane];
    }
  }
  for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL  // columns work side by side
    const int32_t ahead = int32_t(walker.lane(column));
    if (column < walker.column || column >= walker.end) continue;
    if (x + ahead < 0 || x + ahead >= int32_t(op.in_width)) continue;
    for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // as above
      const uint8_t code = uint8_t(window[(start + uint32_t(ahead)) % C::D_N][lane] ^ flip);
      if (code > largest[column][lane]) largest[column][lane] = code;
    }
  }
}

// The maximum over the windows of one beat's positions.
inline void pool_beat(const Pool& op, Walker walker, uint32_t row, const ByteBuffer& bytes,
                      uint8_t (&largest)[C::D_N][C::LANE_ROWS]) {
  uint32_t ky = 0, kx = 0;
  for (uint32_t step = 0; step < uint32_t(C::D_N) * 15 * 15; step++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=7200
#pragma HLS PIPELINE II=1  // one tap of all columns of a run a cycle
    pool_tap(op, walker, row, ky, kx, bytes, largest);
    if (++kx < op.kernel_w) continue;
    kx = 0;
    if (++ky < op.kernel_h) continue;
    ky = 0;
    if (walker.last) break;
    walker.next();
  }
}

inline void write_back_pool(const WriteBackJob& job, ByteBuffer& bytes, Stream<PlaneRow>& out, WriteBackDone& done) {
  const Pool op(job.instruction);
  const Store store(op);
  Place place(store);
  Windows windows = {};  // not used: pools over windows of a byte map are not pooled again
  Walker walker = {};
  walker.stride = op.stride;
  walker.out_width = op.out_width;
  walker.out_height = op.out_height;
  walker.start(op.start_x, op.start_y);
  const uint32_t group_pitch = store.plane_pitch * store.plane_bits;
  for (uint32_t tile = 0; tile < op.tiles; tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=4096
    uint32_t group = 0, chunk = 0, row = op.in_base;
    for (uint32_t row_tile = 0; row_tile < op.row_tiles; row_tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=1023
      uint8_t held[C::D_N][C::D_M];
#pragma HLS ARRAY_PARTITION variable=held complete dim=0  // planes are cut from all codes at once
      for (int beat = 0; beat < C::BEATS; beat++) {
        const bool zero = group < op.zero_groups || group - op.zero_groups >= op.in_groups;
        uint8_t largest[C::D_N][C::LANE_ROWS] = {};
#pragma HLS ARRAY_PARTITION variable=largest complete dim=0  // registers: compared at once
        if (!zero) {
          pool_beat(op, walker, row, bytes, largest);
          row += op.in_pitch;
        }
        Codes codes;
        for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // columns side by side
          for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // lanes side by side
            const int32_t found = op.in_signed ? int32_t(int8_t(largest[column][lane] ^ 128)) : largest[column][lane];
            const int32_t code = zero ? 0 : found;
            codes.code[column][lane] = uint8_t(code);
            codes.stored[column][lane] = requantise(store, code);
            held[column][beat * C::LANE_ROWS + lane] = codes.stored[column][lane];
          }
        }
        store_bytes(store, place, codes, bytes);
        place.byte_row += op.byte_pitch;
        group++;
        done.beats++;
      }
      cut_code_planes(store, place, chunk, held, windows, out);
      if (++chunk == uint32_t(C::ROWS_G)) {
        chunk = 0;
        place.plane_row += group_pitch;
      }
    }
    // All beats of a tile walk the same positions; then on to the next tile's.
    bool last = false;
    for (int run = 0; run < C::D_N && !last; run++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=32
      last = walker.last;
      walker.next();
    }
    place.next_tile(store, 0);
  }
}

static void write_back(const WriteBackJob& job, RowStreams& rows, Stream<Row>& column_counts,
                       const ParamBuffer& params, uint64_t* memory, ByteBuffer& bytes, SumBuffer& sums, Logits& logits, Stream<PlaneRow>& out, WriteBackDone& done) {
  done.beats = 0;
  done.written_words = 0;
  done.images = 0;
  if (job.active && (job.instruction.word[0] & 255) == OP_POOL) write_back_pool(job, bytes, out, done);
  if (job.active && (job.instruction.word[0] & 255) == OP_CONV_OUT) {
    write_back_conv(job, rows, column_counts, params, memory, bytes, sums, logits, out, done);
  }
  out.write(NO_MORE_ROWS);
}

}  // namespace bs

#endif
