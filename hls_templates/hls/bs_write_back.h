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

inline void store_bytes(const Store& store, const Place& place, const Codes& codes, Buffers& buffers) {
  const uint32_t halves = place.halves(store), row = place.byte_row & BYTE_MASK;
  if (!store.bytes || halves == 0) return;
  uint8_t made[C::D_N][C::LANE_ROWS];
  for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a row of all banks in a cycle
    const int from = store.subsample ? 2 * (column % (C::D_N / 2)) : column;
    for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL
      made[column][lane] = store.byte_requant ? codes.stored[from][lane] : codes.code[from][lane];
      if (halves >> (column / (C::D_N / 2)) & 1) buffers.bytes[row][column][lane] = made[column][lane];
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
#pragma HLS UNROLL
      largest[window] = 0;
      for (int channel = 0; channel < C::D_M; channel++) {
#pragma HLS UNROLL
        uint8_t ones = 0;
        for (int position = 0; position < 4; position++) {
#pragma HLS UNROLL
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
// and go to a quarter of the banks.
inline void store_code_planes(const Store& store, const Place& place, uint32_t chunk, const uint8_t (&held)[C::D_N][C::D_M],
                              Buffers& buffers) {
  if (!store.planes) return;
  const uint32_t mask = ((1u << C::D_M) - 1) << (chunk * C::D_M), top = (store.plane_bits - 1) & 15;
  uint32_t row = place.plane_row;
  Windows windows = {};
#pragma HLS ARRAY_PARTITION variable=windows.alive complete dim=0
  for (uint32_t step = 0; step <= top; step++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=8
#pragma HLS PIPELINE II=1  // a plane a cycle
    const uint32_t at = row & (C::PLANE_DEPTH - 1), plane = store.pooled ? top - step : step;
    touch(SHARED_PLANES, STAGE_WRITE_BACK, true, at);
    uint32_t bits[C::D_N], largest[Windows::COUNT];
    uint16_t made[C::D_N];
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
      bits[column] = 0;
      for (int channel = 0; channel < C::D_M; channel++) {
#pragma HLS UNROLL
        bits[column] |= uint32_t((held[column][channel] >> (plane & 7) & 1) ^ (store.flip && plane == top)) << channel;
      }
    }
    if (store.pooled) windows.look(bits, step == 0, largest);
    for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL  // a row of all banks at a time
      made[column] = uint16_t(store.pooled ? largest[column % Windows::COUNT] : bits[column]);
      if (store.pooled && uint32_t(column / Windows::COUNT) != place.quarter) continue;
      uint16_t& bank = buffers.planes[at][column];
      bank = uint16_t((bank & ~mask) | (uint32_t(made[column]) << (chunk * C::D_M) & mask));
    }
#if !defined(__SYNTHESIS__)
    trace_planes(1u << chunk, at, made);
#endif
    row += store.plane_pitch;
  }
}

// Adds the stored bytes of a beat to the sums of their channels.
inline void add_sums(const Store& store, const Codes& codes, bool is_signed, bool first, uint32_t columns, uint32_t group,
                     Buffers& buffers) {
  for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL
    uint32_t sum = first ? 0 : buffers.sums[group][lane];
    for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL  // an adder tree
      const uint8_t code = store.byte_requant ? codes.stored[column][lane] : codes.code[column][lane];
      if (column < columns) sum += uint32_t(is_signed ? int32_t(int8_t(code)) : int32_t(code));
    }
    buffers.sums[group][lane] = sum & ((1u << SUM_BITS) - 1);
  }
}

