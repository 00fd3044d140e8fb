"""Budgets as people say them, and what costs are made of."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import RECIPE, shortest

import bitsmith
from benchmarks.networks import mlp, resnet8
from bitsmith.targets import target_overrides
from hwgen.area import estimate_area
from hwgen.board import load_board
from hwgen.cycles import time_program
from hwgen.errors import InputError
from hwgen.explore import choose_engine, fit_depths
from hwgen.network import Weighted
from hwgen.schedule import schedule
from model import pipeline
from model.cost import Cycles, WeightBytes
from model.data import DataSet, Split
from model.recipe import read_recipe

PYNQ = load_board("pynq-z2")
DEEP = ["model.stages=[[8, 2, 1], [16, 2, 2]]"]  # ten searchable layers


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_targets() -> None:
    assert target_overrides("pynq-z2", cycles=900) == ['search.cost="cycles"', "search.target=900"]
    clock = load_board("pynq-z2").clock_mhz * 1e6
    assert target_overrides("pynq-z2", fps=1000.0, joint=True) == [
        "search.joint=3", 'search.cost="cycles"', f"search.target={int(clock / 1000)}",
    ]  # fmt: skip
    assert target_overrides("pynq-z2", bitops=0.25) == ['search.cost="bitops"', "search.target=250000000"]
    assert target_overrides("pynq-z2", kbytes=1.5) == ['search.cost="bytes"', "search.target=1500"]
    assert target_overrides("pynq-z2") == []
    extremes: list[tuple[dict[str, Any], str]] = [
        ({"bitops": float("inf")}, "bitops"), ({"fps": 1e-310}, "cycles"), ({"kbytes": 1e30}, "bytes"),
    ]  # fmt: skip
    for extreme, cost in extremes:
        with pytest.raises(InputError, match=rf"asks for \S+ {cost}; no network costs more than 1e\+15"):
            target_overrides("pynq-z2", **extreme)
    with pytest.raises(InputError, match="give one budget"):
        target_overrides("pynq-z2", cycles=1, kbytes=2.0)
    with pytest.raises(
        InputError, match=r"--target-fps: 1000000000\.0 asks for 0\.14\d+ cycles; no network costs less than 1"
    ):
        target_overrides("pynq-z2", fps=1e9)
    with pytest.raises(InputError, match=r"--target-kbytes: 0\.0001 asks for 0\.1 bytes"):
        target_overrides("pynq-z2", kbytes=1e-4)
    with pytest.raises(InputError) as caught:
        target_overrides("pynq-z2", kbytes=-2.0, joint=True)
    assert len(caught.value.problems) == 2


def test_uniform_bits_take_no_budget() -> None:
    with pytest.raises(InputError, match=r"'search\.target': uniform bits cost what they cost; leave the budget out"):
        pipeline.prepare(shortest('search.method="uniform"', 'search.cost="bitops"', "search.target=100"))


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (["search.epochs=1"], True),  # 0.2 of it, rounded up
        (["search.warm=1.0"], True),
        (["search.epochs=0"], True),
        (["search.epochs=1", "search.method=dnas"], True),
        (["search.epochs=1", "search.warm=0"], False),
        (["search.epochs=2"], False),
        (["search.epochs=0", "search.method=random"], False),
        (["search.epochs=0", "search.method=uniform"], False),
        (["search.epochs=0", "search.weight_bits=[3]", "search.activation_bits=[3]"], False),
    ],
)
def test_bits_are_not_chosen_by_strengths_that_nothing_has_trained(settings: list[str], refused: bool) -> None:
    run = pipeline.prepare(shortest('search.cost="bitops"', *settings))
    if not refused:
        run.trainer.check_start()
        return
    with pytest.raises(InputError, match=r"leaves none for the strengths .*; raise search\.epochs"):
        run.trainer.check_start()


def test_a_share_that_cannot_be_met_names_the_least_that_can() -> None:
    settings = [*DEEP, 'search.cost="bitops"']
    with pytest.raises(InputError) as caught:
        pipeline.prepare(shortest(*settings, "search.budget=0.001"))
    said = str(caught.value)
    found = re.search(r"'search\.budget':\n.*No assignment.*\n.*least share that can be met is (0\.\d+)", said)
    assert found, said
    least = float(found[1])
    pipeline.prepare(shortest(*settings, f"search.budget={least}"))
    with pytest.raises(InputError):
        pipeline.prepare(shortest(*settings, f"search.budget={least - 0.001:.3f}"))


def test_weight_bytes_round_up_by_layer() -> None:
    network = pipeline.describe(shortest('search.cost="bytes"'))
    table = WeightBytes().table(network)
    node = next(item for item in network.nodes if item.name == "stem")
    assert isinstance(node, Weighted)
    assert table["stem"][2, 0] == -(-node.weight.size * 3 // 8) and table["stem"][2, 0] == table["stem"][2, 7]
    assert WeightBytes().total(network) == sum(int(rows[3, 3]) for rows in table.values())


@pytest.mark.parametrize("path", sorted(RECIPE.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_starts(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the usual board, by shapes alone: an engine holds its W4A4 network, and some bits meet its budget."""
    asked = read_recipe(path)
    shape, bits, classes = {
        "digits": ((8, 8, 1), 4, 10), "cifar10": ((32, 32, 3), 8, 10), "imagenet": ((224, 224, 3), 8, 1000),
    }[asked.data]  # fmt: skip
    count = 6 * max(classes, 2 * asked.train.batch)
    split = Split(np.broadcast_to(np.zeros((), np.uint8), (count, *shape)), np.arange(count) % classes)
    monkeypatch.setattr(pipeline, "load_data", lambda *_: DataSet(split, split, bits, classes))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(RECIPE.parent.parent.parent)
    run = bitsmith.prepare(path, tmp_path / "run")
    if asked.search.cost != "cycles":
        assert run.engine is None and not (tmp_path / "run" / "engine.json").exists()
        return
    assert run.engine is not None and estimate_area(run.engine).bram36 <= PYNQ.resources.bram36
    if path == RECIPE:  # what README.md shows
        assert (run.engine.name, run.prepared.budget) == ("16x192x8", 968)


