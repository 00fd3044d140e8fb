/// Collects the logits of one image and writes them to memory as 32-bit integers, in the order of the beats.
/// The beats of an image never wait; the next image's come only after written_o.
module bs_logits_writer #(
    parameter int LANE_ROWS   = 2,   // logits per beat, 1..8, a power of two
    parameter int LOGIT_DEPTH = 512  // beats of one image, a power of two, 4..32768
) (
    input  logic                    clk,
    input  logic                    rst,
    // set before reset is released, constant while running
    input  logic [31:0]             output_addr_i,
    input  logic [31:0]             output_stride_i,
    // beats
    input  logic                    valid_i,
    input  logic                    last_i,          // last beat of an image
    input  logic [LANE_ROWS*32-1:0] data_i,
    // write DMA
    output logic                    cmd_valid_o,
    input  logic                    cmd_ready_i,
    output logic [31:0]             cmd_addr_o,
    output logic [15:0]             cmd_words_o,
    output logic                    data_valid_o,
    input  logic                    data_ready_i,
    output logic [63:0]             data_o,
    input  logic                    dma_done_i,      // pulse: the command's data is in memory
    // status
    output logic                    idle_o,
    output logic                    written_o,       // pulse, a cycle after dma_done_i: an image's logits are in memory
    output logic [31:0]             images_done_o
);
  localparam int COUNT_BITS = $clog2(LOGIT_DEPTH) + 1;

  if (LANE_ROWS < 1 || LANE_ROWS > 8 || (1 << $clog2(LANE_ROWS)) != LANE_ROWS || LOGIT_DEPTH > 32768 ||
      LOGIT_DEPTH * LANE_ROWS > 65536) begin : gen_bad
    $error("bs_logits_writer: LANE_ROWS must be 1, 2, 4 or 8, LOGIT_DEPTH at most 32768 beats and 65536 logits (instance %m)");
  end

  typedef enum logic [1:0] {
    COLLECT,  // beats of an image
    ASK,      // give the command
    WRITE     // until the memory has answered
  } state_e;

  state_e state_q;
  logic [COUNT_BITS-1:0] beats_q;
  logic fifo_valid, fifo_ready, fifo_last, unused_full, unused_empty;
  logic [LANE_ROWS*32-1:0] fifo_data;

  bs_fifo #(
      .WIDTH(LANE_ROWS * 32 + 1),
      .DEPTH(LOGIT_DEPTH)
  ) u_beats (
      .clk,
      .rst,
      .flush_i(1'b0),
      .push_i(valid_i),
      .data_i({last_i, data_i}),
      .full_o(unused_full),
      .valid_o(fifo_valid),
      .ready_i(fifo_ready),
      .data_o({fifo_last, fifo_data}),
      .empty_o(unused_empty)
  );

  if (LANE_ROWS == 1) begin : gen_join
    // Two beats make a word; a last beat without partner is filled up with zeros.
    logic half_q;
    logic [31:0] low_q;

    assign data_valid_o = fifo_valid && (half_q || fifo_last);
    assign data_o = half_q ? {fifo_data, low_q} : {32'd0, fifo_data};
    assign fifo_ready = data_valid_o ? data_ready_i : 1'b1;
    assign cmd_words_o = (16'(beats_q) + 16'd1) >> 1;

    always_ff @(posedge clk) begin
      if (fifo_valid && fifo_ready) begin
        half_q <= !half_q && !fifo_last;
        low_q  <= fifo_data;
      end
      if (rst) half_q <= 1'b0;
    end
  end else if (LANE_ROWS == 2) begin : gen_word
    logic unused_last;

    assign unused_last = fifo_last;
    assign data_valid_o = fifo_valid;
    assign data_o = fifo_data;
    assign fifo_ready = data_ready_i;
    assign cmd_words_o = 16'(beats_q);
  end else begin : gen_split
    localparam int WORDS = LANE_ROWS / 2;
    localparam int WORD_BITS = $clog2(WORDS);
    logic [WORD_BITS-1:0] word_q;
    logic unused_last;

    assign unused_last = fifo_last;
    assign data_valid_o = fifo_valid;
    assign data_o = fifo_data[{word_q, 6'd0}+:64];
    assign fifo_ready = data_ready_i && (&word_q);
    assign cmd_words_o = 16'({beats_q, {WORD_BITS{1'b0}}});

    always_ff @(posedge clk) begin
      if (data_valid_o && data_ready_i) word_q <= word_q + 1'b1;
      if (rst) word_q <= '0;
    end
  end

  assign cmd_valid_o = state_q == ASK;
  assign idle_o = state_q == COLLECT && beats_q == '0;

  always_ff @(posedge clk) begin
    written_o <= state_q == WRITE && dma_done_i;
    case (state_q)
      COLLECT: begin
        if (valid_i) begin
          beats_q <= beats_q + 1'b1;
          if (last_i) state_q <= ASK;
        end
      end
      ASK: if (cmd_ready_i) state_q <= WRITE;
      WRITE: begin
        if (dma_done_i) begin
          state_q       <= COLLECT;
          beats_q       <= '0;
          images_done_o <= images_done_o + 32'd1;
          cmd_addr_o    <= cmd_addr_o + output_stride_i;
        end
      end
      default: state_q <= COLLECT;
    endcase
    if (rst) begin
      written_o     <= 1'b0;
      state_q       <= COLLECT;
      beats_q       <= '0;
      images_done_o <= '0;
      cmd_addr_o    <= output_addr_i;
    end
  end
endmodule
