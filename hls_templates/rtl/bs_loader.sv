/// Reads a program from memory, checks it and fills the instruction memories of the three stages.
/// Header: word 0 magic and version, word 1 engine hash and words in all, words 2 to 4 count and loop start of fetch,
/// execute and write-back; then the instructions of the stages in that order; then the end word. The first thing that is
/// wrong, a count of zero among them, ends the loading with error_o, which stays until reset.
module bs_loader #(
    parameter int          PROGRAM_DEPTH = 512,    // words of instruction memory per stage, a power of two
    parameter logic [31:0] ENGINE_HASH   = 32'h0   // the engine shape that a program must be made for
) (
    input  logic                             clk,
    input  logic                             rst,
    input  logic                             start_i,       // pulse
    input  logic [31:0]                      program_addr_i,
    // read DMA
    output logic                             cmd_valid_o,
    input  logic                             cmd_ready_i,
    output logic [31:0]                      cmd_addr_o,
    output logic [23:0]                      cmd_words_o,
    input  logic                             data_valid_i,
    output logic                             data_ready_o,
    input  logic [63:0]                      data_i,
    // instruction memories: fetch, execute, write-back
    output logic [2:0]                       we_o,
    output logic [$clog2(PROGRAM_DEPTH)-1:0] addr_o,
    output logic [63:0]                      data_o,
    output logic [2:0][15:0]                 count_o,
    output logic [2:0][15:0]                 loop_start_o,
    output logic [7:0]                       batch_o,       // images of one loop, at least 1
    // result
    output logic                             done_o,        // pulse: loaded, everything is right
    output logic                             error_o,
    output logic [7:0]                       error_code_o,
    output logic [31:0]                      error_info_o
);
  localparam int ADDR = $clog2(PROGRAM_DEPTH);
  localparam logic [15:0] MOST = 16'(PROGRAM_DEPTH / bs_pkg::INSTRUCTION_WORDS);
  localparam logic [23:0] HEADER = 24'(bs_pkg::HEADER_WORDS);

  if (PROGRAM_DEPTH < 16 || PROGRAM_DEPTH > 65536 || (1 << ADDR) != PROGRAM_DEPTH) begin : gen_bad
    $error("bs_loader: PROGRAM_DEPTH must be a power of two in 16..65536 (instance %m)");
  end

  typedef enum logic [2:0] {
    IDLE,
    ASK_HEADER,
    READ_HEADER,
    CHECK,     // the counts against each other and against the memories
    ASK_BODY,
    READ_BODY,
    FINISHED,
    FAILED     // until reset
  } state_e;

  state_e state_q;
  logic [2:0] word_q;          // of the header, or of an instruction
  logic [1:0] stage_q;         // 3: the end word is next
  logic [15:0] left_q;         // instructions of the stage still to come
  logic [31:0] total_q;
  logic [ADDR-1:0] addr_q;
  logic none_left_q;           // left_q is zero
  logic too_many, reading, take, take_word, zero;
  logic [63:0] before_q;       // the word before
  bs_pkg::head_t head, head_q, head_now;  // of the instruction

  // ------------------------------------------------------------------ a word, and what it may be, in registers
  logic [63:0] data_q;
  logic [7:0] opcode;
  logic have_q;
  logic magic_q, hash_q, end_q;
  logic [2:0] known_q;         // an opcode of the stage

  assign opcode = data_i[7:0];
  assign head = data_q[15:0];
  assign head_now = word_q == '0 ? head : head_q;

  always_ff @(posedge clk) begin
    if (take_word) begin
      data_q     <= data_i;
      magic_q    <= data_i[47:0] == {bs_pkg::PROGRAM_VERSION, bs_pkg::PROGRAM_MAGIC};
      hash_q     <= data_i[31:0] == ENGINE_HASH;
      end_q      <= data_i == bs_pkg::PROGRAM_END;
      known_q[0] <= opcode == bs_pkg::OP_LOAD_WEIGHTS || opcode == bs_pkg::OP_LOAD_PARAMS ||
                    opcode == bs_pkg::OP_LOAD_IMAGE;
      known_q[1] <= opcode == bs_pkg::OP_CONV;
      known_q[2] <= opcode == bs_pkg::OP_CONV_OUT || opcode == bs_pkg::OP_POOL;
    end
    if (take_word) have_q <= 1'b1;
    else if (take) have_q <= 1'b0;
    if (rst) have_q <= 1'b0;
  end

  // A count of zero would wrap in the stages and work for a very long time.
  always_comb begin
    zero = 1'b0;
    for (int count = 0; count < bs_pkg::COUNTS; count++) begin
      if (head_now.opcode == bs_pkg::COUNT_OPCODE[8*count+:8] && word_q == bs_pkg::COUNT_WORD[3*count+:3] &&
          ({data_q, before_q} & bs_pkg::COUNT_BITS[128*count+:128]) == '0) zero = 1'b1;
    end
  end

  always_comb begin
    too_many = 1'b0;
    for (int stage = 0; stage < 3; stage++) begin
      if (count_o[stage] > MOST || loop_start_o[stage] > count_o[stage]) too_many = 1'b1;
    end
  end

  // In CHECK, one after the other.
  logic [17:0] instructions_q;
  logic [31:0] expected_q;
  logic wrong_q;

  always_ff @(posedge clk) begin
    instructions_q <= 18'(count_o[0]) + 18'(count_o[1]) + 18'(count_o[2]);
    expected_q     <= 32'({instructions_q, 3'b000}) + 32'(bs_pkg::HEADER_WORDS + 1);
    wrong_q        <= too_many || total_q != expected_q;
  end

  assign cmd_valid_o = state_q == ASK_HEADER || state_q == ASK_BODY;
  assign cmd_addr_o = state_q == ASK_HEADER ? program_addr_i : program_addr_i + 32'(8 * bs_pkg::HEADER_WORDS);
  assign cmd_words_o = state_q == ASK_HEADER ? HEADER : total_q[23:0] - HEADER;
  // What comes never exceeds what was asked for, so that a word may be fetched before the one in hand is judged.
  assign reading = state_q == READ_HEADER || state_q == READ_BODY;
  assign take = reading && have_q && !none_left_q;
  assign data_ready_o = reading && (!have_q || !none_left_q);
  assign take_word = data_valid_i && data_ready_o;

  assign done_o = state_q == FINISHED;
  assign error_o = state_q == FAILED;

  always_ff @(posedge clk) begin
    we_o <= '0;
    case (state_q)
      IDLE: if (start_i) state_q <= ASK_HEADER;
      ASK_HEADER: begin
        word_q      <= '0;
        none_left_q <= 1'b0;
        if (cmd_ready_i) state_q <= READ_HEADER;
      end
      READ_HEADER: begin
        if (take) begin
          word_q <= word_q + 3'd1;
          if (word_q == 3'd1) total_q <= data_q[63:32];
          if (word_q == 3'd5) batch_o <= data_q[7:0] == '0 ? 8'd1 : data_q[7:0];
          for (int stage = 0; stage < 3; stage++) begin
            if (word_q == 3'(stage + 2)) begin
              count_o[stage]      <= data_q[15:0];
              loop_start_o[stage] <= data_q[31:16];
            end
          end
          if (word_q == 3'd7) state_q <= CHECK;
          if (word_q == 3'd0 && !magic_q) begin
            state_q      <= FAILED;
            error_code_o <= bs_pkg::ERR_PROGRAM_MAGIC;
          end
          if (word_q == 3'd1 && !hash_q) begin
            state_q      <= FAILED;
            error_code_o <= bs_pkg::ERR_PROGRAM_ENGINE;
          end
        end
      end
      CHECK: begin
        stage_q     <= '0;
        left_q      <= count_o[0];
        none_left_q <= count_o[0] == '0;
        addr_q      <= '0;
        word_q      <= word_q + 3'd1;
        if (word_q == 3'd3) begin
          state_q <= ASK_BODY;
          word_q  <= '0;
          if (wrong_q) begin
            state_q      <= FAILED;
            error_code_o <= bs_pkg::ERR_PROGRAM_LENGTH;
          end
        end
      end
      ASK_BODY: if (cmd_ready_i) state_q <= READ_BODY;
      READ_BODY: begin
        if (stage_q == 2'd3) begin
          if (take) begin
            state_q <= FINISHED;
            if (!end_q) begin
              state_q      <= FAILED;
              error_code_o <= bs_pkg::ERR_PROGRAM_END;
            end
          end
        end else if (none_left_q) begin
          stage_q     <= stage_q + 2'd1;
          left_q      <= stage_q == 2'd0 ? count_o[1] : count_o[2];
          none_left_q <= stage_q != 2'd2 && (stage_q == 2'd0 ? count_o[1] : count_o[2]) == '0;
          addr_q      <= '0;
        end else if (take) begin
          we_o[stage_q] <= 1'b1;
          addr_q        <= addr_q + 1'b1;
          word_q        <= word_q + 3'd1;
          before_q      <= data_q;
          if (word_q == '0) head_q <= head;
          if (word_q == 3'd7) begin
            left_q      <= left_q - 16'd1;
            none_left_q <= left_q == 16'd1;
          end
          if (zero) begin
            state_q      <= FAILED;
            error_code_o <= bs_pkg::ERR_ADDRESS;
            error_info_o <= {6'd0, stage_q, head_now.layer, 8'd0, head_now.opcode};
          end
          if (word_q == 3'd0 && !known_q[stage_q]) begin
            state_q      <= FAILED;
            error_code_o <= bs_pkg::ERR_ILLEGAL_OPCODE;
            error_info_o <= {6'd0, stage_q, head.layer, 8'd0, head.opcode};
          end
        end
      end
      FINISHED: state_q <= IDLE;
      default: ;
    endcase
    addr_o <= addr_q;
    data_o <= data_q;
    if (rst) begin
      state_q      <= IDLE;
      we_o         <= '0;
      error_code_o <= bs_pkg::ERR_NONE;
      error_info_o <= '0;
    end
  end
endmodule
