// What tests/test_rtl_proofs.py proves with Yosys' sat: each module compares a unit with what it should be. bad must stay 0.

module proof_full_adder (
    input  logic [2:0] bits,
    output logic       bad
);
  logic [1:0] sum;
  bs_full_adder_xc7 u_unit (.bits_i(bits), .sum_o(sum));
  assign bad = sum != 2'(bits[0]) + 2'(bits[1]) + 2'(bits[2]);
endmodule

module proof_counter #(
    parameter int LEVELS = 2
) (
    input  logic [6*LEVELS-1:0] bits,
    output logic                bad
);
  logic [2*LEVELS:0] sum, expected;
  bs_counter_xc7 #(.LEVELS(LEVELS)) u_unit (.bits_i(bits), .sum_o(sum));
  always_comb begin
    expected = '0;
    for (int i = 0; i < 6 * LEVELS; i++) expected = expected + ((2 * LEVELS + 1)'(bits[i]) << (2 * (i / 6)));
  end
  assign bad = sum != expected;
endmodule

module proof_pairs #(
    parameter int PAIRS = 7
) (
    input  logic [PAIRS-1:0] weight,
    input  logic [PAIRS-1:0] column,
    output logic             bad
);
  logic sum;
  logic [PAIRS/2-1:0] carry;
  logic [4:0] found, expected;
  bs_pairs_xc7 #(.PAIRS(PAIRS)) u_unit (.weight_i(weight), .column_i(column), .sum_o(sum), .carry_o(carry));
  always_comb begin
    found = 5'(sum);
    for (int i = 0; i < PAIRS / 2; i++) found = found + (5'(carry[i]) << 1);
    expected = '0;
    for (int i = 0; i < PAIRS; i++) expected = expected + 5'(weight[i] & column[i]);
  end
  assign bad = found != expected;
endmodule

module proof_adder3 #(
    parameter int WIDTH = 9
) (
    input  logic [3*WIDTH-1:0] terms,
    input  logic               invert,
    output logic               bad
);
  logic [WIDTH-1:0] sum, expected;
  bs_adder3_xc7 #(.WIDTH(WIDTH)) u_unit (.terms_i(terms), .invert_i(invert), .sum_o(sum));
  assign expected = terms[WIDTH-1:0] + terms[2*WIDTH-1:WIDTH] + terms[3*WIDTH-1:2*WIDTH];
  assign bad = sum != (expected ^ {WIDTH{invert}});
endmodule

module proof_less (
    input  logic signed [8:0] a,
    input  logic signed [8:0] b,
    output logic              bad
);
  logic less;
  bs_less #(.XC7(1'b1)) u_unit (.a_i(a), .b_i(b), .less_o(less));
  assign bad = less != (a < b);
endmodule

module proof_value #(
    parameter int ACC_BITS = 14
) (
    input  logic                bipolar,
    input  logic [ACC_BITS-1:0] acc,
    input  logic [ACC_BITS-1:0] column_acc,
    output logic                bad
);
  logic signed [ACC_BITS+1:0] one, two;
  bs_value #(.ACC_BITS(ACC_BITS), .XC7(1'b0)) u_portable (
      .bipolar_i(bipolar), .acc_i(acc), .column_acc_i(column_acc), .value_o(one));
  bs_value #(.ACC_BITS(ACC_BITS), .XC7(1'b1)) u_xc7 (
      .bipolar_i(bipolar), .acc_i(acc), .column_acc_i(column_acc), .value_o(two));
  assign bad = one != two;
endmodule

// From equal accumulators one step of any kind leads to equal ones: both start at 0.
module proof_accumulator #(
    parameter int WIDTH = 3
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             valid,
    input  logic             clear,
    input  logic             shift,
    input  logic             carry,
    input  logic [WIDTH-1:0] addend,
    output logic             bad
);
  logic [WIDTH-1:0] one, two;
  bs_accumulator #(.WIDTH(WIDTH), .XC7(1'b0)) u_portable (.clk(clk), .valid_i(valid | rst), .clear_i(clear | rst),
      .shift_i(shift), .carry_i(carry & ~rst), .addend_i(rst ? '0 : addend), .acc_o(one));
  bs_accumulator #(.WIDTH(WIDTH), .XC7(1'b1)) u_xc7 (.clk(clk), .valid_i(valid | rst), .clear_i(clear | rst),
      .shift_i(shift), .carry_i(carry & ~rst), .addend_i(rst ? '0 : addend), .acc_o(two));
  logic seen_q;  // a reset has been
  always_ff @(posedge clk) seen_q <= seen_q | rst;
  assign bad = seen_q & (one != two);
endmodule

// Words and counts flow forward only: what is right some cycles after any words is right always.
module proof_popcount #(
    parameter int D_K = 8
) (
    input  logic                     clk,
    input  logic [D_K-1:0]           weight,
    input  logic [D_K-1:0]           column,
    input  logic                     negative,
    output logic                     bad
);
  logic [$clog2(D_K+1):0] one, two;
  bs_popcount #(.D_K(D_K), .PARTS(1)) u_portable (
      .clk, .weight_i(weight), .column_i(column), .negative_i(negative), .count_o(one));
  bs_popcount_xc7 u_xc7 (.clk, .weight_i(weight), .column_i(column), .negative_i(negative), .count_o(two));
  assign bad = one != two;
