"""The fetch stage and its image unit alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate


@pytest.mark.parametrize(("columns", "group", "depth"), [(16, 16, 256), (4, 8, 65536), (2, 8, 512)])
def test_image_planes(tmp_path: Path, columns: int, group: int, depth: int) -> None:
    parameters = {"D_N": columns, "G": group, "PLANE_DEPTH": depth}
    simulate(tmp_path, "bs_image_planes", ["bs_image_planes"], "tb_image_planes", parameters)


@pytest.mark.parametrize("rows", [8, 5])
def test_fetch(tmp_path: Path, rows: int) -> None:
    parameters = {
        "D_M": rows, "D_N": 4, "D_K": 24, "G": 8, "WEIGHT_DEPTH": 128, "PARAM_DEPTH": 64, "PLANE_DEPTH": 512,
    }  # fmt: skip
    simulate(tmp_path, "bs_fetch", ["bs_image_planes", "bs_fetch"], "tb_fetch", parameters)
