/// Turns codes into bit planes: collects the beats of a row tile (D_M channels, D_N positions), then writes its planes,
/// one row of all banks per cycle. Row tiles must come at least plane_bits cycles apart.
module bs_packer #(
    parameter int D_M       = 8,   // channels of a row tile, a multiple of LANE_ROWS
    parameter int D_N       = 16,  // positions of a tile, 2..32
    parameter int LANE_ROWS = 2,   // channels per beat, 1..8
    parameter int ROWS_G    = 2,   // row tiles per channel group, 1..8
    parameter int ROW_BITS  = 9    // bits of a plane buffer row address, 1..16
) (
    input  logic                                    clk,
    input  logic                                    rst,
    input  logic                                    valid_i,
    input  logic                                    last_i,        // last beat of the row tile; the rest belongs to it
    input  logic                                    store_i,
    input  logic                                    flip_i,        // invert the top plane
    input  logic [3:0]                              bits_i,        // planes to write, 1 to 8
    input  logic [ROW_BITS-1:0]                     row_i,         // row of the lowest plane
    input  logic [ROW_BITS-1:0]                     pitch_i,       // rows from plane to plane
    input  logic [$clog2(ROWS_G+1)-1:0]             chunk_i,       // row tile within its channel group
    input  logic                                    done_i,        // pulse done_o after this row tile
    input  logic [LANE_ROWS-1:0][D_N-1:0][7:0]      code_i,
    output logic [ROWS_G-1:0]                       we_o,
    output logic [ROW_BITS-1:0]                     row_o,
    output logic [D_N-1:0][D_M-1:0]                 data_o,        // for the chunk that we_o names
    output logic                                    done_o,
    output logic                                    busy_o
);
  logic [D_M-1:0][D_N-1:0][7:0] beats_q, held_q;
  logic full_q, store_q, flip_q, done_q;
  logic [3:0] bits_q, plane_q;
  logic [ROW_BITS-1:0] row_q, pitch_q, plane_row_q;
  logic [$clog2(ROWS_G+1)-1:0] chunk_q;
  logic flip_held_q, done_held_q, store_held_q, writing_q;
  logic [3:0] bits_held_q;
  logic [ROW_BITS-1:0] pitch_held_q;
  logic [$clog2(ROWS_G+1)-1:0] chunk_held_q;
  logic top, ending;

  assign top = plane_q == bits_held_q - 4'd1;
  assign ending = writing_q && top;
  assign busy_o = full_q || writing_q || done_o || we_o != '0;

  always_ff @(posedge clk) begin
    if (valid_i) begin
      for (int row = 0; row < D_M; row++) begin
        beats_q[row] <= row < D_M - LANE_ROWS ? beats_q[(row+LANE_ROWS)%D_M] : code_i[(row+LANE_ROWS)%D_M%LANE_ROWS];
      end
      store_q <= store_i;
      flip_q  <= flip_i;
      bits_q  <= bits_i;
      row_q   <= row_i;
      pitch_q <= pitch_i;
      chunk_q <= chunk_i;
      done_q  <= done_i;
    end
    full_q <= valid_i && last_i;

    if (full_q) begin
      held_q       <= beats_q;
      plane_q      <= '0;
      plane_row_q  <= row_q;
      bits_held_q  <= store_q ? bits_q : 4'd1;  // what is not stored takes a cycle, so that no pulse is lost
      store_held_q <= store_q;
      flip_held_q  <= flip_q;
      pitch_held_q <= pitch_q;
      chunk_held_q <= chunk_q;
      done_held_q  <= done_q;
      writing_q    <= 1'b1;
    end else if (writing_q) begin
      plane_q     <= plane_q + 4'd1;
      plane_row_q <= plane_row_q + pitch_held_q;
      if (top) writing_q <= 1'b0;
    end

    for (int chunk = 0; chunk < ROWS_G; chunk++) we_o[chunk] <= writing_q && store_held_q && 32'(chunk_held_q) == chunk;
    row_o <= plane_row_q;
    for (int position = 0; position < D_N; position++) begin
      for (int channel = 0; channel < D_M; channel++) begin
        data_o[position][channel] <= held_q[channel][position][plane_q[2:0]] ^ (flip_held_q && top);
      end
    end
    done_o <= ending && done_held_q;
    if (rst) begin
      full_q    <= 1'b0;
      writing_q <= 1'b0;
      we_o      <= '0;
      done_o    <= 1'b0;
    end
  end
endmodule
