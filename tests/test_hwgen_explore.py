"""The choice of the shape: best of what is possible, the same every time, with true reasons."""

from __future__ import annotations

import json

import networks
import pytest

from benchmarks.networks import mlp, resnet8
from hwgen import explore as search
from hwgen import rationale
from hwgen.area import estimate_area
from hwgen.board import Board, load_board
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig
from hwgen.explore import Exploration, busy, explore, fit_depths
from hwgen.schedule import schedule

PYNQ = load_board("pynq-z2")


def board(**resources: int) -> Board:
    """PYNQ-Z2 with other counts."""
    return PYNQ.model_copy(update={"resources": PYNQ.resources.model_copy(update=resources)})


@pytest.fixture(scope="module")
def found() -> Exploration:
    return explore(resnet8(2, 2, (16, 16, 3)), PYNQ)


def test_candidates_fit_are_timed_and_ordered(found: Exploration) -> None:
    network = resnet8(2, 2, (16, 16, 3))
    assert len(found.candidates) == 10
    assert list(found.candidates) == sorted(found.candidates, key=lambda item: item.order)
    for item in found.candidates:
        plan = schedule(network, item.engine)
        assert item.cycles_per_image == time_program(plan).cycles_per_image
        assert item.area == estimate_area(item.engine)
        assert item.area.lut <= PYNQ.lut_share * PYNQ.resources.lut
        assert item.area.bram36 <= PYNQ.resources.bram36 and item.area.dsp <= PYNQ.resources.dsp
        assert 0 < item.busy.bound <= item.cycles_per_image


def test_the_same_answer_every_time(found: Exploration) -> None:
    again = explore(resnet8(2, 2, (16, 16, 3)), PYNQ)
    assert again == found
    assert rationale.as_text(again, PYNQ) == rationale.as_text(found, PYNQ)


@pytest.mark.parametrize("make", [networks.tiny, lambda: resnet8(1, 2, (8, 8, 3))])
def test_pruning_loses_nothing(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best ten with bounds are the best ten without."""
    assert callable(make)
    network = make()
    few = [item for item in search.shapes() if item.slots in (3, 9) and item.columns in (4, 8)]
    monkeypatch.setattr(search, "shapes", lambda: iter(few))
    pruned = explore(network, PYNQ)
    monkeypatch.setattr(search._Search, "hopeless", lambda self, bound: False)
    whole = explore(network, PYNQ)
    assert pruned.candidates == whole.candidates
    assert pruned.timed <= whole.timed


def test_bounds_hold_for_the_cycle_model() -> None:
    network = resnet8(2, 3, (8, 8, 3))
    for shape in search.shapes():
        if shape.slots not in (3, 9, 18):
            continue
        plan = schedule(network, fit_depths(network, shape))
        assert busy(plan.passes, plan.memory, plan.engine).bound <= time_program(plan).cycles_per_image, shape


def test_weights_are_streamed_where_block_ram_is_short() -> None:
    """A weight buffer smaller than the network is chosen where the board holds no larger one, and said."""
    network = mlp(4, 2, (784, 512, 512, 10))
    roomy, tight = explore(network, board(bram36=1000, lut=500_000, dsp=1000)), explore(network, board(bram36=60))
    assert not roomy.candidates[0].busy.weights
    best = tight.candidates[0]
    assert best.busy.weights and schedule(network, best.engine).memory.streamed_rows
    assert best.area.bram36 <= 60
    assert any("streamed for every image" in line for line in rationale.reasons(tight, board(bram36=60)))


def test_wide_sums_get_wide_accumulators() -> None:
    network = mlp(8, 8, (2048, 512, 10))
    shape = EngineConfig(acc_bits=24)
    assert fit_depths(network, shape).acc_bits == 32
    assert fit_depths(networks.tiny(), shape).acc_bits == 24


def test_reasons_name_what_keeps_faster_shapes_out(found: Exploration) -> None:
    winner = found.candidates[0]
    said = " ".join(rationale.reasons(found, PYNQ))
    assert rationale.bound_by(winner) in ("array", "fill", "weights", "gaps")
    assert rationale.title(found.candidates[1]) in said
    kept_out = [item for item in found.refused if item.resource == "LUT" and item.bound < winner.cycles_per_image]
    assert f"LUT keeps {len(kept_out)} shapes" in said
    for item in found.refused:
        assert item.need > item.limit
    roomy = board(lut=5_000_000, dsp=5_000, bram36=5_000)
    said = " ".join(rationale.reasons(explore(networks.tiny(), roomy), roomy))
    assert "is kept out by the size of pynq-z2" in said and "LUT keeps" not in said


def test_text_and_json_say_the_same(found: Exploration) -> None:
    data = json.loads(json.dumps(rationale.as_json(found, PYNQ)))
    text = rationale.as_text(found, PYNQ)
    assert len(data["candidates"]) == 10 and data["candidates"][0]["behind"] is None
    for item, row in zip(data["candidates"], rationale.rows(found), strict=True):
        assert EngineConfig(**item["engine"]).name in row[0] and str(item["cycles_per_image"]) in text
    for line in data["reasons"]:
        assert line in text
