/// Counting semaphore from one stage to another.
/// The giver pulses give_i; the taker asks for need_i tokens and, once enough_o is high, takes them with take_i.
module bs_tokens #(
    parameter int COUNT_BITS = 8  // bits of the counter, 2..16; the program never has 2**COUNT_BITS tokens waiting
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic                  give_i,
    input  logic                  take_i,
    input  logic [COUNT_BITS-1:0] need_i,
    output logic                  enough_o
);
  logic [COUNT_BITS-1:0] count_q;

  assign enough_o = count_q >= need_i;

  always_ff @(posedge clk) begin
    if (rst) count_q <= '0;
    else count_q <= count_q + COUNT_BITS'(give_i) - (take_i ? need_i : '0);
  end
endmodule
