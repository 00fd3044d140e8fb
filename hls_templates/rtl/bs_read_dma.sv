/// Reads runs of 64-bit words from an AXI3/AXI4 memory into a stream.
/// Bursts have at most 16 beats, never cross 4 KiB and are issued only when the buffer has room for all of their data, so
/// that R never waits. Answers come in order (one ID). A command may follow before the data of the previous one is out.
/// abort_i (level) stops issuing, drops commands and data; idle_o then says when nothing is in flight any more.
module bs_read_dma #(
    parameter int FIFO_DEPTH  = 512,  // words of the data buffer, a power of two, 32..4096
    parameter int OUTSTANDING = 16    // bursts in flight, a power of two, 2..16
) (
    input  logic        clk,
    input  logic        rst,
    // commands
    input  logic        cmd_valid_i,
    output logic        cmd_ready_o,
    input  logic [31:0] cmd_addr_i,     // byte address, a multiple of 8
    input  logic [23:0] cmd_words_i,    // 64-bit words, at least 1
    // data
    output logic        data_valid_o,
    input  logic        data_ready_i,
    output logic [63:0] data_o,
    output logic        data_last_o,    // last word of its command
    // status
    input  logic        abort_i,
    output logic        idle_o,
    output logic        error_o,        // SLVERR or DECERR seen since reset
    output logic        beat_o,         // pulse: a word arrived
    // memory
    output logic [5:0]  m_axi_arid,
    output logic [31:0] m_axi_araddr,
    output logic [7:0]  m_axi_arlen,
    output logic [2:0]  m_axi_arsize,
    output logic [1:0]  m_axi_arburst,
    output logic [1:0]  m_axi_arlock,
    output logic [3:0]  m_axi_arcache,
    output logic [2:0]  m_axi_arprot,
    output logic [3:0]  m_axi_arqos,
    output logic        m_axi_arvalid,
    input  logic        m_axi_arready,
    input  logic [5:0]  m_axi_rid,
    input  logic [63:0] m_axi_rdata,
    input  logic [1:0]  m_axi_rresp,
    input  logic        m_axi_rlast,
    input  logic        m_axi_rvalid,
    output logic        m_axi_rready
);
  localparam int ROOM_BITS = $clog2(FIFO_DEPTH) + 1;
  localparam int SLOT_BITS = $clog2(OUTSTANDING);

  if (FIFO_DEPTH < 32 || FIFO_DEPTH > 4096 || (1 << $clog2(FIFO_DEPTH)) != FIFO_DEPTH ||
      OUTSTANDING < 2 || OUTSTANDING > 16 || (1 << SLOT_BITS) != OUTSTANDING) begin : gen_bad
    $error("bs_read_dma: FIFO_DEPTH must be a power of two in 32..4096, OUTSTANDING one in 2..16 (instance %m)");
  end

  // What is left of the command in work. Bursts take two cycles at least: one finds its length, another issues it.
  logic busy_q;
  logic [28:0] word_addr_q;
  logic [23:0] words_left_q;
  logic sized_q, final_burst_q;
  logic [4:0] beats_q;
  // Words of the buffer that no burst in flight and no stored word needs.
  logic [ROOM_BITS-1:0] room_q;
  logic room_enough_q;  // for a burst, a cycle late; after a burst the next one waits longer
  // Bursts in flight, with a mark on the last one of a command.
  logic [SLOT_BITS:0] flight_q;
  logic flying_q, flight_room_q;  // there is one; there may be one more
  logic [SLOT_BITS-1:0] head_q, tail_q;
  logic [OUTSTANDING-1:0] final_q;
  logic arvalid_q, error_q;
  logic [4:0] beats;
  logic issue, arrive, burst_end, final_burst, popped_q, fifo_valid, fifo_empty, unused_full;

  bs_burst #(
      .WORDS_BITS(24)
  ) u_burst (
      .word_addr_i(word_addr_q[8:0]),
      .words_i(words_left_q),
      .beats_o(beats),
      .last_o(final_burst)
  );

  assign issue = sized_q && !abort_i && room_enough_q && flight_room_q && (!arvalid_q || m_axi_arready);
  assign arrive = m_axi_rvalid;
  assign burst_end = arrive && m_axi_rlast;

  assign cmd_ready_o = !busy_q;
  assign idle_o = !busy_q && !arvalid_q && !flying_q && fifo_empty;
  assign error_o = error_q;
  assign beat_o = arrive;
  assign data_valid_o = fifo_valid;

  bs_fifo #(
      .WIDTH(65),
      .DEPTH(FIFO_DEPTH)
  ) u_fifo (
      .clk,
      .rst,
      // What arrives during an abort is dropped as well.
      .flush_i(abort_i),
      .push_i(arrive),
      .data_i({final_q[head_q] && m_axi_rlast, m_axi_rdata}),
      .full_o(unused_full),
      .valid_o(fifo_valid),
      .ready_i(data_ready_i),
      .data_o({data_last_o, data_o}),
      .empty_o(fifo_empty)
  );

  always_ff @(posedge clk) begin
    if (m_axi_arready) arvalid_q <= 1'b0;
    if (cmd_valid_i && cmd_ready_o && !abort_i) begin
      word_addr_q  <= cmd_addr_i[31:3];
      words_left_q <= cmd_words_i;
      busy_q       <= 1'b1;
    end
    beats_q       <= beats;
    final_burst_q <= final_burst;
    sized_q       <= busy_q && !issue;
    if (issue) begin
      arvalid_q       <= 1'b1;
      m_axi_araddr    <= {word_addr_q, 3'b000};
      m_axi_arlen     <= 8'(beats_q) - 8'd1;
      word_addr_q     <= word_addr_q + 29'(beats_q);
      words_left_q    <= words_left_q - 24'(beats_q);
      busy_q          <= !final_burst_q;
      final_q[tail_q] <= final_burst_q;
      tail_q          <= tail_q + 1'b1;
    end
    if (burst_end) head_q <= head_q + 1'b1;
    flight_q <= flight_q + (SLOT_BITS + 1)'(issue) - (SLOT_BITS + 1)'(burst_end);
    flying_q <= issue || (burst_end ? flight_q > (SLOT_BITS + 1)'(1) : flying_q);
    flight_room_q <= burst_end || (issue ? flight_q < (SLOT_BITS + 1)'(OUTSTANDING - 1) : flight_room_q);
    popped_q <= fifo_valid && data_ready_i;
    room_enough_q <= room_q[ROOM_BITS-1:4] != '0;
    room_q   <= room_q - (issue ? ROOM_BITS'(beats_q) : '0) + ROOM_BITS'(popped_q);
    if (arrive && m_axi_rresp[1]) error_q <= 1'b1;
    if (abort_i) begin
      busy_q   <= 1'b0;
      sized_q  <= 1'b0;
      popped_q <= 1'b0;
      // The buffer is flushed and what is in flight never gets into it.
      room_q <= ROOM_BITS'(FIFO_DEPTH);
    end
    if (rst) begin
      busy_q       <= 1'b0;
      sized_q      <= 1'b0;
      popped_q     <= 1'b0;
      arvalid_q    <= 1'b0;
      flight_q     <= '0;
      flying_q     <= 1'b0;
      flight_room_q <= 1'b1;
      head_q       <= '0;
      tail_q       <= '0;
      room_q       <= ROOM_BITS'(FIFO_DEPTH);
      error_q      <= 1'b0;
    end
  end

  assign m_axi_arid    = '0;
  assign m_axi_arsize  = 3'b011;
  assign m_axi_arburst = 2'b01;
  assign m_axi_arlock  = '0;
  assign m_axi_arcache = 4'b0011;
  assign m_axi_arprot  = '0;
  assign m_axi_arqos   = '0;
  assign m_axi_arvalid = arvalid_q;
  assign m_axi_rready  = 1'b1;

  logic unused_bits;
  assign unused_bits = ^{cmd_addr_i[2:0], m_axi_rid, m_axi_rresp[0]};
endmodule
