/// Population count of weight AND column, one word a cycle, in portable arithmetic: the twin of bs_popcount_xc7.
/// count_o = count, or -count - 1 where negative_i, four cycles after the words.
module bs_popcount #(
    parameter int D_K   = 144,  // bit pairs per cycle, 8..512
    parameter int PARTS = 3     // partial counts, 1..8; divides D_K
) (
    input  logic                       clk,
    input  logic [D_K-1:0]             weight_i,
    input  logic [D_K-1:0]             column_i,
    input  logic                       negative_i,  // three cycles after the words
    output logic [$clog2(D_K+1):0]     count_o
);
  localparam int PART = D_K / PARTS;
  localparam int PART_BITS = $clog2(PART + 1);
  localparam int COUNT_BITS = $clog2(D_K + 1) + 1;  // one for the sign

  if (D_K % PARTS != 0) begin : gen_bad
    $error("bs_popcount: PARTS must divide D_K (instance %m)");
  end

  logic [PARTS-1:0][PART_BITS-1:0] part_q;
  logic [COUNT_BITS-1:0] lower, upper, lower_q, upper_q, sum_q;

  always_comb begin
    lower = '0;
    upper = '0;
    for (int part = 0; part < PARTS; part++) begin
      if (part < PARTS / 2) lower = lower + COUNT_BITS'(part_q[part]);
      else upper = upper + COUNT_BITS'(part_q[part]);
    end
  end

  always_ff @(posedge clk) begin
    for (int part = 0; part < PARTS; part++) begin
      part_q[part] <= PART_BITS'($countones(weight_i[part*PART+:PART] & column_i[part*PART+:PART]));
    end
    lower_q <= lower;
    upper_q <= upper;
    sum_q   <= lower_q + upper_q;
    count_o <= sum_q ^ {COUNT_BITS{negative_i}};
  end
endmodule
