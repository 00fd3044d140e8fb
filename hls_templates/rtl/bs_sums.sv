/// Sums of codes over all positions of a map, per channel: the first half of a global average pool. Beats come with the
/// codes of D_N positions of LANE_ROWS channels; a channel group must not come again within GAP cycles. Sums are read
/// like a memory.
module bs_sums #(
    parameter int D_N       = 16,  // positions of a tile, 2..32, a power of two
    parameter int LANE_ROWS = 2,   // channels per beat, 1..8
    parameter int GROUPS    = 256, // channel groups, 2..1024
    parameter int SUM_BITS  = 18   // bits of a sum, 14..32
) (
    input  logic                                   clk,
    input  logic                                   rst,
    input  logic                                   valid_i,
    input  logic                                   first_i,    // forget what the group had
    input  logic                                   signed_i,   // codes are two's complement
    input  logic [$clog2(D_N):0]                   columns_i,  // positions that exist, from column 0
    input  logic [$clog2(GROUPS)-1:0]              group_i,
    input  logic [D_N-1:0][LANE_ROWS*8-1:0]        code_i,
    output logic                                   busy_o,     // until a sum leaves, a cycle before it is written
    input  logic [$clog2(GROUPS)-1:0]              group_read_i,
    output logic [LANE_ROWS-1:0][SUM_BITS-1:0]     sum_o       // two cycles after group_read_i, while nothing comes
);
  localparam int LEVELS = $clog2(D_N);
  localparam int GROUP_BITS = $clog2(GROUPS);
  localparam int PART_BITS = 9 + LEVELS;

  typedef struct packed {
    logic                  valid;
    logic                  first;
    logic [GROUP_BITS-1:0] group;
  } beat_t;

  // Stage 1: what exists, as signed numbers. Stages 2 and 3: their sum. Stage 4: added to the group's.
  beat_t beat_1_q, beat_2_q, beat_3_q;
  logic write_4_q;
  logic [GROUP_BITS-1:0] group_4_q;
  logic signed [LANE_ROWS-1:0][D_N-1:0][8:0] code_1_q;
  logic signed [LANE_ROWS-1:0][D_N/2-1:0][PART_BITS-1:0] pair_2_q;
  logic signed [LANE_ROWS-1:0][PART_BITS-1:0] part_3_q;
  logic [LANE_ROWS-1:0][PART_BITS-1:0] part;
  logic [LANE_ROWS-1:0][SUM_BITS-1:0] old, sum_4_q;

  always_comb begin
    for (int row = 0; row < LANE_ROWS; row++) begin
      part[row] = '0;
      for (int pair = 0; pair < D_N / 2; pair++) part[row] = part[row] + pair_2_q[row][pair];
    end
  end

  always_ff @(posedge clk) begin
    beat_1_q <= '0;
    beat_1_q.valid <= valid_i;
    beat_1_q.first <= first_i;
    beat_1_q.group <= group_i;
    beat_2_q <= beat_1_q;
    beat_3_q <= beat_2_q;
    write_4_q <= beat_3_q.valid;
    group_4_q <= beat_3_q.group;
    for (int row = 0; row < LANE_ROWS; row++) begin
      for (int column = 0; column < D_N; column++) begin
        code_1_q[row][column] <= (LEVELS + 1)'(column) < columns_i
            ? {signed_i && code_i[column][row*8+7], code_i[column][row*8+:8]} : '0;
      end
      for (int pair = 0; pair < D_N / 2; pair++) begin
        pair_2_q[row][pair] <= PART_BITS'($signed(code_1_q[row][2*pair])) + PART_BITS'($signed(code_1_q[row][2*pair+1]));
      end
      part_3_q[row] <= part[row];
      sum_4_q[row]  <= (beat_3_q.first ? '0 : old[row]) + SUM_BITS'($signed(part_3_q[row]));
    end
    if (rst) begin
      beat_1_q <= '0;
      beat_2_q <= '0;
      beat_3_q <= '0;
      write_4_q <= 1'b0;
    end
  end

  // Read for stage 4: the address two cycles before, in stage 1.
  bs_ram #(
      .WIDTH(LANE_ROWS * SUM_BITS),
      .DEPTH(GROUPS)
  ) u_sums (
      .clk,
      .we_i(write_4_q),
      .waddr_i(group_4_q),
      .wdata_i(sum_4_q),
      .raddr_i(beat_1_q.valid ? beat_1_q.group : group_read_i),
      .rdata_o(old)
  );
  assign sum_o = old;
  assign busy_o = valid_i || beat_1_q.valid || beat_2_q.valid || beat_3_q.valid;
endmodule
