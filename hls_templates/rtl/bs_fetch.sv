/// The fetch stage: two units that work at the same time, images (read DMA 0, bit planes) and loads (read DMA 1, weights
/// and parameters). An image starts once its tokens are there and holds up what follows. Loads go through a short queue,
/// so that those waiting for their tokens do not hold up the next image. The load unit asks for the data of a second load
/// while the first one's arrives. Tokens are given after the last write.
module bs_fetch #(
    parameter int D_M          = 8,     // array rows, >= 1
    parameter int D_N          = 16,    // array columns, 2..32, a power of two
    parameter int D_K          = 144,   // bits per word, 1..1024
    parameter int G            = 16,    // channels per group, 8 or 16
    parameter int WEIGHT_DEPTH = 512,   // rows of the weight buffer, a power of two up to 65536
    parameter int PARAM_DEPTH  = 1024,  // channels of the parameter buffer, a power of two up to 65536
    parameter int PLANE_DEPTH  = 512    // rows of the plane buffer, up to 65536
) (
    input  logic                                clk,
    input  logic                                rst,
    // set before reset is released, constant while running
    input  logic [31:0]                         program_addr_i,
    input  logic [31:0]                         image_addr_i,
    input  logic [31:0]                         image_stride_i,
    input  logic                                image_planar_i,
    // instructions; instr_i stands a cycle before instr_valid_i
    input  logic                                instr_valid_i,
    output logic                                instr_ready_o,
    input  logic [bs_pkg::INSTRUCTION_BITS-1:0] instr_i,
    input  logic                                first_image_i,
    // tokens, compared a cycle before
    output logic [7:0]                          need_issue_o,
    input  logic                                enough_issue_i,
    output logic                                take_issue_o,
    output logic                                post_issue_o,
    output logic [7:0]                          need_fill_o,
    input  logic                                enough_fill_i,
    output logic                                take_fill_o,
    output logic                                post_fill_o,
    // read DMA 0: images
    output logic                                image_cmd_valid_o,
    input  logic                                image_cmd_ready_i,
    output logic [31:0]                         image_cmd_addr_o,
    output logic [23:0]                         image_cmd_words_o,
    input  logic                                image_data_valid_i,
    output logic                                image_data_ready_o,
    input  logic [63:0]                         image_data_i,
    // read DMA 1: weights and parameters
    output logic                                load_cmd_valid_o,
    input  logic                                load_cmd_ready_i,
    output logic [31:0]                         load_cmd_addr_o,
    output logic [23:0]                         load_cmd_words_o,
    input  logic                                load_data_valid_i,
    output logic                                load_data_ready_o,
    input  logic [63:0]                         load_data_i,
    input  logic                                load_data_last_i,
    // buffers
    output logic                                weight_we_o,
    output logic [15:0]                         weight_row_o,
    output logic [7:0]                          weight_chunk_o,   // 64-bit chunk of the row
    output logic [63:0]                         weight_data_o,
    output logic                                param_we_o,
    output logic [15:0]                         param_channel_o,
    output logic                                param_word_o,     // 0: bias, 1: multiplier
    output logic [63:0]                         param_data_o,
    output logic                                plane_valid_o,
    input  logic                                plane_ready_i,
    output logic [15:0]                         plane_row_o,
    output logic [D_N*G-1:0]                    plane_data_o,
    // status
    output logic                                active_o,
    output logic                                idle_o,
    output logic [7:0]                          layer_o,
    output logic                                error_o,          // an address beyond its buffer; until reset
    output logic [31:0]                         error_info_o
);
  localparam int CHUNKS = (D_M * D_K + 63) / 64;
  localparam int CHUNK_BITS = 8;
  localparam int WEIGHT_BITS = $clog2(WEIGHT_DEPTH);
  localparam int PARAM_BITS = $clog2(PARAM_DEPTH);
  localparam int LOADS = 16;  // loads that wait for their tokens at most
  localparam int LOAD_BITS = $clog2(LOADS);

  if (CHUNKS > 256 || WEIGHT_DEPTH > 65536 || PARAM_DEPTH > 65536 || (1 << $clog2(WEIGHT_DEPTH)) != WEIGHT_DEPTH ||
      (1 << $clog2(PARAM_DEPTH)) != PARAM_DEPTH) begin : gen_bad
    $error("bs_fetch: a weight row has at most 256 chunks, a buffer has rows by a power of two up to 65536 (instance %m)");
  end

  // ------------------------------------------------------------------ decoding and start
  bs_pkg::head_t head;
  bs_pkg::load_weights_t weights;
  bs_pkg::load_params_t params;
  bs_pkg::load_image_t image;
  logic is_weights, is_params, is_image, push_load, start_load, start_image, image_busy, failed_q;
  logic is_load_q, is_params_q, is_image_q;  // of the instruction a cycle before
  logic [16:0] end_q;                        // first row or channel behind those that the load fills
  logic [23:0] words_q;                      // that the load copies
  logic queue_full, queue_empty, waiting_q;
  logic beyond;
  logic [31:0] image_addr_q;
  logic [7:0] layer_q, image_layer_q;

  assign head       = instr_i[15:0];
  assign weights    = instr_i;
  assign params     = instr_i;
  assign image      = instr_i;
  assign is_weights = head.opcode == bs_pkg::OP_LOAD_WEIGHTS;
  assign is_params  = head.opcode == bs_pkg::OP_LOAD_PARAMS;
  assign is_image   = head.opcode == bs_pkg::OP_LOAD_IMAGE;

  // Of what is no image, nobody looks at the answer.
  assign need_fill_o = first_image_i ? image.wait_fill_first : image.wait_fill;

  assign push_load     = instr_valid_i && !failed_q && is_load_q && !queue_full;
  assign start_image   = instr_valid_i && !failed_q && is_image_q && !image_busy && enough_fill_i;
  assign take_issue_o  = start_load;
  assign take_fill_o   = start_image;
  assign instr_ready_o = push_load || start_image;

  // end_q > depth, written as logic: a comparison becomes a carry chain.
  logic beyond_weights, beyond_params;

  assign beyond_weights = (end_q >> (WEIGHT_BITS + 1)) != '0 || (end_q[WEIGHT_BITS] && end_q[WEIGHT_BITS-1:0] != '0);
  assign beyond_params = (end_q >> (PARAM_BITS + 1)) != '0 || (end_q[PARAM_BITS] && end_q[PARAM_BITS-1:0] != '0);
  assign beyond = is_params_q ? beyond_params : beyond_weights;

  always_ff @(posedge clk) begin
    is_load_q   <= is_weights || is_params;
    is_params_q <= is_params;
    is_image_q  <= is_image;
    end_q       <= 17'(is_params ? params.base : weights.base) + 17'(is_params ? params.channels : weights.rows);
    words_q     <= is_params ? {7'd0, params.channels, 1'b0} : 24'(weights.rows) * 24'(CHUNKS);
  end

  // Images come in order.
  always_ff @(posedge clk) begin
    if (start_image && image.image_last) image_addr_q <= image_addr_q + image_stride_i;
    if (start_load) layer_q <= queued.layer;
    else if (start_image) layer_q <= head.layer;
    if (start_image) image_layer_q <= head.layer;
    if (rst) begin
      image_addr_q <= image_addr_i;
      layer_q      <= '0;
    end
  end

  // ------------------------------------------------------------------ queue of loads
  typedef struct packed {
    logic [7:0]  layer;
    logic        params;
    logic        post;
    logic [7:0]  need;
    logic [15:0] row;
    logic [23:0] words;
    logic [31:0] offset;
  } queued_t;

  queued_t pushed, queued;
  logic [$bits(pushed)-1:0] queue [LOADS];
  logic [LOAD_BITS:0] queue_write_q, queue_read_q;

  assign queue_empty = queue_write_q == queue_read_q;
  assign queue_full = queue_write_q == {~queue_read_q[LOAD_BITS], queue_read_q[LOAD_BITS-1:0]};
  assign queued = queue[queue_read_q[LOAD_BITS-1:0]];
  assign need_issue_o = queued.need;
  assign start_load = waiting_q && !failed_q && !next_valid_q && enough_issue_i;

  always_comb begin
    pushed.layer  = head.layer;
    pushed.params = is_params;
    pushed.post   = is_params ? params.post_issue : weights.post_issue;
    pushed.row    = is_params ? params.base : weights.base;
    pushed.words  = words_q;
    pushed.offset = is_params ? params.offset : weights.offset;
    if (is_params) pushed.need = first_image_i ? params.wait_issue_first : params.wait_issue;
    else pushed.need = first_image_i ? weights.wait_issue_first : weights.wait_issue;
  end

  always_ff @(posedge clk) begin
    if (push_load) queue[queue_write_q[LOAD_BITS-1:0]] <= pushed;
    if (push_load && !beyond) queue_write_q <= queue_write_q + 1'b1;
    if (start_load) queue_read_q <= queue_read_q + 1'b1;
    // A cycle late, as the tokens are. After the last one is taken, next_valid_q holds off another start.
    waiting_q     <= !queue_empty;
    if (rst) begin
      waiting_q     <= 1'b0;
      queue_write_q <= '0;
      queue_read_q  <= '0;
    end
  end

  // ------------------------------------------------------------------ loads
  typedef struct packed {
    logic        params;
    logic        post;
    logic [15:0] row;
    logic        empty;  // nothing to copy
  } load_t;

  load_t next_q, load_q;
  logic next_valid_q, next_asked_q, load_valid_q, load_end, moves;
  logic [CHUNK_BITS-1:0] chunk_q;
  logic asked;

  assign load_cmd_valid_o = next_valid_q && !next_asked_q;
  assign asked = next_asked_q || load_cmd_ready_i;
  // The last word of a command, or the one cycle of a load without words.
  assign load_end = load_valid_q && (load_q.empty || (load_data_valid_i && load_data_last_i));
  assign moves = next_valid_q && asked && (!load_valid_q || load_end);
  assign load_data_ready_o = load_valid_q && !load_q.empty;

  always_ff @(posedge clk) begin
    weight_we_o  <= 1'b0;
    param_we_o   <= 1'b0;
    post_issue_o <= load_end && load_q.post;
    if (load_cmd_valid_o && load_cmd_ready_i) next_asked_q <= 1'b1;
    if (load_end) load_valid_q <= 1'b0;
    if (moves) begin
      load_valid_q <= 1'b1;
      load_q       <= next_q;
      chunk_q      <= '0;
      next_valid_q <= 1'b0;
    end
    if (load_data_valid_i && load_data_ready_o) begin
      weight_we_o     <= !load_q.params;
      weight_row_o    <= load_q.row;
      weight_chunk_o  <= chunk_q;
      weight_data_o   <= load_data_i;
      param_we_o      <= load_q.params;
      param_channel_o <= load_q.row;
      param_word_o    <= chunk_q[0];
      param_data_o    <= load_data_i;
      if (!moves) begin
        chunk_q <= chunk_q + 1'b1;
        if (chunk_q == (load_q.params ? CHUNK_BITS'(1) : CHUNK_BITS'(CHUNKS - 1))) begin
          chunk_q    <= '0;
          load_q.row <= load_q.row + 16'd1;
        end
      end
    end
    if (start_load) begin
      next_valid_q     <= 1'b1;
      next_q.params    <= queued.params;
      next_q.post      <= queued.post;
      next_q.row       <= queued.row;
      next_q.empty     <= queued.words == '0;
      // A load without words asks for none.
      next_asked_q     <= queued.words == '0;
      load_cmd_addr_o  <= program_addr_i + queued.offset;
      load_cmd_words_o <= queued.words;
    end
    if (rst) begin
      next_valid_q <= 1'b0;
      load_valid_q <= 1'b0;
      weight_we_o  <= 1'b0;
      param_we_o   <= 1'b0;
      post_issue_o <= 1'b0;
    end
  end

  // ------------------------------------------------------------------ images
  logic image_done, image_failed, image_post_q;

  bs_image_planes #(
      .D_N(D_N),
      .G(G),
      .PLANE_DEPTH(PLANE_DEPTH)
  ) u_image (
      .clk,
      .rst,
      .start_i(start_image),
      .addr_i(image_addr_q + (image_planar_i ? 32'(image.first_pixel) : image.offset)),
      .pixels_i(image.pixels),
      .stride_i(image.image_pixels),
      .channels_i(image.channels),
      .bits_i(image.bits),
      .base_i(image.base),
      .pitch_i(image.pitch),
      .nibbles_i(image.nibbles),
      .planar_i(image_planar_i),
      .busy_o(image_busy),
      .done_o(image_done),
      .error_o(image_failed),
      .cmd_valid_o(image_cmd_valid_o),
      .cmd_ready_i(image_cmd_ready_i),
      .cmd_addr_o(image_cmd_addr_o),
      .cmd_words_o(image_cmd_words_o),
      .data_valid_i(image_data_valid_i),
      .data_ready_o(image_data_ready_o),
      .data_i(image_data_i),
      .plane_valid_o,
      .plane_ready_i,
      .plane_row_o,
      .plane_data_o
  );

  // ------------------------------------------------------------------ status
  assign post_fill_o = image_done && image_post_q;
  assign active_o = !queue_empty || next_valid_q || load_valid_q || image_busy;
  assign idle_o = !active_o && !weight_we_o && !param_we_o && !image_done;
  assign layer_o = layer_q;
  assign error_o = failed_q;

  always_ff @(posedge clk) begin
    if (start_image) image_post_q <= image.post_fill;
    if (!failed_q) begin
      if (image_failed) begin
        failed_q     <= 1'b1;
        error_info_o <= {bs_pkg::STAGE_FETCH, image_layer_q, 8'd0, bs_pkg::OP_LOAD_IMAGE};
      end else if (push_load && beyond) begin
        failed_q     <= 1'b1;
        error_info_o <= {bs_pkg::STAGE_FETCH, head.layer, 8'd0, head.opcode};
      end
    end
    if (rst) begin
      failed_q     <= 1'b0;
      error_info_o <= '0;
    end
  end

  logic unused_bits;
  assign unused_bits = ^{weights, params, image};
endmodule
