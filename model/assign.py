"""Discretisation: which bits each layer gets, a multiple-choice knapsack solved exactly.

Layers that read one tensor share its activation bits; they form a group. An option of a group is one activation width and a
weight width per layer. Maximise the sum of log probabilities subject to a budget on the sum of costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log

import numpy as np
from numpy.typing import NDArray

from hwgen.errors import InputError

_FLOOR = 1e-12
_MOST_STATES = 200_000


@dataclass(frozen=True)
class Layer:
    """A layer's candidates with their probabilities, and its cost table (8, 8) by [weight - 1][activation - 1] bits."""

    name: str
    weight_bits: tuple[int, ...]
    weight_p: tuple[float, ...]
    cost: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Layers that share one activation choice."""

    activation_bits: tuple[int, ...]
    activation_p: tuple[float, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Option:
    """One way to set a group."""

    activation: int
    weights: tuple[int, ...]
    score: float
    cost: int


def options(group: Group) -> Iterator[Option]:
    """Every option of a group."""
    for activation, p in zip(group.activation_bits, group.activation_p, strict=True):
        for picks in product(*(range(len(layer.weight_bits)) for layer in group.layers)):
            weights = tuple(layer.weight_bits[pick] for layer, pick in zip(group.layers, picks, strict=True))
            score = log(max(p, _FLOOR)) + sum(
                log(max(layer.weight_p[pick], _FLOOR)) for layer, pick in zip(group.layers, picks, strict=True)
            )
            cost = sum(int(layer.cost[w - 1, activation - 1]) for layer, w in zip(group.layers, weights, strict=True))
            yield Option(activation, weights, score, cost)


def _useful(choices: Sequence[Option]) -> list[Option]:
    """Options that no other beats in both cost and score."""
    kept: list[Option] = []
    for option in sorted(choices, key=lambda item: (item.cost, -item.score)):
        if not kept or option.score > kept[-1].score:
            kept.append(option)
    return kept


def most_likely(groups: Sequence[Group]) -> list[Option]:
    """Arg-max of every choice on its own, whatever it costs."""
    return [max(options(group), key=lambda item: item.score) for group in groups]


def cost_range(groups: Sequence[Group]) -> tuple[int, int]:
    """Least and greatest cost that any assignment has."""
    costs = [[option.cost for option in options(group)] for group in groups]
    return sum(min(item) for item in costs), sum(max(item) for item in costs)


def check_budget(groups: Sequence[Group], budget: int) -> None:
    """Whether any assignment costs at most ``budget``.

    Raises:
        InputError: none is that cheap; the message says what can be reached.
    """
    least, most = cost_range(groups)
    if least > budget:
        raise InputError(
            f"No assignment of bits costs at most {budget}; the candidates reach from {least} to {most}."
            " Raise the budget or allow fewer bits."
        )


def solve(groups: Sequence[Group], budget: int) -> list[Option]:
    """The best assignment that costs at most ``budget``.

    Raises:
        InputError: no assignment is that cheap; the message says what can be reached.
    """
    check_budget(groups, budget)
    # States: (cost, score) pairs that no other beats, with the way there.
    states: list[tuple[int, float, tuple[Option, ...]]] = [(0, 0.0, ())]
    rest = [min(option.cost for option in options(group)) for group in groups]
    for at, group in enumerate(groups):
        room = budget - sum(rest[at + 1 :])
        grown = [
            (cost + option.cost, score + option.score, (*way, option))
            for cost, score, way in states
            for option in _useful(list(options(group)))
            if cost + option.cost <= room
        ]
        grown.sort(key=lambda item: (item[0], -item[1]))
        states = []
        for state in grown:
            if not states or state[1] > states[-1][1]:
                states.append(state)
        if len(states) > _MOST_STATES:
            raise InputError("The assignment has too many undominated states; use a coarser cost.")
    return list(states[-1][2])


def as_bits(groups: Sequence[Group], chosen: Sequence[Option]) -> dict[str, tuple[int, int]]:
    """(weight, activation) bits by layer name."""
    return {
        layer.name: (weight, option.activation)
        for group, option in zip(groups, chosen, strict=True)
        for layer, weight in zip(group.layers, option.weights, strict=True)
    }


def total_cost(bits: Mapping[str, tuple[int, int]], table: Mapping[str, NDArray[np.int64]]) -> int:
    """Cost of an assignment by the table."""
    return sum(int(table[name][w - 1, k - 1]) for name, (w, k) in bits.items())
