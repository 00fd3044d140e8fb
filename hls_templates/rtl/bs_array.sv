/// D_M x D_N dot units, one accumulator of column counts per column, and the read-out shadow.
/// The word controls arrive with the data. start_o pulses LEAD cycles before the first beat of a row tile stands at
/// acc_o; D_M/LANE_ROWS beats then follow, one a cycle. Row tiles must be at least that many cycles apart.
/// U, the column count, is what an all-ones weight row would accumulate: bipolar results are 2S - U.
module bs_array #(
    parameter int D_M       = 8,    // rows: output channels at a time, 2..32
    parameter int D_N       = 16,   // columns: output positions at a time, 2..32
    parameter int D_K       = 144,  // bit pairs per dot unit and cycle, 8..512
    parameter int PARTS     = 3,    // partial counts of a portable dot unit, 1..8; divides D_K
    parameter int LANE_ROWS = 2,    // rows per read-out beat; divides D_M
    parameter int ACC_BITS  = 28,   // accumulator width in bits, 12..32
    parameter int COUNT_BITS = 16,  // bits of a column count, clog2(D_K+1)..24
    parameter bit XC7       = 1'b0  // 7-series primitives in the dot units and accumulators
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
  localparam int COUNT_CYCLES = 4;  // of bs_dot_unit, from the data to the accumulator
  localparam int BEATS = D_M / LANE_ROWS;
  localparam int BEAT_BITS = BEATS > 1 ? $clog2(BEATS) : 1;

  if (D_M % LANE_ROWS != 0 || (1 << COUNT_BITS) <= D_K) begin : gen_bad
    $error("bs_array: LANE_ROWS must divide D_M, a count must hold D_K (instance %m)");
  end

  // Controls, delayed to the accumulators: bit n is n + 1 cycles behind the data. Resets make
  // them registers; the outputs of LUT shift registers come too late for the carry chains.
  logic [COUNT_CYCLES-1:0] valid_q, clear_q, shift_q, last_q;
  logic [COUNT_CYCLES-2:0] negative_q;
  logic done_q;  // the accumulators hold a whole row tile

  always_ff @(posedge clk) begin
    valid_q    <= {valid_q[COUNT_CYCLES-2:0], valid_i};
    clear_q    <= {clear_q[COUNT_CYCLES-2:0], clear_i};
    shift_q    <= {shift_q[COUNT_CYCLES-2:0], shift_i};
    negative_q <= {negative_q[COUNT_CYCLES-3:0], negative_i};
    last_q     <= {last_q[COUNT_CYCLES-2:0], last_i & valid_i};
    done_q     <= last_q[COUNT_CYCLES-1];
    if (rst) begin
      valid_q    <= '0;
      clear_q    <= '0;
      shift_q    <= '0;
      negative_q <= '0;
      last_q     <= '0;
      done_q     <= 1'b0;
    end
  end

  assign start_o = last_q[COUNT_CYCLES-2];

  logic [D_M-1:0][D_N-1:0][ACC_BITS-1:0] acc, shadow_q;
  logic valid, clear, shift;

  assign valid = valid_q[COUNT_CYCLES-1];
  assign clear = clear_q[COUNT_CYCLES-1];
  assign shift = shift_q[COUNT_CYCLES-1];

  for (genvar row = 0; row < D_M; row++) begin : gen_row
    for (genvar column = 0; column < D_N; column++) begin : gen_column
      bs_dot_unit #(
          .D_K(D_K),
          .PARTS(PARTS),
          .ACC_BITS(ACC_BITS),
          .XC7(XC7)
      ) u_dot (
          .clk,
          .weight_i(weights_i[row]),
          .column_i(columns_i[column]),
          .negative_i(negative_q[COUNT_CYCLES-2]),
          .valid_i(valid),
          .clear_i(clear),
          .shift_i(shift),
          .acc_o(acc[row][column])
      );
    end
  end

  // Column counts.
  logic [COUNT_CYCLES-1:0][D_N-1:0][COUNT_BITS-1:0] counts_q;
  logic [D_N-1:0][ACC_BITS-1:0] column_acc;

  always_ff @(posedge clk) counts_q <= rst ? '0 : {counts_q[COUNT_CYCLES-2:0], counts_i};

  for (genvar column = 0; column < D_N; column++) begin : gen_column_acc
    bs_accumulator #(
        .WIDTH(ACC_BITS),
        .XC7(XC7)
    ) u_acc (
        .clk,
        .valid_i(valid),
        .clear_i(clear),
        .shift_i(shift),
        .carry_i(1'b0),
        .addend_i(ACC_BITS'(counts_q[COUNT_CYCLES-1][column])),
        .acc_o(column_acc[column])
    );
  end

  // Read-out: the shadow keeps a row tile while the next one accumulates; a beat shows LANE_ROWS of its rows.
  logic [BEAT_BITS-1:0] beat_q;

  always_ff @(posedge clk) begin
    if (done_q) begin
      shadow_q     <= acc;
      column_acc_o <= column_acc;
    end
    beat_q <= done_q ? '0 : beat_q + 1'b1;
  end

  always_comb begin
    for (int row = 0; row < LANE_ROWS; row++) acc_o[row] = shadow_q[BEATS == 1 ? row : 32'(beat_q)*LANE_ROWS+row];
  end
endmodule
