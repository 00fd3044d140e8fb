"""Program loading and instruction queues alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate


@pytest.mark.parametrize("depth", [64])
def test_stage_queue(tmp_path: Path, depth: int) -> None:
    simulate(tmp_path, "bs_stage_queue", ["bs_stage_queue"], "tb_stage_queue", {"DEPTH": depth})


def test_loader(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_loader", ["bs_loader"], "tb_loader", {"PROGRAM_DEPTH": 64, "ENGINE_HASH": 0x1234567})
