/// Where write-back's beats are: for each its rows in the buffers, its place in row tile, tile and map, and what is last
/// with it. Beats come from the array (two cycles after start_i, without gaps), from the sums (made here) or from pool.
/// The running instruction is work_i, the one behind it next_i; load_o moves it up with the last beat of the running one.
module bs_beats #(
    parameter int D_N            = 16,  // positions of a tile, 2..32, a power of two
    parameter int BEATS          = 4,   // of a row tile, 1..32
    parameter int LANE_ROWS      = 2,   // channels per beat, 1..8, a power of two
    parameter int ROWS_G         = 2,   // row tiles per channel group, 1..8
    parameter int BYTE_ROW_BITS  = 9,   // bits of a byte buffer row address, 1..16
    parameter int PLANE_ROW_BITS = 9,   // bits of a plane buffer row address, 1..16
    parameter int PARAM_BITS     = 9,   // bits of a parameter buffer row address, 1..16
    parameter int GROUP_BITS     = 8    // bits of a group of sums, 1..10
) (
    input  logic                      clk,
    input  logic                      rst,
    // instructions
    input  logic                      next_valid_i,
    input  bs_pkg::work_t             next_i,
    input  logic                      work_valid_i,
    input  bs_pkg::work_t             work_i,
    output logic                      load_o,       // next_i becomes work_i
    output logic                      done_o,       // the running instruction's last beat
    // beats
    input  logic                      start_i,      // 2 cycles before the first beat of a row tile
    input  logic                      pool_fire_i,  // a beat of pool
    output logic                      conv_fire_o,  // a beat of the array or of sums
    output logic                      fire_o,       // a beat of any
    output bs_pkg::beat_t             beat_o,
    output logic [BYTE_ROW_BITS-1:0]  skip_row_o,
    output logic [PARAM_BITS-1:0]     param_row_o,
    output logic [GROUP_BITS-1:0]     group_o,
    output logic                      first_sum_o,  // first beat of an instruction on sums
    output logic                      open_o        // in a row tile of the array
);
  localparam int BEAT_BITS = $clog2(BEATS + 1);
  localparam int CHUNK_BITS = $clog2(ROWS_G + 1);

  if (D_N > 32 || (1 << $clog2(D_N)) != D_N || BYTE_ROW_BITS > 16 || PLANE_ROW_BITS > 16 || PARAM_BITS > 16 ||
      GROUP_BITS > 10) begin : gen_bad
    $error("bs_beats: D_N must be a power of two up to 32, row addresses have at most 16 bits, groups 10 (instance %m)");
  end

  logic [BEAT_BITS-1:0] beats_left_q, beat_q;
  logic [9:0] rows_left_q;          // row tiles after this one
  logic [15:0] tiles_left_q;        // tiles after this one
  logic [1:0] tile_q;
  // Where this beat is, found out with the beat before: what begins an instruction hangs on its predecessor's last beat.
  logic beats_open_q, last_q, tile_ends_q, row_tile_last_q, row_first_q, row_last_q, tile_first_q, tile_last_q;
  logic row_tile_last, row_last, tile_last;  // of the next beat
  logic [CHUNK_BITS-1:0] chunk_q;
  logic [PARAM_BITS-1:0] param_q;
  logic [BYTE_ROW_BITS-1:0] skip_row_q, byte_row_q, tile_skip_q, tile_byte_q;
  logic [PLANE_ROW_BITS-1:0] plane_row_q, tile_plane_q, group_pitch_q;
  logic fire, replaces, advance, sums_fire;
  logic [GROUP_BITS-1:0] group_q;
  logic [9:0] skip_zero_left_q, skip_left_q;  // groups from this one on before the skip's, and of the skip
  logic skip_zero_q, skip_here_q;  // skip_zero_left_q is not zero; this group is one of the skip's
  logic sums_run_q, spaced_q;
  logic [3:0] spacing_q;           // cycles until the next row tile of sums, for the packer to keep up; spaced_q: none
  // The subsampled map: tiles left in the map row, this one included; whether it is the row's last one; whether the row is
  // dropped; half rows stored before.
  logic [5:0] map_left_q;
  logic map_last_q, map_row_odd_q, half_q;

  // What the next instruction brings replaces what the next beat does, if there is a beat: chosen before it is known.
  assign replaces = next_valid_i && (!work_valid_i || last_q);
  assign advance = fire || (next_valid_i && !work_valid_i);
  assign load_o = advance && replaces;
  assign conv_fire_o = beats_open_q || sums_fire;
  assign sums_fire = sums_run_q && spaced_q;
  assign fire = conv_fire_o || pool_fire_i;
  assign fire_o = fire;
  assign done_o = fire && last_q;
  assign open_o = beats_open_q;
  assign skip_row_o = skip_row_q;
  assign param_row_o = param_q;
  assign group_o = group_q;

  always_comb begin
    beat_o = work_i.beat;
    beat_o.valid = 1'b1;
    beat_o.row_tile_last = row_tile_last_q;
    beat_o.instr_last = last_q;
    beat_o.byte_row = 16'(byte_row_q);
    beat_o.plane_row = 16'(plane_row_q);
    beat_o.chunk = 4'(chunk_q);
    beat_o.post = work_i.beat.post && last_q;
    beat_o.skip = work_i.beat.skip && skip_here_q;
    beat_o.group = 10'(group_q);
    beat_o.sums_first = tile_first_q;
    beat_o.sums_columns = tile_last_q ? work_i.beat.sums_columns : 6'(D_N);
    beat_o.quarter = tile_q;
    beat_o.halves = 2'b11;
    if (work_i.beat.subsample) beat_o.halves = map_row_odd_q ? 2'b00 : half_q ? 2'b10 : 2'b01;
  end

  always_comb begin
    row_tile_last = BEATS == 1 || (!row_tile_last_q && beat_q == BEAT_BITS'(BEATS - 2));
    row_last = row_last_q;
    tile_last = tile_last_q;
    if (row_tile_last_q) row_last = row_last_q ? work_i.row_tiles == 10'd1 : rows_left_q == 10'd1;
    if (tile_ends_q) tile_last = tiles_left_q == 16'd1;
    if (replaces) begin
      row_tile_last = BEATS == 1;
      row_last = next_i.row_tiles == 10'd1;
      tile_last = next_i.tiles == 16'd1;
    end
  end

  always_ff @(posedge clk) begin
    if (advance) begin
      row_tile_last_q <= row_tile_last;
      row_last_q      <= row_last;
      tile_last_q     <= tile_last;
      tile_ends_q     <= row_tile_last && row_last;
      last_q          <= row_tile_last && row_last && tile_last;
    end
    if (start_i) beats_left_q <= BEAT_BITS'(BEATS);
    else if (beats_open_q) beats_left_q <= beats_left_q - 1'b1;
    beats_open_q <= start_i || beats_left_q > BEAT_BITS'(1);

    first_sum_o <= sums_fire && beat_q == '0 && row_first_q;
    if (advance) begin
      if (replaces) sums_run_q <= next_i.beat.from_sums;
      else if (last_q) sums_run_q <= 1'b0;
    end
    if (sums_fire && row_tile_last_q) begin
      spacing_q <= work_i.beat.plane_bits;
      spaced_q  <= work_i.beat.plane_bits == '0;
    end else if (!spaced_q) begin
      spacing_q <= spacing_q - 4'd1;
      spaced_q  <= spacing_q == 4'd1;
    end

    if (advance) begin
      if (replaces) begin
        beat_q          <= '0;
        rows_left_q     <= next_i.row_tiles - 10'd1;
        tiles_left_q    <= next_i.tiles - 16'd1;
        row_first_q     <= 1'b1;
        tile_first_q    <= next_i.start_tile == '0;
        tile_q          <= '0;
        chunk_q         <= '0;
        group_q         <= GROUP_BITS'(next_i.sum_group);
        skip_zero_left_q <= next_i.skip_zero_groups;
        skip_zero_q     <= next_i.skip_zero_groups != '0;
        skip_left_q     <= next_i.skip_groups;
        skip_here_q     <= next_i.skip_zero_groups == '0 && next_i.skip_groups != '0;
        map_left_q      <= next_i.row_position_tiles;
        map_last_q      <= next_i.row_position_tiles == 6'd1;
        map_row_odd_q   <= 1'b0;
        half_q          <= 1'b0;
        spacing_q       <= '0;
        spaced_q        <= 1'b1;
        param_q         <= PARAM_BITS'(next_i.param_base / 16'(LANE_ROWS));
        skip_row_q      <= BYTE_ROW_BITS'(next_i.skip_base + next_i.start_tile);
        tile_skip_q     <= BYTE_ROW_BITS'(next_i.skip_base + next_i.start_tile);
        byte_row_q      <= BYTE_ROW_BITS'(next_i.byte_base + next_start_byte);
        tile_byte_q     <= BYTE_ROW_BITS'(next_i.byte_base + next_start_byte);
        plane_row_q     <= PLANE_ROW_BITS'(next_i.plane_base + next_start_plane);
        tile_plane_q    <= PLANE_ROW_BITS'(next_i.plane_base + next_start_plane);
        group_pitch_q   <= PLANE_ROW_BITS'(next_i.beat.plane_pitch) * PLANE_ROW_BITS'(next_i.beat.plane_bits);
      end else begin
        beat_q          <= beat_q + 1'b1;
        param_q         <= param_q + 1'b1;
        group_q         <= group_q + 1'b1;
        if (skip_zero_q) begin
          skip_zero_left_q <= skip_zero_left_q - 10'd1;
          skip_zero_q      <= skip_zero_left_q != 10'd1;
          skip_here_q      <= skip_zero_left_q == 10'd1 && skip_left_q != '0;
        end else if (skip_here_q) begin
          skip_left_q <= skip_left_q - 10'd1;
          skip_here_q <= skip_left_q != 10'd1;
        end
        if (skip_here_q) skip_row_q <= skip_row_q + BYTE_ROW_BITS'(work_i.skip_pitch);
        byte_row_q <= byte_row_q + BYTE_ROW_BITS'(work_i.byte_pitch);
        if (row_tile_last_q) begin
          beat_q      <= '0;
          rows_left_q <= rows_left_q - 10'd1;
          row_first_q <= 1'b0;
          if (32'(chunk_q) == ROWS_G - 1) begin
            chunk_q     <= '0;
            plane_row_q <= work_i.beat.pooled ? plane_row_q - group_pitch_q : plane_row_q + group_pitch_q;
          end else begin
            chunk_q <= chunk_q + 1'b1;
          end
        end
        if (tile_ends_q) begin
          rows_left_q  <= work_i.row_tiles - 10'd1;
          row_first_q  <= 1'b1;
          tiles_left_q <= tiles_left_q - 16'd1;
          tile_first_q <= 1'b0;
          tile_q       <= tile_q + 2'd1;
          chunk_q      <= '0;
          param_q      <= PARAM_BITS'(work_i.param_base / 16'(LANE_ROWS));
          group_q      <= GROUP_BITS'(work_i.sum_group);
          skip_zero_left_q <= work_i.skip_zero_groups;
          skip_zero_q  <= work_i.skip_zero_groups != '0;
          skip_left_q  <= work_i.skip_groups;
          skip_here_q  <= work_i.skip_zero_groups == '0 && work_i.skip_groups != '0;
          skip_row_q   <= tile_skip_q + 1'b1;
          tile_skip_q  <= tile_skip_q + 1'b1;
          byte_row_q   <= tile_byte_q + BYTE_ROW_BITS'(byte_row_full);
          tile_byte_q  <= tile_byte_q + BYTE_ROW_BITS'(byte_row_full);
          if (!map_row_odd_q) half_q <= !half_q;
          map_left_q <= map_last_q ? work_i.row_position_tiles : map_left_q - 6'd1;
          map_last_q <= map_last_q ? work_i.row_position_tiles == 6'd1 : map_left_q == 6'd2;
          if (map_last_q) map_row_odd_q <= !map_row_odd_q;
          plane_row_q  <= tile_plane_q + PLANE_ROW_BITS'(plane_row_full);
          tile_plane_q <= tile_plane_q + PLANE_ROW_BITS'(plane_row_full);
        end
      end
    end
    if (rst) begin
      beats_left_q <= '0;
      beats_open_q <= 1'b0;
      sums_run_q   <= 1'b0;
      spaced_q     <= 1'b1;
    end
  end

  // A band of a subsampled map begins with a kept row and the lower half, of a pooled one with the lowest quarter: a
  // quarter of the tiles before it are rows.
  logic [15:0] next_start_byte, next_start_plane;
  logic byte_row_full, plane_row_full;

  assign next_start_plane = next_i.beat.pooled ? next_i.start_tile >> 2 : next_i.start_tile;
  assign plane_row_full = !work_i.beat.pooled || tile_q == 2'd3;

  assign next_start_byte = next_i.beat.subsample ? next_i.start_tile >> 2 : next_i.start_tile;
  assign byte_row_full = !work_i.beat.subsample || (!map_row_odd_q && half_q);

  logic unused_fields;
  assign unused_fields = ^{next_i, work_i};
endmodule