// Joins logits to memory words; those of an image may come from several instructions.
struct LogitsWriter {
  volatile uint64_t* memory;
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
    write_word(memory, output_addr + logits.offset, word);
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
inline void write_back_conv(const WriteBackJob& job, Stream<Tile>& in, volatile uint64_t* memory, Buffers& buffers,
                            WriteBackDone& done) {
  const ConvOut op(job.instruction);
  Store store(op);
  store.subsample = op.subsample;
  store.pooled = op.pooled;
  Place place(store);
  LogitsWriter logits = {memory, job.output_addr, buffers.logits, 0};
  uint32_t tile_skip = op.skip_base + op.start_tile;
  const uint32_t planes_pitch = store.plane_pitch * store.plane_bits, group_pitch = op.pooled ? 0 - planes_pitch : planes_pitch;
  for (uint32_t tile = 0; tile < op.tiles; tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=4096
    const uint32_t columns = tile == op.tiles - 1 ? op.sums_columns : C::D_N;
    uint32_t group = 0, chunk = 0, skip_row = tile_skip;
    for (uint32_t row_tile = 0; row_tile < op.row_tiles; row_tile++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=1023
      Tile results = {};
      if (!op.from_sums) results = in.read();
      uint8_t held[C::D_N][C::D_M];
#pragma HLS ARRAY_PARTITION variable=held complete dim=0  // planes are cut from all codes at once
      for (int beat = 0; beat < C::BEATS; beat++) {
#pragma HLS PIPELINE II=1  // a beat a cycle
        const uint32_t skip_group = group & 1023, skipped = (skip_group - op.skip_zero_groups) & 1023;
        const bool skip_here = skip_group >= op.skip_zero_groups && skipped < op.skip_groups;
        const uint32_t sum_group = (op.sum_group + group) % C::SUM_GROUPS;
        Codes codes;
        for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL  // LANE_ROWS x D_N lanes
          const uint32_t channel = (op.param_base / C::LANE_ROWS + group) * C::LANE_ROWS + uint32_t(lane);
          touch(SHARED_PARAMS, STAGE_WRITE_BACK, false, channel & (C::PARAM_DEPTH - 1));
          const Param param = buffers.params[channel & (C::PARAM_DEPTH - 1)];
          for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
            const uint8_t raw = buffers.bytes[skip_row & BYTE_MASK][column][lane];
            const int32_t skip = !(op.skip && skip_here) ? 0 : op.skip_signed ? int32_t(int8_t(raw)) : int32_t(raw);
            int32_t acc = results.acc[beat * C::LANE_ROWS + lane][column];
            if (op.from_sums) {
              acc = column ? 0 : int32_t(sign_extend(buffers.sums[sum_group][lane], SUM_BITS));
            }
            const int64_t sum = lane_sum(op, acc, results.column_acc[column], param, skip);
            if (column == 0 && op.logits) logits.add(uint32_t(sum));
            const int32_t code = clip(sum >> op.shift, op.lo, op.hi);
            codes.code[column][lane] = uint8_t(code);
            codes.stored[column][lane] = requantise(store, code);
            held[column][beat * C::LANE_ROWS + lane] = codes.stored[column][lane];
          }
        }
        store_bytes(store, place, codes, buffers);
        if (op.sums) {
          add_sums(store, codes, op.sums_signed, tile == 0 && op.start_tile == 0, columns, sum_group, buffers);
        }
        if (skip_here) skip_row += op.skip_pitch;
        place.byte_row += op.byte_pitch;
        group++;
        done.beats++;
      }
      store_code_planes(store, place, chunk, held, buffers);
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

// The maximum over the windows of one beat's positions, in offset binary where signed: the lowest code is 0.
inline void pool_beat(const Pool& op, Walker walker, uint32_t row, const Buffers& buffers,
                      uint8_t (&largest)[C::D_N][C::LANE_ROWS]) {
  const uint8_t flip = op.in_signed ? 128 : 0;
  bool last = false;
  for (int run = 0; run < C::D_N && !last; run++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=32
    for (uint32_t ky = 0; ky < op.kernel_h; ky++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=15
      for (uint32_t kx = 0; kx < op.kernel_w; kx++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=15
#pragma HLS PIPELINE II=1  // one tap of all columns a cycle
        const int32_t y = coordinate(walker.position_y(), op.stride, ky, op.pad, 0);
        const int32_t x0 = coordinate(walker.position_x(), op.stride, kx, op.pad, walker.shift());
        for (uint32_t column = 0; column < uint32_t(C::D_N); column++) {
#pragma HLS UNROLL
          const int32_t x = x0 + int32_t(walker.lane(column));
          if (column < walker.column || column >= walker.end) continue;
          if (y < 0 || y >= int32_t(op.in_height) || x < 0 || x >= int32_t(op.in_width)) continue;
          const uint32_t pixel = uint32_t(y) * op.in_width + uint32_t(x);
          for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL
            const uint8_t code =
                uint8_t(buffers.bytes[bank_row(row, pixel / C::D_N, op.ring, C::BYTE_DEPTH)][pixel % C::D_N][lane] ^ flip);
            if (code > largest[column][lane]) largest[column][lane] = code;
          }
        }
      }
    }
    last = walker.last;
    walker.next();
  }
}

inline void write_back_pool(const WriteBackJob& job, Buffers& buffers, WriteBackDone& done) {
  const Pool op(job.instruction);
  const Store store(op);
  Place place(store);
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
#pragma HLS ARRAY_PARTITION variable=largest complete dim=0
        if (!zero) {
          pool_beat(op, walker, row, buffers, largest);
          row += op.in_pitch;
        }
        Codes codes;
        for (int column = 0; column < C::D_N; column++) {
#pragma HLS UNROLL
          for (int lane = 0; lane < C::LANE_ROWS; lane++) {
#pragma HLS UNROLL
            const int32_t found = op.in_signed ? int32_t(int8_t(largest[column][lane] ^ 128)) : largest[column][lane];
            const int32_t code = zero ? 0 : found;
            codes.code[column][lane] = uint8_t(code);
            codes.stored[column][lane] = requantise(store, code);
            held[column][beat * C::LANE_ROWS + lane] = codes.stored[column][lane];
          }
        }
        store_bytes(store, place, codes, buffers);
        place.byte_row += op.byte_pitch;
        group++;
        done.beats++;
      }
      store_code_planes(store, place, chunk, held, buffers);
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

inline void write_back(const WriteBackJob& job, Stream<Tile>& in, volatile uint64_t* memory, Buffers& buffers,
                       WriteBackDone& done) {
  done.beats = 0;
  done.written_words = 0;
  done.images = 0;
  if (!job.active) return;
  if ((job.instruction.word[0] & 255) == OP_POOL) write_back_pool(job, buffers, done);
  else write_back_conv(job, in, memory, buffers, done);
}

}  // namespace bs

#endif
