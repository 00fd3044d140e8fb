/// Sum of three numbers in one 7-series LUT6_2 a bit: sum_o = a + b + c, or its bitwise complement where invert_i, modulo
/// 2**WIDTH. O5 is the majority, which the next bit's LUT takes in; O6 drives the carry chain. Combinational.
module bs_adder3_xc7 #(
    parameter int WIDTH = 9  // bits, 2..16
) (
    input  logic [2:0][WIDTH-1:0] terms_i,
    input  logic                  invert_i,
    output logic [WIDTH-1:0]      sum_o
);
  localparam int BLOCKS = (WIDTH + 3) / 4;

  logic [4*BLOCKS-1:0] propagate, generated, sum, carry;
  logic [WIDTH:0] majority;

  // Complemented terms add up to -sum - 3; a carry-in and the free majority below bit 0 make it -sum - 1.
  assign majority[0] = invert_i;
  assign generated = (4*BLOCKS)'(majority[WIDTH-1:0]);
  if (4 * BLOCKS != WIDTH) begin : gen_rest
    assign propagate[4*BLOCKS-1:WIDTH] = '0;
  end

  for (genvar index = 0; index < WIDTH; index++) begin : gen_bit
    LUT6_2 #(
        .INIT(64'h96696996_17e817e8)
    ) u_lut (
        .I0(terms_i[0][index]),
        .I1(terms_i[1][index]),
        .I2(terms_i[2][index]),
        .I3(invert_i),
        .I4(majority[index]),
        .I5(1'b1),
        .O5(majority[index+1]),
        .O6(propagate[index])
    );
  end

  for (genvar block = 0; block < BLOCKS; block++) begin : gen_block
    CARRY4 u_carry (
        .CI(block == 0 ? 1'b0 : carry[4*block-1]),
        .CYINIT(block == 0 ? invert_i : 1'b0),
        .DI(generated[4*block+:4]),
        .S(propagate[4*block+:4]),
        .O(sum[4*block+:4]),
        .CO(carry[4*block+:4])
    );
  end

  assign sum_o = sum[WIDTH-1:0];

  logic unused_positions;
  assign unused_positions = ^{sum, carry, majority[WIDTH]};
endmodule
