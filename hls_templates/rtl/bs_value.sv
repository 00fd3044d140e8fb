/// What the array's sums mean: value_o = 2S - U for bipolar weights (S and U unsigned), else S (two's complement).
/// With XC7 set a bit takes one LUT6_2: O5 is the bit of S or 2S (also the carry's data), O6 its sum with that of ~U.
module bs_value #(
    parameter int ACC_BITS = 28,   // accumulator width in bits, 12..32
    parameter bit XC7      = 1'b0  // 7-series primitives, else portable arithmetic
) (
    input  logic                       bipolar_i,
    input  logic [ACC_BITS-1:0]        acc_i,         // S
    input  logic [ACC_BITS-1:0]        column_acc_i,  // U
    output logic signed [ACC_BITS+1:0] value_o
);
  localparam int WIDTH = ACC_BITS + 2;
  localparam int BLOCKS = (WIDTH + 3) / 4;

  // Both readings of S, sign bits included.
  logic [WIDTH-1:0] plain, doubled, column;

  assign plain = {{2{acc_i[ACC_BITS-1]}}, acc_i};
  assign doubled = {1'b0, acc_i, 1'b0};
  assign column = {2'b0, column_acc_i};

  if (XC7) begin : gen_xc7
    logic [4*BLOCKS-1:0] propagate, generated, sum, carry;

    if (4 * BLOCKS != WIDTH) begin : gen_rest
      assign propagate[4*BLOCKS-1:WIDTH] = '0;
      assign generated[4*BLOCKS-1:WIDTH] = '0;
    end
    for (genvar index = 0; index < WIDTH; index++) begin : gen_bit
      LUT6_2 #(
          .INIT(64'hc355c355ccaaccaa)
      ) u_lut (
          .I0(plain[index]),
          .I1(doubled[index]),
          .I2(column[index]),
          .I3(bipolar_i),
          .I4(1'b0),
          .I5(1'b1),
          .O5(generated[index]),
          .O6(propagate[index])
      );
    end
    for (genvar block = 0; block < BLOCKS; block++) begin : gen_block
      CARRY4 u_carry (
          .CI(block == 0 ? 1'b0 : carry[(4*block+4*BLOCKS-1)%(4*BLOCKS)]),
          .CYINIT(block == 0),
          .DI(generated[4*block+:4]),
          .S(propagate[4*block+:4]),
          .O(sum[4*block+:4]),
          .CO(carry[4*block+:4])
      );
    end
    assign value_o = sum[WIDTH-1:0];
  end else begin : gen_portable
    assign value_o = bipolar_i ? doubled - column : plain;
  end
endmodule
