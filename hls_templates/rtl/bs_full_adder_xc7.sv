/// Full adder in one 7-series LUT6_2: three bits of one weight to a sum and a carry. Combinational.
module bs_full_adder_xc7 (
    input  logic [2:0] bits_i,
    output logic [1:0] sum_o
);
  LUT6_2 #(
      .INIT(64'h96969696_e8e8e8e8)
  ) u_lut (
      .I0(bits_i[0]),
      .I1(bits_i[1]),
      .I2(bits_i[2]),
      .I3(1'b0),
      .I4(1'b0),
      .I5(1'b1),
      .O5(sum_o[1]),
      .O6(sum_o[0])
  );
endmodule
