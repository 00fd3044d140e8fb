/// Starts, watches and stops a run: reset of the stages, program loading, the stages, the end.
/// An error of any source, a second start, the watchdog and a stop end the run in the same way: the memory masters finish
/// what they have begun, the stages are reset, busy falls. A memory that never answers therefore keeps busy high.
module bs_control (
    input  logic             clk,
    input  logic             rst,
    // registers
    input  logic             start_i,
    input  logic             stop_i,
    input  logic             irq_enable_i,
    input  logic [31:0]      watchdog_i,         // cycles without progress, 0: never
    input  logic [31:0]      image_count_i,
    output logic             busy_o,
    output logic             done_o,
    output logic             error_o,
    output logic [7:0]       error_code_o,
    output logic [31:0]      error_info_o,
    output logic             irq_o,              // level: done or error, while enabled
    output logic [31:0]      images_done_o,
    output logic [31:0]      cycles_o,
    output logic [3:0][31:0] active_cycles_o,    // of the stages, fetch lowest
    output logic [31:0]      read_beats_o,
    output logic [31:0]      write_beats_o,
    // events
    input  logic [3:0]       active_i,           // fetch, fill, issue, write-back work in this cycle, fetch lowest
    input  logic [3:0][7:0]  layer_i,            // on this layer
    input  logic [1:0]       read_beats_i,       // a word from each read master
    input  logic             write_beat_i,
    input  logic             progress_i,         // anything moved
    // run
    output logic             core_rst_o,         // reset of everything but registers and control
    output logic             load_o,             // the loader owns read master 0: state LOAD, in a register
    output logic             load_start_o,       // pulse
    input  logic             load_done_i,
    output logic             queues_start_o,     // pulse
    input  logic [2:0]       queues_finished_i,  // fetch lowest
    input  logic             stages_idle_i,      // fetch, core and logits writer
    input  logic [31:0]      images_done_i,
    output logic             abort_o,
    input  logic             masters_idle_i,
    // errors
    input  logic             load_error_i,
    input  logic [7:0]       load_error_code_i,
    input  logic [31:0]      load_error_info_i,
    input  logic             fetch_error_i,
    input  logic [31:0]      fetch_error_info_i,
    input  logic             read_error_i,
    input  logic             write_error_i
);
  // The top bit stops the masters, the bit below it says that a run is on.
  typedef enum logic [3:0] {
    IDLE   = 4'h0,
    CLEAR  = 4'h4,  // reset of the stages before the run
    LOAD   = 4'h5,  // the program
    LAUNCH = 4'h6,  // the queues
    RUN    = 4'h7,
    STOP   = 4'h8,  // wait until the masters are idle
    CLEAN  = 4'h9   // reset of the stages after a stop
  } state_e;

  state_e state_q;
  logic [1:0] wait_q;
  logic [31:0] quiet_q;
  logic running, fault, failed_q;
  // Decided a cycle before they are looked at.
  logic bark_q;      // the watchdog's
  logic finished_q, idle_q;  // the stages, in the same cycle: nothing left to start, nothing to finish
  logic ended_q, images_q;  // both; all images are in memory
  logic complete_q;  // everything has been done
  logic masters_idle_q, stopping_q, stopped_q;  // once the masters were idle in STOP, they stay idle
  logic [7:0] code, code_q;
  logic [31:0] info, info_q;
  logic report_q;    // code_q and info_q are why the run ends

  assign running = state_q[2];

  always_ff @(posedge clk) begin
    bark_q     <= running && watchdog_i != '0 && quiet_q >= watchdog_i;
    finished_q <= &queues_finished_i;
    idle_q     <= stages_idle_i;
    ended_q    <= state_q == RUN && finished_q && idle_q;
    images_q   <= images_done_i >= image_count_i;
    masters_idle_q <= masters_idle_i;
    complete_q <= state_q == RUN && ended_q && images_q && masters_idle_q;
    stopping_q <= state_q == STOP;
    stopped_q  <= stopping_q && masters_idle_q;
    report_q   <= !rst && running && fault && !stop_i;
    code_q     <= code;
    info_q     <= info;
  end

  always_comb begin
    fault = 1'b1;
    code  = bs_pkg::ERR_NONE;
    info  = '0;
    if (read_error_i) begin
      code = bs_pkg::ERR_AXI_READ;
      info = {bs_pkg::STAGE_FETCH, layer_i[0], 16'd0};
    end else if (write_error_i) begin
      code = bs_pkg::ERR_AXI_WRITE;
      info = {bs_pkg::STAGE_WRITE_BACK, layer_i[3], 16'd0};
    end else if (load_error_i) begin
      code = load_error_code_i;
      info = load_error_info_i;
    end else if (fetch_error_i) begin
      code = bs_pkg::ERR_ADDRESS;
      info = fetch_error_info_i;
    end else if (start_i) begin
      code = bs_pkg::ERR_BUSY;
    end else if (bark_q) begin
      // The first stage that has not been given everything is the one that waits.
      code = bs_pkg::ERR_WATCHDOG;
      if (!queues_finished_i[0] || state_q == LOAD) info = {bs_pkg::STAGE_FETCH, layer_i[0], 16'd0};
      else if (!queues_finished_i[1]) info = {bs_pkg::STAGE_EXECUTE, layer_i[2], 16'd0};
      else info = {bs_pkg::STAGE_WRITE_BACK, layer_i[3], 16'd0};
    end else begin
      fault = 1'b0;
    end
  end

  assign busy_o  = state_q != IDLE;
  assign abort_o = state_q[3];
  assign irq_o   = irq_enable_i && (done_o || error_o);

  always_ff @(posedge clk) begin
    load_start_o   <= 1'b0;
    queues_start_o <= 1'b0;
    wait_q         <= wait_q + 2'd1;
    case (state_q)
      IDLE: begin
        wait_q <= '0;
        if (start_i) begin
          state_q      <= CLEAR;
          done_o       <= 1'b0;
          error_o      <= 1'b0;
          failed_q     <= 1'b0;
          error_code_o <= bs_pkg::ERR_NONE;
          error_info_o <= '0;
        end
      end
      CLEAR: begin
        if (wait_q == 2'd3) begin
          state_q      <= LOAD;
          load_o       <= 1'b1;
          load_start_o <= 1'b1;
        end
      end
      LOAD: begin
        wait_q <= '0;
        if (load_done_i) begin
          state_q        <= LAUNCH;
          load_o         <= 1'b0;
          queues_start_o <= 1'b1;
        end
      end
      LAUNCH: if (wait_q == 2'd3) state_q <= RUN;
      RUN: begin
        if (complete_q) begin
          state_q <= IDLE;
          done_o  <= 1'b1;
        end
      end
      STOP: begin
        wait_q <= '0;
        if (stopped_q) state_q <= CLEAN;
      end
      CLEAN: begin
        // Who sees the error may start again at once.
        if (wait_q == 2'd3) begin
          state_q <= IDLE;
          error_o <= failed_q;
        end
      end
      default: state_q <= IDLE;
    endcase
    if (running && fault) begin
      state_q        <= STOP;
      load_o         <= 1'b0;
      load_start_o   <= 1'b0;
      queues_start_o <= 1'b0;
      done_o         <= 1'b0;
      failed_q       <= 1'b1;
    end
    // A cycle late: the stop takes longer.
    if (report_q) begin
      error_code_o <= code_q;
      error_info_o <= info_q;
    end
    if (stop_i && (running || state_q == IDLE)) begin
      state_q        <= STOP;
      load_o         <= 1'b0;
      load_start_o   <= 1'b0;
      queues_start_o <= 1'b0;
      done_o         <= 1'b0;
      error_o        <= 1'b0;
      failed_q       <= 1'b0;
      error_code_o   <= bs_pkg::ERR_NONE;
      error_info_o   <= '0;
    end
    if (rst) begin
      state_q        <= IDLE;
      load_o         <= 1'b0;
      load_start_o   <= 1'b0;
      queues_start_o <= 1'b0;
      done_o         <= 1'b0;
      error_o        <= 1'b0;
      failed_q       <= 1'b0;
      error_code_o   <= bs_pkg::ERR_NONE;
      error_info_o   <= '0;
    end
  end

  always_ff @(posedge clk) begin
    core_rst_o <= rst || ((state_q == CLEAR || state_q == CLEAN) && wait_q != 2'd3);
  end

  // ------------------------------------------------------------------ counters, kept after the run
  logic forget;
  logic [3:0] active_q;  // a cycle late: a run does not end with a stage's last cycle

  assign forget = rst || state_q == CLEAR;

  always_ff @(posedge clk) begin
    if (running) begin
      cycles_o      <= cycles_o + 32'd1;
      read_beats_o  <= read_beats_o + 32'(read_beats_i[0]) + 32'(read_beats_i[1]);
      write_beats_o <= write_beats_o + 32'(write_beat_i);
      for (int stage = 0; stage < 4; stage++) begin
        active_cycles_o[stage] <= active_cycles_o[stage] + 32'(active_q[stage]);
      end
      images_done_o <= images_done_i;
    end
    active_q <= active_i;
    quiet_q <= progress_i || !running ? '0 : quiet_q + 32'd1;
    if (forget) begin
      cycles_o        <= '0;
      read_beats_o    <= '0;
      write_beats_o   <= '0;
      active_cycles_o <= '0;
      images_done_o   <= '0;
    end
  end

  logic unused_bits;
  assign unused_bits = ^layer_i[1];
endmodule
