/// Everything between the instruction queues and the memory side: plane, column, weight, byte and parameter buffers,
/// fill, issue, array and write-back, and the tokens between the stages.
module bs_core #(
    parameter int D_M          = 8,     // array rows: output channels at a time, 2..32, a multiple of LANE_ROWS
    parameter int D_N          = 16,    // array columns: output positions at a time, 2..32, a power of two
    parameter int SLOTS        = 9,     // slots per word, 3..30, a multiple of 3
    parameter int G            = 16,    // channels per slot, 8 or 16, a multiple of D_M
    parameter int PARTS        = 3,     // partial counts of a dot unit, 1..8; divides SLOTS*G
    parameter int LANE_ROWS    = 2,     // array rows read out per beat, 1..8, a power of two
    parameter int ACC_BITS     = 28,    // accumulator width in bits, 12..32
    parameter int WEIGHT_DEPTH = 512,   // rows of D_M*SLOTS*G bits, a power of two
    parameter int COLUMN_DEPTH = 512,   // words per column, 8..1024, a power of two
    parameter int PLANE_DEPTH  = 512,   // rows of D_N*G bits, a power of two
    parameter int BYTE_DEPTH   = 512,   // rows of D_N*LANE_ROWS bytes, a power of two
    parameter int PARAM_DEPTH  = 1024,  // channels, a power of two
    parameter bit XC7          = 1'b0   // 7-series primitives in array and lanes, else portable arithmetic
) (
    input  logic                                clk,
    input  logic                                rst,
    // execute instructions
    input  logic                                execute_valid_i,
    output logic                                execute_ready_o,
    input  logic [bs_pkg::INSTRUCTION_BITS-1:0] execute_instr_i,
    input  logic                                execute_first_i,    // the instruction works on the first image
    // write-back instructions
    input  logic                                write_back_valid_i,
    output logic                                write_back_ready_o,
    input  logic [bs_pkg::INSTRUCTION_BITS-1:0] write_back_instr_i,
    input  logic                                write_back_first_i,
    // tokens from and to fetch
    input  logic                                fetch_to_fill_i,    // image ready
    input  logic                                fetch_to_issue_i,   // weights ready
    output logic                                fill_to_fetch_o,    // image read
    output logic                                issue_to_fetch_o,   // weights read
    // weights, parameters and image planes from fetch
    input  logic                                weight_we_i,
    input  logic [15:0]                         weight_row_i,
    input  logic [7:0]                          weight_chunk_i,     // 64-bit chunk of the row
    input  logic [63:0]                         weight_data_i,
    input  logic                                param_we_i,
    input  logic [15:0]                         param_channel_i,
    input  logic                                param_word_i,
    input  logic [63:0]                         param_data_i,
    input  logic                                plane_valid_i,
    output logic                                plane_ready_o,
    input  logic [15:0]                         plane_row_i,
    input  logic [D_N*G-1:0]                    plane_data_i,
    // logits
    input  logic                                logits_written_i,  // pulse: an image's logits are in memory
    output logic                                logits_valid_o,
    output logic                                logits_last_o,
    output logic [LANE_ROWS*32-1:0]             logits_o,
    // status
    output logic                                fill_active_o,
    output logic                                issue_active_o,
    output logic                                write_back_active_o,
    output logic [7:0]                          fill_layer_o,
    output logic [7:0]                          issue_layer_o,
    output logic [7:0]                          write_back_layer_o,
    output logic                                idle_o
);
  localparam int D_K = SLOTS * G;
  localparam int ROWS_G = G / D_M;
  localparam int COUNT_BITS = 16;
  localparam int WEIGHT_ADDR = $clog2(WEIGHT_DEPTH);
  localparam int COLUMN_ADDR = $clog2(COLUMN_DEPTH);
  localparam int PLANE_ADDR = $clog2(PLANE_DEPTH);
  localparam int WEIGHT_CHUNKS = (D_M * D_K + 63) / 64;

  if (G % D_M != 0 || D_M % LANE_ROWS != 0 || D_K % PARTS != 0 || SLOTS % 3 != 0 || (G != 8 && G != 16) ||
      (1 << $clog2(D_N)) != D_N) begin : gen_bad
    $error("bs_core: D_M must divide G, LANE_ROWS divide D_M, PARTS divide SLOTS*G, 3 divide SLOTS; G is 8 or 16; D_N is a power of two (instance %m)");
  end

  // ------------------------------------------------------------------ tokens
  logic [7:0] need_fetch, need_write_back, need_weights, need_fill;
  logic enough_fetch, enough_write_back, enough_weights, enough_fill, armed;
  logic fill_take, issue_take, write_back_take, fill_to_write_back, write_back_to_fill, arm;

  bs_tokens #(
      .AHEAD(1'b1)
  ) u_image_ready (
      .clk,
      .rst,
      .give_i(fetch_to_fill_i),
      .take_i(fill_take),
      .need_i(need_fetch),
      .enough_o(enough_fetch)
  );
  bs_tokens #(
      .AHEAD(1'b1)
  ) u_map_ready (
      .clk,
      .rst,
      .give_i(write_back_to_fill),
      .take_i(fill_take),
      .need_i(need_write_back),
      .enough_o(enough_write_back)
  );
  bs_tokens #(
      .AHEAD(1'b1)
  ) u_weights_ready (
      .clk,
      .rst,
      .give_i(fetch_to_issue_i),
      .take_i(issue_take),
      .need_i(need_weights),
      .enough_o(enough_weights)
  );
  bs_tokens #(
      .AHEAD(1'b1)
  ) u_map_free (
      .clk,
      .rst,
      .give_i(fill_to_write_back),
      .take_i(write_back_take),
      .need_i(need_fill),
      .enough_o(enough_fill)
  );
  bs_tokens #(
      .AHEAD(1'b1)
  ) u_armed (
      .clk,
      .rst,
      .give_i(arm),
      .take_i(issue_take),
      .need_i(8'd1),
      .enough_o(armed)
  );

  // ------------------------------------------------------------------ plane buffer, twice for two windows a cycle
  logic [D_N-1:0][PLANE_ADDR-1:0] bank_addr, halo_addr;
  logic [D_N-1:0][G-1:0] bank_data, halo_data;
  logic pack_write;
  logic [ROWS_G-1:0] pack_we, plane_we_q;
  logic [3:0] pack_quarters, quarters_q;
  logic [PLANE_ADDR-1:0] pack_row, plane_row_q;
  logic [D_N-1:0][D_M-1:0] pack_data;
  logic [D_N-1:0][G-1:0] plane_data_q;

  assign plane_ready_o = !pack_write;

  always_ff @(posedge clk) begin
    plane_we_q <= pack_write ? pack_we : {ROWS_G{plane_valid_i}};
    quarters_q <= pack_write ? pack_quarters : 4'b1111;
    if (pack_write) begin
      plane_row_q <= pack_row;
      for (int bank = 0; bank < D_N; bank++) plane_data_q[bank] <= {ROWS_G{pack_data[bank]}};
    end else begin
      plane_row_q  <= PLANE_ADDR'(plane_row_i);
      plane_data_q <= plane_data_i;
    end
    if (rst) plane_we_q <= '0;
  end

  for (genvar bank = 0; bank < D_N; bank++) begin : gen_planes
    bs_ram #(
        .WIDTH(G),
        .DEPTH(PLANE_DEPTH),
        .CHUNKS(ROWS_G)
    ) u_bank (
        .clk,
        .we_i(quarters_q[bank/(D_N/4)] ? plane_we_q : '0),
        .waddr_i(plane_row_q),
        .wdata_i(plane_data_q[bank]),
        .raddr_i(bank_addr[bank]),
        .rdata_o(bank_data[bank])
    );
    bs_ram #(
        .WIDTH(G),
        .DEPTH(PLANE_DEPTH),
        .CHUNKS(ROWS_G)
    ) u_halo (
        .clk,
        .we_i(quarters_q[bank/(D_N/4)] ? plane_we_q : '0),
        .waddr_i(plane_row_q),
        .wdata_i(plane_data_q[bank]),
        .raddr_i(halo_addr[bank]),
        .rdata_o(halo_data[bank])
    );
  end

  // ------------------------------------------------------------------ fill and column buffer
  logic issue_ready, tile_filled, fill_idle, counted;
  logic [9:0] released_words;
  logic [D_N-1:0] column_we, count_we;
  logic [COLUMN_ADDR-1:0] column_waddr, count_waddr, column_raddr;
  logic [D_N-1:0][D_K-1:0] column_wdata, columns;
  logic [D_N-1:0][COUNT_BITS-1:0] count_wdata, counts, word_counts;

  bs_fill #(
      .D_N(D_N),
      .SLOTS(SLOTS),
      .G(G),
      .PLANE_DEPTH(PLANE_DEPTH),
      .COLUMN_DEPTH(COLUMN_DEPTH),
      .COUNT_BITS(COUNT_BITS)
  ) u_fill (
      .clk,
      .rst,
      .instr_valid_i(execute_valid_i),
      .instr_ready_o(execute_ready_o),
      .instr_i(execute_instr_i),
      .first_image_i(execute_first_i),
      .need_fetch_o(need_fetch),
      .need_write_back_o(need_write_back),
      .enough_fetch_i(enough_fetch),
      .enough_write_back_i(enough_write_back),
      .take_o(fill_take),
      .post_fetch_o(fill_to_fetch_o),
      .post_write_back_o(fill_to_write_back),
      .issue_ready_i(issue_ready),
      .tile_filled_o(tile_filled),
      .released_words_i(released_words),
      .bank_addr_o(bank_addr),
      .bank_data_i(bank_data),
      .halo_addr_o(halo_addr),
      .halo_data_i(halo_data),
      .column_we_o(column_we),
      .column_addr_o(column_waddr),
      .column_data_o(column_wdata),
      .count_we_o(count_we),
      .count_addr_o(count_waddr),
      .count_data_o(count_wdata),
      .active_o(fill_active_o),
      .idle_o(fill_idle),
      .layer_o(fill_layer_o)
  );

  for (genvar column = 0; column < D_N; column++) begin : gen_columns
    bs_ram #(
        .WIDTH(D_K),
        .DEPTH(COLUMN_DEPTH)
    ) u_words (
        .clk,
        .we_i(column_we[column]),
        .waddr_i(column_waddr),
        .wdata_i(column_wdata[column]),
        .raddr_i(column_raddr),
        .rdata_o(columns[column])
    );
  end

  // One memory of all columns' counts takes a quarter of the block RAM that a memory for each takes.
  bs_ram #(
      .WIDTH(D_N * COUNT_BITS),
      .DEPTH(COLUMN_DEPTH),
      .CHUNKS(D_N)
  ) u_counts (
      .clk,
      .we_i(count_we),
      .waddr_i(count_waddr),
      .wdata_i(count_wdata),
      .raddr_i(column_raddr),
      .rdata_o(word_counts)
  );
  assign counts = counted ? word_counts : '0;

  // ------------------------------------------------------------------ issue, weight buffer and array
  logic [WEIGHT_ADDR-1:0] weight_raddr;
  logic [WEIGHT_CHUNKS*64-1:0] weights;
  logic valid, clear, shift, negative, last, start, issue_idle, first_word, first_sum;
  logic [LANE_ROWS-1:0][D_N-1:0][ACC_BITS-1:0] acc;
  logic [D_N-1:0][ACC_BITS-1:0] column_acc;

  bs_issue #(
      .SLOTS(SLOTS),
      .ROWS_G(ROWS_G),
      .WEIGHT_DEPTH(WEIGHT_DEPTH),
      .COLUMN_DEPTH(COLUMN_DEPTH)
  ) u_issue (
      .clk,
      .rst,
      .instr_valid_i(fill_take),
      .instr_ready_o(issue_ready),
      .instr_i(execute_instr_i),
      .first_image_i(execute_first_i),
      .need_weights_o(need_weights),
      .enough_weights_i(enough_weights),
      .write_back_armed_i(armed),
      .take_o(issue_take),
      .post_weights_o(issue_to_fetch_o),
      .tile_filled_i(tile_filled),
      .released_words_o(released_words),
      .weight_addr_o(weight_raddr),
      .column_addr_o(column_raddr),
      .valid_o(valid),
      .clear_o(clear),
      .shift_o(shift),
      .negative_o(negative),
      .count_o(counted),
      .last_o(last),
      .first_word_o(first_word),
      .idle_o(issue_idle),
      .layer_o(issue_layer_o)
  );
  assign issue_active_o = valid;

  for (genvar chunk = 0; chunk < WEIGHT_CHUNKS; chunk++) begin : gen_weights
    bs_ram #(
        .WIDTH(64),
        .DEPTH(WEIGHT_DEPTH)
    ) u_chunk (
        .clk,
        .we_i(weight_we_i && 32'(weight_chunk_i) == chunk),
        .waddr_i(WEIGHT_ADDR'(weight_row_i)),
        .wdata_i(weight_data_i),
        .raddr_i(weight_raddr),
        .rdata_o(weights[chunk*64+:64])
    );
  end

  bs_array #(
      .D_M(D_M),
      .D_N(D_N),
      .D_K(D_K),
      .PARTS(PARTS),
      .LANE_ROWS(LANE_ROWS),
      .ACC_BITS(ACC_BITS),
      .COUNT_BITS(COUNT_BITS),
      .XC7(XC7)
  ) u_array (
      .clk,
      .rst,
      .valid_i(valid),
      .clear_i(clear),
      .shift_i(shift),
      .negative_i(negative),
      .last_i(last),
      .weights_i(weights[D_M*D_K-1:0]),
      .columns_i(columns),
      .counts_i(counts),
      .start_o(start),
      .acc_o(acc),
      .column_acc_o(column_acc)
  );

  // ------------------------------------------------------------------ write-back
  logic write_back_idle;
  logic [LANE_ROWS-1:0][31:0] logits;
  // Only monitors look at the byte port.
  logic [1:0] unused_byte_we;
  logic [$clog2(BYTE_DEPTH)-1:0] unused_byte_row;
  logic [D_N-1:0][LANE_ROWS*8-1:0] unused_byte_data;

  bs_write_back #(
      .D_M(D_M),
      .D_N(D_N),
      .LANE_ROWS(LANE_ROWS),
      .ROWS_G(ROWS_G),
      .ACC_BITS(ACC_BITS),
      .PLANE_DEPTH(PLANE_DEPTH),
      .BYTE_DEPTH(BYTE_DEPTH),
      .PARAM_DEPTH(PARAM_DEPTH),
      .XC7(XC7)
  ) u_write_back (
      .clk,
      .rst,
      .instr_valid_i(write_back_valid_i),
      .instr_ready_o(write_back_ready_o),
      .instr_i(write_back_instr_i),
      .first_image_i(write_back_first_i),
      .need_fill_o(need_fill),
      .enough_fill_i(enough_fill),
      .take_o(write_back_take),
      .post_fill_o(write_back_to_fill),
      .armed_o(arm),
      .start_i(start),
      .acc_i(acc),
      .column_acc_i(column_acc),
      .param_we_i,
      .param_channel_i,
      .param_word_i,
      .param_data_i,
      .plane_write_o(pack_write),
      .plane_we_o(pack_we),
      .plane_quarters_o(pack_quarters),
      .plane_row_o(pack_row),
      .plane_data_o(pack_data),
      .logits_written_i,
      .logits_valid_o,
      .logits_last_o,
      .logits_o(logits),
      .byte_we_o(unused_byte_we),
      .byte_row_o(unused_byte_row),
      .byte_data_o(unused_byte_data),
      .first_sum_o(first_sum),
      .active_o(write_back_active_o),
      .idle_o(write_back_idle),
      .layer_o(write_back_layer_o)
  );
  assign logits_o = logits;

  assign idle_o = fill_idle && issue_idle && write_back_idle;

  // ------------------------------------------------------------------ where layers begin, for monitors
  logic layer_first_q;
  logic [7:0] layer_index_q;

  always_ff @(posedge clk) begin
    layer_first_q <= first_word || first_sum;
    layer_index_q <= first_sum ? write_back_layer_o : issue_layer_o;
  end

  logic unused_bits;
  assign unused_bits = ^{layer_first_q, layer_index_q, weight_row_i, plane_row_i, weights};
endmodule
