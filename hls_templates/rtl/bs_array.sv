/// D_M x D_N dot units, one accumulator of column counts per column, and the read-out shadow.
/// The word controls arrive with the data. start_o pulses LEAD cycles before the first beat of a row tile stands at
/// acc_o; D_M/LANE_ROWS beats then follow, one a cycle. Row tiles must be at least that many cycles apart.
/// U, the column count, is what an all-ones weight row would accumulate: bipolar results are 2S - U.
module bs_array #(
    parameter int D_M       = 8,    // rows: output channels at a time, 2..32
    parameter int D_N       = 16,   // columns: output positions at a time, 2..32
    parameter int D_K       = 144,  // bit pairs per dot unit and cycle, 8..512
    parameter int PARTS     = 3,    // partial counts of a dot unit, 1..8; divides D_K
    parameter int LANE_ROWS = 2,    // rows per read-out beat; divides D_M
    parameter int ACC_BITS  = 28,   // accumulator width in bits, 12..32
    parameter int COUNT_BITS = 16   // bits of a column count, clog2(D_K+1)..24
) (
    input  logic                                         clk,
    input  logic                                         rst,
    input  logic                                         valid_i,
    input  logic                                         clear_i,
    input  logic                                         shift_i,
    input  logic                                         negative_i,
    input  logic                                         last_i,
    input  logic [D_M-1:0][D_K-1:0]                      weights_i,
    input  logic [D_N-1:0][D_K-1:0]                      columns_i,
    input  logic [D_N-1:0][COUNT_BITS-1:0]               counts_i,
    output logic                                         start_o,
    output logic [LANE_ROWS-1:0][D_N-1:0][ACC_BITS-1:0]  acc_o,
    output logic [D_N-1:0][ACC_BITS-1:0]                 column_acc_o
);
  if (D_M % LANE_ROWS != 0 || (1 << COUNT_BITS) <= D_K) begin : gen_bad
    $error("bs_array: LANE_ROWS must divide D_M, a count must hold D_K (instance %m)");
  end

  // Controls, delayed to the accumulators.
  logic valid_1_q, clear_1_q, shift_1_q, negative_1_q, last_1_q;
  logic valid_2_q, clear_2_q, shift_2_q, negative_2_q, last_2_q;
  logic last_3_q;

  always_ff @(posedge clk) begin
    valid_1_q    <= valid_i;
    clear_1_q    <= clear_i;
    shift_1_q    <= shift_i;
    negative_1_q <= negative_i;
    last_1_q     <= last_i & valid_i;
    valid_2_q    <= valid_1_q;
    clear_2_q    <= clear_1_q;
    shift_2_q    <= shift_1_q;
    negative_2_q <= negative_1_q;
    last_2_q     <= last_1_q;
    last_3_q     <= last_2_q;
    if (rst) begin
      valid_1_q <= 1'b0;
      valid_2_q <= 1'b0;
      last_1_q  <= 1'b0;
      last_2_q  <= 1'b0;
      last_3_q  <= 1'b0;
    end
  end

  assign start_o = last_1_q;

  logic [D_M-1:0][D_N-1:0][ACC_BITS-1:0] acc, shadow_q;

  for (genvar row = 0; row < D_M; row++) begin : gen_row
    for (genvar column = 0; column < D_N; column++) begin : gen_column
      bs_dot_unit #(
          .D_K(D_K),
          .PARTS(PARTS),
          .ACC_BITS(ACC_BITS)
      ) u_dot (
          .clk,
          .weight_i(weights_i[row]),
          .column_i(columns_i[column]),
          .valid_i(valid_2_q),
          .clear_i(clear_2_q),
          .shift_i(shift_2_q),
          .negative_i(negative_2_q),
          .acc_o(acc[row][column])
      );
    end
  end

  // Column counts.
  logic [D_N-1:0][COUNT_BITS-1:0] counts_1_q, counts_2_q;
  logic [D_N-1:0][ACC_BITS-1:0] column_q;

  always_ff @(posedge clk) begin
    counts_1_q <= counts_i;
    counts_2_q <= counts_1_q;
    if (valid_2_q) begin
      for (int column = 0; column < D_N; column++) begin
        column_q[column] <= (clear_2_q ? '0 : shift_2_q ? {column_q[column][ACC_BITS-2:0], 1'b0} : column_q[column])
                            + ACC_BITS'(counts_2_q[column]);
      end
    end
  end

  // Read-out: the shadow moves LANE_ROWS rows down each cycle until the next row tile is copied over it.
  always_ff @(posedge clk) begin
    if (last_3_q) begin
      shadow_q     <= acc;
      column_acc_o <= column_q;
    end else begin
      for (int row = 0; row < D_M - LANE_ROWS; row++) shadow_q[row] <= shadow_q[row+LANE_ROWS];
    end
  end

  assign acc_o = shadow_q[LANE_ROWS-1:0];
endmodule
