"""The climb from the likeliest bits: within the budget, to less loss on held-out images."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwgen.board import load_board
from hwgen.engine import EngineConfig
from model import choose, pipeline
from model.accuracy import fresh_loss
from model.assign import Group, Layer
from model.choose import Bits
from model.cost import Cycles
from model.recipe import read_recipe
from model.refine import refine
from model.steps import NoNumberError, Steps
from model.train import STAGES

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "digits.toml"
SHORT = [
    "train.float_epochs=1", "train.epochs=1", "train.integer_epochs=1", "search.epochs=2", "model.stem=8",
    "model.stages=[[8, 2, 1], [16, 2, 2]]", "train.most_steps=6", "train.norm_batches=2", 'search.cost="bitops"',
    "search.budget=0.5", "search.method=ebs-sto",
]  # fmt: skip
FREE = np.zeros((8, 8), np.int64)
ENGINE = EngineConfig(rows=8, columns=8, slots=6, lane_rows=2)
THREE = (0.2, 0.5, 0.3)
GROUPS = [
    Group((1, 2, 3), THREE, (Layer("a", (1, 2, 4), THREE, FREE), Layer("b", (1, 2, 4), THREE, FREE))),
    Group((2, 3), (0.5, 0.5), (Layer("c", (2, 3, 5), THREE, FREE),)),
    Group((8,), (1.0,), (Layer("last", (8,), (1.0,), FREE),)),
]
START = {"a": (2, 2), "b": (2, 2), "c": (3, 2), "last": (8, 8)}


def everything() -> list[Bits]:
    return [
        {"a": (a, k), "b": (b, k), "c": (c, m), "last": (8, 8)}
        for a, b, k, c, m in product((1, 2, 4), (1, 2, 4), (1, 2, 3), (2, 3, 5), (2, 3))
    ]


def cost(bits: Bits) -> int:
    return sum(w * k for w, k in bits.values())


def fits(bits: Bits) -> bool:
    return 0.8 * cost(START) <= cost(bits) <= cost(START)


def climb(loss: dict[tuple[tuple[int, int], ...], float], trials: int, others: list[Bits], seed: int = 0):  # type: ignore[no-untyped-def]
    asked: list[Bits] = []

    def measured(bits: Bits) -> float:
        asked.append(dict(bits))
        return loss[tuple(bits.values())]

    found = refine(GROUPS, START, others, trials, fits, fits, measured, np.random.default_rng(seed), lambda *_: None)
    return found, asked


@pytest.mark.parametrize("seed", range(10))
def test_the_best_assignment_within_the_budget_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth = {name: rng.random(2) for name in START}
    loss = {
        tuple(bits.values()): sum(float(worth[n][0] / w + worth[n][1] / k) for n, (w, k) in bits.items())
        for bits in everything()
    }
    found, asked = climb(loss, 150, [])
    best = min(loss[tuple(bits.values())] for bits in everything() if fits(bits))
    assert found.loss == loss[tuple(found.bits.values())] == best
    assert found.first == loss[tuple(START.values())]
    assert all(fits(bits) and bits["a"][1] == bits["b"][1] for bits in asked)
    assert len({tuple(bits.values()) for bits in asked}) == len(asked) == found.tried  # nothing is measured twice


def test_others_come_first_and_the_start_stays_where_nothing_is_better() -> None:
    level = {tuple(bits.values()): 1.0 for bits in everything()}
    found, asked = climb(level, 5, [])
    assert found.bits == START and found.others is None and len(asked) == 6
    other = {"a": (1, 2), "b": (2, 2), "c": (3, 2), "last": (8, 8)}
    dear = {"a": (4, 3), "b": (4, 3), "c": (5, 3), "last": (8, 8)}
    found, asked = climb(level | {tuple(other.values()): 0.5}, 0, [dear, other])
    assert found.bits == other and found.loss == found.others == 0.5 and found.first == 1.0 and asked == [START, other]


def test_programs_are_not_assembled_without_end() -> None:
    """Where the table promises what no program keeps, the climb ends."""
    asked: list[Bits] = []

    def refused(bits: Bits) -> bool:
        asked.append(bits)
        return bits == START

    found = refine(
        GROUPS, START, [], 1, lambda _: True, refused, lambda _: 1.0, np.random.default_rng(0), lambda *_: None
    )
    assert found.bits == START and found.tried == 1
    assert len(asked) == 41  # forty for each trial, and the first


def test_fresh_loss_leaves_the_network_as_it_was() -> None:
    """Its batch norm takes each batch's statistics: kept ones, however wrong, neither count nor change; dropout is off."""
    run = pipeline.prepare(read_recipe(RECIPE, SHORT))
    choose.fix_bits(run.net, choose.uniform_bits(run.net, 4, 4))
    images, labels = run.data.test.images[:200], run.data.test.labels[:200]
    losses = []
    for shift in (0.0, 100.0):
        for norm in (item for item in run.net.modules() if isinstance(item, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            norm.running_mean += shift
        before = {name: value.clone() for name, value in run.net.state_dict().items() if "num_batches" not in name}
        losses.append(fresh_loss(run.net, images, labels, 64))
        after = run.net.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert not run.net.training
        assert all(item.momentum for item in run.net.modules() if isinstance(item, nn.BatchNorm2d))
    assert losses[0] == losses[1] == fresh_loss(run.net, images, labels, 64)
    assert losses[0] != fresh_loss(run.net, images[:100], labels[:100], 64)


def test_a_search_tries_assignments_within_its_budget() -> None:
    """Whatever the strengths say, uniform bits and neighbours are measured; what loses least is what is retrained."""
    chosen = {}
    for trials in (0, 40):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, f"search.trials={trials}"]))
        pipeline.train(run, "search")
        facts = run.trainer.state.chosen
        chosen[trials] = run.trainer.state.bits
        assert 0.99 * run.budget <= facts["program_cost"] == run.search.program(chosen[trials]) <= run.budget
        assert facts["nearness"] == "window"
        assert ("tried" in facts) == bool(trials)
    assert facts["tried"] > 20 and facts["chosen_loss"] < facts["likeliest_loss"]
    assert chosen[0] != chosen[40]


