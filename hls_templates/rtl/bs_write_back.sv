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
    output logic                                        plane_write_o,     // a plane leaves
    output logic [ROWS_G-1:0]                           plane_we_o,        // for its chunk of channels
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
  localparam int PLANE_ROW_BITS = $clog2(PLANE_DEPTH);
  localparam int BYTE_ROW_BITS = $clog2(BYTE_DEPTH);
  localparam int PARAM_ROWS = PARAM_DEPTH / LANE_ROWS;
  localparam int PARAM_BITS = $clog2(PARAM_ROWS);
  localparam int LANE_ROW_BITS = LANE_ROWS > 1 ? $clog2(LANE_ROWS) : 1;
  localparam int SUM_BITS = bs_pkg::SUM_BITS;
  localparam int GROUP_BITS = $clog2(bs_pkg::SUM_GROUPS);

  // ------------------------------------------------------------------ instructions
  bs_pkg::conv_out_t conv_out;
  bs_pkg::pool_t pool;
  bs_pkg::head_t head;
  bs_pkg::work_t decoded, next_q, loaded, work_q;
  logic is_pool, is_pool_q;  // is_pool_q: a cycle later, when the instruction may be taken

  assign conv_out = instr_i;
  assign pool = instr_i;
  assign head = instr_i[15:0];
  assign is_pool = head.opcode == bs_pkg::OP_POOL;

  always_ff @(posedge clk) is_pool_q <= is_pool;

  bs_work u_work (
      .instr_i,
      .is_pool_i(is_pool_q),
      .work_o(decoded)
  );

  // Shifted on the way, since an instruction's decoding is long already.
  always_comb begin
    loaded = next_q;
    loaded.beat.rq_mul = next_q.beat.rq_mul <<< next_q.rq_bits;
    loaded.beat.rq_bias = next_q.beat.rq_bias <<< next_q.rq_bits;
  end

  // ------------------------------------------------------------------ arming
  logic logits_open_q;  // all of an image's logits are on their way, but not in memory
  logic next_valid_q, work_valid_q, quiet_q, take, load, work_done;
  logic alone_q, fence_q, logits_q, logits_last_q;  // of the instruction a cycle before
  logic work_alone_q;  // there is work, and nothing else may begin beside it
  logic pool_start, pool_busy, packer_busy, sums_busy, in_flight;
  bs_pkg::pool_t pool_q;

  // A cycle late, but packer and sums are busy a cycle less. No take finds an old one: next_valid_q is set then.
  always_ff @(posedge clk) begin
    quiet_q  <= !next_valid_q && !work_valid_q && !in_flight && !packer_busy && !pool_busy && !sums_busy;
    alone_q  <= is_pool || conv_out.from_sums;
    fence_q  <= is_pool || conv_out.from_sums || conv_out.fence;
    logits_q <= !is_pool && conv_out.logits;
    logits_last_q <= !is_pool && conv_out.logits && conv_out.logits_last;
  end
  assign instr_ready_o = !next_valid_q && enough_fill_i && (fence_q ? quiet_q : !work_alone_q) &&
                         !(logits_q && logits_open_q);
  always_comb begin
    if (is_pool) need_fill_o = first_image_i ? pool.wait_fill_first : pool.wait_fill;
    else need_fill_o = first_image_i ? conv_out.wait_fill_first : conv_out.wait_fill;
  end
  assign take = instr_valid_i && instr_ready_o;
  assign take_o = take;
  assign armed_o = take && !alone_q;
  // It was taken while everything was quiet, so it has no work before it to wait for.
  assign pool_start = next_valid_q && !work_valid_q && next_q.is_pool;
  assign layer_o = work_q.layer;
  assign idle_o = quiet_q && !next_valid_q;

  always_ff @(posedge clk) begin
    if (take && logits_last_q) logits_open_q <= 1'b1;
    else if (logits_written_i) logits_open_q <= 1'b0;
    if (take) begin
      next_q       <= decoded;
      pool_q       <= pool;
      next_valid_q <= 1'b1;
    end else if (load) begin
      next_valid_q <= 1'b0;
    end
    if (load) begin
      work_q       <= loaded;
      work_valid_q <= 1'b1;
      work_alone_q <= next_q.alone;
    end else if (work_done) begin
      work_valid_q <= 1'b0;
      work_alone_q <= 1'b0;
    end
    if (rst) begin
      next_valid_q  <= 1'b0;
      work_valid_q  <= 1'b0;
      work_alone_q  <= 1'b0;
      logits_open_q <= 1'b0;
    end
  end

  // ------------------------------------------------------------------ beats
  logic conv_fire, pool_fire, beats_open, inject;
  logic [PARAM_BITS-1:0] param_row;
  logic [BYTE_ROW_BITS-1:0] skip_row;
  logic [GROUP_BITS-1:0] group;
  bs_pkg::beat_t beat, injected;

  bs_beats #(
      .D_N(D_N),
      .BEATS(D_M / LANE_ROWS),
      .LANE_ROWS(LANE_ROWS),
      .ROWS_G(ROWS_G),
      .BYTE_ROW_BITS(BYTE_ROW_BITS),
      .PLANE_ROW_BITS(PLANE_ROW_BITS),
      .PARAM_BITS(PARAM_BITS),
      .GROUP_BITS(GROUP_BITS)
  ) u_beats (
      .clk,
      .rst,
      .next_valid_i(next_valid_q),
      .next_i(next_q),
      .work_valid_i(work_valid_q),
      .work_i(work_q),
      .load_o(load),
      .done_o(work_done),
      .start_i,
      .pool_fire_i(pool_fire),
      .conv_fire_o(conv_fire),
      .fire_o(active_o),
      .beat_o(beat),
      .skip_row_o(skip_row),
      .param_row_o(param_row),
      .group_o(group),
      .first_sum_o,
      .open_o(beats_open)
  );

  // Beat k cycles after its accumulators are at acc_i: beat_0_q .. beat_12_q; two cycles before that the memories read.
  bs_pkg::beat_t conv_1_q, beat_0_q, beat_1_q, beat_2_q, beat_3_q, beat_4_q, beat_5_q, beat_6_q, beat_7_q, beat_8_q, beat_9_q;
  bs_pkg::beat_t beat_10_q, beat_11_q, beat_12_q;

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

  assign in_flight = beats_open || conv_1_q.valid || beat_0_q.valid || beat_1_q.valid || beat_2_q.valid ||
                     beat_3_q.valid || beat_4_q.valid || beat_5_q.valid || beat_6_q.valid || beat_7_q.valid ||
                     beat_8_q.valid || beat_9_q.valid || beat_10_q.valid || beat_11_q.valid || beat_12_q.valid;

  // ------------------------------------------------------------------ parameters
  logic [LANE_ROWS-1:0][17:0] mul, mul_1_q;
  logic [LANE_ROWS-1:0][47:0] bias, bias_1_q;
  logic [LANE_ROW_BITS-1:0] param_lane;

  // A cycle later for the lanes, whose multipliers take them then.
  always_ff @(posedge clk) begin
    mul_1_q  <= mul;
    bias_1_q <= bias;
  end

  assign param_lane = LANE_ROWS > 1 ? LANE_ROW_BITS'(param_channel_i % 16'(LANE_ROWS)) : '0;

  for (genvar row = 0; row < LANE_ROWS; row++) begin : gen_param
    bs_ram #(
        .WIDTH(48),
        .DEPTH(PARAM_ROWS)
    ) u_bias (
        .clk,
        .we_i(param_we_i && !param_word_i && 32'(param_lane) == row),
        .waddr_i(PARAM_BITS'(param_channel_i / 16'(LANE_ROWS))),
        .wdata_i(param_data_i[47:0]),
        .raddr_i(param_row),
        .rdata_o(bias[row])
    );
    bs_ram #(
        .WIDTH(18),
        .DEPTH(PARAM_ROWS)
    ) u_mul (
        .clk,
        .we_i(param_we_i && param_word_i && 32'(param_lane) == row),
        .waddr_i(PARAM_BITS'(param_channel_i / 16'(LANE_ROWS))),
        .wdata_i(param_data_i[17:0]),
        .raddr_i(param_row),
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
        .raddr_i(work_q.is_pool ? pool_addr[bank] : skip_row),
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
  assign byte_row_o = BYTE_ROW_BITS'(beat_12_q.byte_row);

  // ------------------------------------------------------------------ sums over the map
  bs_sums #(
      .D_N(D_N),
      .LANE_ROWS(LANE_ROWS),
      .GROUPS(bs_pkg::SUM_GROUPS),
      .SUM_BITS(SUM_BITS)
  ) u_sums (
      .clk,
      .rst,
      .valid_i(beat_12_q.valid && beat_12_q.sums),
      .first_i(beat_12_q.sums_first),
      .signed_i(beat_12_q.sums_signed),
      .columns_i(($clog2(D_N) + 1)'(beat_12_q.sums_columns)),
      .group_i(GROUP_BITS'(beat_12_q.group)),
      .code_i(byte_code),
      .busy_o(sums_busy),
      .group_read_i(group),
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
      .row_i(PLANE_ROW_BITS'(beat_12_q.plane_row)),
      .pitch_i(PLANE_ROW_BITS'(beat_12_q.plane_pitch)),
      .chunk_i(($clog2(ROWS_G + 1))'(beat_12_q.chunk)),
      .done_i(beat_12_q.post),
      .code_i(stored),
      .write_o(plane_write_o),
      .we_o(plane_we_o),
      .quarters_o(plane_quarters_o),
      .row_o(plane_row_o),
      .data_o(plane_data_o),
      .done_o(post_fill_o),
      .busy_o(packer_busy)
  );

  logic unused_fields;
  assign unused_fields = ^{conv_out, pool, head, work_q, param_data_i[63:48], beat_12_q};
endmodule
