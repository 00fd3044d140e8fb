/// Reads an image of bytes, or a part of one, and cuts it into bit planes for the plane buffer.
/// Pixel p, channel c, plane k goes to row base + ((c / G) * bits + k) * pitch + p / D_N, bit (p % D_N) * G + c % G; bits
/// beyond the channels and pixels are 0. One byte per cycle. An image has at most G channels, or one pixel.
/// With nibbles_i a plane holds four bits of each channel: bits 4k to 4k+3 of channel c go to bits 4c to 4c+3 of the
/// pixel's G bits in plane k. Such an image has at most G/4 channels.
module bs_image_planes #(
    parameter int D_N         = 16,   // pixels per row, 2..32, a power of two
    parameter int G           = 16,   // channels per group, 8 or 16
    parameter int PLANE_DEPTH = 512   // rows of the plane buffer, 2..65536
) (
    input  logic             clk,
    input  logic             rst,
    // one image or part
    input  logic             start_i,      // pulse while busy_o is low; samples the inputs below
    input  logic [31:0]      addr_i,       // byte address of the first pixel, a multiple of 8
    input  logic [19:0]      pixels_i,     // to read, at least 1
    input  logic [19:0]      stride_i,     // pixels of the whole image: (C, H, W) bytes from one channel to the next
    input  logic [11:0]      channels_i,   // at least 1
    input  logic [3:0]       bits_i,       // 1..8
    input  logic [15:0]      base_i,
    input  logic [15:0]      pitch_i,
    input  logic             nibbles_i,
    input  logic             planar_i,     // bytes lie as (C, H, W), else (H, W, C)
    output logic             busy_o,
    output logic             done_o,       // pulse: the last row is written
    output logic             error_o,      // a row lies beyond the buffer, or the shape is not allowed; until reset
    // read DMA
    output logic             cmd_valid_o,
    input  logic             cmd_ready_i,
    output logic [31:0]      cmd_addr_o,
    output logic [23:0]      cmd_words_o,
    input  logic             data_valid_i,
    output logic             data_ready_o,
    input  logic [63:0]      data_i,
    // plane buffer
    output logic             plane_valid_o,
    input  logic             plane_ready_i,
    output logic [15:0]      plane_row_o,
    output logic [D_N*G-1:0] plane_data_o
);
  localparam int LANE_BITS = $clog2(D_N);
  localparam int SLOT_BITS = $clog2(G);

  if (D_N < 2 || D_N > 32 || (1 << LANE_BITS) != D_N || (G != 8 && G != 16) || PLANE_DEPTH > 65536) begin : gen_bad
    $error("bs_image_planes: D_N must be a power of two in 2..32, G 8 or 16, PLANE_DEPTH at most 65536 (instance %m)");
  end

  typedef enum logic [2:0] {
    IDLE,
    PREPARE,  // the image's size in bytes
    COLLECT,  // bytes into the staging registers
    FLUSH,    // one plane per cycle out of them
    FAILED    // until reset
  } state_e;

  state_e state_q;
  logic [19:0] stride_q;
  logic [11:0] channels_q, channel_last_q;
  logic [3:0] bits_q;
  logic [15:0] pitch_q;
  logic planar_q, wide_q, nibbles_q, done_q;

  // ------------------------------------------------------------------ commands
  // (H, W, C) is one run of bytes. (C, H, W) is one command per block of D_N pixels and channel.
  logic asking_q;
  logic [31:0] ask_addr_q, block_addr_q, size_q;
  logic [28:0] size_low_q;   // of the size: by the lower 17 bits of pixels, and by the others
  logic [14:0] size_high_q;
  logic [11:0] ask_channel_q;
  logic [19:0] ask_left_q;
  logic [5:0] ask_bytes, ask_padded;
  logic [31:0] size_padded;

  assign ask_bytes   = ask_left_q >= 20'(D_N) ? 6'(D_N) : ask_left_q[5:0];
  assign cmd_valid_o = asking_q;
  assign cmd_addr_o  = {ask_addr_q[31:3], 3'b000};
  assign ask_padded  = 6'(ask_addr_q[2:0]) + ask_bytes + 6'd7;
  assign size_padded = size_q + 32'd7;
  assign cmd_words_o = planar_q ? 24'(ask_padded[5:3]) : size_padded[26:3];

  always_ff @(posedge clk) begin
    if (state_q == PREPARE) asking_q <= 1'b1;
    if (asking_q && cmd_ready_i) begin
      if (!planar_q) asking_q <= 1'b0;
      ask_channel_q <= ask_channel_q + 12'd1;
      ask_addr_q    <= ask_addr_q + 32'(stride_q);
      if (ask_channel_q == channel_last_q) begin
        ask_channel_q <= '0;
        ask_addr_q    <= block_addr_q + 32'(D_N);
        block_addr_q  <= block_addr_q + 32'(D_N);
        ask_left_q    <= ask_left_q - 20'(D_N);
        if (ask_left_q <= 20'(D_N)) asking_q <= 1'b0;
      end
    end
    if (state_q == IDLE) begin
      ask_addr_q    <= addr_i;
      block_addr_q  <= addr_i;
      ask_channel_q <= '0;
      ask_left_q    <= pixels_i;
      size_low_q    <= 29'(pixels_i[16:0]) * 29'(channels_i);
      size_high_q   <= 15'(pixels_i[19:17]) * 15'(channels_i);
    end
    size_q <= 32'(size_low_q) + {size_high_q, 17'b0};
    channel_last_q <= channels_q - 12'd1;
    if (rst) asking_q <= 1'b0;
  end

  logic unused_bits;
  assign unused_bits = ^{size_padded[31:27], size_padded[2:0], ask_padded[2:0]};

  // ------------------------------------------------------------------ bytes
  logic [2:0] byte_q;              // byte of the word at hand
  logic [2:0] chunk_q, block_q;    // (C, H, W): first byte of this channel's chunk and of channel 0's, within a word
  logic [LANE_BITS-1:0] lane_q;
  logic lane_last_q;               // lane_q is the last one
  logic [SLOT_BITS-1:0] slot_q;
  logic [11:0] channels_left_q;    // this one included
  logic [19:0] left_q;             // pixels not collected yet, this one included
  logic [D_N-1:0][G-1:0][7:0] stage_q;
  logic last_pixel_q;              // left_q is one
  logic last_channel_q, one_channel_q;  // channels_left_q is one, channels_q is
  logic clear_q;                   // stage_q is to be cleared
  logic last_lane, chunk_end, run_end, flush, take;
  logic [2:0] chunk_next, block_next;

  assign last_lane    = lane_last_q || last_pixel_q;
  // The end of the bytes that lie next to each other.
  assign chunk_end    = last_lane;
  assign run_end      = planar_q ? chunk_end : last_channel_q && last_pixel_q;
  assign flush        = wide_q ? last_channel_q || (&slot_q) : last_channel_q && last_lane;
  assign take         = state_q == COLLECT && data_valid_i;
  assign data_ready_o = state_q == COLLECT && (&byte_q || run_end);
  assign chunk_next   = chunk_q + stride_q[2:0];
  assign block_next   = block_q + 3'(D_N % 8);

  // Written as one enable per byte: synthesis does not find it behind a variable index. Clearing follows a cycle after
  // the last plane, where a block's first byte may already come; it goes to lane 0, slot 0.
  always_ff @(posedge clk) begin
    clear_q <= state_q == IDLE || (state_q == FLUSH && next_collect);
    for (int lane = 0; lane < D_N; lane++) begin
      for (int slot = 0; slot < G; slot++) begin
        if (clear_q && !(take && lane == 0 && slot == 0)) stage_q[lane][slot] <= '0;
        else if (take && 32'(lane_q) == lane && 32'(slot_q) == slot) begin
          stage_q[lane][slot] <= data_i[{byte_q, 3'b000}+:8];
        end
      end
    end
  end

  always_ff @(posedge clk) begin
    if (take) begin
      byte_q <= byte_q + 3'd1;
      if (planar_q) begin
        lane_q <= lane_q + 1'b1;
        lane_last_q <= lane_q == LANE_BITS'(D_N - 2);
        left_q <= left_q - 20'd1;
        last_pixel_q <= left_q == 20'd2;
        if (chunk_end) begin
          lane_q    <= '0;
          lane_last_q <= 1'b0;
          channels_left_q <= channels_left_q - 12'd1;
          last_channel_q  <= channels_left_q == 12'd2;
          slot_q    <= slot_q + 1'b1;
          byte_q    <= chunk_next;
          chunk_q   <= chunk_next;
          // Back to the block's first pixel for the next channel.
          left_q    <= left_q + 20'(lane_q);
          last_pixel_q <= last_pixel_q && lane_q == '0;
          if (last_channel_q) begin
            channels_left_q <= channels_q;
            last_channel_q  <= one_channel_q;
            slot_q    <= '0;
            byte_q    <= block_next;
            chunk_q   <= block_next;
            block_q   <= block_next;
            left_q    <= left_q - 20'd1;
            last_pixel_q <= left_q == 20'd2;
          end
        end
      end else begin
        channels_left_q <= channels_left_q - 12'd1;
        last_channel_q  <= channels_left_q == 12'd2;
        slot_q    <= slot_q + 1'b1;
        if (last_channel_q) begin
          channels_left_q <= channels_q;
          last_channel_q  <= one_channel_q;
          slot_q    <= '0;
          lane_q    <= lane_q + 1'b1;
          lane_last_q <= lane_q == LANE_BITS'(D_N - 2);
          left_q    <= left_q - 20'd1;
          last_pixel_q <= left_q == 20'd2;
        end
      end
    end
    if (state_q == FLUSH && next_collect && !wide_q) begin
      lane_q      <= '0;
      lane_last_q <= 1'b0;
    end
    if (state_q == IDLE) begin
      byte_q    <= '0;
      chunk_q   <= '0;
      block_q   <= '0;
      lane_q    <= '0;
      lane_last_q <= 1'b0;
      slot_q    <= '0;
      channels_left_q <= channels_i;
      last_channel_q  <= channels_i == 12'd1;
      one_channel_q   <= channels_i == 12'd1;
      left_q    <= pixels_i;
      last_pixel_q <= pixels_i == 20'd1;
    end
  end

  // ------------------------------------------------------------------ planes
  logic [3:0] plane_q;
  logic [16:0] row_q, block_row_q;
  logic final_q, beyond, next_collect;

  assign beyond        = row_q >= 17'(PLANE_DEPTH);
  assign plane_valid_o = state_q == FLUSH && !beyond;
  assign plane_row_o   = row_q[15:0];
  assign next_collect  = plane_ready_i && plane_q == bits_q - 4'd1;
  assign busy_o        = state_q != IDLE;
  assign done_o        = done_q;
  assign error_o       = state_q == FAILED;

  always_comb begin
    for (int lane = 0; lane < D_N; lane++) begin
      for (int slot = 0; slot < G; slot++) begin
        plane_data_o[lane*G+slot] = nibbles_q ? stage_q[lane][slot/4][{plane_q[0], 2'(slot%4)}]
                                              : stage_q[lane][slot][plane_q[2:0]];
      end
    end
  end

  always_ff @(posedge clk) begin
    done_q <= 1'b0;
    case (state_q)
      IDLE: begin
        stride_q    <= stride_i;
        channels_q  <= channels_i;
        bits_q      <= bits_i;
        nibbles_q   <= nibbles_i;
        pitch_q     <= pitch_i;
        // An image of one pixel lies in the same order either way.
        planar_q    <= planar_i && stride_i != 20'd1;
        wide_q      <= channels_i > 12'(G);
        row_q       <= {1'b0, base_i};
        block_row_q <= {1'b0, base_i};
        if (start_i) begin
          state_q <= PREPARE;
          if (pixels_i == '0 || channels_i == '0 || bits_i == '0 || bits_i > 4'd8 ||
              (channels_i > 12'(G) && pixels_i != 20'd1) ||
              (nibbles_i && (channels_i > 12'(G / 4) || bits_i > 4'd2))) begin
            state_q <= FAILED;
          end
        end
      end
      PREPARE: state_q <= COLLECT;
      COLLECT: begin
        plane_q <= '0;
        if (take && flush) begin
          state_q <= FLUSH;
          final_q <= last_channel_q && last_pixel_q;
        end
      end
      FLUSH: begin
        if (plane_ready_i) begin
          plane_q <= plane_q + 4'd1;
          row_q   <= row_q + 17'(pitch_q);
          if (next_collect) begin
            state_q <= final_q ? IDLE : COLLECT;
            done_q  <= final_q;
            if (!wide_q) begin
              row_q       <= block_row_q + 17'd1;
              block_row_q <= block_row_q + 17'd1;
            end
          end
        end
        if (beyond) begin
          state_q <= FAILED;
          done_q  <= 1'b0;
        end
      end
      default: ;
    endcase
    if (rst) begin
      state_q <= IDLE;
      done_q  <= 1'b0;
    end
  end
endmodule