endmodule

// The buffer against a queue of four words. Who uses it never pushes while it is full.
module proof_fifo #(
    parameter int WIDTH = 2
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             flush,
    input  logic             push,
    input  logic [WIDTH-1:0] data,
    input  logic             ready,
    output logic             bad
);
  logic full, valid, empty, wanted, taken;
  logic [WIDTH-1:0] head;
  logic [3:0] count_q;                 // words pushed and not taken: four in the memory, four behind it, one at the output
  logic [9*WIDTH-1:0] words_q;         // the oldest lowest
  bs_fifo #(.WIDTH(WIDTH), .DEPTH(4)) u_unit (.clk, .rst, .flush_i(flush), .push_i(wanted), .data_i(data), .full_o(full),
      .valid_o(valid), .ready_i(ready), .data_o(head), .empty_o(empty));
  assign wanted = push & ~full;
  assign taken = valid & ready;
  always_ff @(posedge clk) begin
    count_q <= count_q + 4'(wanted) - 4'(taken);
    if (taken) words_q <= words_q >> WIDTH;
    for (int i = 0; i < 9; i++) begin
      if (wanted && 4'(i) == count_q - 4'(taken)) words_q[i*WIDTH+:WIDTH] <= data;
    end
    if (rst | flush) count_q <= '0;
  end
  logic [2:0] waited_q;  // cycles in which words lay there and none was at the output
  always_ff @(posedge clk) waited_q <= rst | flush | valid | (count_q == '0) ? '0 : waited_q + 3'd1;
  logic seen_q;
  always_ff @(posedge clk) seen_q <= seen_q | rst;
  assign bad = seen_q & ((valid & (count_q == '0 | head != words_q[WIDTH-1:0])) | (empty != (count_q == '0)) |
                         (full & count_q < 4'd4) | waited_q > 3'd3);
endmodule

// A burst's length against the smallest of 16, what is left and the words to the boundary.
module proof_burst (
    input  logic [8:0] word_addr,
    input  logic [9:0] words,
    output logic       bad
);
  logic [4:0] beats;
  logic last;
  logic [9:0] room, most;
  bs_burst #(.WORDS_BITS(10)) u_unit (.word_addr_i(word_addr), .words_i(words), .beats_o(beats), .last_o(last));
  assign room = 10'd512 - {1'b0, word_addr};
  assign most = room < 10'd16 ? room : 10'd16;
  assign bad = words != '0 & (10'(beats) != (words < most ? words : most) | last != (words <= most));
endmodule

// The semaphore against a balance; the taker asks first, and the program never has more than 15 tokens waiting. With AHEAD
// the need is that of the cycle before, and the taker waits until it stands.
module proof_tokens #(
    parameter bit AHEAD = 1'b0
) (
    input  logic       clk,
    input  logic       rst,
    input  logic       give,
    input  logic       take,
    input  logic [3:0] need,
    output logic       bad
);
  logic enough, taken;
  logic [4:0] balance_q;
  logic [3:0] before_q;
  logic taken_1_q, taken_2_q, held;  // held: taken a moment before
  bs_tokens #(.COUNT_BITS(4), .AHEAD(AHEAD)) u_unit (.clk, .rst, .give_i(give & (balance_q < 5'd15)), .take_i(taken), .need_i(need),
      .enough_o(enough));
  assign taken = take & enough & (!AHEAD | need == before_q);
  assign held = taken_1_q | (AHEAD & taken_2_q);
  always_ff @(posedge clk) begin
    before_q  <= need;
    taken_1_q <= taken & !rst;
    taken_2_q <= taken_1_q & !rst;
    balance_q <= rst ? '0 : balance_q + 5'(give & (balance_q < 5'd15)) - (taken ? 5'(need) : 5'd0);
  end
  logic seen_q, ready_q;  // a cycle after a reset the need of the cycle before is known
  always_ff @(posedge clk) begin
    seen_q  <= seen_q | rst;
    ready_q <= seen_q & !rst;
  end
  assign bad = seen_q & (((ready_q | !AHEAD) & enough != (balance_q >= 5'(AHEAD ? before_q : need) & !held)) | balance_q > 5'd15);
endmodule
