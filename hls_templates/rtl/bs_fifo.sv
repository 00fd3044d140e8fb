/// First-in first-out buffer in block RAM with a registered output.
/// push_i while full_o is high loses the word: the user reserves room before it asks for data. A word appears at the
/// output three cycles after it was pushed: behind the memory, whose own output is late in its cycle, stand a register and
/// one more for the word that comes when the taker has just stopped, so that the memory does not wait for ready_i.
/// flush_i empties the buffer.
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
  logic [ADDR:0] write_q, read_q;
  logic [WIDTH-1:0] read_data_q, spare_q;
  logic read_valid_q, spare_valid_q, valid_q, fetch, move;

  assign full_o  = write_q == {~read_q[ADDR], read_q[ADDR-1:0]};
  assign fetch   = write_q != read_q && !(read_valid_q && spare_valid_q);
  assign move    = !valid_q || ready_i;
  assign valid_o = valid_q;
  assign empty_o = write_q == read_q && !read_valid_q && !spare_valid_q && !valid_q;

  always_ff @(posedge clk) begin
    if (push_i) mem[write_q[ADDR-1:0]] <= data_i;
    if (fetch) read_data_q <= mem[read_q[ADDR-1:0]];
    if (!spare_valid_q) spare_q <= read_data_q;
    // Not a multiplexer that spare_q could share: the memory's word goes to spare_q without one.
    if (move) data_o <= (spare_q & {WIDTH{spare_valid_q}}) | (read_data_q & {WIDTH{!spare_valid_q}});
  end

  always_ff @(posedge clk) begin
    if (push_i && !full_o) write_q <= write_q + 1'b1;
    if (fetch) read_q <= read_q + 1'b1;
    if (fetch) read_valid_q <= 1'b1;
    else if (!spare_valid_q) read_valid_q <= 1'b0;
    if (move) valid_q <= spare_valid_q || read_valid_q;
    if (rst || flush_i) begin
      write_q      <= '0;
      read_q       <= '0;
      read_valid_q <= 1'b0;
      valid_q      <= 1'b0;
    end
    // One LUT, reset included: ready_i comes late.
    spare_valid_q <= !rst && !flush_i && !move && (spare_valid_q || read_valid_q);
  end
endmodule
