/// The issue half of the execute stage: for every position tile that fill has completed, and every row tile of the
/// layer, sends the plane pairs through the array, most significant first. One word a cycle: an address for the weight
/// buffer, one for the column buffer, and the controls of the accumulators, which leave with the buffers' data.
/// Words of a row tile: significances from the top; in each the plane pairs from the highest activation plane down;
/// in each pair the words. Planes lie top plane first in both buffers. Merged words hold the slots of all planes: a
/// significance takes the words in which one of its planes has a slot, each with a weight row of its own.
module bs_issue #(
    parameter int SLOTS        = 9,    // slots per column word, 3..30
    parameter int ROWS_G       = 2,    // row tiles per channel group (G / D_M), 1..8, a power of two
    parameter int WEIGHT_DEPTH = 512,  // rows of the weight buffer, 2..65536
    parameter int COLUMN_DEPTH = 512   // words of the column buffer, a ring, 8..1024, a power of two
) (
    input  logic                            clk,
    input  logic                            rst,
    // instructions, as fill takes them
    input  logic                            instr_valid_i,
    output logic                            instr_ready_o,
    input  bs_pkg::conv_t                   instr_i,
    input  logic                            first_image_i,
    // tokens and credits
    output logic [7:0]                      need_weights_o,
    input  logic                            enough_weights_i,
    input  logic                            write_back_armed_i,
    output logic                            take_o,
    output logic                            post_weights_o,
    input  logic                            tile_filled_i,
    output logic                            tile_released_o,
    output logic [9:0]                      released_words_o,
    // buffers and array
    output logic [$clog2(WEIGHT_DEPTH)-1:0] weight_addr_o,
    output logic [$clog2(COLUMN_DEPTH)-1:0] column_addr_o,
    output logic                            valid_o,     // with the data of both buffers
    output logic                            clear_o,
    output logic                            shift_o,
    output logic                            negative_o,
    output logic                            count_o,     // the column's count belongs to the word
    output logic                            last_o,
    // status
    output logic                            first_word_o,  // first word of an instruction
    output logic                            idle_o,
    output logic [7:0]                      layer_o
);
  localparam int WEIGHT_BITS = $clog2(WEIGHT_DEPTH);
  localparam int WORD_BITS = $clog2(COLUMN_DEPTH);

  // ------------------------------------------------------------------ instruction queue, two deep
  bs_pkg::conv_t queue_q, cfg_q;
  logic queue_valid_q, queue_first_q, cfg_valid_q, cfg_first_q, started_q, done, start;

  assign instr_ready_o = !queue_valid_q;
  assign need_weights_o = cfg_first_q ? cfg_q.wait_weights_first : cfg_q.wait_weights;
  assign start = cfg_valid_q && !started_q && enough_weights_i && write_back_armed_i;
  assign take_o = start;
  assign layer_o = cfg_q.layer;

  always_ff @(posedge clk) begin
    if (instr_valid_i && instr_ready_o) begin
      queue_q       <= instr_i;
      queue_first_q <= first_image_i;
      queue_valid_q <= 1'b1;
    end else if (!cfg_valid_q || done) begin
      queue_valid_q <= 1'b0;
    end
    if (!cfg_valid_q || done) begin
      cfg_q       <= queue_q;
      cfg_first_q <= queue_first_q;
      cfg_valid_q <= queue_valid_q;
      started_q   <= 1'b0;
    end else if (start) begin
      started_q <= 1'b1;
    end
    if (rst) begin
      queue_valid_q <= 1'b0;
      cfg_valid_q   <= 1'b0;
      started_q     <= 1'b0;
    end
  end

  // ------------------------------------------------------------------ loop nest
  logic [WORD_BITS:0] filled_q;        // tiles that wait in the column buffer, this one included
  logic [WORD_BITS-1:0] tile_word_q;   // first word of the tile
  logic [15:0] tile_q;
  logic [9:0] row_q, word_q;
  logic [$clog2(ROWS_G+1)-1:0] group_row_q;  // row tile within its channel group
  logic [3:0] weight_plane_q, plane_q;          // of the running pair
  logic [3:0] weight_start_q, plane_start_q;    // of the first pair of the significance
  logic [WEIGHT_BITS-1:0] row_base_q, weight_q, weight_start_addr_q;
  logic [WORD_BITS-1:0] column_q, column_start_q, group_base_q;
  // Merged words: the significance, and its slots from start (included) to stop (excluded): words, and slots beyond. Of
  // stop the word of the last slot is kept, which is the word before where no slots are beyond.
  logic [4:0] significance_q;
  logic [WORD_BITS-1:0] start_word_q, last_word_q;
  logic [4:0] start_rest_q, stop_rest_q;
  logic [7:0] spacing_q;               // cycles until the next row tile may end
  logic first_word_q, first_of_significance_q;

  logic word_last, pair_last, significance_last, ending, go, row_last, tile_last, bottom;
  logic start_moves, stop_moves, start_carry, stop_carry, last_carry;
  logic [1:0] behind;                  // significances above weight_bits - 1, modulo a nibble
  logic [WORD_BITS-1:0] next_start_word;

  always_comb begin
    bottom = cfg_q.merged ? significance_q == '0 : weight_start_q == '0 && plane_start_q == '0;
    if (cfg_q.merged) begin
      word_last = column_q == last_word_q;
      pair_last = 1'b1;
    end else begin
      word_last = word_q == cfg_q.plane_words - 10'd1;
      pair_last = weight_plane_q == cfg_q.weight_bits - 4'd1 || plane_q == '0;
    end
    significance_last = word_last && pair_last;
    ending = significance_last && bottom;
    go = started_q && filled_q != '0 && !(ending && spacing_q != '0);
    row_last = ending && row_q == cfg_q.row_tiles - 10'd1;
    tile_last = row_last && tile_q == cfg_q.tiles - 16'd1;
    // The next significance has one plane less at the start once the top plane is too high for it, one more at the
    // stop while planes are still too low for this one. A plane of nibbles serves four significances more.
    behind = significance_q[1:0] + 2'd1 - cfg_q.weight_bits[1:0];
    start_moves = cfg_q.nibbles ? significance_q[1:0] == 2'd0 && significance_q[4:2] < 3'(cfg_q.in_bits)
                                : significance_q < 5'(cfg_q.in_bits);
    stop_moves = significance_q >= 5'(cfg_q.weight_bits) && (!cfg_q.nibbles || behind == 2'd0);
    start_carry = 6'(start_rest_q) + 6'(cfg_q.plane_rest) >= 6'(SLOTS);
    stop_carry = 6'(stop_rest_q) + 6'(cfg_q.plane_rest) >= 6'(SLOTS);
    last_carry = stop_rest_q == '0 ? cfg_q.plane_rest != '0 : 6'(stop_rest_q) + 6'(cfg_q.plane_rest) > 6'(SLOTS);
    next_start_word = start_word_q;
    if (start_moves) next_start_word = start_word_q + WORD_BITS'(cfg_q.plane_words) + WORD_BITS'(start_carry);
  end

  assign done = go && tile_last;
  assign tile_released_o = go && row_last;
  assign released_words_o = cfg_q.column_words;
  assign post_weights_o = done && cfg_q.post_weights;
  assign idle_o = !queue_valid_q && !cfg_valid_q;

  always_ff @(posedge clk) begin
    filled_q <= filled_q + (WORD_BITS + 1)'(tile_filled_i) - (WORD_BITS + 1)'(tile_released_o);
    if (spacing_q != '0) spacing_q <= spacing_q - 8'd1;

    if (start || (go && ending)) begin
      // First word of a row tile.
      weight_plane_q <= cfg_q.weight_bits - 4'd1;
      weight_start_q <= cfg_q.weight_bits - 4'd1;
      plane_q        <= cfg_q.in_bits - 4'd1;
      plane_start_q  <= cfg_q.in_bits - 4'd1;
      word_q         <= '0;
      significance_q <= cfg_q.significances - 5'd1;
      start_word_q   <= '0;
      start_rest_q   <= '0;
      last_word_q    <= WORD_BITS'(cfg_q.plane_words) - WORD_BITS'(cfg_q.plane_rest == '0);
      stop_rest_q    <= cfg_q.plane_rest;
      first_word_q   <= 1'b1;
      first_of_significance_q <= 1'b1;
      if (start || row_last) begin
        row_q               <= '0;
        group_row_q         <= '0;
        row_base_q          <= WEIGHT_BITS'(cfg_q.weight_base);
        weight_q            <= WEIGHT_BITS'(cfg_q.weight_base);
        weight_start_addr_q <= WEIGHT_BITS'(cfg_q.weight_base);
        column_q            <= '0;
        column_start_q      <= '0;
        group_base_q        <= '0;
      end else begin
        row_q               <= row_q + 10'd1;
        row_base_q          <= row_base_q + WEIGHT_BITS'(cfg_q.weight_pitch);
        weight_q            <= row_base_q + WEIGHT_BITS'(cfg_q.weight_pitch);
        weight_start_addr_q <= row_base_q + WEIGHT_BITS'(cfg_q.weight_pitch);
        column_q            <= group_base_q;
        column_start_q      <= group_base_q;
        if (cfg_q.depthwise) begin
          if (32'(group_row_q) == ROWS_G - 1) begin
            group_row_q    <= '0;
            group_base_q   <= group_base_q + WORD_BITS'(cfg_q.plane_words);
            column_q       <= group_base_q + WORD_BITS'(cfg_q.plane_words);
            column_start_q <= group_base_q + WORD_BITS'(cfg_q.plane_words);
          end else begin
            group_row_q <= group_row_q + 1'b1;
          end
        end
      end
      if (start) tile_q <= '0;
      else if (row_last) tile_q <= tile_q + 16'd1;
      if (go && row_last) tile_word_q <= tile_word_q + WORD_BITS'(cfg_q.column_words);
      if (go) spacing_q <= cfg_q.tile_cycles - 8'd1;
    end else if (go) begin
      first_word_q            <= 1'b0;
      first_of_significance_q <= significance_last;
      if (!word_last) begin
        word_q       <= word_q + 10'd1;
        weight_q     <= weight_q + 1'b1;
        column_q     <= column_q + 1'b1;
      end else if (cfg_q.merged) begin
        weight_q       <= weight_q + 1'b1;
        column_q       <= next_start_word;
        significance_q <= significance_q - 5'd1;
        start_word_q   <= next_start_word;
        if (start_moves) start_rest_q <= start_rest_q + cfg_q.plane_rest - (start_carry ? 5'(SLOTS) : 5'd0);
        if (stop_moves) begin
          last_word_q <= last_word_q + WORD_BITS'(cfg_q.plane_words) + WORD_BITS'(last_carry);
          stop_rest_q <= stop_rest_q + cfg_q.plane_rest - (stop_carry ? 5'(SLOTS) : 5'd0);
        end
      end else if (!pair_last) begin
        // Next pair: one weight plane up, one activation plane down.
        word_q         <= '0;
        weight_plane_q <= weight_plane_q + 4'd1;
        plane_q        <= plane_q - 4'd1;
        weight_q       <= weight_q + 1'b1 - WEIGHT_BITS'({cfg_q.plane_words, 1'b0});
        column_q       <= column_q + 1'b1 - WORD_BITS'(cfg_q.plane_words) + WORD_BITS'(cfg_q.column_pitch);
      end else begin
        word_q <= '0;
      end
      if (significance_last && !cfg_q.merged) begin
        // Next significance: its first pair lies one weight plane lower, or else one activation plane.
        if (weight_start_q != '0) begin
          weight_start_q <= weight_start_q - 4'd1;
          weight_plane_q <= weight_start_q - 4'd1;
          plane_q        <= plane_start_q;
          weight_start_addr_q <= weight_start_addr_q + WEIGHT_BITS'(cfg_q.plane_words);
          weight_q            <= weight_start_addr_q + WEIGHT_BITS'(cfg_q.plane_words);
          column_q            <= column_start_q;
        end else begin
          plane_start_q  <= plane_start_q - 4'd1;
          plane_q        <= plane_start_q - 4'd1;
          weight_plane_q <= '0;
          column_start_q <= column_start_q + WORD_BITS'(cfg_q.column_pitch);
          column_q       <= column_start_q + WORD_BITS'(cfg_q.column_pitch);
          weight_q       <= weight_start_addr_q;
        end
      end
    end
    if (rst) begin
      filled_q    <= '0;
      tile_word_q <= '0;
      spacing_q   <= '0;
    end
  end

  // ------------------------------------------------------------------ to the buffers; controls wait for their data
  typedef struct packed {
    logic valid;
    logic clear;
    logic shift;
    logic negative;
    logic count;
    logic last;
  } control_t;

  control_t control_0_q, control_1_q, control_2_q;

  always_ff @(posedge clk) begin
    weight_addr_o        <= weight_q;
    column_addr_o        <= tile_word_q + column_q;
    control_0_q.valid    <= go;
    control_0_q.clear    <= first_word_q;
    control_0_q.shift    <= first_of_significance_q && !first_word_q;
    control_0_q.negative <= cfg_q.negative_top && weight_plane_q == cfg_q.weight_bits - 4'd1;
    // The sum of all codes weighs 2**weight_bits - 1: it enters at as many of the lowest significances.
    control_0_q.count    <= !cfg_q.merged || (word_last && significance_q < 5'(cfg_q.weight_bits));
    control_0_q.last     <= ending;
    first_word_o         <= go && first_word_q && row_q == '0 && tile_q == '0;
    control_1_q          <= control_0_q;
    control_2_q          <= control_1_q;
    if (rst) begin
      control_0_q <= '0;
      control_1_q <= '0;
      control_2_q <= '0;
    end
  end

  assign {valid_o, clear_o, shift_o, negative_o, count_o, last_o} = control_2_q;

  // Fields of the instruction that belong to fill.
  logic unused_fields;
  assign unused_fields = ^{cfg_q, queue_q};
endmodule
