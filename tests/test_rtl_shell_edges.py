"""Registers, control and logits writer alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate


def test_axil_regs(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_axil_regs", ["bs_axil_regs"], "tb_axil_regs", {"ENGINE_HASH": 0xDEADBEEF})


def test_control(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_control", ["bs_control"], "tb_control")


@pytest.mark.parametrize("lane_rows", [1, 2, 8])
def test_logits_writer(tmp_path: Path, lane_rows: int) -> None:
    parameters = {"LANE_ROWS": lane_rows, "LOGIT_DEPTH": 16}
    simulate(tmp_path, "bs_logits_writer", ["bs_fifo", "bs_logits_writer"], "tb_logits_writer", parameters)
