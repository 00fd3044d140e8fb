/// Walks the output positions of a band in runs: stretches of columns of one position tile that lie in one output
/// row and that one window read can serve. A run holds at most D_N columns at stride 1, D_N/2 at stride 2 (aligned to
/// half a tile), one at other strides. next_i moves on. With pooled_i a tile is D_N/4 windows of 2x2 positions, and
/// start, width, height, x and y count windows: their upper positions are the tile's lower half of columns, their lower
/// positions (lower_o) the upper half.
/// Two runs are held, so that no output has logic before it: the one put out and the one ahead of it.
/// again_i belongs to the run ahead: if it is the last one of its tile, the tile is walked once more behind it.
module bs_walker #(
    parameter int D_N = 16  // columns of a position tile, 2..32, a power of two
) (
    input  logic                   clk,
    input  logic                   start_i,       // load the band's start; its first run is there two cycles later
    input  logic [9:0]             start_x_i,     // all fields hold from start_i on
    input  logic [9:0]             start_y_i,
    input  logic                   pooled_i,      // at stride 1 only
    input  logic [3:0]             stride_i,
    input  logic [9:0]             out_width_i,
    input  logic [9:0]             out_height_i,
    input  logic                   next_i,
    input  logic                   again_i,
    output logic [9:0]             x_o,           // output position of the run's first column
    output logic [9:0]             y_o,
    output logic                   lower_o,
    output logic [$clog2(D_N)-1:0] column_o,      // first column of the run
    output logic [D_N-1:0]         columns_o,     // columns of the run, one bit each
    output logic                   last_o         // last run of the tile
);
  localparam int COLUMN_BITS = $clog2(D_N);
  localparam logic [COLUMN_BITS-1:0] LOW = COLUMN_BITS'(D_N / 2 - 1);  // columns within half a tile

  // The run ahead. All counts are one less than what they count, so that a borrow tells when there is no more.
  logic [COLUMN_BITS-1:0] behind_q;              // columns of the tile from its first one on
  logic [9:0] left_q, down_q;                    // of the output row, of the rows
  logic [9:0] tile_left_q, tile_down_q, row_q;   // of the tile's first run; of a whole row
  logic low_q, top_q, start_q;                   // a run may reach to the end of its half tile, beyond that

  logic [COLUMN_BITS-1:0] span, room, taken, rest;
  logic [9:0] after, next_left, next_down, x, y;
  logic row_done, map_done, upper, last_row, turn, ahead_last, again, step;

  assign step = next_i || start_q;
  assign x = out_width_i + ~(start_i ? start_x_i : left_q);
  assign y = out_height_i + ~(start_i ? start_y_i : down_q);

  always_comb begin
    span = (low_q ? LOW : '0) | (top_q ? ~LOW : '0);
    room = behind_q & span;
    if (pooled_i) room = room >> 1;
    after = left_q - 10'(room) - 10'd1;
    // left_q <= room, written as logic: a comparison becomes a carry chain.
    row_done = left_q[9:COLUMN_BITS] == '0;
    for (int i = 0; i < COLUMN_BITS; i++) begin
      if (left_q[9:COLUMN_BITS] == '0 && left_q[i] != room[i]) row_done = room[i];
    end
    taken = pooled_i ? COLUMN_BITS'({left_q, 1'b1}) : COLUMN_BITS'(left_q);
    rest = row_done ? behind_q - taken : behind_q & ~span;  // columns behind the run
    last_row = down_q == '0;
    map_done = row_done && last_row;
    upper = pooled_i && behind_q[COLUMN_BITS-1];
    // What row_done decides is ready before it: it comes late.
    turn = upper && (row_done ? last_row || ((behind_q ^ taken) & LOW) == '0 : (behind_q & ~span & LOW) == '0);
    ahead_last = !upper && (row_done ? last_row || behind_q == taken : (behind_q & ~span) == '0);
    again = turn || (ahead_last && again_i);
    next_left = again ? tile_left_q : row_done ? row_q : after;
    next_down = again ? tile_down_q : row_done ? down_q - 10'd1 : down_q;
  end

  always_ff @(posedge clk) begin
    start_q <= start_i;
    row_q   <= out_width_i - 10'd1;
    low_q   <= stride_i == 4'd1 || stride_i == 4'd2;
    top_q   <= stride_i == 4'd1 && !pooled_i;
    if (start_i) begin
      behind_q    <= '1;
      left_q      <= x;
      down_q      <= y;
      tile_left_q <= x;
      tile_down_q <= y;
    end else if (step) begin
      behind_q <= map_done ? (upper ? LOW : '1) : rest - 1'b1;
      left_q   <= next_left;
      down_q   <= next_down;
      if (ahead_last) begin
        tile_left_q <= next_left;
        tile_down_q <= next_down;
      end
    end
  end

  // The run that is put out.
  logic [COLUMN_BITS-1:0] end_q;  // its last column

  always_ff @(posedge clk) begin
    if (step) begin
      x_o      <= x;
      y_o      <= y;
      lower_o  <= pooled_i && !upper;
      column_o <= ~behind_q;
      end_q    <= ~rest;
      last_o   <= ahead_last;
    end
  end

  always_comb begin
    for (int column = 0; column < D_N; column++) begin
      columns_o[column] = column >= 32'(column_o) && column <= 32'(end_q);
    end
  end
endmodule
