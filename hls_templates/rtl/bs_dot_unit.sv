/// One cell of the array: AND, population count and accumulation of D_K bit pairs per cycle.
/// acc = 2*acc + count where shift_i is set (Horner, most significant plane pair first), acc + count otherwise;
/// negative_i subtracts. The count takes four cycles, so the controls of the accumulator run four cycles behind the data.
/// With XC7 set it is built of 7-series primitives, else of portable arithmetic; both do the same in every cycle.
module bs_dot_unit #(
    parameter int D_K      = 144,  // bit pairs per cycle, 8..512
    parameter int PARTS    = 3,    // partial counts of the portable form, 1..8; divides D_K
    parameter int ACC_BITS = 28,   // accumulator width in bits, 12..32
    parameter bit XC7      = 1'b0  // 7-series primitives; bs_popcount_xc7 is rendered for one D_K
) (
    input  logic                clk,
    input  logic [D_K-1:0]      weight_i,
    input  logic [D_K-1:0]      column_i,
    input  logic                negative_i,  // three cycles after the data
    input  logic                valid_i,     // four cycles after the data
    input  logic                clear_i,
    input  logic                shift_i,
    output logic [ACC_BITS-1:0] acc_o
);
  localparam int COUNT_BITS = $clog2(D_K + 1) + 1;  // one for the sign

  logic [COUNT_BITS-1:0] count;  // count, or -count - 1 where negative

  if (XC7) begin : gen_xc7
    bs_popcount_xc7 u_count (
        .clk,
        .weight_i,
        .column_i,
        .negative_i,
        .count_o(count)
    );
  end else begin : gen_portable
    bs_popcount #(
        .D_K(D_K),
        .PARTS(PARTS)
    ) u_count (
        .clk,
        .weight_i,
        .column_i,
        .negative_i,
        .count_o(count)
    );
  end

  bs_accumulator #(
      .WIDTH(ACC_BITS),
      .XC7(XC7)
  ) u_acc (
      .clk,
      .valid_i,
      .clear_i,
      .shift_i,
      .carry_i(count[COUNT_BITS-1]),
      .addend_i({{ACC_BITS - COUNT_BITS{count[COUNT_BITS-1]}}, count}),
      .acc_o
  );
endmodule
