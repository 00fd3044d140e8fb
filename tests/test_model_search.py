"""From strengths to bits: windows of the budget, the program's own cost, joint engine choice, candidates by layer, the supernet."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bitsmith
from benchmarks.networks import mlp, resnet8
from bitsmith.targets import target_overrides
from hwgen.area import estimate_area
from hwgen.board import load_board
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.explore import choose_engine, fit_depths
from hwgen.network import Weighted
from hwgen.schedule import schedule
from model import choose, dnas, pipeline
from model.assign import Group, Knapsack, Layer, options, total_cost
from model.cost import Cycles, WeightBytes
from model.data import DataSet, Split
from model.discretise import discretise
from model.networks import residual_network
from model.nodes import Context, Mode, WeightedNode
from model.quantnet import QuantNet
from model.recipe import Recipe, read_recipe
from model.settings import LayerRule

PYNQ = load_board("pynq-z2")
RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "digits.toml"
SHORT = [
    "train.float_epochs=1", "train.epochs=1", "train.integer_epochs=1", "search.epochs=3", "model.stem=8",
    "model.stages=[[8, 1, 1], [16, 1, 2]]", "train.most_steps=6", "train.norm_batches=2", "search.trials=4",
]  # fmt: skip
DEEP = ["model.stages=[[8, 2, 1], [16, 2, 2]]"]  # ten searchable layers


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def recipe(*settings: str) -> Recipe:
    return read_recipe(RECIPE, [*SHORT, *settings])


def cycles() -> Cycles:
    return Cycles(EngineConfig(rows=8, columns=8, slots=6, lane_rows=2), load_board("pynq-z2"))


# -------------------------------------------------------------------------------- the knapsack
def random_groups(rng: np.random.Generator, scale: int = 1) -> list[Group]:
    groups = []
    for index in range(4):
        layers = tuple(
            Layer(f"l{index}{at}", (1, 2, 4), tuple(rng.dirichlet(np.ones(3))), scale * rng.integers(1, 60, (8, 8)))
            for at in range(int(rng.integers(1, 3)))
        )
        groups.append(Group((2, 3), tuple(rng.dirichlet(np.ones(2))), layers))
    return groups


@pytest.mark.parametrize("seed", range(12))
def test_every_window_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng)
    every = [(sum(o.cost for o in way), sum(o.score for o in way)) for way in itertools.product(*map(options, groups))]
    knapsack = Knapsack(groups, 300)
    assert knapsack.exact
    for _ in range(20):
        low, high = sorted(int(item) for item in rng.integers(0, 301, 2))
        found, scores = knapsack.best(low, high), [score for cost, score in every if low <= cost <= high]
        assert (found is None) == (not scores)
        if found is not None:
            assert sum(o.score for o in found) == pytest.approx(max(scores))
            assert low <= sum(o.cost for o in found) <= high
        least = min(cost for cost, _ in every)
        if high >= least:
            assert sum(o.cost for o in knapsack.nearest(high)) == max(cost for cost, _ in every if cost <= high)


def test_costs_in_the_millions_are_never_above() -> None:
    groups = random_groups(np.random.default_rng(3), scale=1_000_003)
    groups[0] = Group((2,), (1.0,), (Layer("odd", (1, 2), (0.5, 0.5), np.arange(1, 65).reshape(8, 8)),))
    knapsack = Knapsack(groups, 250_000_000)
    assert not knapsack.exact
    for high in (120_000_000, 180_000_000):
        found = knapsack.best(int(0.98 * high), high)
        assert found is not None and 0.98 * high - 4 * knapsack.unit <= sum(o.cost for o in found) <= high


def test_equal_costs_keep_the_likelier_option() -> None:
    layer = Layer("l", (1, 2), (0.2, 0.8), np.ones((8, 8), np.int64))
    assert [item.weights for item in options(Group((3,), (1.0,), (layer,)))] == [(2,)]


# -------------------------------------------------------------------------------- the program's cost
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_program_holds_the_budget(seed: int, share: float) -> None:
    """A program that costs a moving part beside the table: never above, at most 1 % below where the window can be reached."""
    rng = np.random.default_rng(seed)
    groups = []
    for at in range(10):
        costs = np.cumsum(np.cumsum(rng.integers(20, 80, (8, 8)), 0), 1)
        layer = Layer(f"l{at}", (1, 2, 3, 4, 5), tuple(rng.dirichlet(np.ones(5))), costs)
        groups.append(Group((1, 2, 3, 4, 5), tuple(rng.dirichlet(np.ones(5))), (layer,)))
    table = {layer.name: layer.cost for group in groups for layer in group.layers}

    def program(bits: choose.Bits) -> int:
        return total_cost(bits, table) + 400 + sum(37 * w * (a % 3) for w, a in bits.values())

    lowest = program({name: (1, 1) for name in table})
    budget = int(lowest + share * (program({name: (5, 5) for name in table}) - lowest))
    chosen = discretise(groups, budget, table, program)
    assert chosen.cost == program(chosen.bits) and chosen.table_cost == total_cost(chosen.bits, table)
    assert chosen.nearness == "window" and 0.99 * budget <= chosen.cost <= budget


def test_a_budget_out_of_reach_says_the_programs_range() -> None:
    layer = Layer("l", (1, 2), (0.5, 0.5), np.full((8, 8), 10) * np.arange(1, 9)[:, None])
    groups = [Group((2,), (1.0,), (layer,))]
    with pytest.raises(InputError, match="reach from 17 to 27"):
        discretise(groups, 16, {"l": layer.cost}, lambda bits: 10 * bits["l"][0] + 7)


def test_what_cannot_be_nearer_is_proven() -> None:
    layer = Layer("l", (1, 2, 4), (0.1, 0.1, 0.8), np.full((8, 8), 10) * np.arange(1, 9)[:, None])
    groups = [Group((2,), (1.0,), (layer,))]
    chosen = discretise(groups, 39, {"l": layer.cost}, lambda bits: 10 * bits["l"][0])
    assert (chosen.cost, chosen.nearness) == (20, "proven")


def test_a_budget_that_can_be_met_before_training_can_be_met_after() -> None:
    """1 and 2 bits cost the same by the table, but not by the program; training makes 2 bits the likelier."""
    cost = np.full((8, 8), 10)
    cost[2:] = 30
    layers = [Layer(f"l{at}", (1, 2, 3), (0.01, 0.98, 0.01), cost) for at in range(2)]
    groups = [Group((2,), (1.0,), (layer,)) for layer in layers]
    chosen = discretise(
        groups, 22, {layer.name: cost for layer in layers}, lambda bits: 18 + sum(2 * w for w, _ in bits.values())
    )
    assert chosen.cost == 22 and set(chosen.bits.values()) == {(1, 2)}


@pytest.mark.parametrize("count", [4, 6])  # few enough to try all, or not
@pytest.mark.parametrize("seed", range(6))
def test_far_apart_candidates_get_as_near_as_any_assignment(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    groups = []
    for at in range(count):
        costs = np.cumsum(np.cumsum(rng.integers(5, 60, (8, 8)), 0), 1)
        layer = Layer(f"l{at}", (1, 8), tuple(rng.dirichlet(np.ones(2))), costs)
        groups.append(Group((1, 8), tuple(rng.dirichlet(np.ones(2))), (layer,)))
    table = {layer.name: layer.cost for group in groups for layer in group.layers}
    beside = {name: rng.integers(0, 60, (8, 8)) for name in table}

    def program(bits: choose.Bits) -> int:
        return total_cost(bits, table) + sum(int(beside[name][w - 1, a - 1]) for name, (w, a) in bits.items())

    pairs = itertools.product([(w, a) for w in (1, 8) for a in (1, 8)], repeat=count)
    every = sorted(program(dict(zip(table, way, strict=True))) for way in pairs)
    for share in (0.2, 0.4, 0.6, 0.8):
        budget = int(every[0] + share * (every[-1] - every[0]))
        chosen = discretise(groups, budget, table, program)
        assert chosen.cost <= budget
        assert chosen.cost >= 0.99 * budget or chosen.cost == max(cost for cost in every if cost <= budget)
        if count == 4:
            assert chosen.nearness in ("window", "proven")


def test_of_all_assignments_in_the_window_the_likeliest_is_taken() -> None:
    cost = np.full((8, 8), 10) * np.arange(1, 9)[:, None]
    layers = [Layer("a", (1, 8), (0.01, 0.99), cost), Layer("b", (1, 8), (0.99, 0.01), cost)]
    groups = [Group((2,), (1.0,), (layer,)) for layer in layers]
    chosen = discretise(groups, 91, {"a": cost, "b": cost}, lambda bits: total_cost(bits, {"a": cost, "b": cost}) + 1)
    assert (chosen.cost, chosen.nearness) == (91, "window") and chosen.bits == {"a": (8, 2), "b": (1, 2)}


def test_only_what_has_been_seen_is_proven() -> None:
    """Programs that cost more than the table says where nobody looked: enumerated, or known to add up, or not proven."""
    cost = np.full((8, 8), 10) * np.arange(1, 9)[:, None]
    layers = [Layer(f"l{at}", (1, 2, 8), (0.6, 0.3, 0.1), cost) for at in range(7)]
    groups = [Group((2,), (1.0,), (layer,)) for layer in layers]
    table = {layer.name: cost for layer in layers}
    for additive, nearness in ((True, "proven"), (False, "neighbours")):
        found = discretise(groups, 215, table, lambda bits: total_cost(bits, table), additive=additive)
        assert (found.cost, found.nearness) == (210, nearness)
    assert discretise(groups, 999, table, lambda bits: total_cost(bits, table)).nearness == "dearest"


def test_assignments_that_do_not_fit_are_not_chosen() -> None:
    layers = [
        Layer(f"l{at}", (1, 2, 3), (0.1, 0.2, 0.7), np.full((8, 8), 10) * np.arange(1, 9)[:, None]) for at in range(4)
    ]
    groups = [Group((2,), (1.0,), (layer,)) for layer in layers]

    def program(bits: choose.Bits) -> int:
        if bits["l0"][0] == 3:
            raise InputError("too large")
        return sum(10 * w for w, _ in bits.values())

    chosen = discretise(groups, 110, {layer.name: layer.cost for layer in layers}, program)
    assert chosen.cost == 110 and chosen.bits["l0"] == (2, 2)


# -------------------------------------------------------------------------------- whole searches
@pytest.mark.parametrize(
    "settings",
    [
        ['search.cost="bitops"', "search.budget=0.5"],
        ['search.cost="bytes"', "search.target=3000"],
        ['search.cost="cycles"', "search.budget=0.55"],
        ['search.cost="cycles"', "search.budget=0.7", "search.method=random"],
        ['search.cost="bitops"', "search.budget=0.5", "search.method=dnas", "search.weight_bits=[2, 4]",
         "search.activation_bits=[2, 4]"],
        ['search.cost="cycles"', "search.budget=0.6", "search.method=ebs-sto", "train.optimiser=sgd", "train.rate=0.05",
         "train.distil=0.5", "train.start=float"],
    ],
    ids=["bitops", "bytes", "cycles", "random", "dnas", "sto-sgd-distil"],
)  # fmt: skip
def test_searches_meet_their_budget(settings: list[str], tmp_path: Path) -> None:
    run = pipeline.prepare(recipe(*DEEP, *settings), tmp_path, cycles())
    pipeline.train(run)
    network = pipeline.export_run(run)
    metrics = pipeline.evaluate(run, network)
    assert metrics["final_cost"] == run.search.cost.total(network) == metrics["program_cost"]
    assert metrics["table_difference"] == metrics["final_cost"] - metrics["final_table_cost"]
    assert metrics["final_cost"] <= metrics["budget"]
    assert metrics["final_cost"] >= 0.99 * metrics["budget"] or metrics["nearness"] == "proven"
    assert metrics["logit_agreement"] == 1.0
    assert all(node.branches is None for node in run.net.weighted())


def test_random_assignments_differ_by_seed_and_cost_the_same() -> None:
    found = []
    for seed in (1, 2):
        run = pipeline.prepare(recipe(*DEEP, "search.method=random", 'search.cost="bitops"', f"seed={seed}"))
        pipeline.train(run, "search")
        found.append(run.trainer.state.bits)
        assert 0.99 * run.budget <= run.search.program(found[-1]) <= run.budget
    assert found[0] != found[1]


def test_the_cost_term_moves_the_expected_cost() -> None:
    """Without it the strengths follow the accuracy alone; with it the expected cost falls towards a tight budget."""
    ends = []
    for weight in (0.0, 5.0):
        run = pipeline.prepare(recipe('search.cost="bitops"', "search.budget=0.2", f"search.cost_weight={weight}",
                                      "search.epochs=5", "search.strength_rate=0.2", "train.most_steps=10"))  # fmt: skip
        pipeline.train(run, "search")
        ends.append(float(run.trainer.state.history[-1]["expected_cost"]))
    assert ends[1] < 0.8 * ends[0]


def test_the_allowed_cost_falls_from_the_mean_to_the_budget() -> None:
    run = pipeline.prepare(recipe('search.cost="bitops"', "search.budget=0.2", "search.descent=0.5"))
    with torch.no_grad():
        mean = float(choose.expected_cost(run.net, run.table, choose.plain_context()))  # strengths are equal still
    found = [run.search.allowed(run.net, done) for done in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([mean, (mean + run.budget) / 2, run.budget, run.budget])
    below = pipeline.prepare(recipe('search.cost="bitops"', "search.budget=0.9", "search.descent=0.5"))
    assert below.search.allowed(below.net, 0.0) == below.budget  # the mean is below a high budget already


def test_the_cost_term_follows_what_is_allowed() -> None:
    """A budget that falls in steps leaves the strengths dearer after the first epoch."""
    costs = []
    for descent in (0.0, 0.8):
        run = pipeline.prepare(recipe('search.cost="bitops"', "search.budget=0.2", f"search.descent={descent}",
                                      "search.cost_weight=20.0", "search.warm=0.0", "search.epochs=5",
                                      "search.strength_rate=0.2", "train.most_steps=10"))  # fmt: skip
        pipeline.train(run, "search")
        costs.append([float(entry["expected_cost"]) for entry in run.trainer.state.history if entry["stage"] == "search"])
    at_once, in_steps = costs
    assert in_steps[0] > 1.2 * at_once[0]
    assert in_steps[-1] < in_steps[0]


def test_stochastic_costs_count_what_is_sampled() -> None:
    """The share of passes that a candidate wins is softmax(strengths) at every temperature; the cost term counts just that."""
    run = pipeline.prepare(recipe('search.cost="bitops"', "search.method=ebs-sto"))
    choice = next(node.choice for node in run.net.weighted() if node.choice.searchable)
    with torch.no_grad():
        choice.strengths.copy_(torch.linspace(0.0, 1.5, len(choice.candidates)))
    noisy = Context(Mode.QUANTISED, 0.1, torch.Generator().manual_seed(1))
    with torch.no_grad():
        wins = torch.stack([choice.probabilities(noisy).argmax() for _ in range(20_000)]).bincount() / 20_000
        counted = run.search.pressure(run.net, 0.1, 1.0) - run.search.pressure(run.net, 1.0, 1.0)
    assert torch.allclose(wins, choice.strengths.softmax(0), atol=0.02)
    assert float(counted) == 0.0


def test_joint_changes_the_engine_and_keeps_the_budget(tmp_path: Path) -> None:
    board = load_board("pynq-z2")
    slow = Cycles(EngineConfig(rows=4, columns=4, slots=3, lane_rows=1), board)
    settings = recipe(*DEEP, "search.joint=1", "search.budget=0.3")
    run = pipeline.prepare(settings, tmp_path, slow)
    budget = run.budget
    pipeline.train(run)
    network = pipeline.export_run(run)
    assert slow.engine.name != "4x48x4" and run.budget == budget
    final = run.search.cost.total(network)
    assert final <= budget and slow.engine.rows == choose_engine(network, board).engine.rows
    resumed = Cycles(EngineConfig(rows=4, columns=4, slots=3, lane_rows=1), board)
    again = pipeline.prepare(settings, tmp_path, resumed)
    again.trainer.resume()
    assert resumed.engine == slow.engine and again.budget == budget
    assert all(np.array_equal(again.table[name], table) for name, table in run.table.items())


# -------------------------------------------------------------------------------- candidates by layer
def small_net() -> QuantNet:
    return residual_network("net", (8, 8, 1), 4, 10, 8, [(8, 1, 1), (16, 1, 2)], shortcut="projection",
                            weight_bits=(1, 2, 3, 4, 5), activation_bits=(1, 2, 3, 4, 5))  # fmt: skip


def test_rules_by_layer() -> None:
    net = small_net()
    rules = {
        "block*": LayerRule(weight_range=[2, 4]),
        "block2.conv1": LayerRule(weight_bits=[8], activation_bits=[2, 6]),
        "classifier": LayerRule(activation_range=[4, 8]),
    }
    choose.apply_rules(net, rules)
    by_name = {node.name: node for node in net.weighted()}
    assert by_name["stem"].choice.candidates == (1, 2, 3, 4, 5)
    assert by_name["block1.conv1"].choice.candidates == (2, 3, 4)
    assert by_name["block2.conv1"].choice.candidates == (8,) and by_name["block2.conv1"].choice.bits == 8
    project, classifier = (net.source_choice(by_name[name]) for name in ("block2.project", "classifier"))
    assert project is not None and project.candidates == (2, 6)  # reads the same tensor
    assert classifier is not None and classifier.candidates == (4, 5)


def test_uniform_bits_keep_to_the_rules() -> None:
    net = small_net()
    choose.apply_rules(net, {"block*": LayerRule(weight_range=[3, 4]), "classifier": LayerRule(activation_bits=[4, 5])})
    bits = choose.uniform_bits(net, 2, 7)
    assert bits["block1.conv1"] == (3, 7) and bits["classifier"] == (2, 5) and bits["stem"][0] == 2


def test_wrong_rules_come_together() -> None:
    rules = {
        "blok1.*": LayerRule(weight_bits=[2]),
        "stem": LayerRule(activation_bits=[2]),
        "block1.conv1": LayerRule(weight_range=[6, 8]),
    }
    with pytest.raises(InputError) as caught:
        choose.apply_rules(small_net(), rules)
    text = str(caught.value)
    assert "'blok1.*' matches no layer; the layers are stem, block1.conv1" in text
    assert "layer 'stem' reads the image" in text and "no weight bits are left for layer 'block1.conv1'" in text


def test_rules_in_a_recipe() -> None:
    rule = ['search.layers={"block1.*" = {weight_bits = [2, 3]}}', 'search.cost="bitops"']
    run = pipeline.prepare(recipe(*rule))
    assert {node.choice.candidates for node in run.net.weighted() if node.name.startswith("block1.")} == {(2, 3)}
    with pytest.raises(InputError, match="matches no layer"):
        pipeline.prepare(recipe('search.layers={"x" = {weight_bits = [2]}}', 'search.cost="bitops"'))


# -------------------------------------------------------------------------------- the supernet
def test_the_supernet_is_the_sum_over_branches() -> None:
    torch.manual_seed(0)
    net = residual_network(
        "net", (6, 6, 2), 4, 3, 4, [(4, 1, 1)], shortcut="a", weight_bits=(2, 3), activation_bits=(1, 4)
    )
    dnas.expand(net)
    node = net.weighted()[1]
    assert node.branches is not None and set(node.branches) == {"w2a1", "w2a4", "w3a1", "w3a4"}
    for weight in node.branches.values():
        weight.data.add_(torch.randn_like(weight) * 0.1)
    context = Context(Mode.QUANTISED, branches=True)
    values = net.tensors(torch.randint(0, 16, (2, 2, 6, 6)).float(), context)
    x = values[node.inputs[0]]
    assert x.branches is not None
    found = node._supernet(x, context, 1.0)
    expected = torch.zeros_like(found)
    for row, w in enumerate((2, 3)):
        for column, a in enumerate((1, 4)):
            weight = choose_weight(node, w, a)
            expected += 0.25 * torch.nn.functional.conv2d(x.branches.each[column], weight, padding=1)
            assert row in (0, 1)
    assert torch.allclose(found, expected, atol=1e-5)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in node.branches.values())


def choose_weight(node: WeightedNode, w: int, a: int) -> torch.Tensor:
    from model.quantise import quantise_weight

    assert node.branches is not None
    return quantise_weight(node.branches[dnas.branch_name(w, a)], w).value


def test_collapsing_keeps_the_chosen_branch() -> None:
    net = small_net()
    dnas.expand(net)
    for node in net.weighted():
        assert node.branches is not None
        for at, weight in enumerate(node.branches.values()):
            weight.data.fill_(float(at))
    bits = choose.uniform_bits(net, 3, 2)
    dnas.collapse(net, bits)
    assert all(node.branches is None for node in net.weighted())
    third_of_weights, second_of_activations = 2, 1
    assert set(net.weighted()[1].weight.detach().flatten().tolist()) == {5.0 * third_of_weights + second_of_activations}


# -------------------------------------------------------------------------------- budgets as people say them
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
    with pytest.raises(InputError, match="leave out the budget of 100, or search"):
        pipeline.prepare(recipe('search.method="uniform"', 'search.cost="bitops"', "search.target=100"))


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
    run = pipeline.prepare(recipe('search.cost="bitops"', *settings))
    if not refused:
        run.trainer.check_start()
        return
    with pytest.raises(InputError, match=r"leaves none for the strengths .*; raise search\.epochs"):
        run.trainer.check_start()


def test_a_share_that_cannot_be_met_names_the_least_that_can() -> None:
    settings = [*DEEP, 'search.cost="bitops"']
    with pytest.raises(InputError) as caught:
        pipeline.prepare(recipe(*settings, "search.budget=0.001"))
    said = str(caught.value)
    found = re.search(r"'search\.budget':\n.*No assignment.*\n.*least share that can be met is (0\.\d+)", said)
    assert found, said
    least = float(found[1])
    pipeline.prepare(recipe(*settings, f"search.budget={least}"))
    with pytest.raises(InputError):
        pipeline.prepare(recipe(*settings, f"search.budget={least - 0.001:.3f}"))


def test_weight_bytes_round_up_by_layer() -> None:
    network = pipeline.describe(recipe('search.cost="bytes"'))
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


def test_statistics_of_a_supernet_are_those_of_its_branches() -> None:
    """Batch norm is estimated of the network as it runs then: every branch apart while there are branches."""
    run = pipeline.prepare(
        recipe("search.method=dnas", 'search.cost="bitops"', "search.weight_bits=[2, 4]", "search.activation_bits=[2, 4]")
    )
    seen: list[bool] = []
    run.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].branches))
    dnas.expand(run.net)
    run.trainer._estimate_norms(1, 0.5)
    assert seen == [True, True]
    dnas.collapse(run.net, choose.uniform_bits(run.net, 2, 2))
    run.trainer._estimate_norms(1, 0.5)
    assert seen == [True, True, False, False]
