/// From a general-purpose port of the Zynq-7000 (AXI3, 12-bit IDs, bursts) to AXI4-Lite, one transaction per direction at a
/// time. IDs come back with the answer. Addresses outside the window are answered with DECERR. Bursts go through beat by
/// beat; wrapping ones are taken as incrementing.
module bs_axi3_bridge #(
    parameter logic [31:0] BASE      = 32'h43C0_0000,  // first byte of the window
    parameter int          ADDR_BITS = 8               // the window has 2**ADDR_BITS bytes, BASE is a multiple of that
) (
    input  logic                 clk,
    input  logic                 rst,
    // AXI3 slave
    input  logic [11:0]          s_axi_arid,
    input  logic [31:0]          s_axi_araddr,
    input  logic [3:0]           s_axi_arlen,
    input  logic [1:0]           s_axi_arsize,
    input  logic [1:0]           s_axi_arburst,
    input  logic                 s_axi_arvalid,
    output logic                 s_axi_arready,
    output logic [11:0]          s_axi_rid,
    output logic [31:0]          s_axi_rdata,
    output logic [1:0]           s_axi_rresp,
    output logic                 s_axi_rlast,
    output logic                 s_axi_rvalid,
    input  logic                 s_axi_rready,
    input  logic [11:0]          s_axi_awid,
    input  logic [31:0]          s_axi_awaddr,
    input  logic [3:0]           s_axi_awlen,
    input  logic [1:0]           s_axi_awsize,
    input  logic [1:0]           s_axi_awburst,
    input  logic                 s_axi_awvalid,
    output logic                 s_axi_awready,
    input  logic [31:0]          s_axi_wdata,
    input  logic [3:0]           s_axi_wstrb,
    input  logic                 s_axi_wlast,
    input  logic                 s_axi_wvalid,
    output logic                 s_axi_wready,
    output logic [11:0]          s_axi_bid,
    output logic [1:0]           s_axi_bresp,
    output logic                 s_axi_bvalid,
    input  logic                 s_axi_bready,
    // AXI4-Lite master
    output logic [ADDR_BITS-1:0] m_axil_araddr,
    output logic                 m_axil_arvalid,
    input  logic                 m_axil_arready,
    input  logic [31:0]          m_axil_rdata,
    input  logic [1:0]           m_axil_rresp,
    input  logic                 m_axil_rvalid,
    output logic                 m_axil_rready,
    output logic [ADDR_BITS-1:0] m_axil_awaddr,
    output logic                 m_axil_awvalid,
    input  logic                 m_axil_awready,
    output logic [31:0]          m_axil_wdata,
    output logic [3:0]           m_axil_wstrb,
    output logic                 m_axil_wvalid,
    input  logic                 m_axil_wready,
    input  logic [1:0]           m_axil_bresp,
    input  logic                 m_axil_bvalid,
    output logic                 m_axil_bready
);
  localparam logic [1:0] FIXED = 2'b00;
  localparam logic [1:0] DECERR = 2'b11;

  // ------------------------------------------------------------------ reading
  typedef enum logic [1:0] {
    READ_IDLE,
    READ_ADDRESS,  // to the slave
    READ_DATA,     // from the slave
    READ_ANSWER    // to the master
  } read_e;

  read_e read_q;
  logic [31:0] read_addr_q;
  logic [3:0] read_left_q;
  logic [31:0] read_step_q;

  logic read_hit;
  assign read_hit = read_addr_q[31:ADDR_BITS] == BASE[31:ADDR_BITS];
  assign s_axi_arready = read_q == READ_IDLE;
  assign s_axi_rvalid = read_q == READ_ANSWER;
  assign s_axi_rlast = read_left_q == '0;
  assign m_axil_araddr = read_addr_q[ADDR_BITS-1:0];
  assign m_axil_arvalid = read_q == READ_ADDRESS && read_hit;
  assign m_axil_rready = read_q == READ_DATA;

  always_ff @(posedge clk) begin
    case (read_q)
      READ_IDLE:
      if (s_axi_arvalid) begin
        read_q      <= READ_ADDRESS;
        s_axi_rid   <= s_axi_arid;
        read_addr_q <= s_axi_araddr;
        read_left_q <= s_axi_arlen;
        read_step_q <= s_axi_arburst == FIXED ? 32'd0 : 32'd1 << s_axi_arsize;
      end
      READ_ADDRESS: begin
        if (!read_hit) begin
          read_q      <= READ_ANSWER;
          s_axi_rdata <= '0;
          s_axi_rresp <= DECERR;
        end else if (m_axil_arready) begin
          read_q <= READ_DATA;
        end
      end
      READ_DATA:
      if (m_axil_rvalid) begin
        read_q      <= READ_ANSWER;
        s_axi_rdata <= m_axil_rdata;
        s_axi_rresp <= m_axil_rresp;
      end
      default:
      if (s_axi_rready) begin
        read_q      <= read_left_q == '0 ? READ_IDLE : READ_ADDRESS;
        read_left_q <= read_left_q - 4'd1;
        read_addr_q <= read_addr_q + read_step_q;
      end
    endcase
    if (rst) read_q <= READ_IDLE;
  end

  // ------------------------------------------------------------------ writing
  typedef enum logic [1:0] {
    WRITE_IDLE,
    WRITE_BEAT,    // address and data to the slave
    WRITE_WAIT,    // for the slave's answer
    WRITE_ANSWER   // to the master, once per burst
  } write_e;

  write_e write_q;
  logic [31:0] write_addr_q;
  logic [31:0] write_step_q;
  logic addr_sent_q, data_sent_q, last_q;

  logic write_hit;
  assign write_hit = write_addr_q[31:ADDR_BITS] == BASE[31:ADDR_BITS];
  assign s_axi_awready = write_q == WRITE_IDLE;
  assign s_axi_bvalid = write_q == WRITE_ANSWER;
  assign m_axil_awaddr = write_addr_q[ADDR_BITS-1:0];
  assign m_axil_awvalid = write_q == WRITE_BEAT && s_axi_wvalid && write_hit && !addr_sent_q;
  assign m_axil_wdata = s_axi_wdata;
  assign m_axil_wstrb = s_axi_wstrb;
  assign m_axil_wvalid = write_q == WRITE_BEAT && s_axi_wvalid && write_hit && !data_sent_q;
  assign m_axil_bready = write_q == WRITE_WAIT;

  // A beat is taken when the slave has both parts, or when nobody is there to have it.
  logic beat_done;
  assign beat_done = !write_hit || ((addr_sent_q || m_axil_awready) && (data_sent_q || m_axil_wready));
  assign s_axi_wready = write_q == WRITE_BEAT && beat_done;

  always_ff @(posedge clk) begin
    case (write_q)
      WRITE_IDLE: begin
        addr_sent_q <= 1'b0;
        data_sent_q <= 1'b0;
        s_axi_bresp <= '0;
        if (s_axi_awvalid) begin
          write_q      <= WRITE_BEAT;
          s_axi_bid    <= s_axi_awid;
          write_addr_q <= s_axi_awaddr;
          write_step_q <= s_axi_awburst == FIXED ? 32'd0 : 32'd1 << s_axi_awsize;
        end
      end
      WRITE_BEAT:
      if (s_axi_wvalid) begin
        addr_sent_q <= addr_sent_q || m_axil_awready;
        data_sent_q <= data_sent_q || m_axil_wready;
        if (beat_done) begin
          last_q <= s_axi_wlast;
          if (write_hit) begin
            write_q <= WRITE_WAIT;
          end else begin
            s_axi_bresp <= DECERR;
            if (s_axi_wlast) write_q <= WRITE_ANSWER;
            write_addr_q <= write_addr_q + write_step_q;
          end
        end
      end
      WRITE_WAIT:
      if (m_axil_bvalid) begin
        addr_sent_q  <= 1'b0;
        data_sent_q  <= 1'b0;
        s_axi_bresp  <= s_axi_bresp | m_axil_bresp;  // the worst of the burst
        write_addr_q <= write_addr_q + write_step_q;
        write_q      <= last_q ? WRITE_ANSWER : WRITE_BEAT;
      end
      default: if (s_axi_bready) write_q <= WRITE_IDLE;
    endcase
    if (rst) write_q <= WRITE_IDLE;
  end

  // The last beat says so itself.
  logic unused_bits;
  assign unused_bits = ^s_axi_awlen;
endmodule
