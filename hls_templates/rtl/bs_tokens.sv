/// Counting semaphore from one stage to another.
/// The giver pulses give_i; the taker asks for need_i tokens and, once enough_o is high, takes them with take_i. What is
/// taken leaves the count a cycle later, so there is never enough in the cycle after a take (AHEAD: two cycles).
/// With AHEAD set enough_o is a register: need_i stands a cycle before the taker looks at it. A token counts as early.
module bs_tokens #(
    parameter int COUNT_BITS = 8,    // bits of the counter, 2..16; the program never has 2**COUNT_BITS tokens waiting
    parameter bit AHEAD      = 1'b0  // compare a cycle before
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic                  give_i,
    input  logic                  take_i,
    input  logic [COUNT_BITS-1:0] need_i,
    output logic                  enough_o
);
  localparam int WIDTH = COUNT_BITS + 1;

  logic [WIDTH-1:0] count_q;  // with AHEAD one more than the count
  logic [WIDTH-1:0] need, need_q;
  logic take_q;

  assign need = {1'b0, need_i};

  always_ff @(posedge clk) begin
    need_q  <= need;
    take_q  <= take_i;
    count_q <= count_q + WIDTH'(give_i) - (take_q ? need_q : '0);
    if (rst) begin
      count_q <= WIDTH'(AHEAD);
      take_q  <= 1'b0;
    end
  end

  if (AHEAD) begin : gen_ahead
    // count + give >= need is the carry of (count + 1) + ~need + give. give_i comes late: without it the sum is one short of a
    // carry where count_q equals need.
    logic [WIDTH:0] sum;
    logic enough_q, unused_low;

    assign sum = {1'b0, count_q} + {1'b0, ~need};
    assign unused_low = ^sum[WIDTH-1:0];
    assign enough_o = enough_q;

    always_ff @(posedge clk) begin
      enough_q <= (sum[WIDTH] || (give_i && (count_q ^ need) == '0)) && !take_i && !take_q;
      if (rst) enough_q <= 1'b0;
    end
  end else begin : gen_now
    assign enough_o = count_q >= need && !take_q;
  end
endmodule
