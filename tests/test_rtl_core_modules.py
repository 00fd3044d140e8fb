"""The modules of the engine core, each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate


@pytest.mark.parametrize(("width", "depth", "chunks"), [(24, 16, 3), (7, 9, 1)])
def test_ram(tmp_path: Path, width: int, depth: int, chunks: int) -> None:
    simulate(tmp_path, "bs_ram", ["bs_ram"], "tb_ram", {"WIDTH": width, "DEPTH": depth, "CHUNKS": chunks})


@pytest.mark.parametrize("bits", [8, 2])
def test_tokens(tmp_path: Path, bits: int) -> None:
    simulate(tmp_path, "bs_tokens", ["bs_tokens"], "tb_tokens", {"COUNT_BITS": bits})


@pytest.mark.parametrize(("width", "parts", "bits"), [(24, 3, 12), (40, 1, 16)])
def test_dot_unit(tmp_path: Path, width: int, parts: int, bits: int) -> None:
    simulate(tmp_path, "bs_dot_unit", ["bs_dot_unit"], "tb_dot_unit", {"D_K": width, "PARTS": parts, "ACC_BITS": bits})
