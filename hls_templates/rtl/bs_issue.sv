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
    output logic [7:0]                      need_weights_o,     // a cycle before enough_weights_i belongs to it
    input  logic                            enough_weights_i,
    input  logic                            write_back_armed_i,
    output logic                            take_o,
    output logic                            post_weights_o,
    input  logic                            tile_filled_i,
    output logic [9:0]                      released_words_o,   // words of a tile that is through, else 0
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
  logic queue_valid_q, cfg_valid_q, started_q, done, start;
  logic [7:0] queue_need_q, cfg_need_q;
  // What follows from cfg_q, but made of queue_q, since the loop nest begins a cycle behind cfg_q. What there is one of:
  logic one_word, one_significance;  // words of a pair (merged: of the top significance), significances
  logic one_word_q, one_significance_q, one_row_q, one_tile_q, one_cycle_q;
  logic first_ends_q;                // a row tile is a single word
  logic first_counts_q;              // the sum of all codes enters at the top significance
  logic [9:0] words_behind_first_q;  // of a pair (merged: of the top significance)
  logic [3:0] weight_top_q, weight_second_q;  // weight_bits - 1, - 2
  logic [4:0] rest_behind_q;         // slots of a word behind plane_rest
  // Merged words: start and stop (see below) of the significance after the top one.
  logic [WORD_BITS-1:0] second_start_q, second_stop_q;
  logic [4:0] second_start_rest_q, second_stop_rest_q, rest;
  logic second_start_moves_q, second_stop_moves_q;  // found out when the queue takes the instruction
  logic [4:0] top_i;                                // its top significance
  logic [1:0] second_stop_step;

  // The significance below has one plane less at the start once the top plane is too high for it, one more at the stop
  // while planes are still too low for this one. A plane of nibbles serves four significances more.
  function automatic logic start_moves_on(input logic [4:0] significance, input logic [3:0] in_bits, input logic nibbles);
    start_moves_on = nibbles ? significance[1:0] == 2'd0 && significance[4:2] < 3'(in_bits) : significance < 5'(in_bits);
  endfunction
  function automatic logic stop_moves_on(input logic [4:0] significance, input logic [3:0] weight_bits, input logic nibbles);
    stop_moves_on = significance >= 5'(weight_bits) && (!nibbles || 2'(significance[1:0] + 2'd1) == weight_bits[1:0]);
  endfunction

  always_comb begin
    rest = queue_q.plane_rest;
    one_word = queue_q.plane_words == 10'd1 ? !queue_q.merged || rest == '0
                                            : queue_q.merged && queue_q.plane_words == '0;
    one_significance = queue_q.merged ? queue_q.significances == 5'd1
                                      : queue_q.weight_bits == 4'd1 && queue_q.in_bits == 4'd1;
    // Of one or two planes the last slot's word, less their whole words: -1, 0 or 1.
    second_stop_step = rest == '0 ? 2'b11 : {1'b0, second_stop_moves_q && {rest, 1'b0} > 6'(SLOTS)};
  end

  assign instr_ready_o = !queue_valid_q;
  assign top_i = instr_i.significances - 5'd1;
  // The tokens are compared a cycle before they are looked at: once an instruction runs, for the one behind it.
  assign need_weights_o = cfg_valid_q && !started_q ? cfg_need_q : queue_need_q;
  assign start = cfg_valid_q && !started_q && enough_weights_i && write_back_armed_i;
  assign take_o = start;
  assign layer_o = cfg_q.layer;

  always_ff @(posedge clk) begin
    if (instr_valid_i && instr_ready_o) begin
      queue_q       <= instr_i;
      queue_need_q  <= first_image_i ? instr_i.wait_weights_first : instr_i.wait_weights;
      queue_valid_q <= 1'b1;
      second_start_moves_q <= start_moves_on(top_i, instr_i.in_bits, instr_i.nibbles);
      second_stop_moves_q  <= stop_moves_on(top_i, instr_i.weight_bits, instr_i.nibbles);
    end else if (!cfg_valid_q || done) begin
      queue_valid_q <= 1'b0;
    end
    if (!cfg_valid_q || done) begin
      cfg_q                <= queue_q;
      cfg_need_q           <= queue_need_q;
      cfg_valid_q          <= queue_valid_q;
      started_q            <= 1'b0;
      one_word_q           <= one_word;
      one_significance_q   <= one_significance;
      first_ends_q         <= one_word && one_significance;
      one_row_q            <= queue_q.row_tiles == 10'd1;
      one_tile_q           <= queue_q.tiles == 16'd1;
      one_cycle_q          <= queue_q.tile_cycles == 8'd1;
      rest_behind_q        <= 5'(SLOTS) - rest;
      weight_top_q         <= queue_q.weight_bits - 4'd1;
      weight_second_q      <= queue_q.weight_bits - 4'd2;
      first_counts_q       <= queue_q.significances <= 5'(queue_q.weight_bits);
      words_behind_first_q <= queue_q.plane_words - 10'(!queue_q.merged || rest == '0);
      second_start_q       <= second_start_moves_q ? WORD_BITS'(queue_q.plane_words) : '0;
      second_start_rest_q  <= second_start_moves_q ? rest : '0;
      second_stop_q        <= (second_stop_moves_q ? WORD_BITS'({queue_q.plane_words, 1'b0}) : WORD_BITS'(queue_q.plane_words)) +
                              {{WORD_BITS - 1{second_stop_step[1]}}, second_stop_step[0]};
      second_stop_rest_q   <= !second_stop_moves_q ? rest : rest + rest - ({rest, 1'b0} >= 6'(SLOTS) ? 5'(SLOTS) : 5'd0);
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
  // Whether a word is the last one of anything stands in registers beside it, so that go, and what moves with it, takes
  // few LUTs. Counters run down to make these flags.
  logic [WORD_BITS:0] filled_q;        // tiles that wait in the column buffer, this one included
  logic any_filled_q, more_filled_q;   // at least one, two
  logic [WORD_BITS-1:0] tile_word_q;   // first word of the tile
  logic [15:0] tiles_left_q;           // this one included
  logic [9:0] rows_left_q;             // this one included
  logic [9:0] words_behind_q;          // of the pair (merged: of the significance), this one not included
  logic last_tile_q, last_row_q, last_word_q, last_pair_q, bottom_q;
  logic significance_last_q;           // the word is the last one of its significance
  logic plain_last_q;                  // the same, but only of plain words
  logic ending_q;                      // the word is the last one of its row tile
  logic final_row_q;                   // the row tile is the last one of the last tile
  logic [$clog2(ROWS_G+1)-1:0] group_row_q;  // row tile within its channel group
  logic [3:0] weight_plane_q, plane_q;          // of the running pair
  logic [3:0] weight_start_q, plane_start_q;    // of the first pair of the significance
  logic [WEIGHT_BITS-1:0] row_base_q, weight_q, weight_start_addr_q;
  logic [WORD_BITS-1:0] column_q, column_start_q, group_base_q;
  // Merged words: the significance below the current one, and its slots from start (included) to stop (excluded): words,
  // and slots beyond. Of stop the word of the last slot is kept, which is the word before where no slots are beyond.
  logic [4:0] below_q;
  logic [WORD_BITS-1:0] start_q, stop_q;
  logic [4:0] start_rest_q, stop_rest_q;
  logic counts_q;                      // the significance is one of those at which the sum of all codes enters
  logic [7:0] spacing_q;               // cycles until the next row tile may end
  logic spaced_q;                      // spacing_q is zero
  logic first_of_instr_q, first_word_q, first_of_significance_q;

  logic go, first_of_row, next_last_word, next_last_pair, next_bottom, next_last_row, next_last_tile;
  logic start_moves, stop_moves, start_carry, stop_carry, last_carry;

  // One carry chain: the carry comes in below the lowest bit.
  function automatic logic [WORD_BITS-1:0] sum_with(
      input logic [WORD_BITS-1:0] a, input logic [WORD_BITS-1:0] b, input logic carry
  );
    logic unused_low;
    {sum_with, unused_low} = {a, 1'b1} + {b, carry};
  endfunction

  always_comb begin
    go = started_q && any_filled_q && (spaced_q || !ending_q);
    // Until an instruction starts it stands at its first word.
    first_of_row = !started_q || (go && ending_q);
    start_moves = start_moves_on(below_q, cfg_q.in_bits, cfg_q.nibbles);
    stop_moves = stop_moves_on(below_q, cfg_q.weight_bits, cfg_q.nibbles);
    start_carry = start_rest_q >= rest_behind_q;
    stop_carry = stop_rest_q >= rest_behind_q;
    last_carry = stop_rest_q == '0 ? cfg_q.plane_rest != '0 : stop_rest_q > rest_behind_q;

    // Of the word behind, within a row tile.
    next_last_word = words_behind_q == 10'd1;
    next_last_pair = last_pair_q;
    next_bottom    = bottom_q;
    if (last_word_q) begin
      next_last_word = cfg_q.merged ? stop_q == start_q : one_word_q;
      if (cfg_q.merged) begin
        next_bottom = below_q == '0;
      end else if (!last_pair_q) begin
        next_last_pair = weight_plane_q == weight_second_q || plane_q == 4'd1;
      end else if (weight_start_q != '0) begin
        next_last_pair = plane_start_q == '0;
        next_bottom    = weight_start_q == 4'd1 && plane_start_q == '0;
      end else begin
        next_last_pair = plane_start_q == 4'd1 || weight_top_q == '0;
        next_bottom    = plane_start_q == 4'd1;
      end
    end
    // Of the row tile behind.
    next_last_row  = rows_left_q == 10'd2;
    next_last_tile = last_tile_q;
    if (!started_q || last_row_q) begin
      next_last_row  = one_row_q;
      next_last_tile = started_q ? tiles_left_q == 16'd2 : one_tile_q;
    end
  end

  assign done = go && ending_q && final_row_q;
  assign idle_o = !queue_valid_q && !cfg_valid_q;

  always_ff @(posedge clk) begin
    post_weights_o   <= done && cfg_q.post_weights;
    released_words_o <= go && ending_q && last_row_q ? cfg_q.column_words : '0;
    filled_q         <= filled_q + (WORD_BITS + 1)'(tile_filled_i) - (WORD_BITS + 1)'(go && ending_q && last_row_q);
    if (go && ending_q && last_row_q) begin
      any_filled_q  <= more_filled_q || tile_filled_i;
      more_filled_q <= filled_q[WORD_BITS:2] != '0 || (&filled_q[1:0]) || (more_filled_q && tile_filled_i);
    end else if (tile_filled_i) begin
      any_filled_q  <= 1'b1;
      more_filled_q <= any_filled_q;
    end
    if (go && ending_q) begin
      spacing_q <= cfg_q.tile_cycles - 8'd1;
      spaced_q  <= one_cycle_q;
    end else if (!spaced_q) begin
      spacing_q <= spacing_q - 8'd1;
      spaced_q  <= spacing_q == 8'd1;
    end

    if (first_of_row) begin
      // First word of a row tile.
      weight_plane_q <= weight_top_q;
      weight_start_q <= weight_top_q;
      plane_q        <= cfg_q.in_bits - 4'd1;
      plane_start_q  <= cfg_q.in_bits - 4'd1;
      below_q        <= cfg_q.significances - 5'd2;
      start_q        <= second_start_q;
      start_rest_q   <= second_start_rest_q;
      stop_q         <= second_stop_q;
      stop_rest_q    <= second_stop_rest_q;
      counts_q       <= first_counts_q;
      words_behind_q <= words_behind_first_q;
      last_word_q    <= one_word_q;
      last_pair_q    <= 1'b1;
      bottom_q       <= one_significance_q;
      ending_q       <= first_ends_q;
      significance_last_q <= one_word_q;
      plain_last_q        <= one_word_q && !cfg_q.merged;
      last_row_q     <= next_last_row;
      last_tile_q    <= next_last_tile;
      final_row_q    <= next_last_row && next_last_tile;
      first_word_q   <= 1'b1;
      first_of_significance_q <= 1'b1;
      if (!started_q || last_row_q) begin
        rows_left_q         <= cfg_q.row_tiles;
        group_row_q         <= '0;
        row_base_q          <= WEIGHT_BITS'(cfg_q.weight_base);
        weight_q            <= WEIGHT_BITS'(cfg_q.weight_base);
        weight_start_addr_q <= WEIGHT_BITS'(cfg_q.weight_base);
        column_q            <= '0;
        column_start_q      <= '0;
        group_base_q        <= '0;
      end else begin
        rows_left_q         <= rows_left_q - 10'd1;
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
      if (!started_q) begin
        tiles_left_q <= cfg_q.tiles;
      end else if (last_row_q) begin
        tiles_left_q <= tiles_left_q - 16'd1;
        tile_word_q  <= tile_word_q + WORD_BITS'(cfg_q.column_words);
      end
      first_of_instr_q <= !started_q;
    end else if (go) begin
      first_of_instr_q        <= 1'b0;
      first_word_q            <= 1'b0;
      first_of_significance_q <= significance_last_q;
      last_word_q             <= next_last_word;
      last_pair_q             <= next_last_pair;
      bottom_q                <= next_bottom;
      significance_last_q     <= next_last_word && next_last_pair;
      plain_last_q            <= next_last_word && next_last_pair && !cfg_q.merged;
      ending_q                <= next_last_word && next_last_pair && next_bottom;
      words_behind_q          <= words_behind_q - 10'd1;
      if (last_word_q) words_behind_q <= cfg_q.merged ? 10'(stop_q) - 10'(start_q) : words_behind_first_q;
      weight_q <= weight_q + 1'b1;
      column_q <= column_q + 1'b1;
      if (plain_last_q) begin
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
      end else if (significance_last_q) begin
        // Merged words.
        column_q <= start_q;
        below_q  <= below_q - 5'd1;
        counts_q <= below_q < 5'(cfg_q.weight_bits);
        if (start_moves) begin
          start_q      <= sum_with(start_q, WORD_BITS'(cfg_q.plane_words), start_carry);
          start_rest_q <= start_carry ? start_rest_q - rest_behind_q : start_rest_q + cfg_q.plane_rest;
        end
        if (stop_moves) begin
          // Both sums at once: the carry is late.
          stop_q      <= last_carry ? stop_q + WORD_BITS'(cfg_q.plane_words) + 1'b1 : stop_q + WORD_BITS'(cfg_q.plane_words);
          stop_rest_q <= stop_carry ? stop_rest_q - rest_behind_q : stop_rest_q + cfg_q.plane_rest;
        end
      end else if (last_word_q) begin
        // Next pair: one weight plane up, one activation plane down.
        weight_plane_q <= weight_plane_q + 4'd1;
        plane_q        <= plane_q - 4'd1;
        weight_q       <= weight_q + 1'b1 - WEIGHT_BITS'({cfg_q.plane_words, 1'b0});
        column_q       <= column_q + 1'b1 - WORD_BITS'(cfg_q.plane_words) + WORD_BITS'(cfg_q.column_pitch);
      end
    end
    if (rst) begin
      post_weights_o   <= 1'b0;
      released_words_o <= '0;
      filled_q         <= '0;
      any_filled_q     <= 1'b0;
      more_filled_q    <= 1'b0;
      tile_word_q      <= '0;
      spacing_q        <= '0;
      spaced_q         <= 1'b1;
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
    control_0_q.negative <= cfg_q.negative_top && weight_plane_q == weight_top_q;
    // The sum of all codes weighs 2**weight_bits - 1: it enters at as many of the lowest significances.
    control_0_q.count    <= !cfg_q.merged || (last_word_q && counts_q);
    control_0_q.last     <= ending_q;
    first_word_o         <= go && first_of_instr_q;
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
