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

  // Counts and flags are those of the walker's run; what the run behind it has follows from them.
  bs_pkg::pool_t cfg_q;
  logic busy_q, run_q, begin_q, prime_q;  // begin_q: the walker starts; prime_q: its first run moves up
  logic [15:0] tiles_left_q;
  logic [9:0] rows_left_q;
  logic [BEAT_BITS-1:0] beats_left_q;
  logic [11:0] zero_left_q, groups_left_q;
  logic zero_any_q, groups_none_q;  // zero_left_q is not zero, groups_left_q is
  logic [ROW_BITS-1:0] row_q;
  logic next_row_end, next_tile_end, next_zero, first_zero;  // of the beat behind the run's, of a tile's first one
  logic beat_ends, ahead_tile_end, step;
  // The run's operations: taps left in the window, this one included.
  logic [3:0] ky_left_q, kx_left_q, spacing_q;
  logic stride_2_q, zero_q, row_end_q, tile_end_q, one_row_q, first_op_q;
  // Whether the operation is the last of its window's row or column, found out with the one before; of the first one.
  logic kx_end_q, ky_end_q, whole_row_q, whole_column_q;
  logic spaced_q;  // spacing_q is 0
  logic two_taps;  // at stride 2 the window holds the next tap as well
  logic kx_last, ky_last, window_last, walk_last, row_tile_last, go;
  logic [9:0] walk_x, walk_y;
  logic [COLUMN_BITS-1:0] walk_column;
  logic [D_N-1:0] walk_columns;
  logic unused_lower;

  bs_walker #(
      .D_N(D_N)
  ) u_walker (
      .clk,
      .start_i(begin_q),
      .start_x_i(cfg_q.start_x),
      .start_y_i(cfg_q.start_y),
      .pooled_i(1'b0),
      .stride_i(cfg_q.stride),
      .out_width_i(cfg_q.out_width),
      .out_height_i(cfg_q.out_height),
      .next_i(step),
      .again_i(!ahead_tile_end),
      .x_o(walk_x),
      .y_o(walk_y),
      .lower_o(unused_lower),
      .column_o(walk_column),
      .columns_o(walk_columns),
      .last_o(walk_last)
  );

  always_comb begin
    next_row_end = row_end_q ? BEATS == 1 : beats_left_q == BEAT_BITS'(2);
    next_tile_end = next_row_end && (!row_end_q ? rows_left_q == 10'd1 : tile_end_q ? one_row_q : rows_left_q == 10'd2);
    // Before the first run the counts are its own.
    beat_ends = walk_last && !prime_q;
    ahead_tile_end = beat_ends ? next_tile_end : tile_end_q;
    first_zero = cfg_q.zero_groups != '0 || cfg_q.in_groups == '0;
    next_zero = groups_none_q || (zero_any_q ? zero_left_q != 12'd1 : groups_left_q == 12'd1);
    two_taps = stride_2_q && kx_left_q != 4'd1;
    kx_last = zero_q || kx_end_q;
    ky_last = zero_q || ky_end_q;
    window_last = kx_last && ky_last;
    row_tile_last = window_last && walk_last && row_end_q;
    go = run_q && !(row_tile_last && !spaced_q);
    step = prime_q || (go && window_last);
  end
  assign busy_o = busy_q;

  always_ff @(posedge clk) begin
    begin_q <= start_i;
    prime_q <= begin_q;
    if (!spaced_q) begin
      spacing_q <= spacing_q - 4'd1;
      spaced_q  <= spacing_q == 4'd1;
    end
    if (prime_q) run_q <= 1'b1;
    if (start_i) begin
      cfg_q        <= instr_i;
      busy_q       <= 1'b1;
      tiles_left_q <= instr_i.tiles;
      spacing_q    <= '0;
      spaced_q     <= 1'b1;
    end else if (go && row_tile_last) begin
      spacing_q <= cfg_q.plane_bits;
      spaced_q  <= cfg_q.plane_bits == '0;
      if (tile_end_q) begin
        tiles_left_q <= tiles_left_q - 16'd1;
        if (tiles_left_q == 16'd1) begin
          run_q  <= 1'b0;
          busy_q <= 1'b0;
        end
      end
    end
    stride_2_q     <= cfg_q.stride == 4'd2;
    whole_row_q    <= cfg_q.kernel_w == 4'd1 || (cfg_q.stride == 4'd2 && cfg_q.kernel_w == 4'd2);
    whole_column_q <= cfg_q.kernel_h == 4'd1;

    if (prime_q || (go && kx_last)) begin
      kx_left_q <= cfg_q.kernel_w;
      kx_end_q  <= whole_row_q;
    end else if (go) begin
      kx_left_q <= kx_left_q - (two_taps ? 4'd2 : 4'd1);
      kx_end_q  <= stride_2_q ? kx_left_q == 4'd3 || kx_left_q == 4'd4 : kx_left_q == 4'd2;
    end
    if (step) begin
      ky_left_q <= cfg_q.kernel_h;
      ky_end_q  <= whole_column_q;
    end else if (go && kx_last) begin
      ky_left_q <= ky_left_q - 4'd1;
      ky_end_q  <= ky_left_q == 4'd2;
    end
    if (prime_q) first_op_q <= 1'b1;
    else if (go) first_op_q <= window_last;

    one_row_q <= cfg_q.row_tiles == 10'd1;
    if (begin_q || (step && beat_ends && tile_end_q)) begin
      beats_left_q  <= BEAT_BITS'(BEATS);
      row_end_q     <= BEATS == 1;
      rows_left_q   <= cfg_q.row_tiles;
      tile_end_q    <= BEATS == 1 && cfg_q.row_tiles == 10'd1;
      zero_left_q   <= cfg_q.zero_groups;
      zero_any_q    <= cfg_q.zero_groups != '0;
      groups_left_q <= cfg_q.in_groups;
      groups_none_q <= cfg_q.in_groups == '0;
      zero_q        <= first_zero;
      row_q         <= ROW_BITS'(cfg_q.in_base);
    end else if (step && beat_ends) begin
      beats_left_q <= row_end_q ? BEAT_BITS'(BEATS) : beats_left_q - 1'b1;
      row_end_q    <= next_row_end;
      tile_end_q   <= next_tile_end;
      if (row_end_q) rows_left_q <= rows_left_q - 10'd1;
      if (zero_any_q) begin
        zero_left_q <= zero_left_q - 12'd1;
        zero_any_q  <= zero_left_q != 12'd1;
      end else if (!groups_none_q) begin
        groups_left_q <= groups_left_q - 12'd1;
        groups_none_q <= groups_left_q == 12'd1;
      end
      zero_q <= next_zero;
      if (!zero_q) row_q <= row_q + ROW_BITS'(cfg_q.in_pitch);
    end
    if (rst) begin
      begin_q  <= 1'b0;
      prime_q  <= 1'b0;
      busy_q   <= 1'b0;
      run_q    <= 1'b0;
      spaced_q <= 1'b1;
    end
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

  op_t op, op_end, tap_op_q, done_q;
  logic [$bits(op)-1:0] op_q [ALIGN+1];

  always_comb begin
    op.valid = go;
    op.first = first_op_q;
    op.last = window_last && walk_last;
    op.zero = zero_q;
    op.is_signed = cfg_q.in_signed;
    op.stride_2 = stride_2_q;
    op.two_taps = two_taps;
    op.columns = walk_columns;
  end
  assign op_end = op_q[ALIGN];

  logic signed [11:0] y_scaled_q, x_scaled_q, y_step_q, x_step_q, y_q, x_q;
  logic [ROW_BITS-1:0] row_0_q, row_1_q;
  logic [COLUMN_BITS:0] column_shift;
  logic signed [5:0] y_tap_q, x_tap_q;  // of the first tap, and as many beyond as are left there

  assign column_shift = cfg_q.stride == 4'd2 ? {walk_column & COLUMN_BITS'(HALF_TILE - 1), 1'b0} : {1'b0, walk_column};

  always_ff @(posedge clk) begin
    op_q[0] <= op;
    for (int stage = 1; stage <= ALIGN; stage++) op_q[stage] <= op_q[stage-1];
    y_scaled_q <= 12'(walk_y) * 12'(cfg_q.stride);
    x_scaled_q <= 12'(walk_x) * 12'(cfg_q.stride);
    y_tap_q    <= 6'(cfg_q.kernel_h) - 6'(cfg_q.pad);
    x_tap_q    <= 6'(cfg_q.kernel_w) - 6'(cfg_q.pad);
    y_step_q   <= 12'(y_tap_q) - 12'($signed({1'b0, ky_left_q}));
    x_step_q   <= 12'(x_tap_q) - 12'($signed({1'b0, kx_left_q})) - 12'($signed({1'b0, column_shift}));
    row_0_q    <= row_q;
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
  logic [LANE_ROWS-1:0][D_N-1:0][7:0] tap, tap_q, largest_q;

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
    tap_op_q <= op_end;
    tap_q    <= tap;
    done_q   <= tap_op_q;
    valid_o  <= tap_op_q.valid && tap_op_q.last;
    for (int row = 0; row < LANE_ROWS; row++) begin
      for (int column = 0; column < D_N; column++) begin
        if (tap_op_q.columns[column] && (tap_op_q.first || tap_q[row][column] > largest_q[row][column])) begin
          largest_q[row][column] <= tap_q[row][column];
        end
      end
    end
    if (rst) begin
      tap_op_q <= '0;
      done_q   <= '0;
      valid_o  <= 1'b0;
    end
  end

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
