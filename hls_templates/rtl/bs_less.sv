/// less_o = a_i < b_i, signed 9-bit numbers. With XC7 set, two bits a LUT6_2 and a carry chain. Combinational.
module bs_less #(
    parameter bit XC7 = 1'b0  // 7-series primitives, else portable arithmetic
) (
    input  logic signed [8:0] a_i,
    input  logic signed [8:0] b_i,
    output logic              less_o
);
  if (XC7) begin : gen_xc7
    logic [7:0] equal, greater, sum, carry;

    assign equal[7:5] = '0;
    assign greater[7:5] = '0;
    // O6: the pairs are equal; O5: b's is the greater one.
    for (genvar pair = 0; pair < 4; pair++) begin : gen_pair
      LUT6_2 #(
          .INIT(64'h84218421_73107310)
      ) u_lut (
          .I0(a_i[2*pair]),
          .I1(a_i[2*pair+1]),
          .I2(b_i[2*pair]),
          .I3(b_i[2*pair+1]),
          .I4(1'b0),
          .I5(1'b1),
          .O5(greater[pair]),
          .O6(equal[pair])
      );
    end
    LUT6_2 #(
        .INIT(64'ha5a5a5a5_0a0a0a0a)
    ) u_sign (
        .I0(a_i[8]),
        .I1(1'b0),
        .I2(b_i[8]),
        .I3(1'b0),
        .I4(1'b0),
        .I5(1'b1),
        .O5(greater[4]),
        .O6(equal[4])
    );
    CARRY4 u_low (
        .CI(1'b0),
        .CYINIT(1'b0),
        .DI(greater[3:0]),
        .S(equal[3:0]),
        .O(sum[3:0]),
        .CO(carry[3:0])
    );
    CARRY4 u_high (
        .CI(carry[3]),
        .CYINIT(1'b0),
        .DI(greater[7:4]),
        .S(equal[7:4]),
        .O(sum[7:4]),
        .CO(carry[7:4])
    );
    assign less_o = carry[4];
  end else begin : gen_portable
    // The sign of the difference: a carry that leaves its chain takes longer than a sum of it.
    logic [9:0] difference;
    logic unused_low;

    assign difference = 10'(a_i) - 10'(b_i);
    assign less_o = difference[9];
    assign unused_low = ^difference[8:0];
  end
endmodule
