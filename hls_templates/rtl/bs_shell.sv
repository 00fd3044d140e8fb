/// Everything between the core and the outside: registers, control, program loader, instruction queues, fetch stage, logits
/// writer and the memory masters. Master 0 reads programs and images and writes logits, master 1 reads weights and
/// parameters.
module bs_shell #(
    parameter int          D_M           = 8,      // array rows
    parameter int          D_N           = 16,     // array columns, 2..32, a power of two
    parameter int          SLOTS         = 9,      // slots per word
    parameter int          G             = 16,     // channels per slot, 8 or 16
    parameter int          LANE_ROWS     = 2,      // array rows read out per beat, 1..8, a power of two
    parameter int          WEIGHT_DEPTH  = 512,    // rows of D_M*SLOTS*G bits
    parameter int          PLANE_DEPTH   = 512,    // rows of D_N*G bits
    parameter int          PARAM_DEPTH   = 1024,   // channels
    parameter int          PROGRAM_DEPTH = 512,    // 64-bit words of instruction memory per stage, a power of two
    parameter int          LOGIT_DEPTH   = 512,    // beats of logits of one image, a power of two
    parameter logic [31:0] ENGINE_HASH   = 32'h0   // names the engine shape
) (
    input  logic                                clk,
    input  logic                                rst,
    output logic                                irq_o,
    // AXI4-Lite
    input  logic [7:0]                          s_axil_awaddr,
    input  logic [2:0]                          s_axil_awprot,
    input  logic                                s_axil_awvalid,
    output logic                                s_axil_awready,
    input  logic [31:0]                         s_axil_wdata,
    input  logic [3:0]                          s_axil_wstrb,
    input  logic                                s_axil_wvalid,
    output logic                                s_axil_wready,
    output logic [1:0]                          s_axil_bresp,
    output logic                                s_axil_bvalid,
    input  logic                                s_axil_bready,
    input  logic [7:0]                          s_axil_araddr,
    input  logic [2:0]                          s_axil_arprot,
    input  logic                                s_axil_arvalid,
    output logic                                s_axil_arready,
    output logic [31:0]                         s_axil_rdata,
    output logic [1:0]                          s_axil_rresp,
    output logic                                s_axil_rvalid,
    input  logic                                s_axil_rready,
    // memory master 0: programs, images, logits
    output logic [5:0]                          m_axi_0_arid,
    output logic [31:0]                         m_axi_0_araddr,
    output logic [7:0]                          m_axi_0_arlen,
    output logic [2:0]                          m_axi_0_arsize,
    output logic [1:0]                          m_axi_0_arburst,
    output logic [1:0]                          m_axi_0_arlock,
    output logic [3:0]                          m_axi_0_arcache,
    output logic [2:0]                          m_axi_0_arprot,
    output logic [3:0]                          m_axi_0_arqos,
    output logic                                m_axi_0_arvalid,
    input  logic                                m_axi_0_arready,
    input  logic [5:0]                          m_axi_0_rid,
    input  logic [63:0]                         m_axi_0_rdata,
    input  logic [1:0]                          m_axi_0_rresp,
    input  logic                                m_axi_0_rlast,
    input  logic                                m_axi_0_rvalid,
    output logic                                m_axi_0_rready,
    output logic [5:0]                          m_axi_0_awid,
    output logic [31:0]                         m_axi_0_awaddr,
    output logic [7:0]                          m_axi_0_awlen,
    output logic [2:0]                          m_axi_0_awsize,
    output logic [1:0]                          m_axi_0_awburst,
    output logic [1:0]                          m_axi_0_awlock,
    output logic [3:0]                          m_axi_0_awcache,
    output logic [2:0]                          m_axi_0_awprot,
    output logic [3:0]                          m_axi_0_awqos,
    output logic                                m_axi_0_awvalid,
    input  logic                                m_axi_0_awready,
    output logic [5:0]                          m_axi_0_wid,
    output logic [63:0]                         m_axi_0_wdata,
    output logic [7:0]                          m_axi_0_wstrb,
    output logic                                m_axi_0_wlast,
    output logic                                m_axi_0_wvalid,
    input  logic                                m_axi_0_wready,
    input  logic [5:0]                          m_axi_0_bid,
    input  logic [1:0]                          m_axi_0_bresp,
    input  logic                                m_axi_0_bvalid,
    output logic                                m_axi_0_bready,
    // memory master 1: weights and parameters
    output logic [5:0]                          m_axi_1_arid,
    output logic [31:0]                         m_axi_1_araddr,
    output logic [7:0]                          m_axi_1_arlen,
    output logic [2:0]                          m_axi_1_arsize,
    output logic [1:0]                          m_axi_1_arburst,
    output logic [1:0]                          m_axi_1_arlock,
    output logic [3:0]                          m_axi_1_arcache,
    output logic [2:0]                          m_axi_1_arprot,
    output logic [3:0]                          m_axi_1_arqos,
    output logic                                m_axi_1_arvalid,
    input  logic                                m_axi_1_arready,
    input  logic [5:0]                          m_axi_1_rid,
    input  logic [63:0]                         m_axi_1_rdata,
    input  logic [1:0]                          m_axi_1_rresp,
    input  logic                                m_axi_1_rlast,
    input  logic                                m_axi_1_rvalid,
    output logic                                m_axi_1_rready,
    // core: reset and instructions
    output logic                                core_rst_o,
    output logic                                execute_valid_o,
    input  logic                                execute_ready_i,
    output logic [bs_pkg::INSTRUCTION_BITS-1:0] execute_instr_o,
    output logic                                execute_first_o,
    output logic                                write_back_valid_o,
    input  logic                                write_back_ready_i,
    output logic [bs_pkg::INSTRUCTION_BITS-1:0] write_back_instr_o,
    output logic                                write_back_first_o,
    // core: tokens
    output logic                                fetch_to_fill_o,
    output logic                                fetch_to_issue_o,
    input  logic                                fill_to_fetch_i,
    input  logic                                issue_to_fetch_i,
    // core: buffers
    output logic                                weight_we_o,
    output logic [15:0]                         weight_row_o,
    output logic [7:0]                          weight_chunk_o,
    output logic [63:0]                         weight_data_o,
    output logic                                param_we_o,
    output logic [15:0]                         param_channel_o,
    output logic                                param_word_o,
    output logic [63:0]                         param_data_o,
    output logic                                plane_valid_o,
    input  logic                                plane_ready_i,
    output logic [15:0]                         plane_row_o,
    output logic [D_N*G-1:0]                    plane_data_o,
    // core: logits
    output logic                                logits_written_o,  // pulse: an image's logits are in memory
    input  logic                                logits_valid_i,
    input  logic                                logits_last_i,
    input  logic [LANE_ROWS*32-1:0]             logits_i,
    // core: status
    input  logic                                fill_active_i,
    input  logic                                issue_active_i,
    input  logic                                write_back_active_i,
    input  logic [7:0]                          fill_layer_i,
    input  logic [7:0]                          issue_layer_i,
    input  logic [7:0]                          write_back_layer_i,
    input  logic                                core_idle_i
);
  localparam int PROGRAM_ADDR = $clog2(PROGRAM_DEPTH);

  // ------------------------------------------------------------------ registers and control
  logic start, stop, irq_enable, busy, done, error, image_planar;
  logic [31:0] watchdog, program_addr, image_addr, image_stride, output_addr, output_stride, image_count;
  logic [7:0] error_code;
  logic [31:0] error_info, images_done_kept, images_done, cycles, read_beats, write_beats;
  logic [3:0][31:0] active_cycles;
  logic [3:0][7:0] layer;
  logic load, load_start, load_done, load_error, queues_start, abort, fetch_active, fetch_idle, fetch_error;
  logic [7:0] load_error_code, fetch_layer;
  logic [31:0] load_error_info, fetch_error_info;
  logic [2:0] queues_finished, taken;
  logic read_idle_0, read_idle_1, write_idle, read_error_0, read_error_1, write_error;
  logic read_beat_0, read_beat_1, write_beat, progress_q;

  assign layer = {write_back_layer_i, issue_layer_i, fill_layer_i, fetch_layer};
  // Fetch is active while it waits for memory, so that it shows progress by words and rows.
  always_ff @(posedge clk) begin
    progress_q <= read_beat_0 || read_beat_1 || write_beat || taken != '0 || (plane_valid_o && plane_ready_i) ||
                  fill_active_i || issue_active_i || write_back_active_i;
  end

  bs_axil_regs #(
      .ENGINE_HASH(ENGINE_HASH)
  ) u_regs (
      .clk,
      .rst,
      .s_axil_awaddr,
      .s_axil_awprot,
      .s_axil_awvalid,
      .s_axil_awready,
      .s_axil_wdata,
      .s_axil_wstrb,
      .s_axil_wvalid,
      .s_axil_wready,
      .s_axil_bresp,
      .s_axil_bvalid,
      .s_axil_bready,
      .s_axil_araddr,
      .s_axil_arprot,
      .s_axil_arvalid,
      .s_axil_arready,
      .s_axil_rdata,
      .s_axil_rresp,
      .s_axil_rvalid,
      .s_axil_rready,
      .start_o(start),
      .stop_o(stop),
      .irq_enable_o(irq_enable),
      .watchdog_o(watchdog),
      .program_addr_o(program_addr),
      .image_addr_o(image_addr),
      .image_stride_o(image_stride),
      .output_addr_o(output_addr),
      .output_stride_o(output_stride),
      .image_count_o(image_count),
      .image_planar_o(image_planar),
      .busy_i(busy),
      .done_i(done),
      .error_i(error),
      .error_code_i(error_code),
      .error_info_i(error_info),
      .images_done_i(images_done_kept),
      .cycles_i(cycles),
      .fetch_cycles_i(active_cycles[0]),
      .fill_cycles_i(active_cycles[1]),
      .issue_cycles_i(active_cycles[2]),
      .write_back_cycles_i(active_cycles[3]),
      .read_beats_i(read_beats),
      .write_beats_i(write_beats),
      .layer_i(layer)
  );

  bs_control u_control (
      .clk,
      .rst,
      .start_i(start),
      .stop_i(stop),
      .irq_enable_i(irq_enable),
      .watchdog_i(watchdog),
      .image_count_i(image_count),
      .busy_o(busy),
      .done_o(done),
      .error_o(error),
      .error_code_o(error_code),
      .error_info_o(error_info),
      .irq_o,
      .images_done_o(images_done_kept),
      .cycles_o(cycles),
      .active_cycles_o(active_cycles),
      .read_beats_o(read_beats),
      .write_beats_o(write_beats),
      .active_i({write_back_active_i, issue_active_i, fill_active_i, fetch_active}),
      .layer_i(layer),
      .read_beats_i({read_beat_1, read_beat_0}),
      .write_beat_i(write_beat),
      .progress_i(progress_q),
      .core_rst_o,
      .load_o(load),
      .load_start_o(load_start),
      .load_done_i(load_done),
      .queues_start_o(queues_start),
      .queues_finished_i(queues_finished),
      .stages_idle_i(fetch_idle && core_idle_i && logits_idle),
      .images_done_i(images_done),
      .abort_o(abort),
      .masters_idle_i(read_idle_0 && read_idle_1 && write_idle),
      .load_error_i(load_error),
      .load_error_code_i(load_error_code),
      .load_error_info_i(load_error_info),
      .fetch_error_i(fetch_error),
      .fetch_error_info_i(fetch_error_info),
      .read_error_i(read_error_0 || read_error_1),
      .write_error_i(write_error)
  );

  // ------------------------------------------------------------------ program and queues
  logic load_cmd_valid, load_data_ready;
  logic [31:0] load_cmd_addr;
  logic [23:0] load_cmd_words;
  logic [2:0] program_we;
  logic [PROGRAM_ADDR-1:0] program_waddr;
  logic [63:0] program_wdata;
  logic [2:0][15:0] counts, loop_starts;
  logic [7:0] batch;
  logic [2:0] instr_valid, instr_ready, first_image;
  logic [2:0][bs_pkg::INSTRUCTION_BITS-1:0] instr;
  logic cmd_valid_0, cmd_ready_0, data_valid_0, data_ready_0, unused_last_0;
  logic [31:0] cmd_addr_0;
  logic [23:0] cmd_words_0;
  logic [63:0] data_0;

  bs_loader #(
      .PROGRAM_DEPTH(PROGRAM_DEPTH),
      .ENGINE_HASH(ENGINE_HASH)
  ) u_loader (
      .clk,
      .rst(core_rst_o),
      .start_i(load_start),
      .program_addr_i(program_addr),
      .cmd_valid_o(load_cmd_valid),
      .cmd_ready_i(cmd_ready_0 && load),
      .cmd_addr_o(load_cmd_addr),
      .cmd_words_o(load_cmd_words),
      .data_valid_i(data_valid_0 && load),
      .data_ready_o(load_data_ready),
      .data_i(data_0),
      .we_o(program_we),
      .addr_o(program_waddr),
      .data_o(program_wdata),
      .count_o(counts),
      .loop_start_o(loop_starts),
      .batch_o(batch),
      .done_o(load_done),
      .error_o(load_error),
      .error_code_o(load_error_code),
      .error_info_o(load_error_info)
  );

  for (genvar stage = 0; stage < 3; stage++) begin : gen_queues
    bs_stage_queue #(
        .DEPTH(PROGRAM_DEPTH)
    ) u_queue (
        .clk,
        .rst(core_rst_o),
        .we_i(program_we[stage]),
        .addr_i(program_waddr),
        .data_i(program_wdata),
        .start_i(queues_start),
        .count_i(counts[stage]),
        .loop_start_i(loop_starts[stage]),
        .images_i(image_count),
        .batch_i(batch),
        .instr_valid_o(instr_valid[stage]),
        .instr_ready_i(instr_ready[stage]),
        .instr_o(instr[stage]),
        .first_image_o(first_image[stage]),
        .finished_o(queues_finished[stage])
    );
  end

  assign taken = instr_valid & instr_ready;
  assign execute_valid_o = instr_valid[1];
  assign execute_instr_o = instr[1];
  assign execute_first_o = first_image[1];
  assign write_back_valid_o = instr_valid[2];
  assign write_back_instr_o = instr[2];
  assign write_back_first_o = first_image[2];
  assign instr_ready[2:1] = {write_back_ready_i, execute_ready_i};

  // ------------------------------------------------------------------ fetch
  logic [7:0] need_issue, need_fill;
  logic enough_issue, enough_fill, take_issue, take_fill;
  logic logits_idle;
  logic image_cmd_valid, image_data_ready, cmd_valid_1, cmd_ready_1, data_valid_1, data_ready_1, data_last_1;
  logic [31:0] image_cmd_addr, cmd_addr_1;
  logic [23:0] image_cmd_words, cmd_words_1;
  logic [63:0] data_1;

  // It comes late in its cycle.
  logic fill_gives_q;

  always_ff @(posedge clk) fill_gives_q <= fill_to_fetch_i && !core_rst_o;

  bs_tokens #(
      .AHEAD(1'b1)
  ) u_weights_free (
      .clk,
      .rst(core_rst_o),
      .give_i(issue_to_fetch_i),
      .take_i(take_issue),
      .need_i(need_issue),
      .enough_o(enough_issue)
  );
  bs_tokens #(
      .AHEAD(1'b1)
  ) u_image_free (
      .clk,
      .rst(core_rst_o),
      .give_i(fill_gives_q),
      .take_i(take_fill),
      .need_i(need_fill),
      .enough_o(enough_fill)
  );

  bs_fetch #(
      .D_M(D_M),
      .D_N(D_N),
      .D_K(SLOTS * G),
      .G(G),
      .WEIGHT_DEPTH(WEIGHT_DEPTH),
      .PARAM_DEPTH(PARAM_DEPTH),
      .PLANE_DEPTH(PLANE_DEPTH)
  ) u_fetch (
      .clk,
      .rst(core_rst_o),
      .program_addr_i(program_addr),
      .image_addr_i(image_addr),
      .image_stride_i(image_stride),
      .image_planar_i(image_planar),
      .instr_valid_i(instr_valid[0]),
      .instr_ready_o(instr_ready[0]),
      .instr_i(instr[0]),
      .first_image_i(first_image[0]),
      .need_issue_o(need_issue),
      .enough_issue_i(enough_issue),
      .take_issue_o(take_issue),
      .post_issue_o(fetch_to_issue_o),
      .need_fill_o(need_fill),
      .enough_fill_i(enough_fill),
      .take_fill_o(take_fill),
      .post_fill_o(fetch_to_fill_o),
      .image_cmd_valid_o(image_cmd_valid),
      .image_cmd_ready_i(cmd_ready_0 && !load),
      .image_cmd_addr_o(image_cmd_addr),
      .image_cmd_words_o(image_cmd_words),
      .image_data_valid_i(data_valid_0 && !load),
      .image_data_ready_o(image_data_ready),
      .image_data_i(data_0),
      .load_cmd_valid_o(cmd_valid_1),
      .load_cmd_ready_i(cmd_ready_1),
      .load_cmd_addr_o(cmd_addr_1),
      .load_cmd_words_o(cmd_words_1),
      .load_data_valid_i(data_valid_1),
      .load_data_ready_o(data_ready_1),
      .load_data_i(data_1),
      .load_data_last_i(data_last_1),
      .weight_we_o,
      .weight_row_o,
      .weight_chunk_o,
      .weight_data_o,
      .param_we_o,
      .param_channel_o,
      .param_word_o,
      .param_data_o,
      .plane_valid_o,
      .plane_ready_i,
      .plane_row_o,
      .plane_data_o,
      .active_o(fetch_active),
      .idle_o(fetch_idle),
      .layer_o(fetch_layer),
      .error_o(fetch_error),
      .error_info_o(fetch_error_info)
  );

  // ------------------------------------------------------------------ memory masters
  assign cmd_valid_0  = load ? load_cmd_valid : image_cmd_valid;
  assign cmd_addr_0   = load ? load_cmd_addr : image_cmd_addr;
  assign cmd_words_0  = load ? load_cmd_words : image_cmd_words;
  assign data_ready_0 = load ? load_data_ready : image_data_ready;

  bs_read_dma u_read_0 (
      .clk,
      .rst(core_rst_o),
      .cmd_valid_i(cmd_valid_0),
      .cmd_ready_o(cmd_ready_0),
      .cmd_addr_i(cmd_addr_0),
      .cmd_words_i(cmd_words_0),
      .data_valid_o(data_valid_0),
      .data_ready_i(data_ready_0),
      .data_o(data_0),
      .data_last_o(unused_last_0),
      .abort_i(abort),
      .idle_o(read_idle_0),
      .error_o(read_error_0),
      .beat_o(read_beat_0),
      .m_axi_arid(m_axi_0_arid),
      .m_axi_araddr(m_axi_0_araddr),
      .m_axi_arlen(m_axi_0_arlen),
      .m_axi_arsize(m_axi_0_arsize),
      .m_axi_arburst(m_axi_0_arburst),
      .m_axi_arlock(m_axi_0_arlock),
      .m_axi_arcache(m_axi_0_arcache),
      .m_axi_arprot(m_axi_0_arprot),
      .m_axi_arqos(m_axi_0_arqos),
      .m_axi_arvalid(m_axi_0_arvalid),
      .m_axi_arready(m_axi_0_arready),
      .m_axi_rid(m_axi_0_rid),
      .m_axi_rdata(m_axi_0_rdata),
      .m_axi_rresp(m_axi_0_rresp),
      .m_axi_rlast(m_axi_0_rlast),
      .m_axi_rvalid(m_axi_0_rvalid),
      .m_axi_rready(m_axi_0_rready)
  );

  bs_read_dma u_read_1 (
      .clk,
      .rst(core_rst_o),
      .cmd_valid_i(cmd_valid_1),
      .cmd_ready_o(cmd_ready_1),
      .cmd_addr_i(cmd_addr_1),
      .cmd_words_i(cmd_words_1),
      .data_valid_o(data_valid_1),
      .data_ready_i(data_ready_1),
      .data_o(data_1),
      .data_last_o(data_last_1),
      .abort_i(abort),
      .idle_o(read_idle_1),
      .error_o(read_error_1),
      .beat_o(read_beat_1),
      .m_axi_arid(m_axi_1_arid),
      .m_axi_araddr(m_axi_1_araddr),
      .m_axi_arlen(m_axi_1_arlen),
      .m_axi_arsize(m_axi_1_arsize),
      .m_axi_arburst(m_axi_1_arburst),
      .m_axi_arlock(m_axi_1_arlock),
      .m_axi_arcache(m_axi_1_arcache),
      .m_axi_arprot(m_axi_1_arprot),
      .m_axi_arqos(m_axi_1_arqos),
      .m_axi_arvalid(m_axi_1_arvalid),
      .m_axi_arready(m_axi_1_arready),
      .m_axi_rid(m_axi_1_rid),
      .m_axi_rdata(m_axi_1_rdata),
      .m_axi_rresp(m_axi_1_rresp),
      .m_axi_rlast(m_axi_1_rlast),
      .m_axi_rvalid(m_axi_1_rvalid),
      .m_axi_rready(m_axi_1_rready)
  );

  logic write_cmd_valid, write_cmd_ready, write_data_valid, write_data_ready, write_done;
  logic [31:0] write_cmd_addr;
  logic [15:0] write_cmd_words;
  logic [63:0] write_data;

  bs_logits_writer #(
      .LANE_ROWS(LANE_ROWS),
      .LOGIT_DEPTH(LOGIT_DEPTH)
  ) u_logits (
      .clk,
      .rst(core_rst_o),
      .output_addr_i(output_addr),
      .output_stride_i(output_stride),
      .valid_i(logits_valid_i),
      .last_i(logits_last_i),
      .data_i(logits_i),
      .cmd_valid_o(write_cmd_valid),
      .cmd_ready_i(write_cmd_ready),
      .cmd_addr_o(write_cmd_addr),
      .cmd_words_o(write_cmd_words),
      .data_valid_o(write_data_valid),
      .data_ready_i(write_data_ready),
      .data_o(write_data),
      .dma_done_i(write_done && !abort),
      .idle_o(logits_idle),
      .written_o(logits_written_o),
      .images_done_o(images_done)
  );

  bs_write_dma u_write (
      .clk,
      .rst(core_rst_o),
      .cmd_valid_i(write_cmd_valid),
      .cmd_ready_o(write_cmd_ready),
      .cmd_addr_i(write_cmd_addr),
      .cmd_words_i(write_cmd_words),
      .data_valid_i(write_data_valid),
      .data_ready_o(write_data_ready),
      .data_i(write_data),
      .abort_i(abort),
      .idle_o(write_idle),
      .done_o(write_done),
      .error_o(write_error),
      .beat_o(write_beat),
      .m_axi_awid(m_axi_0_awid),
      .m_axi_awaddr(m_axi_0_awaddr),
      .m_axi_awlen(m_axi_0_awlen),
      .m_axi_awsize(m_axi_0_awsize),
      .m_axi_awburst(m_axi_0_awburst),
      .m_axi_awlock(m_axi_0_awlock),
      .m_axi_awcache(m_axi_0_awcache),
      .m_axi_awprot(m_axi_0_awprot),
      .m_axi_awqos(m_axi_0_awqos),
      .m_axi_awvalid(m_axi_0_awvalid),
      .m_axi_awready(m_axi_0_awready),
      .m_axi_wid(m_axi_0_wid),
      .m_axi_wdata(m_axi_0_wdata),
      .m_axi_wstrb(m_axi_0_wstrb),
      .m_axi_wlast(m_axi_0_wlast),
      .m_axi_wvalid(m_axi_0_wvalid),
      .m_axi_wready(m_axi_0_wready),
      .m_axi_bid(m_axi_0_bid),
      .m_axi_bresp(m_axi_0_bresp),
      .m_axi_bvalid(m_axi_0_bvalid),
      .m_axi_bready(m_axi_0_bready)
  );
endmodule
