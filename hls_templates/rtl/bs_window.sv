/// Reads a window of a map that is interleaved over D_N banks (pixel p lies in bank p mod D_N) and turns it to lanes:
/// lane i is pixel (y, x+i), for D_N + TAPS - 1 lanes. Any x is legal, also outside the map: lane_valid_o tells which
/// lanes lie inside. The lanes beyond the D_N-th come from a second copy of the banks (halo). They come seven cycles after
/// their coordinates. Of a map in a ring the buffer holds only some bank rows: row r lies at r modulo 2^ring_i.
module bs_window #(
    parameter int D_N       = 16,  // banks, 2..32, a power of two
    parameter int BITS      = 16,  // bits of a pixel, >= 1
    parameter int TAPS      = 3,   // 1 + lanes beyond D_N, 1..D_N
    parameter int ADDR_BITS = 9    // bits of a bank's row address, 1..16
) (
    input  logic                                 clk,
    input  logic signed [11:0]                   y_i,        // row of the window in pixels, may lie outside the map
    input  logic signed [11:0]                   x_i,        // column of lane 0 in pixels, may lie outside the map
    input  logic [ADDR_BITS-1:0]                 row_i,      // first bank row of the map's plane or group
    input  logic [3:0]                           ring_i,     // row_i is a multiple of 2^ring_i; 0: the map lies there whole
    input  logic [9:0]                           width_i,    // map size in pixels
    input  logic [9:0]                           height_i,
    output logic [D_N-1:0][ADDR_BITS-1:0]        bank_addr_o,
    input  logic [D_N-1:0][BITS-1:0]             bank_data_i,  // two cycles after the address
    output logic [D_N-1:0][ADDR_BITS-1:0]        halo_addr_o,
    input  logic [D_N-1:0][BITS-1:0]             halo_data_i,
    output logic [D_N+TAPS-2:0][BITS-1:0]        lane_o,
    output logic [D_N+TAPS-2:0]                  lane_valid_o
);
  localparam int LANES = D_N + TAPS - 1;
  localparam int BANK_BITS = $clog2(D_N);

  // Stage 1: row product, distance to the map's right edge.
  logic signed [22:0] product_q;
  logic signed [11:0] x_1_q;
  logic signed [12:0] left_1_q;  // pixels of the row from lane 0 on
  logic [ADDR_BITS-1:0] row_1_q, fixed_1_q;  // fixed: bits of the address that the row within the map does not change
  logic inside_1_q;              // the row is one of the map's
  logic [LANES-1:0] valid_2_q, valid_3_q, valid_4_q, valid_5_q, valid_6_q;

  always_ff @(posedge clk) begin
    product_q <= 23'(y_i * $signed({1'b0, width_i}));
    x_1_q     <= x_i;
    left_1_q  <= $signed({3'b000, width_i}) - 13'(x_i);
    inside_1_q <= !y_i[11] && y_i < $signed({2'b00, height_i});
    row_1_q   <= row_i;
    for (int i = 0; i < ADDR_BITS; i++) fixed_1_q[i] <= ring_i != '0 && i >= 32'(ring_i);
  end

  // Stage 2: bank row and bank of lane 0, lanes inside the map.
  logic signed [22:0] pixel;
  logic [ADDR_BITS-1:0] row_2_q, base_2_q, fixed_2_q;
  logic [BANK_BITS-1:0] bank_2_q, bank_3_q, bank_4_q, bank_5_q, bank_6_q;

  assign pixel = product_q + 23'(x_1_q);

  always_ff @(posedge clk) begin
    row_2_q   <= row_1_q + ADDR_BITS'(pixel >>> BANK_BITS);
    bank_2_q  <= pixel[BANK_BITS-1:0];
    base_2_q  <= row_1_q;
    fixed_2_q <= fixed_1_q;
    for (int lane = 0; lane < LANES; lane++) begin
      valid_2_q[lane] <= inside_1_q && x_1_q >= -$signed(12'(lane)) && left_1_q > $signed(13'(lane));
    end
  end

  // Stage 3: that row and the two after it. Stage 4: one of them per bank; banks below that of lane 0 hold pixels of the
  // next row.
  logic [2:0][ADDR_BITS-1:0] row_3_q;

  always_ff @(posedge clk) begin
    for (int step = 0; step < 3; step++) begin
      row_3_q[step] <= ((row_2_q + ADDR_BITS'(step)) & ~fixed_2_q) | (base_2_q & fixed_2_q);
    end
    for (int bank = 0; bank < D_N; bank++) begin
      bank_addr_o[bank] <= bank < 32'(bank_3_q) ? row_3_q[1] : row_3_q[0];
      // The lanes beyond the D_N-th lie in the banks from that of lane 0 on: only the first of all may be a row further.
      halo_addr_o[bank] <= bank < TAPS - 2 && bank < 32'(bank_3_q) ? row_3_q[2] : row_3_q[1];
    end
    bank_3_q  <= bank_2_q;
    valid_3_q <= valid_2_q;
    bank_4_q  <= bank_3_q;
    valid_4_q <= valid_3_q;
    bank_5_q  <= bank_4_q;
    valid_5_q <= valid_4_q;
    bank_6_q  <= bank_5_q;
    valid_6_q <= valid_5_q;
  end

  // Stages 5 and 6 are the memory; stage 7: rotate.
  logic [BANK_BITS:0][D_N-1:0][BITS-1:0] turned;  // after each level of the rotation

  assign turned[0] = bank_data_i;
  for (genvar level = 0; level < BANK_BITS; level++) begin : gen_level
    for (genvar lane = 0; lane < D_N; lane++) begin : gen_lane
      assign turned[level+1][lane] = bank_6_q[level] ? turned[level][(lane+(1<<level))%D_N] : turned[level][lane];
    end
  end

  always_ff @(posedge clk) begin
    lane_o[D_N-1:0] <= turned[BANK_BITS];
    lane_valid_o    <= valid_6_q;
  end

  if (TAPS > 1) begin : gen_halo
    always_ff @(posedge clk) begin
      for (int tap = 0; tap < TAPS - 1; tap++) begin
        lane_o[D_N+tap] <= halo_data_i[BANK_BITS'(tap)+bank_6_q];
      end
    end
  end else begin : gen_no_halo
    logic unused_halo;
    assign unused_halo = ^halo_data_i;
  end
endmodule
