"""The area model against synthesis: figures that ship with it, and block RAM and DSPs of an engine mapped here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fit_area import DATA, SHAPES
from hwgen.area import bram36, dsp, estimate_area, ram_halves
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from hwgen.synth import KEEP, map_commands, run_yosys

MEASURED = json.loads(DATA.read_text(encoding="utf-8"))["measured"]
SMALL = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1)


def test_the_sweep_is_the_one_that_ships() -> None:
    assert [EngineConfig(**item["engine"]) for item in MEASURED] == SHAPES
    assert len(SHAPES) >= 12


@pytest.mark.parametrize("item", MEASURED, ids=lambda item: EngineConfig(**item["engine"]).name)
def test_the_model_is_near_what_synthesis_found(item: dict[str, object]) -> None:
    found = estimate_area(EngineConfig(**item["engine"]))  # type: ignore[arg-type]
    assert found.lut == pytest.approx(item["lut"], rel=0.1)
    assert (found.bram36, found.dsp) == (item["bram36"], item["dsp"])


def test_narrow_chunks_take_a_write_enable_each() -> None:
    assert [ram_halves(16, 512, chunks) for chunks in (1, 2, 4, 8)] == [1, 1, 1, 2]
    assert [ram_halves(16, 1024, chunks) for chunks in (1, 2, 4, 8)] == [1, 1, 2, 4]
    assert [ram_halves(16, 4096, chunks) for chunks in (1, 2, 4, 8)] == [4, 4, 4, 8]


@pytest.mark.parametrize("engine", [replace(SMALL, rows=2, plane_depth=1024, byte_depth=2048, column_depth=256)])
def test_blocks_are_those_of_the_mapped_engine(engine: EngineConfig, tmp_path: Path) -> None:
    report = tmp_path / "stat.json"
    *read, _ = map_commands(write_rtl(engine, load_board("pynq-z2"), tmp_path), "bs_top", {"XC7": 1}, KEEP)
    run_yosys([*read, "synth_xilinx -family xc7 -noiopad -run :map_ffram", f"tee -q -o {report} stat -json"], "bs_top")
    cells = json.loads(report.read_text(encoding="utf-8"))["design"]["num_cells_by_type"]
    assert cells["RAMB36E1"] + -(-cells["RAMB18E1"] // 2) == bram36(engine)
    assert cells["DSP48E1"] == dsp(engine)
