"""Mutants that the tests do not notice, each with the reason. ``make mutate`` reads this list, the tests hold it against the sources.

An entry names its place by the text of the source line, so that it moves with it, and means nothing once the line changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Known:
    """A mutant, or some that differ in a bit number only.

    file: in the repository. line: of the file, see :func:`source_line`. change: what the mutant does, as a regular
    expression for all of it; of RTL: Yosys' mode, port, bit of the port with the one that decides behind a slash, and wire or
    "-". equivalent: nothing that the engine or its users can see differs, at least on the engine of ``make mutate``; else the
    reason tells what would have to happen, or why another choice is as right.
    """

    file: str
    line: str
    change: str
    reason: str
    equivalent: bool = True


KNOWN = (
    Known("hwgen/plan.py", "_STRIP_ROWS = (16, 8, 6, 4, 3, 2, 1)  # of the last interleaved pass", r"16 becomes 17",
          "how large strips are tried first; others are as right", False),
    Known("hwgen/plan.py", "_STRIP_SHARE = 12  # strips take at most two thirds of a program memory: an instruction has eight words",
          r"12 becomes 13", "how much of the program memory strips may take; less is as right", False),
    Known("hwgen/schedule.py", "_SUMS_CYCLES = 4  # bs_sums: least cycles between two beats of a channel group", r"4 becomes 5",
          "waits longer than it must", False),
    Known("hwgen/schedule.py", "lo=0 if item.logits else item.code.lo,", r"0 becomes 1",
          "logits leave the lanes before they are clipped"),
    Known("hwgen/schedule.py", 'assert all(value <= _MAX_WAIT for name, value in item.values.items() if name.startswith("wait_"))',
          r"value <= _MAX_WAIT becomes value < _MAX_WAIT", "an assertion; the field's width refuses what is larger"),
    Known("sim/golden.py", "_BATCH_VALUES = 1 << 22  # values held at a time: of all tensors, or of the widest layer's im2col matrix",
          r".*", "how many images are computed at a time; test_batches_do_not_show", False),
    Known("sim/golden.py",
          "bound = int(np.abs(t).reshape(len(t), -1).sum(axis=1).max()) * max(abs(source.lo), source.hi)", r"1 becomes 2",
          "the 1 of -1: NumPy takes any negative size for the rest"),
    Known("sim/golden.py", "matrix = t.reshape(len(t), -1).T.astype(exact)", r"1 becomes 2",
          "the 1 of -1: NumPy takes any negative size for the rest"),
    Known("sim/golden.py", "return (columns.reshape(-1, len(matrix)) @ matrix).astype(np.int64).reshape(*columns.shape[:3], len(t))",
          r"1 becomes 2", "the 1 of -1: NumPy takes any negative size for the rest"),
    Known("model/export.py", "assert weights.code is not None and weights.scale is not None", r".* and .* becomes .* or .*",
          "an assertion for the type checker"),
    Known("model/export.py", "blank = torch.zeros(1, channels, height, width, device=next(net.parameters()).device)", r"1 becomes 2",
          "two images of zeros instead of one: only shapes and scales are used"),
    Known("hls_templates/rtl/bs_beats.sv", "else if (beats_open_q) beats_left_q <= beats_left_q - 1'b1;", r"cnot[01] A 0/\d+ -",
          "while no row tile is open the count may stay 0 or 1: only more than 1 is looked for, and a start sets it anew"),
    Known("hls_templates/rtl/bs_array.sv", "logic [D_M-1:0][D_N-1:0][ACC_BITS-1:0] acc, shadow_q;",
          r"inv Q (1(1[2-9]|[2-9]\d)|2([01]\d|2[0-3])|3(3[6-9]|[4-9]\d)|4\d\d) shadow_q",
          "the inverted bit is kept by inverting it every cycle; rows 1 and 3 are read when that has happened an even number of times"),
    Known("hls_templates/rtl/bs_control.sv", "output logic [3:0][31:0] active_cycles_o,    // of the stages, fetch lowest",
          r"const0 Q 51 active_cycles_o", "bit 19 of a counter: a run of half a million cycles", False),
    Known("hls_templates/rtl/bs_control.sv", "write_beats_o <= write_beats_o + 32'(write_beat_i);", r"const0 A 29 -",
          "bit 29 of a counter", False),
    Known("hls_templates/rtl/bs_control.sv", "if (running) begin", r"cnot1 A 13/16 -", "bit 16 of a counter", False),
    Known("hls_templates/rtl/bs_control.sv", "quiet_q <= progress_i || !running ? '0 : quiet_q + 32'd1;", r"const0 A 29 -",
          "bit 29 of the watchdog's counter", False),
    Known("hls_templates/rtl/bs_core.sv", "logic [D_N-1:0][ACC_BITS-1:0] column_acc;", r"cnot1 column_acc_i 106/79 column_acc",
          "sums of activations above 2^22: of a thousand channels and a large kernel", False),
    Known("hls_templates/rtl/bs_core.sv", "logic [7:0] need_fetch, need_write_back, need_weights, need_fill;",
          r"const0 need_i 7 need_fill", "bands that wait for 128 tokens at a time", False),
    Known("hls_templates/rtl/bs_core.sv", "logic [3:0] pack_quarters, quarters_q;", r"const1 Q 3 quarters_q",
          "the last quarter of a row is written with the others, and by its own positions after them; what has none is beyond the map"),
    Known("hls_templates/rtl/bs_core.sv", ".we_i(weight_we_i && 32'(weight_chunk_i) == chunk),", r"const1 Y 0 -",
          "the last chunk of a row is written with the others, and by its own data after them"),
    Known("hls_templates/rtl/bs_core.sv", "assign idle_o = fill_idle && issue_idle && write_back_idle;", r"const1 Y 0 idle_o",
          "the planner's programs end with logits; once those are in memory the stages are idle"),
    Known("hls_templates/rtl/bs_write_back.sv", "assign idle_o = quiet_q && !next_valid_q;", r"const1 Y 0 idle_o",
          "the planner's programs end with logits; once those are in memory the stages are idle"),
    Known("hls_templates/rtl/bs_write_back.sv", "bs_pkg::pool_t pool_q;", r"const0 Q 191 pool_q",
          "bit 7 of zero_groups: a shortcut with more than a hundred channels of zeros in front", False),
    Known("hls_templates/rtl/bs_fetch.sv", "if (rst) begin failed_q     <= 1'b0;", r"const0 Y 14 -",
          "bits 8 to 15 of fetch's information are 0"),
    Known("hls_templates/rtl/bs_fetch.sv", "if (!failed_q) begin", r"cnot0 B 23/4 -",
          "after a failure the information ends with the opcode of a load; bit 4 is set in all of them"),
    Known("hls_templates/rtl/bs_fetch.sv", "end else if (push_load && beyond) begin", r"cnot1 A 20/27 -",
          "the stage in bits 24 to 31 of fetch's information is 0"),
    Known("hls_templates/rtl/bs_fetch.sv", "load_cmd_addr_o  <= program_addr_i + queued.offset;", r"const0 B 1 queued",
          "offsets are multiples of 8"),
    Known("hls_templates/rtl/bs_fifo.sv", "if (fetch) read_data_q <= mem[read_q[ADDR-1:0]];", r"cnot1 A \d+/\d+ -",
          "what is held without a fetch is not read: a fetch comes a cycle before"),
    Known("hls_templates/rtl/bs_image_planes.sv", "if (!wide_q) begin", r"const0 A 16 -",
          "row 65536: the plane buffer has 512; test_image_planes has one of 65536"),
    Known("hls_templates/rtl/bs_image_planes.sv",
          "logic [2:0] chunk_q, block_q;    // (C, H, W): first byte of this channel's chunk and of channel 0's, within a word",
          r"const0 Q 1 block_q", "blocks begin at bytes 0 and 4 of a word where D_N is 4; test_image_planes has D_N 2"),
    Known("hls_templates/rtl/bs_loader.sv", "ASK_BODY: if (cmd_ready_i) state_q <= READ_BODY;", r"inv A 8 -",
          "the head that is held outside READ_BODY: the first word of an instruction sets it before it is read"),
    Known("hls_templates/rtl/bs_loader.sv", "end else if (none_left_q) begin", r"cnot1 Y 4/12 -",
          "counts above the program memory's are refused before; bit 12 is never set"),
    Known("hls_templates/rtl/bs_loader.sv", "output logic [2:0][15:0]                 loop_start_o,", r"cnot1 Q 16/11 loop_start_o",
          "loop starts above the program memory's are refused; bit 11 is never set in a program that runs"),
    Known("hls_templates/rtl/bs_loader.sv", "IDLE: if (start_i) state_q <= ASK_HEADER;", r"inv A 0 -",
          "none_left_q is cleared a state earlier, and looked at later"),
    Known("hls_templates/rtl/bs_logits_writer.sv", "images_done_o <= images_done_o + 32'd1;", r"cnot1 A 29/25 -",
          "33 million images in a run", False),
    Known("hls_templates/rtl/bs_packer.sv", "logic [$clog2(ROWS_G+1)-1:0] chunk_q;", r"const0 Q 1 chunk_q",
          "of two row tiles in a group the number is 0 or 1"),
    Known("hls_templates/rtl/bs_packer.sv", "invert_q    <= flip_held_q && !pooled_held_q && 4'(plane_q + 4'd1) == top_plane;",
          r"cnot1 Y 1/3 -", "bit 3 is set in 8 alone, which as 10 is no top plane either"),
    Known("hls_templates/rtl/bs_read_dma.sv", "output logic [7:0]  m_axi_arlen,", r"cnot1 Q 1/7 m_axi_arlen",
          "bursts have at most 16 beats; bit 7 is never set"),
    Known("hls_templates/rtl/bs_read_dma.sv",
          "flight_room_q <= burst_end || (issue ? flight_q < (SLOT_BITS + 1)'(OUTSTANDING - 1) : flight_room_q);", r"const0 A 4 -",
          "bit 4 is set with 16 bursts in flight alone; there is no room then, and none is issued"),
    Known("hls_templates/rtl/bs_shell.sv", ".image_cmd_ready_i(cmd_ready_0 && !load),", r"const1 Y 0 -",
          "while a program is loaded fetch has no instruction and asks for nothing"),
    Known("hls_templates/rtl/bs_shell.sv", "logic [2:0][15:0] counts, loop_starts;", r"cnot1 count_i 15/12 counts",
          "counts above the program memory's are refused; bit 12 is never set"),
    Known("hls_templates/rtl/bs_stage_queue.sv", "if (last_index_q) begin", r"const0 Y 12 -",
          "an index is below the program memory's 128 instructions"),
    Known("hls_templates/rtl/bs_top.sv.j2", "logic [bs_pkg::INSTRUCTION_BITS-1:0] execute_instr;", r"inv execute_instr_o 244 execute_instr",
          "pad_planes of channel 11: groups have 8 channels"),
    Known("hls_templates/rtl/bs_top.sv.j2", "logic [bs_pkg::INSTRUCTION_BITS-1:0] execute_instr;", r"cnot1 execute_instr_i 125/311 execute_instr",
          "pad_planes of channel 14 decides: groups have 8 channels"),
    Known("hls_templates/rtl/bs_top.sv.j2", "logic [7:0] weight_chunk;", r"cnot1 weight_chunk_i 4/5 weight_chunk",
          "a row of weights has two chunks; bit 5 is never set"),
    Known("hls_templates/rtl/bs_top.sv.j2", "logic [bs_pkg::INSTRUCTION_BITS-1:0] write_back_instr;",
          r"cnot1 write_back_instr_i 228/165 write_back_instr",
          "bit 5 of skip_zero_groups decides: a shortcut with more than thirty channels of zeros in front", False),
    Known("hls_templates/rtl/bs_top.sv.j2", "logic [bs_pkg::INSTRUCTION_BITS-1:0] write_back_instr;",
          r"cnot1 write_back_instr_o 305/155 write_back_instr", "bit 11 of skip_pitch decides: the byte buffer has 512 rows"),
    Known("hls_templates/rtl/bs_top.sv.j2", ") u_shell (", r"cnot0 m_axi_1_arlen 3/0 m_axi_1_arlen",
          "rows of weights and channels of parameters have an even number of words here; bit 0 is always set"),
    Known("hls_templates/rtl/bs_top.sv.j2", ") u_shell (", r"const1 m_axi_0_wstrb [0-3] m_axi_0_wstrb",
          "every word of logits has its lower half"),
    Known("hls_templates/rtl/bs_beats.sv", "if (replaces) begin beat_q          <= '0;", r"inv Y 4 -",
          "the bit is inverted at every beat, four or eight times until it is read"),
    Known("hls_templates/rtl/bs_clip.sv", "assign choice[1] = take_other_i | (wide_i ? !negative_i : above && !below);", r"const1 Y 0 -",
          "below and above at once: a range's end lies before its start in no network"),
    Known("hls_templates/rtl/bs_less.sv", "assign difference = 10'(a_i) - 10'(b_i);", r"const0 A 0 a_i",
          "equal odd numbers count as less, and bs_clip then puts out a bound that is the value"),
    Known("hls_templates/rtl/bs_lane.sv", "assign above = (bytes_6_q[15:8] ^ {8{bytes_6_q[15]}}) >> shift_bits_6_i;", r"cnot1 Y 3/2 above",
          "a set bit 2 decides alone that there is something above"),
    Known("hls_templates/rtl/bs_mac.sv", "sum_o  <= 48'(low_q) + (48'(high_q) <<< 17) + addend;", r"\w+ B 3[1-9] gen_portable.high_q",
          "of the upper product's sum bits 0 to 30 are read"),
    Known("hls_templates/rtl/bs_mac.sv", "logic signed [25:0] high_q;", r"\w+ Q (1[4-9]|2\d) gen_portable.high_q",
          "of the upper product's sum bits 0 to 30 are read"),
    Known("hls_templates/rtl/bs_mac.sv", "high_q <= a_high * b;", r"const0 B 1[5-7] -",
          "of the upper product's sum bits 0 to 30 are read"),
    Known("hls_templates/rtl/bs_mac.sv", "output logic signed [47:0] sum_o,", r"\w+ Q (3[1-9]|4\d)(/\d+)? sum_o",
          "of the upper product's sum bits 0 to 30 are read"),
    Known("hls_templates/rtl/bs_pool.sv", "if (zero_any_q) begin", r"const1 A 11 -",
          "what is held while nothing is to be zeroed is not read"),
    Known("hls_templates/rtl/bs_walker.sv",
          "turn = upper && (row_done ? last_row || ((behind_q ^ taken) & LOW) == '0 : (behind_q & ~span & LOW) == '0);", r"const0 Y 0 -",
          "windows of 2x2 are pooled at stride 1 alone, where bit 0 is never set"),
    Known("hls_templates/rtl/bs_axil_regs.sv", "always_ff @(posedge clk) begin start_o <= 1'b0;", r"inv CLK 0 -",
          "a start that is told half a cycle early; no contract says in which of two cycles a run begins", False),
    Known("hls_templates/rtl/bs_image_planes.sv", "always_ff @(posedge clk) begin done_q <= 1'b0;", r"inv CLK 0 -",
          "an input that is taken half a cycle early, when it stands already; simulations have no delays", False),
    Known("hls_templates/rtl/bs_logits_writer.sv", "case (state_q)", r"const1 Y 0 -",
          "of choices that hold at once the netlist takes the first, and those of the other states come first"),
    Known("hls_templates/rtl/bs_ram.sv", '(* ram_style = "block", no_rw_check *) logic [WIDTH-1:0] mem [DEPTH];', r"inv WR_DATA 229 -",
          "a bit of another chunk at the port that writes the last one"),
    Known("hls_templates/rtl/bs_ram.sv",
          "if (we_i[chunk]) mem[waddr_i][chunk*CHUNK+:CHUNK] <= wdata_i[chunk*CHUNK+:CHUNK];", r"inv A 13 -",
          "data without its write enable"),
)  # fmt: skip


def source_line(path: Path, number: int) -> str:
    """A line of a file, without the spaces around it, and the next one where the file has it more than once; the first is 1."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    text = lines[number - 1]
    return f"{text} {lines[number]}" if lines.count(text) > 1 and number < len(lines) else text


def find(file: str, line: str, change: str) -> Known | None:
    """What is known of a mutant that survived."""
    return next(
        (item for item in KNOWN if (item.file, item.line) == (file, line) and re.fullmatch(item.change, change)), None
    )
