/// Turns codes into bit planes: collects the beats of a row tile (D_M channels, D_N positions), then writes its planes,
/// one row of all banks per cycle. Row tiles must come at least plane_bits cycles apart.
/// Pooled, positions 2i, 2i+1 and D_N/2 beyond them are a window: its maximum is found bit by bit while the planes are
/// written from the top, and goes to every position of i modulo D_N/4.
module bs_packer #(
    parameter int D_M       = 8,   // channels of a row tile, a multiple of LANE_ROWS
    parameter int D_N       = 16,  // positions of a tile, 4..32, a multiple of 4
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
    input  logic                                    pooled_i,
    input  logic [1:0]                              quarter_i,     // pooled: part of the banks to write
    input  logic [3:0]                              bits_i,        // planes to write, 1 to 8
    input  logic [ROW_BITS-1:0]                     row_i,         // row of the lowest plane; pooled: of the top plane
    input  logic [ROW_BITS-1:0]                     pitch_i,       // rows from plane to plane
    input  logic [$clog2(ROWS_G+1)-1:0]             chunk_i,       // row tile within its channel group
    input  logic                                    done_i,        // pulse done_o after this row tile
    input  logic [LANE_ROWS-1:0][D_N-1:0][7:0]      code_i,
    output logic                                    write_o,       // a plane leaves
    output logic [ROWS_G-1:0]                       we_o,          // for its chunk
    output logic [3:0]                              quarters_o,    // parts of the banks to write
    output logic [ROW_BITS-1:0]                     row_o,
    output logic [D_N-1:0][D_M-1:0]                 data_o,        // for the chunk that we_o names
    output logic                                    done_o,
    output logic                                    busy_o         // until the last plane leaves, a cycle before it is written
);
  logic [D_M-1:0][D_N-1:0][7:0] beats_q, held_q;
  localparam int WINDOWS = D_N / 4;

  logic full_q, store_q, flip_q, done_q, pooled_q;
  logic [1:0] quarter_q, quarter_held_q;
  logic [3:0] bits_q, plane_q;
  logic [ROW_BITS-1:0] row_q, pitch_q, plane_row_q;
  logic [$clog2(ROWS_G+1)-1:0] chunk_q;
  logic flip_held_q, done_held_q, store_held_q, pooled_held_q, writing_q;
  logic [3:0] bits_held_q;
  logic [ROW_BITS-1:0] pitch_held_q;
  logic [$clog2(ROWS_G+1)-1:0] chunk_held_q;
  logic first, ending;
  logic [2:0] bit_q;        // of the codes, in the plane at hand
  logic invert_q;           // it is the top one, and that is to be inverted
  logic [3:0] top_plane;
  logic [D_M-1:0][D_N-1:0] plane;               // the plane at hand
  logic [D_M-1:0][WINDOWS-1:0] largest;
  logic [D_M-1:0][WINDOWS-1:0][3:0] alive_q, ones; // positions of a window that may still be its maximum; their ones

  assign top_plane = bits_held_q - 4'd1;
  assign first = plane_q == '0;
  assign ending = writing_q && plane_q == top_plane;

  always_comb begin
    for (int channel = 0; channel < D_M; channel++) begin
      for (int position = 0; position < D_N; position++) begin
        plane[channel][position] = held_q[channel][position][bit_q] ^ invert_q;
      end
      for (int window = 0; window < WINDOWS; window++) begin
        ones[channel][window] = {plane[channel][D_N/2+2*window+:2], plane[channel][2*window+:2]} &
                                (first ? 4'b1111 : alive_q[channel][window]);
        largest[channel][window] = ones[channel][window] != 4'b0000;
      end
    end
  end
  assign busy_o = full_q || writing_q;

  always_ff @(posedge clk) begin
    if (valid_i) begin
      for (int row = 0; row < D_M; row++) begin
        beats_q[row] <= row < D_M - LANE_ROWS ? beats_q[(row+LANE_ROWS)%D_M] : code_i[(row+LANE_ROWS)%D_M%LANE_ROWS];
      end
      store_q <= store_i;
      flip_q  <= flip_i;
      pooled_q  <= pooled_i;
      quarter_q <= quarter_i;
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
      bit_q        <= pooled_q ? 3'(bits_q - 4'd1) : 3'd0;
      invert_q     <= flip_q && (pooled_q || bits_q == 4'd1);
      plane_row_q  <= row_q;
      bits_held_q  <= store_q ? bits_q : 4'd1;  // what is not stored takes a cycle, so that no pulse is lost
      store_held_q <= store_q;
      flip_held_q  <= flip_q;
      pooled_held_q  <= pooled_q;
      quarter_held_q <= quarter_q;
      pitch_held_q <= pitch_q;
      chunk_held_q <= chunk_q;
      done_held_q  <= done_q;
      writing_q    <= 1'b1;
    end else if (writing_q) begin
      plane_q     <= plane_q + 4'd1;
      bit_q       <= pooled_held_q ? bit_q - 3'd1 : bit_q + 3'd1;
      invert_q    <= flip_held_q && !pooled_held_q && 4'(plane_q + 4'd1) == top_plane;
      plane_row_q <= plane_row_q + pitch_held_q;
      if (ending) writing_q <= 1'b0;
    end
    for (int channel = 0; channel < D_M; channel++) begin
      for (int window = 0; window < WINDOWS; window++) begin
        if (largest[channel][window]) alive_q[channel][window] <= ones[channel][window];
        else if (first) alive_q[channel][window] <= 4'b1111;
      end
    end

    write_o <= writing_q && store_held_q;
    for (int chunk = 0; chunk < ROWS_G; chunk++) we_o[chunk] <= writing_q && store_held_q && 32'(chunk_held_q) == chunk;
    for (int quarter = 0; quarter < 4; quarter++) begin
      quarters_o[quarter] <= !pooled_held_q || 32'(quarter_held_q) == quarter;
    end
    row_o <= plane_row_q;
    for (int position = 0; position < D_N; position++) begin
      for (int channel = 0; channel < D_M; channel++) begin
        data_o[position][channel] <= pooled_held_q ? largest[channel][position%WINDOWS] : plane[channel][position];
      end
    end
    done_o <= ending && done_held_q;
    if (rst) begin
      full_q    <= 1'b0;
      writing_q <= 1'b0;
      write_o   <= 1'b0;
      we_o      <= '0;
      done_o    <= 1'b0;
    end
  end
endmodule
