/// Multiply-add in one DSP48E1: sum = a * b + addend. The addend is c_i (ADDEND 0), the sum of the unit before in the
/// cascade (1), or that sum shifted right by 17 bits (2), the step between the two limbs of a long product.
/// A change of a_i shows in sum_o after A_CYCLES + 2 cycles (b_i: B_CYCLES + 2), of c_i after two, of cascade_i after one.
/// cascade_o and sum_o are the same; the first one may only go to cascade_i of one other unit.
module bs_mac #(
    parameter int A_CYCLES = 1,    // registers before the multiplier, 0..2
    parameter int B_CYCLES = 1,    // 0..2
    parameter int ADDEND   = 0,    // 0: c_i, 1: cascade_i, 2: cascade_i >>> 17
    parameter bit XC7      = 1'b0  // 7-series primitive, else portable arithmetic
) (
    input  logic               clk,
    input  logic signed [24:0] a_i,
    input  logic signed [17:0] b_i,
    input  logic signed [47:0] c_i,
    input  logic signed [47:0] cascade_i,
    output logic signed [47:0] sum_o,
    output logic signed [47:0] cascade_o
);
  if (XC7) begin : gen_xc7
    logic [29:0] unused_acout;
    logic [17:0] unused_bcout;
    logic [3:0] unused_carryout;
    logic unused_carrycascout, unused_multsignout, unused_overflow, unused_patternbdetect, unused_patterndetect;
    logic unused_underflow;

    DSP48E1 #(
        .ACASCREG(A_CYCLES),
        .ADREG(0),
        .ALUMODEREG(0),
        .AREG(A_CYCLES),
        .BCASCREG(B_CYCLES),
        .BREG(B_CYCLES),
        .CARRYINREG(0),
        .CARRYINSELREG(0),
        .CREG(1),
        .DREG(0),
        .INMODEREG(0),
        .MREG(1),
        .OPMODEREG(0),
        .PREG(1),
        .USE_DPORT("FALSE"),
        .USE_MULT("MULTIPLY")
    ) u_dsp (
        .CLK(clk),
        .A({{5{a_i[24]}}, a_i}),
        .B(b_i),
        .C(c_i),
        .D(25'b0),
        .PCIN(cascade_i),
        .P(sum_o),
        .PCOUT(cascade_o),
        .OPMODE(ADDEND == 0 ? 7'b0110101 : ADDEND == 1 ? 7'b0010101 : 7'b1010101),
        .ALUMODE(4'b0),
        .INMODE(5'b0),
        .CARRYIN(1'b0),
        .CARRYINSEL(3'b0),
        .CARRYCASCIN(1'b0),
        .MULTSIGNIN(1'b0),
        .ACIN(30'b0),
        .BCIN(18'b0),
        .CEA1(1'b1),
        .CEA2(1'b1),
        .CEAD(1'b0),
        .CEALUMODE(1'b0),
        .CEB1(1'b1),
        .CEB2(1'b1),
        .CEC(1'b1),
        .CECARRYIN(1'b0),
        .CECTRL(1'b0),
        .CED(1'b0),
        .CEINMODE(1'b0),
        .CEM(1'b1),
        .CEP(1'b1),
        .RSTA(1'b0),
        .RSTALLCARRYIN(1'b0),
        .RSTALUMODE(1'b0),
        .RSTB(1'b0),
        .RSTC(1'b0),
        .RSTCTRL(1'b0),
        .RSTD(1'b0),
        .RSTINMODE(1'b0),
        .RSTM(1'b0),
        .RSTP(1'b0),
        .ACOUT(unused_acout),
        .BCOUT(unused_bcout),
        .CARRYCASCOUT(unused_carrycascout),
        .CARRYOUT(unused_carryout),
        .MULTSIGNOUT(unused_multsignout),
        .OVERFLOW(unused_overflow),
        .PATTERNBDETECT(unused_patternbdetect),
        .PATTERNDETECT(unused_patterndetect),
        .UNDERFLOW(unused_underflow)
    );
  end else begin : gen_portable
    logic signed [24:0] a, a_1_q, a_2_q;
    logic signed [17:0] b, b_1_q, b_2_q;
    // In two limbs, which 18 x 18 multipliers take whole: their sum waits for the adder behind the register.
    logic signed [17:0] a_low;
    logic signed [7:0] a_high;
    logic signed [34:0] low_q;
    logic signed [25:0] high_q;
    logic signed [47:0] addend, c_q;

    assign a = A_CYCLES == 0 ? a_i : A_CYCLES == 1 ? a_1_q : a_2_q;
    assign b = B_CYCLES == 0 ? b_i : B_CYCLES == 1 ? b_1_q : b_2_q;
    assign a_low = {1'b0, a[16:0]};
    assign a_high = a[24:17];
    assign addend = ADDEND == 0 ? c_q : ADDEND == 1 ? cascade_i : cascade_i >>> 17;

    always_ff @(posedge clk) begin
      a_1_q  <= a_i;
      a_2_q  <= a_1_q;
      b_1_q  <= b_i;
      b_2_q  <= b_1_q;
      low_q  <= a_low * b;
      high_q <= a_high * b;
      c_q    <= c_i;
      sum_o  <= 48'(low_q) + (48'(high_q) <<< 17) + addend;
    end
    assign cascade_o = sum_o;
  end

  logic unused_addends;
  assign unused_addends = ^{c_i, cascade_i};
endmodule