def test_uniform_bits_beside_the_budget_are_brought_to_it() -> None:
    """No pair of bits costs as much as the budget; W2A3 and W3A2 come near, and a few changes fill what is left. Where a pair does
    cost as much, nothing is changed."""
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.budget=0.4"]))
    met = run.search._uniform(run.net)
    assert all(0.99 * run.budget <= run.search.program(bits) <= run.budget for bits in met)
    for bits, (weight, activation) in zip(met, ((2, 3), (3, 2)), strict=True):
        uniform = choose.uniform_bits(run.net, weight, activation)
        assert run.search.program(uniform) < 0.99 * run.budget
        assert 1 <= sum(abs(w - weight) + abs(k - uniform[name][1]) for name, (w, k) in bits.items()) <= 3
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.budget=0.5"]))  # W2A4 costs half of W4A4
    assert run.search._uniform(run.net)[0] == choose.uniform_bits(run.net, 2, 4)


def test_only_weights_that_samples_have_trained_are_asked() -> None:
    for settings in (["search.method=ebs-det"], ['search.cost="cycles"', "search.joint=1"]):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, *settings]), cycles=Cycles(ENGINE, load_board("pynq-z2")))
        pipeline.train(run, "search")
        assert "tried" not in run.trainer.state.chosen


def test_finalists_are_retrained_and_leave_no_trace() -> None:
    """The one of the least loss after an epoch is chosen, and what others have learnt does not stay."""
    met = {}
    for method in ("ebs-det", "ebs-sto"):
        for finals in (0, 4):
            run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, f"search.method={method}", f"search.finals={finals}"]))
            pipeline.train(run, "search")
            facts = run.trainer.state.chosen
            assert 0.99 * run.budget <= run.search.program(run.trainer.state.bits) <= run.budget
            assert ("final_losses" in facts) == bool(finals)
            met[finals] = dict(run.net.named_parameters())  # batch norm's statistics are those of the chosen bits
        losses = facts["final_losses"]
        assert 1 < len(losses) <= 4 and len(set(losses)) == len(losses) and all(loss > 0 for loss in losses)
        assert met[0].keys() == met[4].keys()
        assert all(torch.equal(value, met[4][name]) for name, value in met[0].items())


