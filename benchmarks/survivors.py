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

    file: in the repository. line: of the file, without the spaces around it. change: what the mutant does, as a regular
    expression for all of it; of RTL: Yosys' mode, port, bit of the port, and wire or "-". equivalent: nothing that the engine or its users can see differs; else another choice is
    slower or larger, but as right.
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
    Known("model/export.py", "values = net.tensors(torch.zeros(1, channels, height, width), Context(Mode.INTEGER))", r"1 becomes 2",
          "two images of zeros instead of one: only shapes and scales are used"),
    Known("hls_templates/rtl/bs_beats.sv", "else if (beats_open_q) beats_left_q <= beats_left_q - 1'b1;", r"cnot[01] A 0 -",
          "while no row tile is open the count may stay 0 or 1: only more than 1 is looked for, and a start sets it anew"),
    Known("hls_templates/rtl/bs_array.sv", "logic [D_M-1:0][D_N-1:0][ACC_BITS-1:0] acc, shadow_q;",
          r"inv Q (1(1[2-9]|[2-9]\d)|2([01]\d|2[0-3])|3(3[6-9]|[4-9]\d)|4\d\d) shadow_q",
          "the inverted bit is kept by inverting it every cycle; rows 1 and 3 are read when that has happened an even number of times"),
)  # fmt: skip


def source_line(path: Path, number: int) -> str:
    """A line of a file, without the spaces around it; the first one is number 1."""
    return path.read_text(encoding="utf-8").splitlines()[number - 1].strip()


def find(file: str, line: str, change: str) -> Known | None:
    """What is known of a mutant that survived."""
    return next((item for item in KNOWN if (item.file, item.line) == (file, line) and re.fullmatch(item.change, change)), None)
