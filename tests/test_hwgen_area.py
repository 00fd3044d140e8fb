"""The fitted area model against the synthesised figures that it ships with, and the LUT formula."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from hwgen.area import estimate_area
from hwgen.engine import EngineConfig
from hwgen.synth import count

MEASURED: list[dict[str, Any]] = json.loads(files("hwgen.data").joinpath("area.json").read_text("utf-8"))["measured"]


def test_sweep_is_wide() -> None:
    assert len({json.dumps(item["engine"], sort_keys=True) for item in MEASURED}) >= 12
    for name in ("rows", "columns", "slots", "slot_channels", "lane_rows", "acc_bits"):
        assert len({item["engine"][name] for item in MEASURED}) > 1, name


@pytest.mark.parametrize("item", MEASURED, ids=lambda item: EngineConfig(**item["engine"]).name)
def test_model_predicts_what_was_synthesised(item: dict[str, Any]) -> None:
    area = estimate_area(EngineConfig(**item["engine"]))
    assert abs(area.lut / item["lut"] - 1) <= 0.10
    assert abs(area.ff / item["ff"] - 1) <= 0.10
    assert (area.bram36, area.dsp) == (item["bram36"], item["dsp"])


def test_formula() -> None:
    """Two outputs of a LUT6_2 are one LUT, a RAM32M four; carries and wide multiplexers are none."""
    cells = {"LUT6": 7, "LUT6_2": 5, "SRL16E": 2, "RAM32M": 3, "CARRY4": 9, "MUXF7": 4, "FDRE": 11, "RAMB18E1": 3, "DSP48E1": 2}
    assert count(cells, 7) == (7 + 5 + 2 + 12, 11, 2, 2)


def test_unknown_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="does not know the cells LUT7_3, RAM512X1S"):
        count({"LUT6": 1, "LUT7_3": 1, "RAM512X1S": 2}, 1)
