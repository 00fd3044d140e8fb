"""Discretisation: which bits each layer gets, a multiple-choice knapsack solved exactly.

Layers that read one tensor share its activation bits; they form a group. An option of a group is one activation width and a
weight width per layer. Maximise the sum of log probabilities subject to a window on the sum of costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, log, prod

import numpy as np
from numpy.typing import NDArray

from hwgen.errors import InputError

_FLOOR = 1e-12
_MOST_UNITS = 1 << 18


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


def _score(*p: float) -> float:
    """Log of the probability of choices made together."""
    return sum(log(max(item, _FLOOR)) for item in p)


def options(group: Group) -> list[Option]:
    """The options of a group by rising cost; of equally dear ones the likeliest alone."""
    best: dict[int, Option] = {}
    for activation, p in zip(group.activation_bits, group.activation_p, strict=True):
        partial = {0: Option(activation, (), _score(p), 0)}
        for layer in group.layers:
            grown: dict[int, Option] = {}
            for option in partial.values():
                for bits, weight_p in zip(layer.weight_bits, layer.weight_p, strict=True):
                    cost = option.cost + int(layer.cost[bits - 1, activation - 1])
                    score = option.score + _score(weight_p)
                    if cost not in grown or score > grown[cost].score:
                        grown[cost] = Option(activation, (*option.weights, bits), score, cost)
            partial = grown
        for cost, option in partial.items():
            if cost not in best or option.score > best[cost].score:
                best[cost] = option
    return sorted(best.values(), key=lambda item: item.cost)


def most_likely(groups: Sequence[Group]) -> list[Option]:
    """Arg-max of every choice on its own, whatever it costs."""
    return [max(options(group), key=lambda item: item.score) for group in groups]


def _every_option(group: Group) -> list[Option]:
    """All options of a group, equally dear ones too."""
    made = []
    for activation, p in zip(group.activation_bits, group.activation_p, strict=True):
        each = [list(zip(layer.weight_bits, layer.weight_p, strict=True)) for layer in group.layers]
        for picks in product(*each):
            score = _score(p, *(weight_p for _, weight_p in picks))
            cost = sum(
                int(layer.cost[bits - 1, activation - 1]) for layer, (bits, _) in zip(group.layers, picks, strict=True)
            )
            made.append(Option(activation, tuple(bits for bits, _ in picks), score, cost))
    return made


def assignments(groups: Sequence[Group], most: int) -> list[list[Option]] | None:
    """Every assignment there is; None: there are more than ``most``."""
    count = 1
    for group in groups:
        count *= len(group.activation_bits) * prod(len(layer.weight_bits) for layer in group.layers)
    return None if count > most else [list(way) for way in product(*map(_every_option, groups))]


def _cheapest(group: Group) -> Option:
    """The cheapest option, of equally dear ones that of fewest bits: it does not move while probabilities do."""
    found = []
    for activation, p in zip(group.activation_bits, group.activation_p, strict=True):
        picks = [
            min((int(layer.cost[bits - 1, activation - 1]), bits, weight_p)
                for bits, weight_p in zip(layer.weight_bits, layer.weight_p, strict=True))
            for layer in group.layers
        ]  # fmt: skip
        score = _score(p, *(weight_p for _, _, weight_p in picks))
        weights = tuple(bits for _, bits, _ in picks)
        found.append(Option(activation, weights, score, sum(cost for cost, _, _ in picks)))
    return min(found, key=lambda option: (option.cost, option.activation, option.weights))


def extremes(groups: Sequence[Group]) -> tuple[list[Option], list[Option]]:
    """The cheapest and the dearest assignment by the table."""
    return [_cheapest(group) for group in groups], [options(group)[-1] for group in groups]


def cost_range(groups: Sequence[Group]) -> tuple[int, int]:
    """Least and greatest cost that any assignment has."""
    least, most = extremes(groups)
    return sum(item.cost for item in least), sum(item.cost for item in most)


class OutOfReachError(InputError):
    """A budget below every assignment. least: what the cheapest costs."""

    def __init__(self, budget: int, least: int, most: int, unit: str = "") -> None:
        super().__init__(
            f"No assignment of bits costs at most {budget}{unit}; the candidates reach from {least} to {most}."
            " Raise the budget or allow fewer bits."
        )
        self.least = least


class Knapsack:
    """Every reachable cost up to ``limit`` with its likeliest assignment, by dynamic programming over whole costs.

    Costs are counted in their greatest common divisor; where that makes more than 2**18 steps, in coarser units, rounded
    up, so that nothing ever costs more than it says (and at most one unit per group less).

    exact: whether no cost was rounded. unit: cost of one step.

    Raises:
        OutOfReachError: no assignment costs at most ``limit``; the message says what can be reached.
    """

    def __init__(self, groups: Sequence[Group], limit: int) -> None:
        self._options = [options(group) for group in groups]
        self._base = sum(item[0].cost for item in self._options)
        if self._base > limit:
            raise OutOfReachError(limit, *cost_range(groups))
        limit = min(limit, sum(item[-1].cost for item in self._options))
        extras = [[option.cost - item[0].cost for option in item] for item in self._options]
        self.unit = max(gcd(*(extra for item in extras for extra in item)), 1)
        self.exact = (limit - self._base) // self.unit <= _MOST_UNITS
        if not self.exact:
            self.unit = -(-(limit - self._base) // _MOST_UNITS)
        size = (limit - self._base) // self.unit
        self._steps = [[-(-extra // self.unit) for extra in item] for item in extras]
        best = np.full(size + 1, -np.inf)
        best[0] = 0.0
        self._picks: list[NDArray[np.int32]] = []
        for item, steps in zip(self._options, self._steps, strict=True):
            grown = np.full(size + 1, -np.inf)
            pick = np.zeros(size + 1, np.int32)
            for at, (option, step) in enumerate(zip(item, steps, strict=True)):
                if step > size:
                    continue
                score = best[: size + 1 - step] + option.score
                better = score > grown[step:]
                grown[step:][better] = score[better]
                pick[step:][better] = at
            best = grown
            self._picks.append(pick)
        self._best = best

    def best(self, lowest: int, highest: int) -> list[Option] | None:
        """The likeliest assignment that costs at least ``lowest`` and at most ``highest``; None: there is none."""
        first = max(-(-(lowest - self._base) // self.unit), 0)
        last = min((highest - self._base) // self.unit, len(self._best) - 1)
        if last < first or not np.isfinite(self._best[first : last + 1]).any():
            return None
        return self._way(first + int(np.argmax(self._best[first : last + 1])))

    def nearest(self, highest: int) -> list[Option]:
        """The dearest assignment that costs at most ``highest``, at least the cheapest there is."""
        last = max(min((highest - self._base) // self.unit, len(self._best) - 1), 0)
        return self._way(int(np.flatnonzero(np.isfinite(self._best[: last + 1]))[-1]))

    def around(self, cost: int) -> Iterator[list[Option]]:
        """The likeliest assignment of every cost that can be reached, first those nearest to ``cost``."""
        there = np.flatnonzero(np.isfinite(self._best))
        for at in there[np.argsort(np.abs(self._base + there * self.unit - cost), kind="stable")]:
            yield self._way(int(at))

    def _way(self, at: int) -> list[Option]:
        way = []
        for item, steps, pick in zip(reversed(self._options), reversed(self._steps), reversed(self._picks), strict=True):
            chosen = int(pick[at])
            way.append(item[chosen])
            at -= steps[chosen]
        return way[::-1]


def solve(groups: Sequence[Group], budget: int) -> list[Option]:
    """The likeliest assignment that costs at most ``budget``.

    Raises:
        OutOfReachError: no assignment is that cheap; the message says what can be reached.
    """
    found = Knapsack(groups, budget).best(0, budget)
    assert found is not None
    return found


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
