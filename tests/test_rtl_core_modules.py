"""The modules of the engine core, each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate

DOT_UNIT = ["bs_popcount", "bs_accumulator", "bs_dot_unit"]
LANE = ["bs_value", "bs_mac", "bs_less", "bs_clip", "bs_lane"]


@pytest.mark.parametrize(("width", "depth", "chunks"), [(24, 16, 3), (7, 9, 1)])
def test_ram(tmp_path: Path, width: int, depth: int, chunks: int) -> None:
    simulate(tmp_path, "bs_ram", ["bs_ram"], "tb_ram", {"WIDTH": width, "DEPTH": depth, "CHUNKS": chunks})


@pytest.mark.parametrize(("bits", "ahead"), [(8, 0), (2, 0), (8, 1), (2, 1)])
def test_tokens(tmp_path: Path, bits: int, ahead: int) -> None:
    simulate(tmp_path, "bs_tokens", ["bs_tokens"], "tb_tokens", {"COUNT_BITS": bits, "AHEAD": ahead})


@pytest.mark.parametrize(("width", "parts", "bits"), [(24, 3, 12), (40, 1, 16)])
def test_dot_unit(tmp_path: Path, width: int, parts: int, bits: int) -> None:
    simulate(tmp_path, "bs_dot_unit", DOT_UNIT, "tb_dot_unit", {"D_K": width, "PARTS": parts, "ACC_BITS": bits})


@pytest.mark.parametrize(("rows", "columns", "width", "lanes"), [(4, 4, 24, 2), (3, 8, 40, 1)])
def test_array(tmp_path: Path, rows: int, columns: int, width: int, lanes: int) -> None:
    parameters = {
        "D_M": rows,
        "D_N": columns,
        "D_K": width,
        "PARTS": 2,
        "LANE_ROWS": lanes,
        "ACC_BITS": 16,
        "COUNT_BITS": 10,
    }
    simulate(tmp_path, "bs_array", [*DOT_UNIT, "bs_array"], "tb_array", parameters)


@pytest.mark.parametrize(("bits", "sums"), [(28, 0), (14, 1)])
def test_lane(tmp_path: Path, bits: int, sums: int) -> None:
    simulate(tmp_path, "bs_lane", LANE, "tb_lane", {"ACC_BITS": bits, "SUMS": sums})


@pytest.mark.parametrize("columns", [16, 4])
def test_walker(tmp_path: Path, columns: int) -> None:
    simulate(tmp_path, "bs_walker", ["bs_walker"], "tb_walker", {"D_N": columns})


@pytest.mark.parametrize(("rows", "columns", "lanes", "chunks"), [(8, 4, 2, 2), (4, 8, 4, 3)])
def test_packer(tmp_path: Path, rows: int, columns: int, lanes: int, chunks: int) -> None:
    parameters = {"D_M": rows, "D_N": columns, "LANE_ROWS": lanes, "ROWS_G": chunks, "ROW_BITS": 6}
    simulate(tmp_path, "bs_packer", ["bs_packer"], "tb_packer", parameters)


@pytest.mark.parametrize(("columns", "bits", "taps"), [(8, 5, 3), (4, 8, 1)])
def test_window(tmp_path: Path, columns: int, bits: int, taps: int) -> None:
    parameters = {"D_N": columns, "BITS": bits, "TAPS": taps, "ADDR_BITS": 7}
    simulate(tmp_path, "bs_window", ["bs_window"], "tb_window", parameters)


@pytest.mark.parametrize(("slots", "chunks"), [(9, 2), (3, 1)])
def test_issue(tmp_path: Path, slots: int, chunks: int) -> None:
    parameters = {"SLOTS": slots, "ROWS_G": chunks, "WEIGHT_DEPTH": 1024, "COLUMN_DEPTH": 512}
    simulate(tmp_path, "bs_issue", ["bs_issue"], "tb_issue", parameters)


@pytest.mark.parametrize(("columns", "slots", "group"), [(4, 9, 8), (8, 3, 16)])
def test_fill(tmp_path: Path, columns: int, slots: int, group: int) -> None:
    parameters = {"D_N": columns, "SLOTS": slots, "G": group, "PLANE_DEPTH": 1024, "COLUMN_DEPTH": 64, "COUNT_BITS": 16}
    simulate(tmp_path, "bs_fill", ["bs_walker", "bs_window", "bs_fill"], "tb_fill", parameters)


@pytest.mark.parametrize(("rows", "columns", "lanes"), [(4, 4, 2), (2, 8, 1)])
def test_pool(tmp_path: Path, rows: int, columns: int, lanes: int) -> None:
    parameters = {"D_M": rows, "D_N": columns, "LANE_ROWS": lanes, "BYTE_DEPTH": 128}
    simulate(tmp_path, "bs_pool", ["bs_walker", "bs_window", "bs_pool"], "tb_pool", parameters)


@pytest.mark.parametrize(("columns", "lanes"), [(16, 2), (4, 1)])
def test_sums(tmp_path: Path, columns: int, lanes: int) -> None:
    parameters = {"D_N": columns, "LANE_ROWS": lanes, "GROUPS": 8, "SUM_BITS": 16}
    simulate(tmp_path, "bs_sums", ["bs_ram", "bs_sums"], "tb_sums", parameters)


def test_work(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_work", ["bs_work"], "tb_work")


@pytest.mark.parametrize(("columns", "beats", "lanes", "chunks", "bits"), [(4, 4, 1, 2, 9), (32, 1, 4, 3, 16)])
def test_beats(tmp_path: Path, columns: int, beats: int, lanes: int, chunks: int, bits: int) -> None:
    parameters = {
        "D_N": columns, "BEATS": beats, "LANE_ROWS": lanes, "ROWS_G": chunks, "BYTE_ROW_BITS": bits, "PLANE_ROW_BITS": bits - 1,
        "PARAM_BITS": bits - 2, "GROUP_BITS": 10 if bits == 16 else 8,
    }  # fmt: skip
    simulate(tmp_path, "bs_beats", ["bs_beats"], "tb_beats", parameters)