def test_weights_that_the_board_does_not_hold_are_streamed() -> None:
    """The cost is that of the program on the engine that is left in the end, whose buffers fit the board."""
    board = PYNQ.model_copy(update={"resources": PYNQ.resources.model_copy(update={"bram36": 60})})
    network, dearer = mlp(2, 2, (784, 512, 512, 10)), mlp(8, 3, (784, 512, 512, 10))
    start = replace(choose_engine(network, board).engine, weight_depth=512)
    cost = Cycles(start, board)
    assert estimate_area(fit_depths(dearer, start)).bram36 > 60
    timed = cost.total(dearer)
    assert cost.engine == start  # to ask changes nothing
    cost.settle(dearer)
    made = schedule(dearer, cost.engine)
    assert made.memory.streamed_rows and estimate_area(cost.engine).bram36 <= 60
    assert timed == time_program(made).cycles_per_image == cost.total(dearer)
    settled = cost.engine
    cost.settle(dearer)
    assert cost.engine == settled
    assert (
        estimate_area(replace(settled, weight_depth=2 * settled.weight_depth)).bram36 > 60
    )  # as deep as the board holds
    assert settled != start
    assert replace(settled, weight_depth=start.weight_depth, program_depth=start.program_depth) == replace(
        start, plane_depth=settled.plane_depth, byte_depth=settled.byte_depth, param_depth=settled.param_depth
    )


def test_maps_that_the_board_does_not_hold_are_refused_with_what_to_do() -> None:
    board = PYNQ.model_copy(update={"resources": PYNQ.resources.model_copy(update={"bram36": 60})})
    engine = choose_engine(mlp(2, 2, (784, 512, 512, 10)), board).engine
    with pytest.raises(InputError) as caught:
        Cycles(engine, board).total(resnet8(8, 8, (56, 56, 3)))
    said = str(caught.value)
    assert f"on engine {engine.name}:" in said and "BRAM36, pynq-z2 has 60; streaming its weights does not help" in said
    assert "Use fewer bits or channels, or another engine." in said
