/// The instructions of one stage and the loop over images around them, a batch of images each time.
/// The first batch runs instructions 0 .. count-1, every further one loop_start .. count-1. The next instruction is
/// collected from memory, one word per cycle, while the stage works on the one it was given. instr_o and first_image_o
/// stand a cycle before instr_valid_o, so that what is decoded from them may go through a register.
module bs_stage_queue #(
    parameter int DEPTH = 512  // 64-bit words of instruction memory, a power of two, 16..65536
) (
    input  logic                                clk,
    input  logic                                rst,
    // loading
    input  logic                                we_i,
    input  logic [$clog2(DEPTH)-1:0]            addr_i,
    input  logic [63:0]                         data_i,
    // running
    input  logic                                start_i,       // pulse; the four below are sampled with it
    input  logic [15:0]                         count_i,       // instructions, 0..DEPTH/8
    input  logic [15:0]                         loop_start_i,  // 0..count_i; count_i: nothing after the first batch
    input  logic [31:0]                         images_i,
    input  logic [7:0]                          batch_i,       // images of one loop, at least 1
    output logic                                instr_valid_o,
    input  logic                                instr_ready_i,
    output logic [bs_pkg::INSTRUCTION_BITS-1:0] instr_o,
    output logic                                first_image_o, // the instruction is for the first batch
    output logic                                finished_o     // every instruction has been taken, or none was started
);
  localparam int ADDR = $clog2(DEPTH);
  localparam int INDEX = ADDR - 3;

  if (DEPTH < 16 || DEPTH > 65536 || (1 << ADDR) != DEPTH) begin : gen_bad
    $error("bs_stage_queue: DEPTH must be a power of two in 16..65536 (instance %m)");
  end

  (* ram_style = "block", no_rw_check *) logic [63:0] mem [DEPTH];
  logic [63:0] word_q;
  logic [bs_pkg::INSTRUCTION_BITS-1:0] collect_q;
  logic [15:0] index_q, last_q, loop_start_q;
  logic [31:0] image_q, images_q, image_next_q;
  logic [7:0] batch_q;
  logic [3:0] step_q;  // words requested of the instruction being collected; 9: it is complete
  logic active_q, loops_q, settle_q, valid_q, complete, hand_over;
  logic last_index_q;  // the instruction is the loop's last one
  logic ends_q;        // no image after those of this loop

  // Steps end with the ninth: two of its bits tell.
  assign complete = step_q[3] && step_q[0];
  assign hand_over = active_q && complete && !settle_q && !valid_q;
  assign instr_valid_o = valid_q;
  assign finished_o = !active_q && !settle_q && !valid_q;

  always_ff @(posedge clk) begin
    if (we_i) mem[addr_i] <= data_i;
    word_q <= mem[{index_q[INDEX-1:0], step_q[2:0]}];
  end

  always_ff @(posedge clk) begin
    if (!complete) step_q <= step_q + 4'd1;
    if (step_q != '0 && !complete) collect_q <= {word_q, collect_q[bs_pkg::INSTRUCTION_BITS-1:64]};
    // One and two cycles behind index, image and batch; an instruction takes longer to collect.
    last_index_q <= index_q == last_q;
    image_next_q <= image_q + 32'(batch_q);
    ends_q       <= image_next_q >= images_q || !loops_q;
    settle_q     <= hand_over;
    if (instr_ready_i) valid_q <= 1'b0;
    if (settle_q) valid_q <= 1'b1;
    if (hand_over) begin
      instr_o       <= collect_q;
      first_image_o <= image_q == '0;
      step_q        <= '0;
      index_q       <= index_q + 16'd1;
      if (last_index_q) begin
        index_q <= loop_start_q;
        image_q <= image_next_q;
        if (ends_q) active_q <= 1'b0;
      end
    end
    if (start_i) begin
      active_q     <= count_i != '0 && images_i != '0;
      loops_q      <= loop_start_i < count_i;
      last_q       <= count_i - 16'd1;
      loop_start_q <= loop_start_i;
      images_q     <= images_i;
      batch_q      <= batch_i;
      index_q      <= '0;
      image_q      <= '0;
      step_q       <= '0;
      settle_q     <= 1'b0;
      valid_q      <= 1'b0;
    end
    if (rst) begin
      active_q <= 1'b0;
      settle_q <= 1'b0;
      valid_q  <= 1'b0;
    end
  end

  if (INDEX < 16) begin : gen_unused
    logic unused_bits;
    assign unused_bits = ^index_q[15:INDEX];
  end
endmodule
