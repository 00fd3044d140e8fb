/// Writes a stream of 64-bit words to an AXI3/AXI4 memory, one command at a time.
/// Bursts have at most 16 beats and never cross 4 KiB; the data of a burst follows its address. done_o pulses when the
/// memory has answered every burst of the command. abort_i (level) completes the burst that is open with zero strobes,
/// drops the rest and takes no command; idle_o then says when nothing is in flight any more.
module bs_write_dma #(
    parameter int OUTSTANDING = 8  // bursts waiting for their answer, 1..15
) (
    input  logic        clk,
    input  logic        rst,
    // commands
    input  logic        cmd_valid_i,
    output logic        cmd_ready_o,
    input  logic [31:0] cmd_addr_i,    // byte address, a multiple of 8
    input  logic [15:0] cmd_words_i,   // 64-bit words, at least 1
    // data
    input  logic        data_valid_i,
    output logic        data_ready_o,
    input  logic [63:0] data_i,
    // status
    input  logic        abort_i,
    output logic        idle_o,
    output logic        done_o,        // pulse: the command's last answer came
    output logic        error_o,       // SLVERR or DECERR seen since reset
    output logic        beat_o,        // pulse: a word was taken by the memory
    // memory
    output logic [5:0]  m_axi_awid,
    output logic [31:0] m_axi_awaddr,
    output logic [7:0]  m_axi_awlen,
    output logic [2:0]  m_axi_awsize,
    output logic [1:0]  m_axi_awburst,
    output logic [1:0]  m_axi_awlock,
    output logic [3:0]  m_axi_awcache,
    output logic [2:0]  m_axi_awprot,
    output logic [3:0]  m_axi_awqos,
    output logic        m_axi_awvalid,
    input  logic        m_axi_awready,
    output logic [5:0]  m_axi_wid,
    output logic [63:0] m_axi_wdata,
    output logic [7:0]  m_axi_wstrb,
    output logic        m_axi_wlast,
    output logic        m_axi_wvalid,
    input  logic        m_axi_wready,
    input  logic [5:0]  m_axi_bid,
    input  logic [1:0]  m_axi_bresp,
    input  logic        m_axi_bvalid,
    output logic        m_axi_bready
);
  if (OUTSTANDING < 1 || OUTSTANDING > 15) begin : gen_bad
    $error("bs_write_dma: OUTSTANDING must be in 1..15 (instance %m)");
  end

  logic left_q;               // there are words whose burst has not been issued
  logic [28:0] word_addr_q;
  logic [15:0] words_left_q;  // so many
  // A burst takes two cycles at least: one finds its length, another issues it.
  logic sized_q, final_burst_q;
  logic [4:0] beats_q;
  logic open_q;               // W has not been given all beats of a burst
  logic [4:0] beats_left_q;   // so many
  logic flying_q, room_q;     // there are bursts without an answer; there may be one more
  logic [3:0] flight_q;       // so many
  logic active_q, awvalid_q, wvalid_q, wlast_q, wstrb_q, error_q;
  logic [4:0] beats;
  logic issue, give, answered, finished, final_burst;

  bs_burst #(
      .WORDS_BITS(16)
  ) u_burst (
      .word_addr_i(word_addr_q[8:0]),
      .words_i(words_left_q),
      .beats_o(beats),
      .last_o(final_burst)
  );

  assign issue = sized_q && !abort_i && !open_q && !awvalid_q && room_q;
  assign data_ready_o = open_q && (!wvalid_q || m_axi_wready);
  assign give = data_ready_o && (data_valid_i || abort_i);
  assign answered = m_axi_bvalid;
  assign finished = active_q && !left_q && !open_q && !awvalid_q && !wvalid_q && !flying_q;

  assign cmd_ready_o = !active_q;
  assign idle_o = !active_q;
  assign done_o = finished;
  assign error_o = error_q;
  assign beat_o = wvalid_q && m_axi_wready;

  always_ff @(posedge clk) begin
    if (m_axi_awready) awvalid_q <= 1'b0;
    if (m_axi_wready) wvalid_q <= 1'b0;
    if (finished) active_q <= 1'b0;
    if (cmd_valid_i && cmd_ready_o && !abort_i) begin
      word_addr_q  <= cmd_addr_i[31:3];
      words_left_q <= cmd_words_i;
      left_q       <= 1'b1;
      active_q     <= 1'b1;
    end
    beats_q       <= beats;
    final_burst_q <= final_burst;
    sized_q       <= left_q && !issue;
    if (issue) begin
      awvalid_q    <= 1'b1;
      m_axi_awaddr <= {word_addr_q, 3'b000};
      m_axi_awlen  <= 8'(beats_q) - 8'd1;
      word_addr_q  <= word_addr_q + 29'(beats_q);
      words_left_q <= words_left_q - 16'(beats_q);
      left_q       <= !final_burst_q;
      beats_left_q <= beats_q;
      open_q       <= 1'b1;
    end
    if (give) begin
      wvalid_q     <= 1'b1;
      wlast_q      <= beats_left_q == 5'd1;
      wstrb_q      <= !abort_i;
      m_axi_wdata  <= data_i;
      beats_left_q <= beats_left_q - 5'd1;
      open_q       <= beats_left_q != 5'd1;
    end
    flight_q <= flight_q + 4'(issue) - 4'(answered);
    flying_q <= issue || (answered ? flight_q > 4'd1 : flying_q);
    room_q   <= answered || (issue ? flight_q < 4'(OUTSTANDING - 1) : room_q);
    if (answered && m_axi_bresp[1]) error_q <= 1'b1;
    if (abort_i) begin
      left_q  <= 1'b0;
      sized_q <= 1'b0;
    end
    if (rst) begin
      left_q       <= 1'b0;
      sized_q      <= 1'b0;
      beats_left_q <= '0;
      open_q       <= 1'b0;
      flight_q     <= '0;
      flying_q     <= 1'b0;
      room_q       <= 1'b1;
      active_q     <= 1'b0;
      awvalid_q    <= 1'b0;
      wvalid_q     <= 1'b0;
      error_q      <= 1'b0;
    end
  end

  assign m_axi_awid    = '0;
  assign m_axi_awsize  = 3'b011;
  assign m_axi_awburst = 2'b01;
  assign m_axi_awlock  = '0;
  assign m_axi_awcache = 4'b0011;
  assign m_axi_awprot  = '0;
  assign m_axi_awqos   = '0;
  assign m_axi_awvalid = awvalid_q;
  assign m_axi_wid     = '0;
  assign m_axi_wstrb   = {8{wstrb_q}};
  assign m_axi_wlast   = wlast_q;
  assign m_axi_wvalid  = wvalid_q;
  assign m_axi_bready  = 1'b1;

  logic unused_bits;
  assign unused_bits = ^{cmd_addr_i[2:0], m_axi_bid, m_axi_bresp[0]};
endmodule
