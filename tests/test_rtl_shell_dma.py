"""The memory masters and their buffer alone: bursts, boundaries, aborts and error answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate


@pytest.mark.parametrize("bits", [16, 24])
def test_burst(tmp_path: Path, bits: int) -> None:
    simulate(tmp_path, "bs_burst", ["bs_burst"], "tb_burst", {"WORDS_BITS": bits})


@pytest.mark.parametrize(("width", "depth"), [(65, 64), (8, 16), (1, 4)])
def test_fifo(tmp_path: Path, width: int, depth: int) -> None:
    simulate(tmp_path, "bs_fifo", ["bs_fifo"], "tb_fifo", {"WIDTH": width, "DEPTH": depth})


def test_read_dma(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_read_dma", ["bs_burst", "bs_fifo", "bs_read_dma"], "tb_read_dma")


def test_write_dma(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_write_dma", ["bs_burst", "bs_write_dma"], "tb_write_dma", {"OUTSTANDING": 8})
