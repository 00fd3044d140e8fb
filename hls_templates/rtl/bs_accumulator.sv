/// Horner accumulator: acc = (0 where clear_i, 2*acc where shift_i, else acc) + addend_i + carry_i where valid_i.
/// With XC7 set a bit takes one LUT6_2: O5 is the selected old bit (also the carry's data), O6 its sum with the addend.
module bs_accumulator #(
    parameter int WIDTH = 28,   // bits, 2..48
    parameter bit XC7   = 1'b0  // 7-series primitives, else portable arithmetic
) (
    input  logic             clk,
    input  logic             valid_i,
    input  logic             clear_i,
    input  logic             shift_i,
    input  logic             carry_i,
    input  logic [WIDTH-1:0] addend_i,
    output logic [WIDTH-1:0] acc_o
);
  localparam int BLOCKS = (WIDTH + 3) / 4;

  logic [WIDTH-1:0] next;

  if (XC7) begin : gen_xc7
    logic [4*BLOCKS-1:0] propagate, generated, sum, carry;

    if (4 * BLOCKS != WIDTH) begin : gen_rest
      assign propagate[4*BLOCKS-1:WIDTH] = '0;
      assign generated[4*BLOCKS-1:WIDTH] = '0;
    end
    for (genvar index = 0; index < WIDTH; index++) begin : gen_bit
      LUT6_2 #(
          .INIT(64'hff35ff35_00ca00ca)
      ) u_lut (
          .I0(acc_o[index]),
          .I1(index == 0 ? 1'b0 : acc_o[(index+WIDTH-1)%WIDTH]),
          .I2(shift_i),
          .I3(clear_i),
          .I4(1'b0),
          .I5(addend_i[index]),
          .O5(generated[index]),
          .O6(propagate[index])
      );
    end
    for (genvar block = 0; block < BLOCKS; block++) begin : gen_block
      CARRY4 u_carry (
          .CI(block == 0 ? 1'b0 : carry[(4*block+4*BLOCKS-1)%(4*BLOCKS)]),
          .CYINIT(block == 0 ? carry_i : 1'b0),
          .DI(generated[4*block+:4]),
          .S(propagate[4*block+:4]),
          .O(sum[4*block+:4]),
          .CO(carry[4*block+:4])
      );
    end
    assign next = sum[WIDTH-1:0];
  end else begin : gen_portable
    logic [WIDTH-1:0] previous;
    assign previous = clear_i ? '0 : shift_i ? {acc_o[WIDTH-2:0], 1'b0} : acc_o;
    assign next = previous + addend_i + WIDTH'(carry_i);
  end

  always_ff @(posedge clk) if (valid_i) acc_o <= next;
endmodule