def test_the_finalist_of_the_least_loss_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever place it has; uniform bits are among them, if they cost as much."""
    for place in range(3):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.finals=3", "search.trials=4", "search.weight_bits=[2,4]",
                                                    "search.activation_bits=[2,4]"]))  # fmt: skip
        asked: list[Bits] = []

        def loss(*_: object, run: pipeline.Run = run, asked: list[Bits] = asked, place: int = place) -> float:
            asked.append(
                {
                    node.name: (node.choice.bits or 0, (node_choice.bits or 0) if node_choice else 0)
                    for node in run.net.weighted()
                    for node_choice in [run.net.source_choice(node)]
                }
            )
            return 0.5 if len(asked) == place + 1 else 1.0

        monkeypatch.setattr(run.trainer, "_retrained_loss", loss)
        pipeline.train(run, "search")
        bits = run.trainer.state.bits
        assert len(asked) == 3 and run.trainer.state.chosen["final_losses"][place] == 0.5
        assert all(bits[name][0] == weight for name, (weight, _) in asked[place].items())
        assert all(activation in (0, bits[name][1]) for name, (_, activation) in asked[place].items())


def test_a_finalist_that_diverges_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.finals=3", "search.trials=4"]))
    steps = Steps.weights
    starts: list[Bits] = []

    def diverges(self: Steps, *given: Any, **more: Any) -> float:
        if STAGES[run.trainer.state.stage] == "search" and run.net.weighted()[1].choice.bits is not None:
            bits = {node.name: (node.choice.bits or 0, 0) for node in run.net.weighted()}
            starts.extend([bits] * (bits not in starts))
            if bits == starts[0]:
                raise NoNumberError("The loss is no longer a number")
        return steps(self, *given, **more)

    monkeypatch.setattr(Steps, "weights", diverges)
    pipeline.train(run, "search")
    losses = run.trainer.state.chosen["final_losses"]
    assert losses[0] is None and len(starts) > 1 and all(loss > 0 for loss in losses[1:])
    assert {name: (weight, 0) for name, (weight, _) in run.trainer.state.bits.items()} != starts[0]


def test_trials_and_finals_look_at_as_many_images_as_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def loss(net: nn.Module, images: Any, labels: Any, batch: int) -> float:
        assert len(images) == len(labels)
        seen.append(len(labels))
        return float(len(seen))

    monkeypatch.setattr("model.train.fresh_loss", loss)
    own = ["search.finals=2", "search.trials=3", "search.trial_images=21", "search.final_images=34"]
    pipeline.train(pipeline.prepare(read_recipe(RECIPE, [*SHORT, *own])), "search")
    assert set(seen[:-2]) == {21} and seen[-2:] == [34, 34]


def test_the_even_assignment_has_the_least_noise() -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.pinned=0"]))
    net, table = run.net, run.search.table
    with torch.no_grad():
        even = run.search._discretised(choose.even_groups(net, table)).bits
        drawn = [run.search._discretised(choose.random_groups(net, table, seed)).bits for seed in range(20)]

    def noise(bits: Bits) -> float:
        groups = choose.groups(net, table, choose.plain_context())
        inputs = sum(4.0 ** -bits[group.layers[0].name][1] for group in groups)
        return inputs + sum(4.0**-weight for weight, _ in bits.values())

    assert all(noise(even) <= noise(other) for other in drawn)
