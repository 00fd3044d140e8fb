/// First-in first-out buffer in block RAM with a registered output.
/// push_i while full_o is high loses the oldest word: the user reserves room before it asks for data. A word appears at the
/// output four cycles after it was pushed: block RAM puts its words out late in a cycle, so they go straight to a few rows
/// of distributed memory, and only from there to the output. A word leaves the block RAM once one of those rows is
/// promised to it; the block RAM does not wait for ready_i. flush_i empties the buffer.
module bs_fifo #(
    parameter int WIDTH = 64,  // bits per word, >= 1
    parameter int DEPTH = 512  // words, a power of two, >= 4
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             flush_i,
    input  logic             push_i,
    input  logic [WIDTH-1:0] data_i,
    output logic             full_o,
    output logic             valid_o,
    input  logic             ready_i,
    output logic [WIDTH-1:0] data_o,
    output logic             empty_o   // nothing in the memory, nothing at the output
);
  localparam int ADDR = $clog2(DEPTH);

  if (DEPTH < 4 || (1 << ADDR) != DEPTH) begin : gen_bad
    $error("bs_fifo: DEPTH must be a power of two, at least 4 (instance %m)");
  end

  (* ram_style = "block", no_rw_check *) logic [WIDTH-1:0] mem [DEPTH];
  (* ram_style = "distributed" *) logic [WIDTH-1:0] near [4];
  logic [ADDR:0] write_q, read_q;
  logic [2:0] near_write_q, near_read_q;
  // Rows of near, of words that come or have come: as many ones from below. A row returns a cycle after its word left, for
  // ready_i comes late; four rows are enough for a word a cycle.
  logic [3:0] promised_q;
  logic [WIDTH-1:0] read_data_q;
  logic read_valid_q, valid_q, fetch, near_any, move, take, taken_q;

  assign full_o   = write_q == {~read_q[ADDR], read_q[ADDR-1:0]};
  assign fetch    = write_q != read_q && !promised_q[3];
  assign near_any = near_write_q != near_read_q;
  assign move     = !valid_q || ready_i;
  assign take     = near_any && move;
  assign valid_o  = valid_q;
  assign empty_o  = write_q == read_q && !promised_q[0] && !valid_q;

  always_ff @(posedge clk) begin
    if (push_i) mem[write_q[ADDR-1:0]] <= data_i;
    if (fetch) read_data_q <= mem[read_q[ADDR-1:0]];
    if (read_valid_q) near[near_write_q[1:0]] <= read_data_q;
    if (move) data_o <= near[near_read_q[1:0]];
  end

  always_ff @(posedge clk) begin
    if (push_i && !full_o) write_q <= write_q + 1'b1;
    if (fetch) read_q <= read_q + 1'b1;
    read_valid_q <= fetch;
    if (read_valid_q) near_write_q <= near_write_q + 1'b1;
    if (take) near_read_q <= near_read_q + 1'b1;
    taken_q      <= take;
    if (fetch != taken_q) promised_q <= fetch ? {promised_q[2:0], 1'b1} : promised_q >> 1;
    if (move) valid_q <= near_any;
    if (rst || flush_i) begin
      write_q      <= '0;
      read_q       <= '0;
      read_valid_q <= 1'b0;
      near_write_q <= '0;
      near_read_q  <= '0;
      promised_q   <= '0;
      taken_q      <= 1'b0;
      valid_q      <= 1'b0;
    end
  end
endmodule
