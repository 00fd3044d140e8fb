/// Limits a number to lo_i..hi_i, one cycle later; or passes other_i. The number is value_i, or, where wide_i is set, one
/// that does not fit in nine bits, of which only the sign is known.
module bs_clip #(
    parameter bit XC7 = 1'b0  // 7-series primitives, else portable arithmetic
) (
    input  logic              clk,
    input  logic signed [8:0] value_i,
    input  logic              wide_i,
    input  logic              negative_i,  // sign of a wide number
    input  logic signed [8:0] lo_i,
    input  logic signed [8:0] hi_i,
    input  logic              take_other_i,
    input  logic signed [8:0] other_i,
    output logic signed [8:0] code_o
);
  logic below, above;
  logic [1:0] choice;

  bs_less #(
      .XC7(XC7)
  ) u_below (
      .a_i(value_i),
      .b_i(lo_i),
      .less_o(below)
  );
  bs_less #(
      .XC7(XC7)
  ) u_above (
      .a_i(hi_i),
      .b_i(value_i),
      .less_o(above)
  );

  // lo_i first, as where it is above hi_i.
  assign choice[0] = take_other_i | (wide_i ? negative_i : below);
  assign choice[1] = take_other_i | (wide_i ? !negative_i : above && !below);

  always_ff @(posedge clk) begin
    case (choice)
      2'd0: code_o <= value_i;
      2'd1: code_o <= lo_i;
      2'd2: code_o <= hi_i;
      default: code_o <= other_i;
    endcase
  end
endmodule
