/// The fill half of the execute stage: im2col on the fly. Takes conv instructions, reads windows of the packed map and
/// writes column words, SLOTS slots of G channels each, to the column buffer, one position tile after the other.
/// A slot is a (tap, channel group) of one plane; up to three taps of a kernel row are placed per cycle.
/// Order of the slots of a run: planes from the top, in a plane the groups, in a group the kernel rows and columns. A
/// plane (depthwise: a group) begins a word, unless the words are merged. The issue stage and the compiler rely on it.
/// The column buffer is a ring of words: a tile is filled once it has room, behind the tile before.
/// The instruction is handed on to issue in the cycle in which take_o is high.
module bs_fill #(
    parameter int D_N          = 16,   // columns, 2..32, a power of two
    parameter int SLOTS        = 9,    // slots per column word, 3..30, a multiple of 3
    parameter int G            = 16,   // channels per slot, 8 or 16
    parameter int PLANE_DEPTH  = 512,  // rows of the plane buffer, 4..65536, a power of two
    parameter int COLUMN_DEPTH = 512,  // words of the column buffer, 8..1024, a power of two
    parameter int COUNT_BITS   = 16    // bits of a column's count, 10..24
) (
    input  logic                                    clk,
    input  logic                                    rst,
    // conv instructions
    input  logic                                    instr_valid_i,
    output logic                                    instr_ready_o,
    input  bs_pkg::conv_t                           instr_i,
    input  logic                                    first_image_i,
    // tokens
    output logic [7:0]                              need_fetch_o,
    output logic [7:0]                              need_write_back_o,
    input  logic                                    enough_fetch_i,
    input  logic                                    enough_write_back_i,
    output logic                                    take_o,
    output logic                                    post_fetch_o,
    output logic                                    post_write_back_o,
    // hand-over to issue
    input  logic                                    issue_ready_i,
    output logic                                    tile_filled_o,
    input  logic [9:0]                              released_words_i,  // words of a tile that is through, else 0
    // plane buffer
    output logic [D_N-1:0][$clog2(PLANE_DEPTH)-1:0] bank_addr_o,
    input  logic [D_N-1:0][G-1:0]                   bank_data_i,
    output logic [D_N-1:0][$clog2(PLANE_DEPTH)-1:0] halo_addr_o,
    input  logic [D_N-1:0][G-1:0]                   halo_data_i,
    // column buffer; a word's count follows the word by three cycles: the bits of the word; of merged words the last one
    // carries the sum of all codes in the window
    output logic [D_N-1:0]                          column_we_o,
    output logic [$clog2(COLUMN_DEPTH)-1:0]         column_addr_o,
    output logic [D_N-1:0][SLOTS*G-1:0]             column_data_o,
    output logic [D_N-1:0]                          count_we_o,
    output logic [$clog2(COLUMN_DEPTH)-1:0]         count_addr_o,
    output logic [D_N-1:0][COUNT_BITS-1:0]          count_data_o,
    // status
    output logic                                    active_o,
    output logic                                    idle_o,
    output logic [7:0]                              layer_o
);
  localparam int TAPS = 3;
  localparam int LANES = D_N + TAPS - 1;
  localparam int HALF_TILE = D_N / 2;
  localparam int SLOT_BITS = $clog2(SLOTS);
  localparam int WORD_BITS = $clog2(COLUMN_DEPTH);
  localparam int COLUMN_BITS = $clog2(D_N);
  localparam int ROW_BITS = $clog2(PLANE_DEPTH);
  localparam int LANE_COUNT_BITS = $clog2(15 * G / 4 + 1);
  localparam int ALIGN = 8;  // operations wait this long for their lanes: coordinates (1) and bs_window (7)

  if (SLOTS % TAPS != 0) begin : gen_bad
    $error("bs_fill: SLOTS must be a multiple of three (instance %m)");
  end

  // ------------------------------------------------------------------ instruction and tiles
  typedef enum logic [1:0] {
    IDLE,   // waiting for an instruction and its tokens
    SETUP,  // products of the instruction's fields
    TILE,   // waiting for room in the column buffer
    RUN     // one operation a cycle
  } state_e;

  state_e state_q;
  bs_pkg::conv_t cfg_q;
  logic [15:0] tiles_left_q;
  logic one_left_q, two_left_q;        // of tiles_left_q
  logic [ROW_BITS-1:0] base_q, group_pitch_q;
  // Words of the column buffer that no tile claims, less those that the next tile will claim, as far as there is one:
  // its sign tells at once whether that tile fits.
  logic [11:0] spare_q, spare;
  logic [WORD_BITS-1:0] tile_word_q;   // first word of the tile
  logic tile_fits, claim, run_last, tile_last, walk_last;

  assign spare = spare_q + 12'(released_words_i);
  assign tile_fits = !spare_q[11];
  assign need_fetch_o = first_image_i ? instr_i.wait_fetch_first : instr_i.wait_fetch;
  assign need_write_back_o = first_image_i ? instr_i.wait_write_back_first : instr_i.wait_write_back;
  assign instr_ready_o = state_q == IDLE && enough_fetch_i && enough_write_back_i && issue_ready_i;
  assign take_o = instr_valid_i && instr_ready_o;
  assign active_o = state_q == RUN;
  assign layer_o = cfg_q.layer;

  always_ff @(posedge clk) begin
    case (state_q)
      IDLE:
      if (take_o) begin
        cfg_q        <= instr_i;
        base_q       <= ROW_BITS'(instr_i.in_base);
        tiles_left_q <= instr_i.tiles;
        state_q      <= SETUP;
      end
      SETUP: begin
        group_pitch_q <= ROW_BITS'(cfg_q.in_pitch * 16'(cfg_q.in_bits));
        one_left_q    <= tiles_left_q == 16'd1;
        two_left_q    <= tiles_left_q == 16'd2;
        state_q       <= TILE;
      end
      TILE: if (tile_fits) state_q <= RUN;
      default:
      if (tile_last) begin
        tile_word_q  <= tile_word_q + WORD_BITS'(cfg_q.column_words);
        tiles_left_q <= tiles_left_q - 16'd1;
        one_left_q   <= two_left_q;
        two_left_q   <= tiles_left_q == 16'd3;
        state_q      <= one_left_q ? IDLE : tile_fits ? RUN : TILE;
      end
    endcase
    spare_q <= claim ? spare - 12'(cfg_q.column_words) : spare;
    if (rst) begin
      state_q     <= IDLE;
      spare_q     <= 12'(COLUMN_DEPTH);
      tile_word_q <= '0;
    end
  end

  // A tile is taken from spare_q once it is the next one: the first of an instruction in SETUP, every other as the one
  // before it begins.
  always_comb begin
    case (state_q)
      SETUP:   claim = 1'b1;
      TILE:    claim = tile_fits && !one_left_q;
      RUN:     claim = tile_fits && tile_last && !one_left_q && !two_left_q;
      default: claim = 1'b0;
    endcase
  end

  // ------------------------------------------------------------------ loop nest of a run
  logic [9:0] walk_x, walk_y;
  logic walk_lower;
  logic [COLUMN_BITS-1:0] walk_column;
  logic [D_N-1:0] walk_columns;

  bs_walker #(
      .D_N(D_N)
  ) u_walker (
      .clk,
      .start_i(state_q == SETUP),  // its first run is there in the cycle after TILE
      .start_x_i(cfg_q.start_x),
      .start_y_i(cfg_q.start_y),
      .pooled_i(cfg_q.pooled),
      .stride_i(cfg_q.stride),
      .out_width_i(cfg_q.out_width),
      .out_height_i(cfg_q.out_height),
      .next_i(state_q == RUN && run_last),
      .again_i(1'b0),
      .x_o(walk_x),
      .y_o(walk_y),
      .lower_o(walk_lower),
      .column_o(walk_column),
      .columns_o(walk_columns),
      .last_o(walk_last)
  );

  logic [3:0] plane_q;
  // Counters run down, the current one included: their ends are seen without a look at the instruction.
  logic [9:0] groups_left_q;
  logic one_group_q, group_last_q;
  logic one_row_q, row_final_q;      // one kernel row in all; the kernel row is the last one of the run
  logic [3:0] ky_left_q, kx_left_q;
  logic [ROW_BITS-1:0] group_row_q;  // rows before the group
  logic [SLOT_BITS-1:0] triple_q;  // the next slot of the word is 3 * triple_q + phase_q
  logic [1:0] phase_q;
  logic [WORD_BITS-1:0] word_q;
  logic fresh_q;               // first operation of a word
  logic run_first_q, plane_first_q;  // first operation of the run, of a plane
  logic [1:0] room;
  logic [TAPS-1:0] placed;  // slots of the triple that the operation fills; with the highest one the triple is full
  logic kx_last, ky_last, group_last, plane_last, word_full, word_cut, flush, next_group_last;

  always_comb begin
    room = ~phase_q;  // 3 - phase_q
    // kx_left_q <= room, written as logic: a comparison becomes a carry chain.
    kx_last = kx_left_q[3:2] == '0 && (phase_q == 2'd0 || (phase_q[0] ? kx_left_q[1:0] != 2'd3 : !kx_left_q[1]));
    placed = TAPS'({!kx_last || (&kx_left_q[1:0]), !kx_last || kx_left_q[1], 1'b1} << phase_q);
    ky_last = ky_left_q == 4'd1;
    group_last = group_last_q;
    plane_last = plane_q == '0;
    word_full = placed[TAPS-1] && triple_q == SLOT_BITS'(SLOTS / TAPS - 1);
    word_cut = kx_last && ky_last && (cfg_q.depthwise || (group_last && (!cfg_q.merged || plane_last)));
    flush = word_full || word_cut;
    run_last = kx_last && row_final_q;
    tile_last = run_last && walk_last;
    next_group_last = group_last ? one_group_q : groups_left_q == 10'd2;
  end

  always_ff @(posedge clk) begin
    one_group_q <= cfg_q.in_groups == 10'd1;
    one_row_q   <= cfg_q.kernel_h == 4'd1 && cfg_q.in_groups == 10'd1 && cfg_q.in_bits == 4'd1;
    if (state_q != RUN || run_last) begin
      group_last_q  <= one_group_q;
      row_final_q   <= one_row_q;
      plane_q       <= cfg_q.in_bits - 4'd1;
      groups_left_q <= cfg_q.in_groups;
      group_row_q   <= '0;
      ky_left_q     <= cfg_q.kernel_h;
      kx_left_q     <= cfg_q.kernel_w;
      triple_q      <= '0;
      phase_q       <= '0;
      word_q        <= '0;
      fresh_q       <= 1'b1;
      run_first_q   <= 1'b1;
      plane_first_q <= 1'b1;
    end else begin
      fresh_q       <= flush;
      run_first_q   <= 1'b0;
      plane_first_q <= kx_last && ky_last && group_last;
      if (flush) begin
        triple_q <= '0;
        word_q   <= word_q + WORD_BITS'(1);
      end else if (placed[TAPS-1]) begin
        triple_q <= triple_q + SLOT_BITS'(1);
      end
      phase_q <= placed[TAPS-1] || word_cut ? 2'd0 : placed[1] ? 2'd2 : 2'd1;
      kx_left_q <= kx_last ? cfg_q.kernel_w : kx_left_q - 4'(room);
      if (kx_last) begin
        ky_left_q   <= ky_last ? cfg_q.kernel_h : ky_left_q - 4'd1;
        row_final_q <= ky_last ? cfg_q.kernel_h == 4'd1 && next_group_last && plane_q == 4'(group_last)
                               : ky_left_q == 4'd2 && group_last && plane_last;
        if (ky_last) begin
          group_last_q  <= next_group_last;
          groups_left_q <= group_last ? cfg_q.in_groups : groups_left_q - 10'd1;
          group_row_q   <= group_last ? '0 : group_row_q + group_pitch_q;
          if (group_last) plane_q <= plane_q - 4'd1;
        end
      end
    end
  end

  // ------------------------------------------------------------------ operations on their way to the lanes
  typedef struct packed {
    logic                       valid;
    logic                       fresh;
    logic                       flush;
    logic                       count_clear;
    logic                       count_shift; // a plane begins: what was counted weighs twice, or 16 times
    logic                       nibbles;
    logic                       last_of_tile;
    logic                       post_fetch;
    logic                       post_write_back;
    logic                       stride_2;
    logic [TAPS-1:0]            taps;      // which of the triple's slots to write
    logic [SLOT_BITS-1:0]       triple;
    logic [WORD_BITS-1:0]       word;
    logic [D_N-1:0]             columns;
    logic [G-1:0]               mask;      // channels that exist
    logic [G-1:0]               pad;       // what lies outside the map
  } op_t;

  op_t op, op_end;
  logic [$bits(op)-1:0] op_q [ALIGN+1];
  logic last_of_instr;

  always_comb begin
    last_of_instr = tile_last && one_left_q;
    op.valid = state_q == RUN;
    op.fresh = fresh_q;
    op.flush = flush;
    op.count_clear = cfg_q.merged ? run_first_q : fresh_q;
    op.count_shift = cfg_q.merged && plane_first_q;
    op.nibbles = cfg_q.nibbles;
    op.last_of_tile = tile_last;
    op.post_fetch = last_of_instr && cfg_q.post_fetch;
    op.post_write_back = last_of_instr && cfg_q.post_write_back;
    op.stride_2 = cfg_q.stride == 4'd2;
    op.taps = placed;
    op.triple = triple_q;
    op.word = tile_word_q + word_q;
    op.columns = walk_columns;
    op.mask = '1;
    op.pad = {G{cfg_q.pad_full[plane_q[2:0]]}};
    if (group_last) begin
      for (int channel = 0; channel < G; channel++) op.mask[channel] = channel < 32'(cfg_q.last_channels);
      op.pad = G'(cfg_q.pad_planes[32'(plane_q[2:0])*bs_pkg::PAD_PLANE_BITS+:bs_pkg::PAD_PLANE_BITS]);
    end
  end

  always_ff @(posedge clk) begin
    op_q[0] <= op;
    for (int stage = 1; stage <= ALIGN; stage++) op_q[stage] <= op_q[stage-1];
    if (rst) for (int stage = 0; stage <= ALIGN; stage++) op_q[stage] <= '0;
  end
  assign op_end = op_q[ALIGN];

  // Coordinates: first the products, then their sums.
  logic signed [11:0] y_scaled_q, x_scaled_q;
  logic signed [11:0] y_step_q, x_step_q, y_q, x_q;
  logic [ROW_BITS-1:0] row_0_q, row_1_q, plane_rows_q;
  logic [9:0] width_0_q, height_0_q, width_1_q, height_1_q;
  logic [3:0] ring_0_q, ring_1_q;
  logic [COLUMN_BITS:0] column_shift;
  logic [3:0] scale_q;
  logic signed [5:0] y_tap_q, x_tap_q;  // of the first tap, and as many beyond as are left there

  always_comb begin
    // Lane 0 of the window serves column 0, or at stride 2 the first column of the half tile.
    column_shift = {1'b0, walk_column};
    if (cfg_q.stride == 4'd2) column_shift = {walk_column & COLUMN_BITS'(HALF_TILE - 1), 1'b0};
  end

  always_ff @(posedge clk) begin
    scale_q      <= cfg_q.pooled ? 4'd2 : cfg_q.stride;
    y_tap_q      <= 6'(cfg_q.kernel_h) - 6'(cfg_q.pad);
    x_tap_q      <= 6'(cfg_q.kernel_w) - 6'(cfg_q.pad);
    y_scaled_q   <= 12'(walk_y) * 12'(scale_q);
    x_scaled_q   <= 12'(walk_x) * 12'(scale_q);
    y_step_q     <= 12'(y_tap_q) - 12'($signed({1'b0, ky_left_q})) + 12'($signed({1'b0, walk_lower}));
    x_step_q     <= 12'(x_tap_q) - 12'($signed({1'b0, kx_left_q})) - 12'($signed({1'b0, phase_q})) - 12'($signed({1'b0, column_shift}));
    row_0_q      <= base_q + group_row_q;
    plane_rows_q <= ROW_BITS'(cfg_q.in_pitch * 16'(plane_q));
    width_0_q    <= cfg_q.in_width;
    height_0_q   <= cfg_q.in_height;
    ring_0_q     <= cfg_q.ring;
    y_q          <= y_scaled_q + y_step_q;
    x_q          <= x_scaled_q + x_step_q;
    row_1_q      <= row_0_q + plane_rows_q;
    width_1_q    <= width_0_q;
    height_1_q   <= height_0_q;
    ring_1_q     <= ring_0_q;
  end

  logic [LANES-1:0][G-1:0] lane, pixel;
  logic [LANES-1:0] lane_valid;

  bs_window #(
      .D_N(D_N),
      .BITS(G),
      .TAPS(TAPS),
      .ADDR_BITS(ROW_BITS)
  ) u_window (
      .clk,
      .y_i(y_q),
      .x_i(x_q),
      .row_i(row_1_q),
      .ring_i(ring_1_q),
      .width_i(width_1_q),
      .height_i(height_1_q),
      .bank_addr_o,
      .bank_data_i,
      .halo_addr_o,
      .halo_data_i,
      .lane_o(lane),
      .lane_valid_o(lane_valid)
  );

  // ------------------------------------------------------------------ words and their counts
  logic [LANES-1:0][G/4-1:0][3:0] nibble_q;  // what each nibble of a lane counts
  logic [LANES-1:0][LANE_COUNT_BITS-1:0] lane_count_q;
  logic [D_N-1:0][SLOTS-1:0][G-1:0] word_data_q;
  logic [D_N-1:0][COUNT_BITS-1:0] count_q;
  op_t done_q;    // the operation that word_data_q ends with
  op_t weighed_q; // the operation that lane_count_q belongs to
  op_t summed_q;  // the operation that taken_q belongs to
  op_t counted_q; // the operation that count_q ends with

  always_comb begin
    for (int i = 0; i < LANES; i++) pixel[i] = lane_valid[i] ? lane[i] & op_end.mask : op_end.pad;
  end

  logic [D_N-1:0][TAPS-1:0][LANE_COUNT_BITS-1:0] tap_count;
  logic [D_N-1:0][LANE_COUNT_BITS+1:0] taken, taken_q;  // what an operation added to each column's word
  logic [D_N-1:0][COUNT_BITS-1:0] earlier;              // the count it is added to

  // Of a nibble: its value, or how many bits it has.
  function automatic logic [3:0] weigh(input logic [3:0] bits, input logic nibbles);
    weigh = nibbles ? bits : 4'($countones(bits));
  endfunction

  always_comb begin
    for (int column = 0; column < D_N; column++) begin
      earlier[column] = count_q[column];
      if (summed_q.count_shift) earlier[column] = summed_q.nibbles ? count_q[column] << 4 : count_q[column] << 1;
      if (summed_q.count_clear) earlier[column] = '0;
      for (int tap = 0; tap < TAPS; tap++) begin
        tap_count[column][tap] = weighed_q.stride_2 ? lane_count_q[2*(column%HALF_TILE)+tap] : lane_count_q[column+tap];
        if (!weighed_q.taps[tap]) tap_count[column][tap] = '0;
      end
      // One sum of three, not two one behind the other.
      taken[column] = (LANE_COUNT_BITS + 2)'(tap_count[column][0]) + (LANE_COUNT_BITS + 2)'(tap_count[column][1]) +
                      (LANE_COUNT_BITS + 2)'(tap_count[column][2]);
    end
  end

  always_ff @(posedge clk) begin
    done_q    <= op_end;
    weighed_q <= done_q;
    summed_q  <= weighed_q;
    counted_q <= summed_q;
    taken_q   <= taken;
    for (int i = 0; i < LANES; i++) begin
      for (int nibble = 0; nibble < G / 4; nibble++) nibble_q[i][nibble] <= weigh(pixel[i][4*nibble+:4], op_end.nibbles);
      // In pairs: two adders deep.
      lane_count_q[i] <= LANE_COUNT_BITS'(5'(nibble_q[i][0]) + 5'(nibble_q[i][1])) +
                         (G == 16 ? LANE_COUNT_BITS'(5'(nibble_q[i][G/4-2]) + 5'(nibble_q[i][G/4-1])) : '0);
    end
    for (int column = 0; column < D_N; column++) begin
      for (int slot = 0; slot < SLOTS; slot++) begin
        if (op_end.taps[slot%TAPS] && op_end.triple == SLOT_BITS'(slot / TAPS)) begin
          word_data_q[column][slot] <= op_end.stride_2 ? pixel[2*(column%HALF_TILE)+slot%TAPS]
                                                       : pixel[column+slot%TAPS];
        end else if (op_end.fresh) begin
          word_data_q[column][slot] <= '0;
        end
      end
      count_q[column] <= earlier[column] + COUNT_BITS'(taken_q[column]);
    end
    if (rst) begin
      done_q    <= '0;
      weighed_q <= '0;
      summed_q  <= '0;
      counted_q <= '0;
    end
  end

  assign column_we_o = done_q.valid && done_q.flush ? done_q.columns : '0;
  assign column_addr_o = done_q.word;
  assign column_data_o = word_data_q;
  assign count_we_o = counted_q.valid && counted_q.flush ? counted_q.columns : '0;
  assign count_addr_o = counted_q.word;
  assign count_data_o = count_q;
  assign tile_filled_o = counted_q.valid && counted_q.last_of_tile;
  assign post_fetch_o = counted_q.valid && counted_q.post_fetch;
  assign post_write_back_o = counted_q.valid && counted_q.post_write_back;

  logic in_flight;
  always_comb begin
    in_flight = done_q.valid || weighed_q.valid || summed_q.valid || counted_q.valid;
    for (int stage = 0; stage <= ALIGN; stage++) in_flight = in_flight || op_q[stage][$bits(op)-1];
  end
  assign idle_o = state_q == IDLE && !in_flight;

  // Fields of the instruction that belong to issue.
  logic unused_fields;
  assign unused_fields = ^{cfg_q, counted_q};
endmodule
