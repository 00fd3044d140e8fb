"""From scores to bits: windows of the budget, the program's own cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwgen.errors import InputError
from model import choose
from model.assign import Group, Knapsack, Layer, options, total_cost
from model.discretise import discretise


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


@pytest.mark.parametrize("count", [4, 6])  # few enough to try all at once, or at the end
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
        if chosen.nearness == "window":
            assert chosen.cost >= 0.99 * budget
        else:
            assert (chosen.cost, chosen.nearness) == (max(cost for cost in every if cost <= budget), "proven")


def test_what_nothing_has_found_is_looked_for_among_all() -> None:
    """Programs that cost more than the table says by bits that the table cannot see: neither its costs nor small changes lead there."""
    rng = np.random.default_rng(3)
    cost = np.full((8, 8), 10) * np.arange(1, 9)[:, None]
    layers = [Layer(f"l{at}", (1, 8), (0.5, 0.5), cost) for at in range(11)]
    groups = [Group((2,), (1.0,), (layer,)) for layer in layers]
    table = {layer.name: cost for layer in layers}
    extra = dict(zip(itertools.product((1, 8), repeat=11), rng.integers(0, 60, 2048).tolist(), strict=True))

    def program(bits: choose.Bits) -> int:
        return total_cost(bits, table) + int(extra[tuple(w for w, _ in bits.values())])

    every = [program({name: (w, 2) for name, w in zip(table, way, strict=True)}) for way in extra]
    for budget in (229, 235, 238, 299, 305, 369):
        nearest = max(cost for cost in every if cost <= budget)
        found = discretise(groups, budget, table, program)
        assert found.cost == nearest or found.nearness == "window", (budget, found)


def test_of_all_assignments_in_the_window_the_likeliest_is_taken() -> None:
    cost = np.full((8, 8), 10) * np.arange(1, 9)[:, None]
    layers = [Layer("a", (1, 8), (0.01, 0.99), cost), Layer("b", (1, 8), (0.99, 0.01), cost)]
    groups = [Group((2,), (1.0,), (layer,)) for layer in layers]
    chosen = discretise(groups, 91, {"a": cost, "b": cost}, lambda bits: total_cost(bits, {"a": cost, "b": cost}) + 1)
    assert (chosen.cost, chosen.nearness) == (91, "window") and chosen.bits == {"a": (8, 2), "b": (1, 2)}


def test_only_what_has_been_seen_is_proven() -> None:
    """Programs that cost more than the table says where nobody looked: enumerated, or known to add up, or not proven."""
    cost = np.full((8, 8), 10) * np.arange(1, 9)[:, None]
    layers = [Layer(f"l{at}", (1, 2, 8), (0.6, 0.3, 0.1), cost) for at in range(8)]
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
