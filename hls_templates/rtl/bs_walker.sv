/// Walks the output positions of a band in runs: stretches of columns of one position tile that lie in one output
/// row and that one window read can serve. A run holds at most D_N columns at stride 1, D_N/2 at stride 2 (aligned to
/// half a tile), one at other strides. next_i moves on; at the last run of a tile again_i repeats the tile.
/// With pooled_i a tile is D_N/4 windows of 2x2 positions, and start, width and height count windows: their upper
/// positions are the tile's lower half of columns, their lower positions the upper half.
module bs_walker #(
    parameter int D_N = 16  // columns of a position tile, 2..32, a power of two
) (
    input  logic                   clk,
    input  logic                   start_i,       // load the band's start
    input  logic [9:0]             start_x_i,
    input  logic [9:0]             start_y_i,
    input  logic                   pooled_i,      // at stride 1 only
    input  logic [3:0]             stride_i,
    input  logic [9:0]             out_width_i,
    input  logic [9:0]             out_height_i,
    input  logic                   next_i,
    input  logic                   again_i,
    output logic [9:0]             x_o,           // output position of the run's first column
    output logic [9:0]             y_o,
    output logic [$clog2(D_N)-1:0] column_o,      // first column of the run
    output logic [D_N-1:0]         columns_o,     // columns of the run, one bit each
    output logic                   last_o         // last run of the tile
);
  localparam int COLUMN_BITS = $clog2(D_N);

  logic [9:0] x_q, y_q, tile_x_q, tile_y_q, row_left;
  logic [COLUMN_BITS:0] room, half_room, count, column_end;
  logic row_done, map_done, half_done, lower_q;
  logic [9:0] next_x, next_y;

  assign x_o = pooled_i ? {x_q[8:0], 1'b0} : x_q;
  assign y_o = pooled_i ? {y_q[8:0], lower_q} : y_q;

  always_comb begin
    half_room = (COLUMN_BITS + 1)'(D_N / 2) - ({1'b0, column_o} & (COLUMN_BITS + 1)'(D_N / 2 - 1));
    case (stride_i)
      4'd1: room = pooled_i ? half_room : (COLUMN_BITS + 1)'(D_N) - {1'b0, column_o};
      4'd2: room = half_room;
      default: room = (COLUMN_BITS + 1)'(1);
    endcase
    row_left = pooled_i ? (out_width_i - x_q) << 1 : out_width_i - x_q;
    row_done = row_left <= 10'(room);
    count = row_done ? row_left[COLUMN_BITS:0] : room;
    column_end = {1'b0, column_o} + count;
    next_x = row_done ? '0 : x_q + (pooled_i ? 10'(count[COLUMN_BITS:1]) : 10'(count));
    next_y = y_q + 10'(row_done);
    map_done = next_y >= out_height_i;
    half_done = pooled_i && !lower_q && (column_end[COLUMN_BITS-1] || map_done);
    last_o = !half_done && (column_end[COLUMN_BITS] || map_done);
    for (int column = 0; column < D_N; column++) begin
      columns_o[column] = column >= 32'(column_o) && column < 32'(column_end);
    end
  end

  always_ff @(posedge clk) begin
    if (start_i) begin
      x_q      <= start_x_i;
      y_q      <= start_y_i;
      lower_q  <= 1'b0;
      tile_x_q <= start_x_i;
      tile_y_q <= start_y_i;
      column_o <= '0;
    end else if (next_i) begin
      if (half_done || (last_o && again_i)) begin
        x_q      <= tile_x_q;
        y_q      <= tile_y_q;
        lower_q  <= half_done;
        column_o <= half_done ? COLUMN_BITS'(D_N / 2) : '0;
      end else begin
        x_q <= next_x;
        y_q <= next_y;
        if (last_o) lower_q <= 1'b0;
        if (last_o) begin
          tile_x_q <= next_x;
          tile_y_q <= next_y;
          column_o <= '0;
        end else begin
          column_o <= column_end[COLUMN_BITS-1:0];
        end
      end
    end
  end
endmodule
