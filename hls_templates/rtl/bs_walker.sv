/// Walks the output positions of a band in runs: stretches of columns of one position tile that lie in one output
/// row and that one window read can serve. A run holds at most D_N columns at stride 1, D_N/2 at stride 2 (aligned to
/// half a tile), one at other strides. next_i moves on; at the last run of a tile again_i repeats the tile.
module bs_walker #(
    parameter int D_N = 16  // columns of a position tile, 2..32, a power of two
) (
    input  logic                   clk,
    input  logic                   start_i,       // load the band's start
    input  logic [9:0]             start_x_i,
    input  logic [9:0]             start_y_i,
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

  logic [9:0] tile_x_q, tile_y_q, row_left;
  logic [COLUMN_BITS:0] room, count, column_end;
  logic row_done, map_done;
  logic [9:0] next_x, next_y;

  always_comb begin
    case (stride_i)
      4'd1: room = (COLUMN_BITS + 1)'(D_N) - {1'b0, column_o};
      4'd2: room = (COLUMN_BITS + 1)'(D_N / 2) - ({1'b0, column_o} & (COLUMN_BITS + 1)'(D_N / 2 - 1));
      default: room = (COLUMN_BITS + 1)'(1);
    endcase
    row_left = out_width_i - x_o;
    row_done = row_left <= 10'(room);
    count = row_done ? row_left[COLUMN_BITS:0] : room;
    column_end = {1'b0, column_o} + count;
    next_x = row_done ? '0 : x_o + 10'(count);
    next_y = y_o + 10'(row_done);
    map_done = next_y >= out_height_i;
    last_o = column_end[COLUMN_BITS] || map_done;
    for (int column = 0; column < D_N; column++) begin
      columns_o[column] = column >= 32'(column_o) && column < 32'(column_end);
    end
  end

  always_ff @(posedge clk) begin
    if (start_i) begin
      x_o      <= start_x_i;
      y_o      <= start_y_i;
      tile_x_q <= start_x_i;
      tile_y_q <= start_y_i;
      column_o <= '0;
    end else if (next_i) begin
      if (last_o && again_i) begin
        x_o      <= tile_x_q;
        y_o      <= tile_y_q;
        column_o <= '0;
      end else begin
        x_o <= next_x;
        y_o <= next_y;
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
