/// One post-processing lane: bipolar correction, multiply, skip add, bias, shift, clip; then the optional second rounding.
///   code   = clip((value * mul + skip * skip_mul + bias) >> shift, lo, hi),  value = 2S - U (bipolar) or S
///   stored = clip((code * rq_mul + rq_bias) >> rq_shift, rq_lo, rq_hi) where requant, else code
/// Rounding is half-up because the biases hold 2**(shift-1). A lane is a pipeline without stalls; each control comes
/// in the cycle in which its stage needs it (suffix: cycles after the accumulator). code_o: 6 cycles, stored_o: 10.
module bs_lane #(
    parameter int ACC_BITS = 28  // accumulator width in bits, 12..32
) (
    input  logic                clk,
    // cycle 0
    input  logic [ACC_BITS-1:0] acc_0_i,         // S, two's complement unless bipolar
    input  logic [ACC_BITS-1:0] column_acc_0_i,  // U
    input  logic                bipolar_0_i,
    input  logic signed [17:0]  mul_0_i,
    input  logic signed [47:0]  bias_0_i,
    input  logic [7:0]          skip_0_i,
    input  logic                skip_signed_0_i,
    input  logic                skip_enable_0_i,
    input  logic [23:0]         skip_mul_1_i,
    output logic signed [47:0]  sum_o,           // 4 cycles
    input  logic [4:0]          shift_4_i,
    input  logic signed [8:0]   lo_5_i,
    input  logic signed [8:0]   hi_5_i,
    input  logic                inject_5_i,      // take inject_code_5_i instead of the sum
    input  logic signed [8:0]   inject_code_5_i,
    output logic signed [8:0]   code_o,
    input  logic signed [17:0]  rq_mul_6_i,
    input  logic signed [31:0]  rq_bias_7_i,
    input  logic [4:0]          rq_shift_8_i,
    input  logic signed [8:0]   rq_lo_9_i,
    input  logic signed [8:0]   rq_hi_9_i,
    input  logic                requant_9_i,
    output logic [7:0]          stored_o,
    output logic [7:0]          code_10_o        // code_o, as late as stored_o
);
  localparam int VALUE_BITS = ACC_BITS + 1;
  localparam int PRODUCT_BITS = VALUE_BITS + 18;

  logic signed [VALUE_BITS-1:0] value_1_q;
  logic signed [17:0] mul_1_q;
  logic signed [47:0] bias_1_q, bias_2_q, bias_3_q;
  logic signed [8:0] skip_1_q;
  logic signed [PRODUCT_BITS-1:0] product_2_q, product_3_q;
  logic signed [32:0] skip_product_2_q, skip_product_3_q;
  logic signed [47:0] shifted_5_q;
  logic signed [8:0] code_7_q, code_8_q, code_9_q;
  logic signed [26:0] rq_product_7_q;
  logic signed [32:0] rq_sum_8_q, rq_shifted_9_q;

  function automatic logic signed [8:0] clip(input logic signed [47:0] value, input logic signed [8:0] lo,
                                             input logic signed [8:0] hi);
    if (value < 48'(lo)) clip = lo;
    else if (value > 48'(hi)) clip = hi;
    else clip = value[8:0];
  endfunction

  logic signed [8:0] rq_code;

  assign rq_code = clip(48'(rq_shifted_9_q), rq_lo_9_i, rq_hi_9_i);

  always_ff @(posedge clk) begin
    value_1_q        <= bipolar_0_i ? $signed({acc_0_i, 1'b0}) - $signed({1'b0, column_acc_0_i})
                                    : $signed({acc_0_i[ACC_BITS-1], acc_0_i});
    mul_1_q          <= mul_0_i;
    bias_1_q         <= bias_0_i;
    skip_1_q         <= skip_enable_0_i ? $signed({skip_signed_0_i & skip_0_i[7], skip_0_i}) : '0;

    product_2_q      <= value_1_q * mul_1_q;
    skip_product_2_q <= 33'(skip_1_q) * $signed({9'b0, skip_mul_1_i});
    bias_2_q         <= bias_1_q;

    product_3_q      <= product_2_q;
    skip_product_3_q <= skip_product_2_q;
    bias_3_q         <= bias_2_q;

    sum_o            <= 48'(product_3_q) + 48'(skip_product_3_q) + bias_3_q;

    shifted_5_q      <= sum_o >>> shift_4_i;

    code_o           <= inject_5_i ? inject_code_5_i : clip(shifted_5_q, lo_5_i, hi_5_i);

    rq_product_7_q   <= code_o * rq_mul_6_i;
    code_7_q         <= code_o;
    rq_sum_8_q       <= 33'(rq_product_7_q) + 33'(rq_bias_7_i);
    code_8_q         <= code_7_q;
    rq_shifted_9_q   <= rq_sum_8_q >>> rq_shift_8_i;
    code_9_q         <= code_8_q;
    code_10_o        <= code_9_q[7:0];
    stored_o         <= requant_9_i ? rq_code[7:0] : code_9_q[7:0];
  end

  // Codes are at most 8 bits; the ninth is their sign while they are compared.
  logic unused_signs;
  assign unused_signs = rq_code[8] ^ code_9_q[8];
endmodule
