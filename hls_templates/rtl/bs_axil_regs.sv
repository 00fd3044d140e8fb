/// The register file on AXI4-Lite. One access at a time per direction; address bits 1:0 are ignored. Accesses outside the
/// map are answered with SLVERR (reads give 0), writes to read-only registers do nothing.
module bs_axil_regs #(
    parameter logic [31:0] ENGINE_HASH = 32'h0  // what the register engine reads
) (
    input  logic        clk,
    input  logic        rst,
    // AXI4-Lite
    input  logic [7:0]  s_axil_awaddr,
    input  logic [2:0]  s_axil_awprot,
    input  logic        s_axil_awvalid,
    output logic        s_axil_awready,
    input  logic [31:0] s_axil_wdata,
    input  logic [3:0]  s_axil_wstrb,
    input  logic        s_axil_wvalid,
    output logic        s_axil_wready,
    output logic [1:0]  s_axil_bresp,
    output logic        s_axil_bvalid,
    input  logic        s_axil_bready,
    input  logic [7:0]  s_axil_araddr,
    input  logic [2:0]  s_axil_arprot,
    input  logic        s_axil_arvalid,
    output logic        s_axil_arready,
    output logic [31:0] s_axil_rdata,
    output logic [1:0]  s_axil_rresp,
    output logic        s_axil_rvalid,
    input  logic        s_axil_rready,
    // to control
    output logic        start_o,          // pulse
    output logic        stop_o,           // pulse
    output logic        irq_enable_o,
    output logic [31:0] watchdog_o,
    output logic [31:0] program_addr_o,
    output logic [31:0] image_addr_o,
    output logic [31:0] image_stride_o,
    output logic [31:0] output_addr_o,
    output logic [31:0] output_stride_o,
    output logic [31:0] image_count_o,
    output logic        image_planar_o,
    // from control
    input  logic        busy_i,
    input  logic        done_i,
    input  logic        error_i,
    input  logic [7:0]  error_code_i,
    input  logic [31:0] error_info_i,
    input  logic [31:0] images_done_i,
    input  logic [31:0] cycles_i,
    input  logic [31:0] fetch_cycles_i,
    input  logic [31:0] fill_cycles_i,
    input  logic [31:0] issue_cycles_i,
    input  logic [31:0] write_back_cycles_i,
    input  logic [31:0] read_beats_i,
    input  logic [31:0] write_beats_i,
    input  logic [31:0] layer_i
);
  localparam logic [1:0] OKAY = 2'b00;
  localparam logic [1:0] SLVERR = 2'b10;

  // ------------------------------------------------------------------ reading
  logic [31:0] value;
  logic known;

  always_comb begin
    known = 1'b1;
    case ({s_axil_araddr[7:2], 2'b00})
      bs_pkg::REG_ID: value = bs_pkg::DEVICE_ID;
      bs_pkg::REG_VERSION: value = bs_pkg::DEVICE_VERSION;
      bs_pkg::REG_ENGINE: value = ENGINE_HASH;
      bs_pkg::REG_CONTROL: value = {29'd0, irq_enable_o, 2'b00};
      bs_pkg::REG_STATUS: value = {29'd0, error_i, done_i, busy_i};
      bs_pkg::REG_ERROR: value = {24'd0, error_code_i};
      bs_pkg::REG_ERROR_INFO: value = error_info_i;
      bs_pkg::REG_WATCHDOG: value = watchdog_o;
      bs_pkg::REG_PROGRAM_ADDR: value = program_addr_o;
      bs_pkg::REG_IMAGE_ADDR: value = image_addr_o;
      bs_pkg::REG_IMAGE_STRIDE: value = image_stride_o;
      bs_pkg::REG_OUTPUT_ADDR: value = output_addr_o;
      bs_pkg::REG_OUTPUT_STRIDE: value = output_stride_o;
      bs_pkg::REG_IMAGE_COUNT: value = image_count_o;
      bs_pkg::REG_IMAGE_PLANAR: value = {31'd0, image_planar_o};
      bs_pkg::REG_IMAGES_DONE: value = images_done_i;
      bs_pkg::REG_CYCLES: value = cycles_i;
      bs_pkg::REG_FETCH_CYCLES: value = fetch_cycles_i;
      bs_pkg::REG_FILL_CYCLES: value = fill_cycles_i;
      bs_pkg::REG_ISSUE_CYCLES: value = issue_cycles_i;
      bs_pkg::REG_WRITE_BACK_CYCLES: value = write_back_cycles_i;
      bs_pkg::REG_READ_BEATS: value = read_beats_i;
      bs_pkg::REG_WRITE_BEATS: value = write_beats_i;
      bs_pkg::REG_LAYER: value = layer_i;
      default: begin
        value = '0;
        known = 1'b0;
      end
    endcase
  end

  assign s_axil_arready = !s_axil_rvalid;

  always_ff @(posedge clk) begin
    if (s_axil_rready) s_axil_rvalid <= 1'b0;
    if (s_axil_arvalid && s_axil_arready) begin
      s_axil_rvalid <= 1'b1;
      s_axil_rdata  <= value;
      s_axil_rresp  <= known ? OKAY : SLVERR;
    end
    if (rst) s_axil_rvalid <= 1'b0;
  end

  // ------------------------------------------------------------------ writing
  // Address and data come in any order; the write happens when both are there.
  logic have_addr_q, have_data_q, write, mapped;
  logic [7:0] addr_q;
  logic [31:0] data_q, mask;
  logic [3:0] strobe_q;

  assign s_axil_awready = !have_addr_q;
  assign s_axil_wready  = !have_data_q;
  assign write = have_addr_q && have_data_q && (!s_axil_bvalid || s_axil_bready);
  assign mask  = {{8{strobe_q[3]}}, {8{strobe_q[2]}}, {8{strobe_q[1]}}, {8{strobe_q[0]}}};

  always_comb begin
    case (addr_q)
      bs_pkg::REG_ID, bs_pkg::REG_VERSION, bs_pkg::REG_ENGINE, bs_pkg::REG_CONTROL, bs_pkg::REG_STATUS,
      bs_pkg::REG_ERROR, bs_pkg::REG_ERROR_INFO, bs_pkg::REG_WATCHDOG, bs_pkg::REG_PROGRAM_ADDR,
      bs_pkg::REG_IMAGE_ADDR, bs_pkg::REG_IMAGE_STRIDE, bs_pkg::REG_OUTPUT_ADDR, bs_pkg::REG_OUTPUT_STRIDE,
      bs_pkg::REG_IMAGE_COUNT, bs_pkg::REG_IMAGE_PLANAR, bs_pkg::REG_IMAGES_DONE, bs_pkg::REG_CYCLES,
      bs_pkg::REG_FETCH_CYCLES, bs_pkg::REG_FILL_CYCLES, bs_pkg::REG_ISSUE_CYCLES, bs_pkg::REG_WRITE_BACK_CYCLES,
      bs_pkg::REG_READ_BEATS, bs_pkg::REG_WRITE_BEATS, bs_pkg::REG_LAYER: mapped = 1'b1;
      default: mapped = 1'b0;
    endcase
  end

  always_ff @(posedge clk) begin
    start_o <= 1'b0;
    stop_o  <= 1'b0;
    if (s_axil_awvalid && s_axil_awready) begin
      have_addr_q <= 1'b1;
      addr_q      <= {s_axil_awaddr[7:2], 2'b00};
    end
    if (s_axil_wvalid && s_axil_wready) begin
      have_data_q <= 1'b1;
      data_q      <= s_axil_wdata;
      strobe_q    <= s_axil_wstrb;
    end
    if (s_axil_bready) s_axil_bvalid <= 1'b0;
    if (write) begin
      have_addr_q   <= 1'b0;
      have_data_q   <= 1'b0;
      s_axil_bvalid <= 1'b1;
      s_axil_bresp  <= mapped ? OKAY : SLVERR;
      case (addr_q)
        bs_pkg::REG_CONTROL: begin
          if (strobe_q[0]) begin
            start_o      <= data_q[0];
            stop_o       <= data_q[1];
            irq_enable_o <= data_q[2];
          end
        end
        bs_pkg::REG_WATCHDOG: watchdog_o <= (watchdog_o & ~mask) | (data_q & mask);
        bs_pkg::REG_PROGRAM_ADDR: program_addr_o <= (program_addr_o & ~mask) | (data_q & mask);
        bs_pkg::REG_IMAGE_ADDR: image_addr_o <= (image_addr_o & ~mask) | (data_q & mask);
        bs_pkg::REG_IMAGE_STRIDE: image_stride_o <= (image_stride_o & ~mask) | (data_q & mask);
        bs_pkg::REG_OUTPUT_ADDR: output_addr_o <= (output_addr_o & ~mask) | (data_q & mask);
        bs_pkg::REG_OUTPUT_STRIDE: output_stride_o <= (output_stride_o & ~mask) | (data_q & mask);
        bs_pkg::REG_IMAGE_COUNT: image_count_o <= (image_count_o & ~mask) | (data_q & mask);
        bs_pkg::REG_IMAGE_PLANAR: if (strobe_q[0]) image_planar_o <= data_q[0];
        default: ;
      endcase
    end
    if (rst) begin
      have_addr_q     <= 1'b0;
      have_data_q     <= 1'b0;
      s_axil_bvalid   <= 1'b0;
      start_o         <= 1'b0;
      stop_o          <= 1'b0;
      irq_enable_o    <= 1'b0;
      watchdog_o      <= '0;
      program_addr_o  <= '0;
      image_addr_o    <= '0;
      image_stride_o  <= '0;
      output_addr_o   <= '0;
      output_stride_o <= '0;
      image_count_o   <= 32'd1;
      image_planar_o  <= 1'b0;
    end
  end

  logic unused_bits;
  assign unused_bits = ^{s_axil_awprot, s_axil_arprot, s_axil_awaddr[1:0], s_axil_araddr[1:0]};
endmodule
