/// Reads a byte map window by window and keeps the maximum: max pooling, and with a 1x1 window subsampling, copying and
/// padding with zero channels. Beats (LANE_ROWS channels of D_N positions) leave in the order tile, channel group,
/// two row tiles at least plane_bits cycles apart, so that the packer keeps up.
module bs_pool #(
    parameter int D_M        = 8,    // channels of a row tile, a multiple of LANE_ROWS
    parameter int D_N        = 16,   // positions of a tile, 2..32, a power of two
    parameter int LANE_ROWS  = 2,    // channels per beat, 1..8
    parameter int BYTE_DEPTH = 512   // rows of the byte buffer, 4..65536, a power of two
) (
    input  logic                                     clk,
    input  logic                                     rst,
    input  logic                                     start_i,
    input  bs_pkg::pool_t                            instr_i,   // valid in the cycle of start_i
    output logic                                     busy_o,    // still reading
    output logic [D_N-1:0][$clog2(BYTE_DEPTH)-1:0]   bank_addr_o,
    input  logic [D_N-1:0][LANE_ROWS*8-1:0]          bank_data_i,
    output logic                                     valid_o,
    output logic [LANE_ROWS-1:0][D_N-1:0][8:0]       code_o
);
  localparam int ROW_BITS = $clog2(BYTE_DEPTH);
  localparam int COLUMN_BITS = $clog2(D_N);
  localparam int HALF_TILE = D_N / 2;
  localparam int BEATS = D_M / LANE_ROWS;
  localparam int BEAT_BITS = $clog2(BEATS + 1);
  localparam int ALIGN = 8;  // coordinates (1) and bs_window (7)

  if (D_M % LANE_ROWS != 0) begin : gen_bad
    $error("bs_pool: LANE_ROWS must divide D_M (instance %m)");
  end

  bs_pkg::pool_t cfg_q;
  logic run_q;
  logic [15:0] tile_q;
  logic [9:0] row_q;
  logic [BEAT_BITS-1:0] beat_q;
  logic [11:0] group_q;
  logic [ROW_BITS-1:0] group_row_q;
  logic [3:0] ky_q, kx_q, spacing_q;
  logic two_taps;  // at stride 2 the window holds the next tap as well
  logic zero, kx_last, ky_last, window_last, walk_last, beat_last, row_tile_last, tile_last, go, first_op_q;
  logic [9:0] walk_x, walk_y;
  logic [COLUMN_BITS-1:0] walk_column;
  logic [D_N-1:0] walk_columns;

  bs_walker #(
      .D_N(D_N)
  ) u_walker (
      .clk,
      .start_i,
      .start_x_i(instr_i.start_x),
      .start_y_i(instr_i.start_y),
      .pooled_i(1'b0),
      .stride_i(cfg_q.stride),
      .out_width_i(cfg_q.out_width),
      .out_height_i(cfg_q.out_height),
      .next_i(go && window_last),
      .again_i(!tile_last),
      .x_o(walk_x),
      .y_o(walk_y),
      .column_o(walk_column),
      .columns_o(walk_columns),
      .last_o(walk_last)
  );

  always_comb begin
    zero = group_q < cfg_q.zero_groups || group_q - cfg_q.zero_groups >= cfg_q.in_groups;
    two_taps = cfg_q.stride == 4'd2 && kx_q + 4'd1 < cfg_q.kernel_w;
    kx_last = zero || kx_q + 4'(two_taps) == cfg_q.kernel_w - 4'd1;
    ky_last = zero || ky_q == cfg_q.kernel_h - 4'd1;
    window_last = kx_last && ky_last;
    beat_last = window_last && walk_last;
    row_tile_last = beat_last && beat_q == BEAT_BITS'(BEATS - 1);
    tile_last = row_tile_last && row_q == cfg_q.row_tiles - 10'd1;
    go = run_q && !(row_tile_last && spacing_q != '0);
  end
  assign busy_o = run_q;

  always_ff @(posedge clk) begin
    if (spacing_q != '0) spacing_q <= spacing_q - 4'd1;
    if (start_i) begin
      cfg_q       <= instr_i;
      run_q       <= 1'b1;
      tile_q      <= '0;
      row_q       <= '0;
      beat_q      <= '0;
      group_q     <= '0;
      group_row_q <= ROW_BITS'(instr_i.in_base);
      ky_q        <= '0;
      kx_q        <= '0;
      first_op_q  <= 1'b1;
      spacing_q   <= '0;
    end else if (go) begin
      first_op_q <= window_last;
      kx_q <= kx_last ? '0 : kx_q + (two_taps ? 4'd2 : 4'd1);
      if (kx_last) ky_q <= ky_last ? '0 : ky_q + 4'd1;
      if (beat_last) begin
        beat_q <= beat_q + 1'b1;
        group_q <= group_q + 12'd1;
        if (!zero) group_row_q <= group_row_q + ROW_BITS'(cfg_q.in_pitch);
        if (row_tile_last) begin
          spacing_q <= cfg_q.plane_bits;
          beat_q <= '0;
          row_q  <= row_q + 10'd1;
          if (tile_last) begin
            row_q       <= '0;
            group_q     <= '0;
            group_row_q <= ROW_BITS'(cfg_q.in_base);
            tile_q      <= tile_q + 16'd1;
            if (tile_q == cfg_q.tiles - 16'd1) run_q <= 1'b0;
          end
        end
      end
    end
    if (rst) run_q <= 1'b0;
  end

  // ------------------------------------------------------------------ operations on their way to the lanes
  typedef struct packed {
    logic           valid;
    logic           first;      // first operation of its columns
    logic           last;       // last operation of the beat
    logic           zero;
    logic           is_signed;
    logic           stride_2;
    logic           two_taps;
    logic [D_N-1:0] columns;
  } op_t;

  op_t op, op_end, done_q;
  logic [$bits(op)-1:0] op_q [ALIGN+1];

  always_comb begin
    op.valid = go;
    op.first = first_op_q;
    op.last = beat_last;
    op.zero = zero;
    op.is_signed = cfg_q.in_signed;
    op.stride_2 = cfg_q.stride == 4'd2;
    op.two_taps = two_taps;
    op.columns = walk_columns;
  end
  assign op_end = op_q[ALIGN];

  logic signed [11:0] y_scaled_q, x_scaled_q, y_step_q, x_step_q, y_q, x_q;
  logic [ROW_BITS-1:0] row_0_q, row_1_q;
  logic [COLUMN_BITS:0] column_shift;

  assign column_shift = cfg_q.stride == 4'd2 ? {walk_column & COLUMN_BITS'(HALF_TILE - 1), 1'b0} : {1'b0, walk_column};

  always_ff @(posedge clk) begin
    op_q[0] <= op;
    for (int stage = 1; stage <= ALIGN; stage++) op_q[stage] <= op_q[stage-1];
    y_scaled_q <= 12'(walk_y) * 12'(cfg_q.stride);
    x_scaled_q <= 12'(walk_x) * 12'(cfg_q.stride);
    y_step_q   <= 12'(ky_q) - 12'(cfg_q.pad);
    x_step_q   <= 12'(kx_q) - 12'(cfg_q.pad) - 12'(column_shift);
    row_0_q    <= group_row_q;
    y_q        <= y_scaled_q + y_step_q;
    x_q        <= x_scaled_q + x_step_q;
    row_1_q    <= row_0_q;
    if (rst) for (int stage = 0; stage <= ALIGN; stage++) op_q[stage] <= '0;
  end

  logic [D_N-1:0][LANE_ROWS*8-1:0] lane;
  logic [D_N-1:0] lane_valid;
  logic [D_N-1:0][ROW_BITS-1:0] unused_halo_addr;

  bs_window #(
      .D_N(D_N),
      .BITS(LANE_ROWS * 8),
      .TAPS(1),
      .ADDR_BITS(ROW_BITS)
  ) u_window (
      .clk,
      .y_i(y_q),
      .x_i(x_q),
      .row_i(row_1_q),
      .ring_i(cfg_q.ring),
      .width_i(cfg_q.in_width),
      .height_i(cfg_q.in_height),
      .bank_addr_o,
      .bank_data_i,
      .halo_addr_o(unused_halo_addr),
      .halo_data_i('0),
      .lane_o(lane),
      .lane_valid_o(lane_valid)
  );

  // ------------------------------------------------------------------ maximum, in offset binary: the lowest code is 0
  logic [LANE_ROWS-1:0][D_N-1:0][7:0] tap, largest_q;

  always_comb begin
    for (int row = 0; row < LANE_ROWS; row++) begin
      for (int column = 0; column < D_N; column++) begin
        // The two taps of stride 2 are compared as they are; one multiplexer picks and masks.
        logic [7:0] near, far, sign;
        logic near_valid, far_valid, far_wins;
        sign = {op_end.is_signed, 7'b0};
        near = lane[2*(column%HALF_TILE)][row*8+:8];
        far = lane[2*(column%HALF_TILE)+1][row*8+:8];
        near_valid = op_end.stride_2 ? lane_valid[2*(column%HALF_TILE)] : lane_valid[column];
        far_valid = op_end.two_taps && lane_valid[2*(column%HALF_TILE)+1];
        far_wins = far_valid && (!near_valid || (far ^ sign) > (near ^ sign));
        tap[row][column] = '0;
        if (near_valid || far_valid) begin
          tap[row][column] = (far_wins ? far : op_end.stride_2 ? near : lane[column][row*8+:8]) ^ sign;
        end
      end
    end
  end

  always_ff @(posedge clk) begin
    done_q <= op_end;
    for (int row = 0; row < LANE_ROWS; row++) begin
      for (int column = 0; column < D_N; column++) begin
        if (op_end.columns[column] && (op_end.first || tap[row][column] > largest_q[row][column])) begin
          largest_q[row][column] <= tap[row][column];
        end
      end
    end
    if (rst) done_q <= '0;
  end

  assign valid_o = done_q.valid && done_q.last;
  always_comb begin
    for (int row = 0; row < LANE_ROWS; row++) begin
      for (int column = 0; column < D_N; column++) begin
        code_o[row][column] = {1'b0, largest_q[row][column]};
        if (done_q.is_signed) code_o[row][column] = {{2{!largest_q[row][column][7]}}, largest_q[row][column][6:0]};
        if (done_q.zero) code_o[row][column] = '0;
      end
    end
  end

  // Fields of the instruction that belong to write-back.
  logic unused_fields;
  assign unused_fields = ^{cfg_q, done_q, unused_halo_addr};
endmodule
