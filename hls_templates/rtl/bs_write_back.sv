/// The write-back stage: takes what the array produces (conv_out) or reads a byte map itself (pool), rounds it in the
/// lanes and stores bytes (skip codes, pool sources), bit planes, or logits. Nothing in it stalls once a row tile has
/// started: an instruction is armed, and its credit given to issue, only when its tokens are there.
module bs_write_back #(
    parameter int D_M         = 8,     // array rows, a multiple of LANE_ROWS
    parameter int D_N         = 16,    // array columns, 2..32, a power of two
    parameter int LANE_ROWS   = 2,     // rows per read-out beat, 1..8, a power of two
    parameter int ROWS_G      = 2,     // row tiles per channel group (G / D_M), 1..8
    parameter int ACC_BITS    = 28,    // accumulator width in bits, 12..32
    parameter int PLANE_DEPTH = 512,   // rows of the plane buffer, a power of two
    parameter int BYTE_DEPTH  = 512,   // rows of the byte buffer, a power of two
    parameter int PARAM_DEPTH = 1024,  // channels of the parameter buffer, a power of two
    parameter int SUM_GROUPS  = 256,   // groups of LANE_ROWS channels whose codes can be added up, 2..1024
    parameter bit XC7         = 1'b0   // 7-series primitives in the lanes, else portable arithmetic
) (
    input  logic                                        clk,
    input  logic                                        rst,
    // instructions; instr_i stands a cycle before instr_valid_i
    input  logic                                        instr_valid_i,
    output logic                                        instr_ready_o,
    input  logic [bs_pkg::INSTRUCTION_BITS-1:0]         instr_i,
    input  logic                                        first_image_i,
    // tokens and credits; tokens are compared a cycle before
    output logic [7:0]                                  need_fill_o,
    input  logic                                        enough_fill_i,
    output logic                                        take_o,
    output logic                                        post_fill_o,
    output logic                                        armed_o,       // pulse: one more conv_out is ready
    // array
    input  logic                                        start_i,       // 2 cycles before the first beat of a row tile
    input  logic [LANE_ROWS-1:0][D_N-1:0][ACC_BITS-1:0] acc_i,
    input  logic [D_N-1:0][ACC_BITS-1:0]                column_acc_i,
    // parameters from fetch
    input  logic                                        param_we_i,
    input  logic [15:0]                                 param_channel_i,
    input  logic                                        param_word_i,  // 0: bias, 1: multiplier
    input  logic [63:0]                                 param_data_i,
    // bit planes
    output logic [ROWS_G-1:0]                           plane_we_o,
    output logic [3:0]                                  plane_quarters_o,  // quarters of the banks
    output logic [$clog2(PLANE_DEPTH)-1:0]              plane_row_o,
    output logic [D_N-1:0][D_M-1:0]                     plane_data_o,
    // logits of position 0
    input  logic                                        logits_written_i,  // pulse: an image's logits are in memory
    output logic                                        logits_valid_o,
    output logic                                        logits_last_o,
    output logic [LANE_ROWS-1:0][31:0]                  logits_o,
    // byte map writes, for monitors
    output logic [1:0]                                  byte_we_o,     // lower and upper half of the banks
    output logic [$clog2(BYTE_DEPTH)-1:0]               byte_row_o,
    output logic [D_N-1:0][LANE_ROWS*8-1:0]             byte_data_o,
    // status
    output logic                                        first_sum_o,   // first beat of an instruction on sums
    output logic                                        active_o,
    output logic                                        idle_o,
    output logic [7:0]                                  layer_o
);
  localparam int BEATS = D_M / LANE_ROWS;
  localparam int BEAT_BITS = $clog2(BEATS + 1);
  localparam int PLANE_ROW_BITS = $clog2(PLANE_DEPTH);
  localparam int BYTE_ROW_BITS = $clog2(BYTE_DEPTH);
  localparam int CHUNK_BITS = $clog2(ROWS_G + 1);
  localparam int PARAM_ROWS = PARAM_DEPTH / LANE_ROWS;
  localparam int PARAM_BITS = $clog2(PARAM_ROWS);
  localparam int LANE_ROW_BITS = LANE_ROWS > 1 ? $clog2(LANE_ROWS) : 1;
  localparam int SUM_BITS = 18;
  localparam int GROUP_BITS = $clog2(SUM_GROUPS);
  localparam int COLUMN_BITS = $clog2(D_N);

  // ------------------------------------------------------------------ what a beat carries through the lanes
  typedef struct packed {
    logic                      valid;
    logic                      row_tile_last;
    logic                      instr_last;
    logic                      bipolar;
    logic                      logits;
    logic                      logits_last;
    logic                      skip;
    logic                      skip_signed;
    logic [23:0]               skip_mul;
    logic [4:0]                shift;
    logic signed [8:0]         lo;
    logic signed [8:0]         hi;
    logic                      from_sums;
    logic                      sums;
    logic                      sums_first;
    logic                      sums_signed;
    logic [COLUMN_BITS:0]      sums_columns;
    logic [GROUP_BITS-1:0]     group;
    logic                      store_bytes;
    logic                      subsample;
    logic [1:0]                halves;       // halves of the banks that bytes go to
    logic                      byte_requant;
    logic [BYTE_ROW_BITS-1:0]  byte_row;
    logic                      store_planes;
    logic [PLANE_ROW_BITS-1:0] plane_row;
    logic [PLANE_ROW_BITS-1:0] plane_pitch;
    logic [3:0]                plane_bits;
    logic                      plane_flip;
    logic                      pooled;
    logic [1:0]                quarter;
    logic [CHUNK_BITS-1:0]     chunk;
    logic                      post;
    logic                      requant;
    logic signed [24:0]        rq_mul;       // multiplier and bias shifted so that whole bytes and seven bits remain
    logic signed [38:0]        rq_bias;
    logic [1:0]                rq_bytes;
    logic signed [8:0]         rq_lo;
    logic signed [8:0]         rq_hi;
  } beat_t;

  // Fields that conv_out and pool share, wherever they lie.
  typedef struct packed {
    logic        is_pool;
    logic        alone;       // makes its beats itself: pool, from_sums
    logic [7:0]  layer;
    logic [15:0] tiles;
    logic [9:0]  row_tiles;
    logic [15:0] param_base;
    logic [15:0] skip_base;
    logic [15:0] skip_pitch;
    logic [9:0]  skip_zero_groups;
    logic [9:0]  skip_groups;
    logic [5:0]  row_position_tiles;
    logic [GROUP_BITS-1:0] sum_group;
    logic [15:0] start_tile;
    logic [15:0] byte_base;
    logic [15:0] byte_pitch;
    logic [15:0] plane_base;
    beat_t       beat;
  } work_t;

  bs_pkg::conv_out_t conv_out;
  bs_pkg::pool_t pool;
  bs_pkg::head_t head;
  work_t decoded, next_q, work_q;

  assign conv_out = instr_i;
  assign pool = instr_i;
  assign head = instr_i[15:0];

  always_comb begin
    decoded = '0;
    decoded.is_pool = head.opcode == bs_pkg::OP_POOL;
    decoded.layer = head.layer;
    decoded.alone = decoded.is_pool || conv_out.from_sums;
    if (decoded.is_pool) begin
      decoded.tiles = pool.tiles;
      decoded.row_tiles = pool.row_tiles;
      decoded.start_tile = pool.start_tile;
      decoded.byte_base = pool.byte_base;
      decoded.byte_pitch = pool.byte_pitch;
      decoded.plane_base = pool.plane_base;
      decoded.beat.store_bytes = pool.store_bytes;
      decoded.beat.byte_requant = pool.byte_requant;
      decoded.beat.store_planes = pool.store_planes;
      decoded.beat.plane_pitch = PLANE_ROW_BITS'(pool.plane_pitch);
      decoded.beat.plane_bits = pool.plane_bits;
      decoded.beat.plane_flip = pool.plane_flip;
      decoded.beat.post = pool.post_fill;
      decoded.beat.requant = pool.requant;
      decoded.beat.rq_mul = 25'(pool.rq_mul) <<< ~pool.rq_shift[2:0];
      decoded.beat.rq_bias = 39'(pool.rq_bias) <<< ~pool.rq_shift[2:0];
      decoded.beat.rq_bytes = pool.rq_shift[4:3];
      decoded.beat.rq_lo = pool.rq_lo;
      decoded.beat.rq_hi = pool.rq_hi;
    end else begin
      decoded.tiles = conv_out.tiles;
      decoded.row_tiles = conv_out.row_tiles;
      decoded.param_base = conv_out.param_base;
      decoded.skip_base = conv_out.skip_base;
      decoded.skip_pitch = conv_out.skip_pitch;
      decoded.skip_zero_groups = conv_out.skip_zero_groups;
      decoded.skip_groups = conv_out.skip_groups;
      decoded.row_position_tiles = conv_out.row_position_tiles;
      decoded.start_tile = conv_out.start_tile;
      decoded.byte_base = conv_out.byte_base;
      decoded.byte_pitch = conv_out.byte_pitch;
      decoded.plane_base = conv_out.plane_base;
      decoded.beat.bipolar = conv_out.bipolar;
      decoded.beat.logits = conv_out.logits;
      decoded.beat.logits_last = conv_out.logits_last;
      decoded.sum_group = GROUP_BITS'(conv_out.sum_group);
      decoded.beat.skip_signed = conv_out.skip_signed;
      decoded.beat.skip = conv_out.skip;
      decoded.beat.skip_mul = conv_out.skip_mul;
      decoded.beat.shift = conv_out.shift;
      decoded.beat.lo = conv_out.lo;
      decoded.beat.hi = conv_out.hi;
      decoded.beat.from_sums = conv_out.from_sums;
      decoded.beat.sums = conv_out.sums;
      decoded.beat.sums_signed = conv_out.sums_signed;
      decoded.beat.sums_columns = (COLUMN_BITS + 1)'(conv_out.sums_columns);
      decoded.beat.subsample = conv_out.subsample;
      decoded.beat.pooled = conv_out.pooled;
      decoded.beat.store_bytes = conv_out.store_bytes;
      decoded.beat.byte_requant = conv_out.byte_requant;
      decoded.beat.store_planes = conv_out.store_planes;
      decoded.beat.plane_pitch = PLANE_ROW_BITS'(conv_out.plane_pitch);
      decoded.beat.plane_bits = conv_out.plane_bits;
      decoded.beat.plane_flip = conv_out.plane_flip;
      decoded.beat.post = conv_out.post_fill;
      decoded.beat.requant = conv_out.requant;
      decoded.beat.rq_mul = 25'(conv_out.rq_mul) <<< ~conv_out.rq_shift[2:0];
      decoded.beat.rq_bias = 39'(conv_out.rq_bias) <<< ~conv_out.rq_shift[2:0];
      decoded.beat.rq_bytes = conv_out.rq_shift[4:3];
      decoded.beat.rq_lo = conv_out.rq_lo;
      decoded.beat.rq_hi = conv_out.rq_hi;
    end
  end

  // ------------------------------------------------------------------ arming
  logic logits_open_q;  // all of an image's logits are on their way, but not in memory
  logic next_valid_q, work_valid_q, quiet_q, last_q, take, fire, replaces, advance, load, work_done;
  logic alone_q, fence_q, logits_q;  // of the instruction a cycle before
  logic pool_start, pool_busy, packer_busy, sums_busy, in_flight;
  bs_pkg::pool_t pool_q;

  // A cycle late, but packer and sums are busy a cycle less. No take finds an old one: next_valid_q is set then.
  always_ff @(posedge clk) begin
    quiet_q  <= !next_valid_q && !work_valid_q && !in_flight && !packer_busy && !pool_busy && !sums_busy;
    alone_q  <= decoded.alone;
    fence_q  <= decoded.alone || conv_out.fence;
    logits_q <= decoded.beat.logits;
  end
  assign instr_ready_o = !next_valid_q && enough_fill_i && (fence_q ? quiet_q : !(work_valid_q && work_q.alone)) &&
                         !(logits_q && logits_open_q);
  always_comb begin
    if (decoded.is_pool) need_fill_o = first_image_i ? pool.wait_fill_first : pool.wait_fill;
    else need_fill_o = first_image_i ? conv_out.wait_fill_first : conv_out.wait_fill;
  end
  assign take = instr_valid_i && instr_ready_o;
  assign take_o = take;
  assign armed_o = take && !alone_q;
  // What the next instruction brings replaces what the next beat does, if there is a beat: chosen before it is known.
  assign replaces = next_valid_q && (!work_valid_q || last_q);
  assign advance = fire || (next_valid_q && !work_valid_q);
  assign load = advance && replaces;
  // It was taken while everything was quiet, so it has no work before it to wait for.
  assign pool_start = next_valid_q && !work_valid_q && next_q.is_pool;
  assign layer_o = work_q.layer;
  assign idle_o = quiet_q && !next_valid_q;

  always_ff @(posedge clk) begin
    if (take && logits_q && decoded.beat.logits_last) logits_open_q <= 1'b1;
    else if (logits_written_i) logits_open_q <= 1'b0;
    if (take) begin
      next_q       <= decoded;
      pool_q       <= pool;
      next_valid_q <= 1'b1;
    end else if (load) begin
      next_valid_q <= 1'b0;
    end
    if (load) begin
      work_q       <= next_q;
      work_valid_q <= 1'b1;
    end else if (work_done) begin
      work_valid_q <= 1'b0;
    end
    if (rst) begin
      next_valid_q  <= 1'b0;
      work_valid_q  <= 1'b0;
      logits_open_q <= 1'b0;
    end
  end

  // ------------------------------------------------------------------ beats
  logic [BEAT_BITS-1:0] beats_left_q, beat_q;
  logic [9:0] rows_left_q;          // row tiles after this one
  logic [15:0] tiles_left_q;        // tiles after this one
  logic [1:0] tile_q;
  // Where this beat is, found out with the beat before: what begins an instruction hangs on its predecessor's last beat.
  logic beats_open_q, row_tile_last_q, row_first_q, row_last_q, tile_first_q, tile_last_q;
  logic row_tile_last, row_last, tile_last;  // of the next beat
  logic [CHUNK_BITS-1:0] chunk_q;
  logic [PARAM_BITS-1:0] param_q;
  logic [BYTE_ROW_BITS-1:0] skip_row_q, byte_row_q, tile_skip_q, tile_byte_q;
  logic [PLANE_ROW_BITS-1:0] plane_row_q, tile_plane_q, group_pitch_q;
  logic conv_fire, pool_fire, sums_fire, inject;
  logic [GROUP_BITS-1:0] group_q;
  logic [9:0] skip_group_q;        // groups before this one
  logic skip_here, sums_run_q, spaced_q;
  logic [3:0] spacing_q;           // cycles until the next row tile of sums, for the packer to keep up; spaced_q: none
  // The subsampled map: column of the tile in its map row, whether that row is kept, half rows stored before.
  logic [5:0] map_column_q;
  logic map_row_odd_q;
  logic half_q;
  beat_t beat, injected;

  assign conv_fire = beats_open_q || sums_fire;
  assign sums_fire = sums_run_q && spaced_q;
  assign skip_here = skip_group_q >= work_q.skip_zero_groups &&
                     skip_group_q - work_q.skip_zero_groups < work_q.skip_groups;
  assign fire = conv_fire || pool_fire;
  assign work_done = fire && last_q;
  assign active_o = fire;

  always_comb begin
    beat = work_q.beat;
    beat.valid = 1'b1;
    beat.row_tile_last = row_tile_last_q;
    beat.instr_last = last_q;
    beat.byte_row = byte_row_q;
    beat.plane_row = plane_row_q;
    beat.chunk = chunk_q;
    beat.post = work_q.beat.post && last_q;
    beat.skip = work_q.beat.skip && skip_here;
    beat.group = group_q;
    beat.sums_first = tile_first_q;
    beat.sums_columns = tile_last_q ? work_q.beat.sums_columns : (COLUMN_BITS + 1)'(D_N);
    beat.quarter = tile_q;
    beat.halves = 2'b11;
    if (work_q.beat.subsample) beat.halves = map_row_odd_q ? 2'b00 : half_q ? 2'b10 : 2'b01;
  end

  always_comb begin
    row_tile_last = BEATS == 1 || (!row_tile_last_q && beat_q == BEAT_BITS'(BEATS - 2));
    row_last = row_last_q;
    tile_last = tile_last_q;
    if (row_tile_last_q) row_last = row_last_q ? work_q.row_tiles == 10'd1 : rows_left_q == 10'd1;
    if (row_tile_last_q && row_last_q) tile_last = tiles_left_q == 16'd1;
    if (replaces) begin
      row_tile_last = BEATS == 1;
      row_last = next_q.row_tiles == 10'd1;
      tile_last = next_q.tiles == 16'd1;
    end
  end

  always_ff @(posedge clk) begin
    if (advance) begin
      row_tile_last_q <= row_tile_last;
      row_last_q      <= row_last;
      tile_last_q     <= tile_last;
      last_q          <= row_tile_last && row_last && tile_last;
    end
    if (start_i) beats_left_q <= BEAT_BITS'(BEATS);
    else if (beats_open_q) beats_left_q <= beats_left_q - 1'b1;
    beats_open_q <= start_i || beats_left_q > BEAT_BITS'(1);

    first_sum_o <= sums_fire && beat_q == '0 && row_first_q;
    if (advance) begin
      if (replaces) sums_run_q <= next_q.beat.from_sums;
      else if (last_q) sums_run_q <= 1'b0;
    end
    if (sums_fire && row_tile_last_q) begin
      spacing_q <= work_q.beat.plane_bits;
      spaced_q  <= work_q.beat.plane_bits == '0;
    end else if (!spaced_q) begin
      spacing_q <= spacing_q - 4'd1;
      spaced_q  <= spacing_q == 4'd1;
    end

    if (advance) begin
      if (replaces) begin
        beat_q          <= '0;
        rows_left_q     <= next_q.row_tiles - 10'd1;
        tiles_left_q    <= next_q.tiles - 16'd1;
        row_first_q     <= 1'b1;
        tile_first_q    <= next_q.start_tile == '0;
        tile_q          <= '0;
        chunk_q         <= '0;
        group_q         <= next_q.sum_group;
        skip_group_q    <= '0;
        map_column_q    <= '0;
        map_row_odd_q   <= 1'b0;
        half_q          <= 1'b0;
        spacing_q       <= '0;
        spaced_q        <= 1'b1;
        param_q         <= PARAM_BITS'(next_q.param_base / 16'(LANE_ROWS));
        skip_row_q      <= BYTE_ROW_BITS'(next_q.skip_base + next_q.start_tile);
        tile_skip_q     <= BYTE_ROW_BITS'(next_q.skip_base + next_q.start_tile);
        byte_row_q      <= BYTE_ROW_BITS'(next_q.byte_base + next_start_byte);
        tile_byte_q     <= BYTE_ROW_BITS'(next_q.byte_base + next_start_byte);
        plane_row_q     <= PLANE_ROW_BITS'(next_q.plane_base + next_start_plane);
        tile_plane_q    <= PLANE_ROW_BITS'(next_q.plane_base + next_start_plane);
        group_pitch_q   <= next_q.beat.plane_pitch * PLANE_ROW_BITS'(next_q.beat.plane_bits);
      end else begin
        beat_q          <= beat_q + 1'b1;
        param_q         <= param_q + 1'b1;
        group_q         <= group_q + 1'b1;
        skip_group_q    <= skip_group_q + 10'd1;
        if (skip_here) skip_row_q <= skip_row_q + BYTE_ROW_BITS'(work_q.skip_pitch);
        byte_row_q <= byte_row_q + BYTE_ROW_BITS'(work_q.byte_pitch);
        if (row_tile_last_q) begin
          beat_q      <= '0;
          rows_left_q <= rows_left_q - 10'd1;
          row_first_q <= 1'b0;
          if (32'(chunk_q) == ROWS_G - 1) begin
            chunk_q     <= '0;
            plane_row_q <= work_q.beat.pooled ? plane_row_q - group_pitch_q : plane_row_q + group_pitch_q;
          end else begin
            chunk_q <= chunk_q + 1'b1;
          end
          if (row_last_q) begin
            rows_left_q  <= work_q.row_tiles - 10'd1;
            row_first_q  <= 1'b1;
            tiles_left_q <= tiles_left_q - 16'd1;
            tile_first_q <= 1'b0;
            tile_q       <= tile_q + 2'd1;
            chunk_q      <= '0;
            param_q      <= PARAM_BITS'(work_q.param_base / 16'(LANE_ROWS));
            group_q      <= work_q.sum_group;
            skip_group_q <= '0;
            skip_row_q   <= tile_skip_q + 1'b1;
            tile_skip_q  <= tile_skip_q + 1'b1;
            byte_row_q   <= tile_byte_q + BYTE_ROW_BITS'(byte_row_full);
            tile_byte_q  <= tile_byte_q + BYTE_ROW_BITS'(byte_row_full);
            if (!map_row_odd_q) half_q <= !half_q;
            map_column_q <= map_column_q + 6'd1;
            if (map_column_q == work_q.row_position_tiles - 6'd1) begin
              map_column_q  <= '0;
              map_row_odd_q <= !map_row_odd_q;
            end
            plane_row_q  <= tile_plane_q + PLANE_ROW_BITS'(plane_row_full);
            tile_plane_q <= tile_plane_q + PLANE_ROW_BITS'(plane_row_full);
          end
        end
      end
    end
    if (rst) begin
      beats_left_q <= '0;
      beats_open_q <= 1'b0;
      sums_run_q   <= 1'b0;
      spaced_q     <= 1'b1;
    end
  end

  // A band of a subsampled map begins with a kept row and the lower half, of a pooled one with the lowest quarter: a
  // quarter of the tiles before it are rows.
  logic [15:0] next_start_byte, next_start_plane;
  logic byte_row_full, plane_row_full;

  assign next_start_plane = next_q.beat.pooled ? next_q.start_tile >> 2 : next_q.start_tile;
  assign plane_row_full = !work_q.beat.pooled || tile_q == 2'd3;

  assign next_start_byte = next_q.beat.subsample ? next_q.start_tile >> 2 : next_q.start_tile;
  assign byte_row_full = !work_q.beat.subsample || (!map_row_odd_q && half_q);

  // Beat k cycles after its accumulators are at acc_i: beat_0_q .. beat_12_q; two cycles before that the memories read.
  beat_t conv_1_q, beat_0_q, beat_1_q, beat_2_q, beat_3_q, beat_4_q, beat_5_q, beat_6_q, beat_7_q, beat_8_q, beat_9_q;
  beat_t beat_10_q, beat_11_q, beat_12_q;

  always_ff @(posedge clk) begin
    conv_1_q  <= conv_fire ? beat : '0;
    beat_0_q  <= conv_1_q;
    beat_1_q  <= beat_0_q;
    beat_2_q  <= beat_1_q;
    beat_3_q  <= beat_2_q;
    beat_4_q  <= beat_3_q;
    beat_5_q  <= beat_4_q;
    beat_6_q  <= beat_5_q;
    beat_7_q  <= beat_6_q;
    beat_8_q  <= inject ? injected : beat_7_q;
    beat_9_q  <= beat_8_q;
    beat_10_q <= beat_9_q;
    beat_11_q <= beat_10_q;
    beat_12_q <= beat_11_q;
    if (rst) begin
      conv_1_q  <= '0;
      beat_0_q  <= '0;
      beat_1_q  <= '0;
      beat_2_q  <= '0;
      beat_3_q  <= '0;
      beat_4_q  <= '0;
      beat_5_q  <= '0;
      beat_6_q  <= '0;
      beat_7_q  <= '0;
      beat_8_q  <= '0;
      beat_9_q  <= '0;
      beat_10_q <= '0;
      beat_11_q <= '0;
      beat_12_q <= '0;
    end
  end

  assign in_flight = beats_open_q || conv_1_q.valid || beat_0_q.valid || beat_1_q.valid || beat_2_q.valid ||
                     beat_3_q.valid || beat_4_q.valid || beat_5_q.valid || beat_6_q.valid || beat_7_q.valid ||
                     beat_8_q.valid || beat_9_q.valid || beat_10_q.valid || beat_11_q.valid || beat_12_q.valid;

  // ------------------------------------------------------------------ parameters
  logic [LANE_ROWS-1:0][17:0] mul, mul_1_q;
  logic [LANE_ROWS-1:0][47:0] bias, bias_1_q;
  logic [LANE_ROW_BITS-1:0] param_row;

  // A cycle later for the lanes, whose multipliers take them then.
  always_ff @(posedge clk) begin
    mul_1_q  <= mul;
    bias_1_q <= bias;
  end

  assign param_row = LANE_ROWS > 1 ? LANE_ROW_BITS'(param_channel_i % 16'(LANE_ROWS)) : '0;

  for (genvar row = 0; row < LANE_ROWS; row++) begin : gen_param
    bs_ram #(
        .WIDTH(48),
        .DEPTH(PARAM_ROWS)
    ) u_bias (
        .clk,
        .we_i(param_we_i && !param_word_i && 32'(param_row) == row),
        .waddr_i(PARAM_BITS'(param_channel_i / 16'(LANE_ROWS))),
        .wdata_i(param_data_i[47:0]),
        .raddr_i(param_q),
        .rdata_o(bias[row])
    );
    bs_ram #(
        .WIDTH(18),
        .DEPTH(PARAM_ROWS)
    ) u_mul (
        .clk,
        .we_i(param_we_i && param_word_i && 32'(param_row) == row),
        .waddr_i(PARAM_BITS'(param_channel_i / 16'(LANE_ROWS))),
        .wdata_i(param_data_i[17:0]),
        .raddr_i(param_q),
        .rdata_o(mul[row])
    );
  end

  // ------------------------------------------------------------------ byte buffer
  logic [D_N-1:0][BYTE_ROW_BITS-1:0] pool_addr;
  logic [D_N-1:0][LANE_ROWS*8-1:0] byte_read;

  for (genvar bank = 0; bank < D_N; bank++) begin : gen_bytes
    bs_ram #(
        .WIDTH(LANE_ROWS * 8),
        .DEPTH(BYTE_DEPTH)
    ) u_bank (
        .clk,
        .we_i(byte_we_o[bank/(D_N/2)]),
        .waddr_i(byte_row_o),
        .wdata_i(byte_data_o[bank]),
        .raddr_i(work_q.is_pool ? pool_addr[bank] : skip_row_q),
        .rdata_o(byte_read[bank])
    );
  end

  // ------------------------------------------------------------------ pool
  logic pool_valid;
  logic [LANE_ROWS-1:0][D_N-1:0][8:0] pool_code;

  bs_pool #(
      .D_M(D_M),
      .D_N(D_N),
      .LANE_ROWS(LANE_ROWS),
      .BYTE_DEPTH(BYTE_DEPTH)
  ) u_pool (
      .clk,
      .rst,
      .start_i(pool_start),
      .instr_i(pool_q),
      .busy_o(pool_busy),
      .bank_addr_o(pool_addr),
      .bank_data_i(byte_read),
      .valid_o(pool_valid),
      .code_o(pool_code)
  );

  assign pool_fire = pool_valid;
  assign inject = pool_valid;
  assign injected = beat;

  // ------------------------------------------------------------------ lanes
  logic [LANE_ROWS-1:0][D_N-1:0][7:0] stored;
  logic [D_N-1:0][LANE_ROWS*8-1:0] byte_code;
  logic [LANE_ROWS-1:0][SUM_BITS-1:0] sum_of_codes, sum_1_q;

  always_ff @(posedge clk) sum_1_q <= sum_of_codes;

  for (genvar row = 0; row < LANE_ROWS; row++) begin : gen_lane_row
    for (genvar column = 0; column < D_N; column++) begin : gen_lane
      logic signed [47:0] sum;
      logic signed [8:0] code;
      logic [7:0] code_12;
      bs_lane #(
          .ACC_BITS(ACC_BITS),
          .SUMS(column == 0),
          .SUM_BITS(SUM_BITS),
          .XC7(XC7)
      ) u_lane (
          .clk,
          .acc_0_i(acc_i[row][column]),
          .column_acc_0_i(column_acc_i[column]),
          .bipolar_0_i(beat_0_q.bipolar),
          .skip_0_i(byte_read[column][row*8+:8]),
          .skip_signed_0_i(beat_0_q.skip_signed),
          .skip_mul_0_i(beat_0_q.skip ? beat_0_q.skip_mul : 24'b0),
          .take_sum_1_i(beat_1_q.from_sums),
          .sum_1_i(sum_1_q[row]),
          .mul_1_i(mul_1_q[row]),
          .bias_1_i(bias_1_q[row]),
          .sum_o(sum),
          .shift_bytes_5_i(beat_5_q.shift[4:3]),
          .shift_bits_6_i(beat_6_q.shift[2:0]),
          .lo_7_i(beat_7_q.lo),
          .hi_7_i(beat_7_q.hi),
          .inject_7_i(inject),
          .inject_code_7_i(pool_code[row][column]),
          .code_o(code),
          .rq_mul_7_i(inject ? injected.rq_mul : beat_7_q.rq_mul),
          .rq_bias_8_i(beat_8_q.rq_bias),
          .rq_bytes_10_i(beat_10_q.rq_bytes),
          .rq_lo_11_i(beat_11_q.rq_lo),
          .rq_hi_11_i(beat_11_q.rq_hi),
          .requant_11_i(beat_11_q.requant),
          .stored_o(stored[row][column]),
          .code_12_o(code_12)
      );
      assign byte_code[column][row*8+:8] = beat_12_q.byte_requant ? stored[row][column] : code_12;
      assign byte_data_o[column][row*8+:8] =
          beat_12_q.subsample ? byte_code[2*(column%(D_N/2))][row*8+:8] : byte_code[column][row*8+:8];
      if (column == 0) begin : gen_logits
        assign logits_o[row] = sum[31:0];
      end
      logic unused_high;
      assign unused_high = ^{sum[47:32], code, column == 0 ? 1'b0 : ^sum[31:0]};
    end
  end

  assign logits_valid_o = beat_5_q.valid && beat_5_q.logits;
  assign logits_last_o = beat_5_q.instr_last && beat_5_q.logits_last;
  assign byte_we_o = beat_12_q.valid && beat_12_q.store_bytes ? beat_12_q.halves : 2'b00;
  assign byte_row_o = beat_12_q.byte_row;

  // ------------------------------------------------------------------ sums over the map
  bs_sums #(
      .D_N(D_N),
      .LANE_ROWS(LANE_ROWS),
      .GROUPS(SUM_GROUPS),
      .SUM_BITS(SUM_BITS)
  ) u_sums (
      .clk,
      .rst,
      .valid_i(beat_12_q.valid && beat_12_q.sums),
      .first_i(beat_12_q.sums_first),
      .signed_i(beat_12_q.sums_signed),
      .columns_i(beat_12_q.sums_columns),
      .group_i(beat_12_q.group),
      .code_i(byte_code),
      .busy_o(sums_busy),
      .group_read_i(group_q),
      .sum_o(sum_of_codes)
  );

  // ------------------------------------------------------------------ planes
  bs_packer #(
      .D_M(D_M),
      .D_N(D_N),
      .LANE_ROWS(LANE_ROWS),
      .ROWS_G(ROWS_G),
      .ROW_BITS(PLANE_ROW_BITS)
  ) u_packer (
      .clk,
      .rst,
      .valid_i(beat_12_q.valid),
      .last_i(beat_12_q.row_tile_last),
      .store_i(beat_12_q.store_planes),
      .flip_i(beat_12_q.plane_flip),
      .pooled_i(beat_12_q.pooled),
      .quarter_i(beat_12_q.quarter),
      .bits_i(beat_12_q.plane_bits),
      .row_i(beat_12_q.plane_row),
      .pitch_i(beat_12_q.plane_pitch),
      .chunk_i(beat_12_q.chunk),
      .done_i(beat_12_q.post),
      .code_i(stored),
      .we_o(plane_we_o),
      .quarters_o(plane_quarters_o),
      .row_o(plane_row_o),
      .data_o(plane_data_o),
      .done_o(post_fill_o),
      .busy_o(packer_busy)
  );

  logic unused_fields;
  assign unused_fields = ^{conv_out, pool, work_q, param_data_i[63:48], beat_12_q};
endmodule
