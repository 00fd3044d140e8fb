/// Counts PAIRS bit pairs (weight AND column) of one significance on 7-series primitives: count = sum_o + 2*popcount(carry_o).
/// Three pairs take two LUTs; each further two pairs take one LUT6_2, whose carry multiplexer also absorbs the running
/// sum, so that n pairs leave (n + 1) / 2 bits or so in as many LUTs. Combinational.
module bs_pairs_xc7 #(
    parameter int PAIRS = 7  // bit pairs, 2..15
) (
    input  logic [PAIRS-1:0]   weight_i,
    input  logic [PAIRS-1:0]   column_i,
    output logic               sum_o,
    output logic [PAIRS/2-1:0] carry_o
);
  localparam int ODD = PAIRS % 2;
  localparam int FIRST = ODD != 0 ? 3 : 0;     // pairs that the two plain LUTs take
  localparam int STEPS = (PAIRS - FIRST) / 2;  // carry multiplexers
  localparam int CARRIES = PAIRS / 2;

  logic [STEPS:0] sum;

  if (PAIRS < 2) begin : gen_bad
    $error("bs_pairs_xc7: PAIRS must be at least 2 (instance %m)");
  end

  if (ODD != 0) begin : gen_three
    logic [2:0] product;
    assign product = weight_i[2:0] & column_i[2:0];
    assign sum[0] = ^product;
    assign carry_o[CARRIES-1] = (product[0] & product[1]) | (product[0] & product[2]) | (product[1] & product[2]);
  end else begin : gen_none
    assign sum[0] = 1'b0;
  end

  // O5 = w0 c0 (generate), O6 = w0 c0 ^ w1 c1 (propagate); inputs c1 w1 c0 w0 from I3 down, I5 high.
  for (genvar step = 0; step < STEPS; step++) begin : gen_step
    logic propagate, generated;
    logic [3:0] unused_sum, unused_carry;
    LUT6_2 #(
        .INIT(64'h78887888_88888888)
    ) u_lut (
        .I0(weight_i[FIRST+2*step]),
        .I1(column_i[FIRST+2*step]),
        .I2(weight_i[FIRST+2*step+1]),
        .I3(column_i[FIRST+2*step+1]),
        .I4(1'b0),
        .I5(1'b1),
        .O5(generated),
        .O6(propagate)
    );
    CARRY4 u_carry (
        .CI(1'b0),
        .CYINIT(sum[step]),
        .DI({3'b0, generated}),
        .S({3'b0, propagate}),
        .O(unused_sum),
        .CO(unused_carry)
    );
    assign sum[step+1] = unused_sum[0];
    assign carry_o[step] = unused_carry[0];
  end

  assign sum_o = sum[STEPS];
endmodule
