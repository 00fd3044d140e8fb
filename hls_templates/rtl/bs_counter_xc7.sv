/// Chain of 6-bit counters on 7-series primitives: level n counts six bits of weight 4**n and the carry of the level
/// before it: sum_o = sum over n of 4**n * popcount(bits_i[n]). A level takes two LUT6_2 and half a CARRY4 and turns seven
/// bits (six and the carry) into three. Combinational.
module bs_counter_xc7 #(
    parameter int LEVELS = 2  // 1..8
) (
    input  logic [LEVELS-1:0][5:0] bits_i,
    output logic [2*LEVELS:0]      sum_o
);
  localparam int BLOCKS = (LEVELS + 1) / 2;

  logic [4*BLOCKS-1:0] propagate, generated, sum, carry;

  // Two positions a level, m = popcount of its low five bits. The sixth bit b enters the first level as the carry of the
  // chain, each other level as the generated carry of its low position.
  for (genvar level = 0; level < LEVELS; level++) begin : gen_level
    if (level == 0) begin : gen_first
      // O6 = parity of m, O5 = m == 4
      LUT6_2 #(
          .INIT(64'h96696996_68808000)
      ) u_low (
          .I0(bits_i[level][0]),
          .I1(bits_i[level][1]),
          .I2(bits_i[level][2]),
          .I3(bits_i[level][3]),
          .I4(bits_i[level][4]),
          .I5(1'b1),
          .O5(generated[0]),
          .O6(propagate[0])
      );
      // O6 = m in {2, 3, 4}, O5 = m == 5
      LUT6_2 #(
          .INIT(64'h7ffefee8_80000000)
      ) u_high (
          .I0(bits_i[level][0]),
          .I1(bits_i[level][1]),
          .I2(bits_i[level][2]),
          .I3(bits_i[level][3]),
          .I4(bits_i[level][4]),
          .I5(1'b1),
          .O5(generated[1]),
          .O6(propagate[1])
      );
    end else begin : gen_next
      // O6 = parity of all six
      LUT6 #(
          .INIT(64'h69969669_96696996)
      ) u_low (
          .I0(bits_i[level][0]),
          .I1(bits_i[level][1]),
          .I2(bits_i[level][2]),
          .I3(bits_i[level][3]),
          .I4(bits_i[level][4]),
          .I5(bits_i[level][5]),
          .O(propagate[2*level])
      );
      assign generated[2*level] = bits_i[level][5];
      // O6 = m in {2, 3}, O5 = m >= 4
      LUT6_2 #(
          .INIT(64'h177e7ee8_e8808000)
      ) u_high (
          .I0(bits_i[level][0]),
          .I1(bits_i[level][1]),
          .I2(bits_i[level][2]),
          .I3(bits_i[level][3]),
          .I4(bits_i[level][4]),
          .I5(1'b1),
          .O5(generated[2*level+1]),
          .O6(propagate[2*level+1])
      );
    end
  end

  if (LEVELS % 2 != 0) begin : gen_rest
    assign propagate[4*BLOCKS-1:2*LEVELS] = '0;
    assign generated[4*BLOCKS-1:2*LEVELS] = '0;
  end

  for (genvar block = 0; block < BLOCKS; block++) begin : gen_block
    CARRY4 u_carry (
        .CI(block == 0 ? 1'b0 : carry[4*block-1]),
        .CYINIT(block == 0 ? bits_i[0][5] : 1'b0),
        .DI(generated[4*block+:4]),
        .S(propagate[4*block+:4]),
        .O(sum[4*block+:4]),
        .CO(carry[4*block+:4])
    );
  end

  assign sum_o = {carry[2*LEVELS-1], sum[2*LEVELS-1:0]};

  logic unused_positions;
  assign unused_positions = ^{sum, carry};
endmodule
