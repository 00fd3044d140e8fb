"""The assignment of bits that holds the budget of the program: the knapsack's on the cost table, moved by what programs cost beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from hwgen.errors import InputError
from model.assign import Group, Knapsack, Option, OutOfReachError, as_bits, assignments, extremes, options, total_cost
from model.choose import Bits
from model.cost import Table

WINDOW = 0.01  # of the budget may stay unused where an assignment exists in between
_ROUNDS = 24
_NO_PROGRAM = 1 << 62
_FEW = 400  # assignments that are all tried at once where there are no more
_MANY = 4096  # all tried where nothing else has found one in the window: minutes, for a proof
_LOOKS = 120  # programs assembled at most, each time, while looking for one nearer to the budget


@dataclass(frozen=True)
class Chosen:
    """An assignment. table_cost: by the table. cost: of the assembled program.

    nearness: "window": at most 1 % of the budget is left; "proven": more is left, and no assignment is nearer; "dearest": more
    is left by what is dearest by the table; "neighbours": more is left, and of the programs that were assembled, by their
    table's cost and by changes of one group or two, none is nearer (there are too many to try all); "engine": the bits are
    near the budget on the engine before, and this one is faster at them (joint search).
    """

    bits: Bits
    table_cost: int
    cost: int
    nearness: str


class _Programs:
    """What the program of an assignment costs; each is assembled once. More than any budget where it does not fit."""

    def __init__(self, layers: Sequence[Group], program: Callable[[Bits], int]) -> None:
        self._layers, self._program = layers, program
        self._known: dict[tuple[tuple[int, int], ...], int] = {}

    @property
    def count(self) -> int:
        """Programs assembled so far."""
        return len(self._known)

    def __call__(self, chosen: Sequence[Option]) -> int:
        bits = as_bits(self._layers, chosen)
        key = tuple(bits.values())
        if key not in self._known:
            try:
                self._known[key] = self._program(bits)
            except InputError:
                self._known[key] = _NO_PROGRAM
        return self._known[key]


def check_reach(layers: Sequence[Group], budget: int, program: Callable[[Bits], int], unit: str = "") -> None:
    """Whether the cheapest assignment's program is within the budget.

    Raises:
        OutOfReachError: it is not; the message says what can be reached.
        InputError: it does not fit the engine.
    """
    least, most = extremes(layers)
    lowest = program(as_bits(layers, least))
    if lowest > budget:
        highest = _Programs(layers, program)(most)
        raise OutOfReachError(budget, lowest, sum(o.cost for o in most) if highest == _NO_PROGRAM else highest, unit)


def discretise(
    layers: Sequence[Group],
    budget: int,
    table: Table,
    program: Callable[[Bits], int],
    unit: str = "",
    *,
    additive: bool = False,
) -> Chosen:
    """A likely assignment whose program costs at most ``budget`` and, where one is found, at least 99 % of it.

    The knapsack runs on the table; the table's budget is moved by what the program costs beside it until the program's
    own cost lies in the window. Where none does, all assignments are tried if they are few, else those whose table cost is
    near, then changes of one group and of two, and then all if they are not too many.

    Args:
        additive: whether every program costs what the table sums up to: then the knapsack proves that nothing is nearer.

    Raises:
        OutOfReachError: the cheapest program is above the budget; the message says what can be reached.
    """
    check_reach(layers, budget, program, unit)
    cost_of = _Programs(layers, program)
    least, most = extremes(layers)
    knapsack = Knapsack(layers, max(int(1.5 * budget), sum(item.cost for item in least)))
    lowest = ceil((1 - WINDOW) * budget)
    inside: dict[tuple[tuple[int, int], ...], list[Option]] = {}
    below: list[Option] = least
    offset = cost_of(least) - sum(item.cost for item in least)
    tried: set[int] = set()
    for _ in range(_ROUNDS):  # an offset once tried is moved down, so that this ends elsewhere each time
        tried.add(offset)
        found = knapsack.best(lowest - offset, budget - offset) or knapsack.nearest(budget - offset)
        cost = cost_of(found)
        if cost <= budget and cost > cost_of(below):
            below = found
        if lowest <= cost <= budget:
            inside[tuple(as_bits(layers, found).values())] = found
            if len(inside) >= 4:
                break
            offset -= max((budget - cost) // 2, 1)  # a likelier one may lie nearer to the budget
        elif cost < _NO_PROGRAM:
            offset = cost - sum(item.cost for item in found)
        while offset in tried:
            offset += max(budget // 1000, 1)
    nearness = "window"
    if inside:
        best = max(inside.values(), key=_score)
    elif additive and knapsack.exact:
        best, nearness = below, "proven"
    elif (every := assignments(layers, _FEW)) is not None:
        best, nearness = _of_all(every, budget, lowest, cost_of), "proven"
    elif below == most:
        best, nearness = below, "dearest"
    else:
        best = _sweep(knapsack, below, budget, lowest, cost_of)
        best, nearness = _climb(layers, best, budget, lowest, cost_of), "neighbours"
        if cost_of(best) < lowest and (every := assignments(layers, _MANY)) is not None:
            best, nearness = _of_all(every, budget, lowest, cost_of), "proven"
    bits, cost = as_bits(layers, best), cost_of(best)
    return Chosen(bits, total_cost(bits, table), cost, "window" if cost >= lowest else nearness)


def _score(way: Sequence[Option]) -> float:
    return sum(item.score for item in way)


def _of_all(
    every: Sequence[list[Option]], budget: int, lowest: int, cost_of: Callable[[Sequence[Option]], int]
) -> list[Option]:
    """The likeliest in the window; where it is empty, the dearest within the budget, the likeliest of several."""
    within = [way for way in every if cost_of(way) <= budget]
    near = [way for way in within if cost_of(way) >= lowest]
    return max(near, key=_score) if near else max(within, key=lambda way: (cost_of(way), _score(way)))


def _sweep(
    knapsack: Knapsack, start: list[Option], budget: int, lowest: int, cost_of: Callable[[Sequence[Option]], int]
) -> list[Option]:
    """The nearest to the budget, from below, of assignments whose table cost is about right, the likeliest at each cost."""
    best, beside = start, cost_of(start) - sum(item.cost for item in start)
    for _, way in zip(range(_LOOKS), knapsack.around(budget - beside), strict=False):
        if cost_of(best) < cost_of(way) <= budget:
            best = way
        if cost_of(best) >= lowest:
            break
    return best


def _climb(layers: Sequence[Group], start: list[Option], budget: int, lowest: int, cost_of: _Programs) -> list[Option]:
    """From an assignment below the budget, change one group or two as long as the program gets nearer to it."""
    best, most = start, cost_of.count + _LOOKS
    while cost_of(best) < lowest:
        for way in _changes(layers, best, budget - cost_of(best)):
            if cost_of(best) < cost_of(way) <= budget:
                best = way
                break
            if cost_of.count >= most:
                return best
        else:
            break
    return best


def _changes(layers: Sequence[Group], chosen: list[Option], gap: int) -> Iterator[list[Option]]:
    """Assignments that differ in one group or two, first those whose table cost rises by about ``gap``."""
    places = [(at, item) for at, group in enumerate(layers) for item in options(group) if item != chosen[at]]
    owner = np.array([at for at, _ in places])
    rise = np.array([option.cost - chosen[at].cost for at, option in places])
    pairs = rise[:, None] + rise[None, :]
    # The diagonal is a change of one group; a group cannot change twice.
    pairs[np.diag_indices_from(pairs)] = rise
    allowed = (owner[:, None] < owner[None, :]) | np.eye(len(places), dtype=bool)
    first, second = np.nonzero(allowed & (pairs > 0))
    order = np.argsort(np.abs(gap - pairs[first, second]), kind="stable")[:_LOOKS]
    for one, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        way = list(chosen)
        for at, option in (places[one], places[other]):
            way[at] = option
        yield way
