"""The shell as a whole, with a played core: runs, errors, restarts. The ports of the whole engine."""

from __future__ import annotations

from pathlib import Path

from rtl.shell_bench import BENCHES, simulate

from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from sim.verilator import build

MODULES = [
    "bs_burst", "bs_fifo", "bs_tokens", "bs_read_dma", "bs_write_dma", "bs_axil_regs", "bs_control", "bs_loader", "bs_stage_queue",
    "bs_image_planes", "bs_fetch", "bs_logits_writer", "bs_shell",
]  # fmt: skip


def test_shell(tmp_path: Path) -> None:
    parameters = {
        "D_M": 8, "D_N": 4, "SLOTS": 3, "G": 8, "LANE_ROWS": 2, "WEIGHT_DEPTH": 64, "PLANE_DEPTH": 64,
        "PARAM_DEPTH": 64, "PROGRAM_DEPTH": 64, "LOGIT_DEPTH": 16, "ENGINE_HASH": 0x600DF00D,
    }  # fmt: skip
    simulate(tmp_path, "bs_shell", MODULES, "tb_shell", parameters)


def test_top(tmp_path: Path) -> None:
    engine = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1)
    top = build(write_rtl(engine, load_board("pynq-z2"), tmp_path / "rtl"), "bs_top")
    top.test("tb_top", tmp_path / "run", python_path=[BENCHES], timeout_s=300).check()
