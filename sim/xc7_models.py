"""Yosys' simulation models of the 7-series primitives, for benches and lint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hwgen.synth import cell_library

# The models are not ours to judge.
HEADER = "/* verilator lint_off WIDTH */\n/* verilator lint_off UNUSED */\n/* verilator lint_off DECLFILENAME */\n"


def primitives(folder: Path, names: Sequence[str]) -> Path:
    """A file with Yosys' simulation models of the named primitives, without their timing."""
    text = cell_library().read_text(encoding="utf-8")
    found = [re.search(rf"^module {name}\s*\(.*?^endmodule", text, re.MULTILINE | re.DOTALL) for name in names]
    models = "\n".join(item[0] for item in found if item)
    path = folder / "primitives.v"
    bare = re.sub(r"specify.*?endspecify", "", models, flags=re.DOTALL)
    path.write_text(HEADER + bare + "\n/* verilator lint_on WIDTH,UNUSED,DECLFILENAME */\n", encoding="utf-8")
    return path
