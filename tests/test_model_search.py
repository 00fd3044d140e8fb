"""Whole searches: budgets met, the cost term, joint engine choice, candidates by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import shortest

from hwgen.board import load_board
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.explore import choose_engine
from model import choose, pipeline
from model.cost import Cycles
from model.networks import residual_network
from model.nodes import Context, Mode
from model.quantnet import QuantNet
from model.settings import LayerRule

PYNQ = load_board("pynq-z2")
DEEP = ["model.stages=[[8, 2, 1], [16, 2, 2]]"]  # ten searchable layers


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def cycles() -> Cycles:
    return Cycles(EngineConfig(rows=8, columns=8, slots=6, lane_rows=2), load_board("pynq-z2"))


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
    run = pipeline.prepare(shortest(*DEEP, *settings), tmp_path, cycles())
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
        run = pipeline.prepare(shortest(*DEEP, "search.method=random", 'search.cost="bitops"', f"seed={seed}"))
        pipeline.train(run, "search")
        found.append(run.trainer.state.bits)
        assert 0.99 * run.budget <= run.search.program(found[-1]) <= run.budget
    assert found[0] != found[1]


def test_the_cost_term_moves_the_expected_cost() -> None:
    """Without it the strengths follow the accuracy alone; with it the expected cost falls towards a tight budget."""
    ends = []
    for weight in (0.0, 5.0):
        run = pipeline.prepare(shortest('search.cost="bitops"', "search.budget=0.2", f"search.cost_weight={weight}",
                                      "search.epochs=5", "search.strength_rate=0.2", "train.most_steps=10"))  # fmt: skip
        pipeline.train(run, "search")
        ends.append(float(run.trainer.state.history[-1]["expected_cost"]))
    assert ends[1] < 0.8 * ends[0]


def test_the_allowed_cost_falls_from_the_mean_to_the_budget() -> None:
    run = pipeline.prepare(shortest('search.cost="bitops"', "search.budget=0.2", "search.descent=0.5"))
    with torch.no_grad():
        mean = float(choose.expected_cost(run.net, run.table, choose.plain_context()))  # strengths are equal still
    found = [run.search.allowed(run.net, done) for done in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([mean, (mean + run.budget) / 2, run.budget, run.budget])
    below = pipeline.prepare(shortest('search.cost="bitops"', "search.budget=0.9", "search.descent=0.5"))
    assert below.search.allowed(below.net, 0.0) == below.budget  # the mean is below a high budget already


def test_the_cost_term_follows_what_is_allowed() -> None:
    """A budget that falls in steps leaves the strengths dearer after the first epoch."""
    costs = []
    for descent in (0.0, 0.8):
        run = pipeline.prepare(shortest('search.cost="bitops"', "search.budget=0.2", f"search.descent={descent}",
                                      "search.cost_weight=20.0", "search.warm=0.0", "search.epochs=5",
                                      "search.strength_rate=0.2", "train.most_steps=10"))  # fmt: skip
        pipeline.train(run, "search")
        costs.append([float(entry["expected_cost"]) for entry in run.trainer.state.history if entry["stage"] == "search"])
    at_once, in_steps = costs
    assert in_steps[0] > 1.2 * at_once[0]
    assert in_steps[-1] < in_steps[0]


def test_stochastic_costs_count_what_is_sampled() -> None:
    """The share of passes that a candidate wins is softmax(strengths) at every temperature; the cost term counts just that."""
    run = pipeline.prepare(shortest('search.cost="bitops"', "search.method=ebs-sto"))
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
    settings = shortest(*DEEP, "search.joint=1", "search.budget=0.3")
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
    run = pipeline.prepare(shortest(*rule))
    assert {node.choice.candidates for node in run.net.weighted() if node.name.startswith("block1.")} == {(2, 3)}
    with pytest.raises(InputError, match="matches no layer"):
        pipeline.prepare(shortest('search.layers={"x" = {weight_bits = [2]}}', 'search.cost="bitops"'))
