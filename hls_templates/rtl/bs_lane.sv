/// One post-processing lane: bipolar correction, multiply, skip add, bias, shift, clip; then the optional second rounding.
///   code   = clip((value * mul + skip * skip_mul + bias) >> shift, lo, hi),  value = 2S - U (bipolar) or S
///   stored = clip((code * rq_mul + rq_bias) >> (8 * rq_bytes + 7), rq_lo, rq_hi) where requant, else code
/// Rounding is half-up because the biases hold half a step. A lane is a pipeline without stalls; each control comes in the
/// cycle in which its stage needs it (suffix: cycles after the accumulator). sum_o: 5 cycles, code_o: 8, stored_o: 12.
module bs_lane #(
    parameter int ACC_BITS = 28,   // accumulator width in bits, 12..32
    parameter bit SUMS     = 1'b0, // the lane can take a sum of codes instead of the value
    parameter int SUM_BITS = 18,   // bits of a sum, 2..34
    parameter bit XC7      = 1'b0  // 7-series primitives, else portable arithmetic
) (
    input  logic                clk,
    input  logic [ACC_BITS-1:0] acc_0_i,         // S, two's complement unless bipolar
    input  logic [ACC_BITS-1:0] column_acc_0_i,  // U
    input  logic                bipolar_0_i,
    input  logic [7:0]          skip_0_i,
    input  logic                skip_signed_0_i,
    input  logic [23:0]         skip_mul_0_i,    // 0 where nothing is added
    input  logic                take_sum_1_i,    // with SUMS: the value is sum_1_i
    input  logic [SUM_BITS-1:0] sum_1_i,         // two's complement
    input  logic signed [17:0]  mul_1_i,
    input  logic signed [47:0]  bias_1_i,
    output logic signed [47:0]  sum_o,           // 5 cycles
    input  logic [1:0]          shift_bytes_5_i,  // the shift, whole bytes first
    input  logic [2:0]          shift_bits_6_i,
    input  logic signed [8:0]   lo_7_i,
    input  logic signed [8:0]   hi_7_i,
    input  logic                inject_7_i,      // take inject_code_7_i instead of the sum
    input  logic signed [8:0]   inject_code_7_i,
    output logic signed [8:0]   code_o,
    input  logic signed [24:0]  rq_mul_7_i,
    input  logic signed [38:0]  rq_bias_8_i,
    input  logic [1:0]          rq_bytes_10_i,
    input  logic signed [8:0]   rq_lo_11_i,
    input  logic signed [8:0]   rq_hi_11_i,
    input  logic                requant_11_i,
    output logic [7:0]          stored_o,
    output logic [7:0]          code_12_o        // code_o, as late as stored_o
);
  // ------------------------------------------------------------------ sum, in limbs of 17 bits
  // Port-wide copies: Yosys wants plain signals at the ports of signed inputs.
  logic signed [ACC_BITS+1:0] value_0;
  logic signed [34:0] value_1_q, value_1;
  logic signed [24:0] skip_mul_0, mul_1;
  logic signed [17:0] skip_0, low_1, high_1;
  logic signed [47:0] skip_sum, skip_cascade, low_sum, low_cascade, high_sum, high_cascade;
  logic [16:0] low_5_q;

  bs_value #(
      .ACC_BITS(ACC_BITS),
      .XC7(XC7)
  ) u_value (
      .bipolar_i(bipolar_0_i),
      .acc_i(acc_0_i),
      .column_acc_i(column_acc_0_i),
      .value_o(value_0)
  );

  always_ff @(posedge clk) begin
    value_1_q <= 35'(value_0);
    low_5_q   <= low_sum[16:0];
  end

  // Behind the register, since the subtraction before it is long.
  if (SUMS) begin : gen_sums
    assign value_1 = take_sum_1_i ? 35'($signed(sum_1_i)) : value_1_q;
  end else begin : gen_no_sums
    logic unused_sum;
    assign value_1 = value_1_q;
    assign unused_sum = ^{take_sum_1_i, sum_1_i};
  end

  assign skip_mul_0 = {1'b0, skip_mul_0_i};
  assign skip_0 = {{10{skip_signed_0_i & skip_0_i[7]}}, skip_0_i};
  assign mul_1 = 25'(mul_1_i);
  assign low_1 = {1'b0, value_1[16:0]};
  assign high_1 = value_1[34:17];

  bs_mac #(
      .XC7(XC7)
  ) u_skip (
      .clk,
      .a_i(skip_mul_0),
      .b_i(skip_0),
      .c_i(bias_1_i),
      .cascade_i(48'b0),
      .sum_o(skip_sum),
      .cascade_o(skip_cascade)
  );
  bs_mac #(
      .ADDEND(1),
      .XC7(XC7)
  ) u_low (
      .clk,
      .a_i(mul_1),
      .b_i(low_1),
      .c_i(48'b0),
      .cascade_i(skip_cascade),
      .sum_o(low_sum),
      .cascade_o(low_cascade)
  );
  bs_mac #(
      .A_CYCLES(2),
      .B_CYCLES(2),
      .ADDEND(2),
      .XC7(XC7)
  ) u_high (
      .clk,
      .a_i(mul_1),
      .b_i(high_1),
      .c_i(48'b0),
      .cascade_i(low_cascade),
      .sum_o(high_sum),
      .cascade_o(high_cascade)
  );
  assign sum_o = {high_sum[30:0], low_5_q};

  // ------------------------------------------------------------------ shift by bytes, then by bits, then clip
  logic [15:0] bytes_6_q;
  logic [8:0] bits_7_q;
  logic wide_6_q, wide_7_q, sign_6_q, sign_7_q;
  logic [3:0] uneven;  // the bits above the window of so many bytes are not all the sign
  logic [7:0] above;

  assign uneven[3] = sum_o[47:39] != {9{sum_o[47]}};
  assign uneven[2] = sum_o[39:31] != {9{sum_o[39]}};
  assign uneven[1] = sum_o[31:23] != {9{sum_o[31]}};
  assign uneven[0] = sum_o[23:15] != {9{sum_o[23]}};
  // Bits of the window above the nine that remain, folded with the sign.
  assign above = (bytes_6_q[15:8] ^ {8{bytes_6_q[15]}}) >> shift_bits_6_i;

  always_ff @(posedge clk) begin
    case (shift_bytes_5_i)
      2'd0: bytes_6_q <= sum_o[15:0];
      2'd1: bytes_6_q <= sum_o[23:8];
      2'd2: bytes_6_q <= sum_o[31:16];
      default: bytes_6_q <= sum_o[39:24];
    endcase
    wide_6_q <= (uneven >> shift_bytes_5_i) != '0;
    sign_6_q <= sum_o[47];
    bits_7_q <= 9'(bytes_6_q >> shift_bits_6_i);
    wide_7_q <= wide_6_q || above != '0;
    sign_7_q <= sign_6_q;
  end

  bs_clip #(
      .XC7(XC7)
  ) u_clip (
      .clk,
      .value_i(bits_7_q),
      .wide_i(wide_7_q),
      .negative_i(sign_7_q),
      .lo_i(lo_7_i),
      .hi_i(hi_7_i),
      .take_other_i(inject_7_i),
      .other_i(inject_code_7_i),
      .code_o
  );

  // ------------------------------------------------------------------ second rounding: the factors come shifted by bits
  logic signed [17:0] code_8;
  logic signed [47:0] rq_bias_8, rq_sum, rq_cascade;
  logic [8:0] rq_11_q;
  logic [2:0] rq_uneven;
  logic rq_wide_11_q, rq_sign_11_q;
  logic keep_11;
  logic signed [8:0] code_9_q, code_10_q, code_11_q, stored;

  assign keep_11 = !requant_11_i;
  assign code_8 = 18'(code_o);
  assign rq_bias_8 = 48'(rq_bias_8_i);

  bs_mac #(
      .B_CYCLES(0),
      .XC7(XC7)
  ) u_requant (
      .clk,
      .a_i(rq_mul_7_i),
      .b_i(code_8),
      .c_i(rq_bias_8),
      .cascade_i(48'b0),
      .sum_o(rq_sum),
      .cascade_o(rq_cascade)
  );

  assign rq_uneven[2] = rq_sum[39:31] != {9{rq_sum[39]}};
  assign rq_uneven[1] = rq_sum[31:23] != {9{rq_sum[31]}};
  assign rq_uneven[0] = rq_sum[23:15] != {9{rq_sum[23]}};

  always_ff @(posedge clk) begin
    case (rq_bytes_10_i)
      2'd0: rq_11_q <= rq_sum[15:7];
      2'd1: rq_11_q <= rq_sum[23:15];
      2'd2: rq_11_q <= rq_sum[31:23];
      default: rq_11_q <= rq_sum[39:31];
    endcase
    rq_wide_11_q <= (rq_uneven >> rq_bytes_10_i) != '0;
    rq_sign_11_q <= rq_sum[39];
    code_9_q     <= code_o;
    code_10_q    <= code_9_q;
    code_11_q    <= code_10_q;
    code_12_o    <= code_11_q[7:0];
  end

  bs_clip #(
      .XC7(XC7)
  ) u_clip_requant (
      .clk,
      .value_i(rq_11_q),
      .wide_i(rq_wide_11_q),
      .negative_i(rq_sign_11_q),
      .lo_i(rq_lo_11_i),
      .hi_i(rq_hi_11_i),
      .take_other_i(keep_11),
      .other_i(code_11_q),
      .code_o(stored)
  );
  assign stored_o = stored[7:0];

  // Sums end where the bounds of bias and factors end; codes are at most 8 bits, the ninth is their sign.
  logic unused_high;
  assign unused_high = ^{skip_sum, low_sum[47:17], high_sum[47:31], rq_sum[47:40], rq_sum[6:0], stored[8], high_cascade, rq_cascade};
endmodule
