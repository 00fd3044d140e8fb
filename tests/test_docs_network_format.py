"""The network file that docs/network-format.md writes by hand goes through generate and verify."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hwgen.board import load_board
from hwgen.build import generate
from hwgen.engine import EngineConfig
from hwgen.network_file import read_network
from sim.verify import verify

DOC = Path(__file__).parent.parent / "docs" / "network-format.md"
# The smallest shape of the random-network tests: its compiled simulation is shared.
SHAPE = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=8192, plane_depth=2048,
                     byte_depth=2048, column_depth=1024)  # fmt: skip


def test_the_worked_example_runs_in_rtl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code: str = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.S)[0]
    assert "bitsmith" not in "".join(line for line in code.splitlines() if "import" in line)
    exec(compile(code, str(DOC), "exec"), {})
    network = read_network(tmp_path / "tiny")
    build = generate(network, SHAPE, load_board("pynq-z2"), tmp_path / "tiny-build")
    result = verify(build.path)
    assert not result["problem"] and result["mismatches"] == 0, result["first_mismatches"]
    assert result["images"] == 8 and result["accuracy"] is None
    assert np.isfinite(result["cycles_per_image"])
