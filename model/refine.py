"""The chosen bits against others of the same cost, on held-out images, with the weights that the search has trained.

Strengths say what an operand's bits are worth beside the mixture of all others; what they are worth beside the others' chosen
bits shows when all are set. A climb: a few operands move to a neighbouring candidate, and what loses less stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.assign import Group
from model.choose import Bits

_MOST_MOVES = 4  # operands that move at once
_PROPOSALS = 200  # assignments looked at for each one that is to be tried
_ASSEMBLED = 40  # and programs assembled at most
_Operand = tuple[Group, int]  # a layer's place in its group; -1: the tensor that the group reads


@dataclass(frozen=True)
class Refined:
    """Where a climb ends. first: loss of the bits that it began at. others: the least loss of the others; None: none of them
    fits or is new. tried: assignments whose loss was measured. ranked: those, of rising loss."""

    bits: Bits
    loss: float
    first: float
    others: float | None
    tried: int
    ranked: tuple[Bits, ...] = ()


class _Tried:
    """Losses of assignments; each is measured once, and only where its cost fits. asked: how many were near enough for their
    program to be assembled."""

    def __init__(self, near: Callable[[Bits], bool], fits: Callable[[Bits], bool], loss: Callable[[Bits], float]) -> None:
        self._near, self._fits, self._loss = near, fits, loss
        self._seen: set[tuple[tuple[str, tuple[int, int]], ...]] = set()
        self.losses: list[tuple[float, Bits]] = []
        self.asked = 0

    def __call__(self, bits: Bits) -> float | None:
        """The loss of an assignment that is new and fits; None of any other."""
        key = tuple(sorted(bits.items()))
        if key in self._seen:
            return None
        self._seen.add(key)
        if not self._near(bits):
            return None
        self.asked += 1
        if not self._fits(bits):
            return None
        self.losses.append((found := self._loss(bits), dict(bits)))
        return found

    @property
    def ranked(self) -> tuple[Bits, ...]:
        """What was measured, of rising loss."""
        return tuple(bits for _, bits in sorted(self.losses, key=lambda item: item[0]))


def refine(
    groups: Sequence[Group],
    start: Bits,
    others: Iterable[Bits],
    trials: int,
    near: Callable[[Bits], bool],
    fits: Callable[[Bits], bool],
    loss: Callable[[Bits], float],
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> Refined:
    """The assignment of the least loss among ``start``, ``others``, and ``trials`` neighbours of the best so far.

    Args:
        near: whether an assignment may fit by its table's cost; quickly told.
        fits: whether its program's cost is within the budget and near it; ``start``'s is.
        loss: on held-out images, not yet retrained.
        progress: told (tried, trials) as they are measured.
    """
    tried = _Tried(near, fits, loss)
    best, first = start, tried(start)
    assert first is not None, "the likeliest assignment fits"
    least = first
    among = [(found, bits) for bits in others if (found := tried(bits)) is not None]
    least_other, other = min(among, key=lambda item: item[0], default=(None, start))
    if least_other is not None and least_other < least:
        best, least = other, least_other
    operands = [(group, at) for group in groups for at in range(-1, len(group.layers)) if len(_candidates(group, at)) > 1]
    made = 0
    for _ in range(trials * _PROPOSALS):
        if made == trials or tried.asked > _ASSEMBLED * trials or not operands:
            break
        bits = _moved(operands, best, rng)
        if (found := tried(bits)) is None:
            continue
        made += 1
        progress(made, trials)
        if found < least:
            best, least = bits, found
    return Refined(best, least, first, least_other, len(tried.losses), tried.ranked)


def _candidates(group: Group, at: int) -> tuple[int, ...]:
    return group.activation_bits if at < 0 else group.layers[at].weight_bits


def _moved(operands: Sequence[_Operand], bits: Bits, rng: np.random.Generator) -> Bits:
    """Another assignment: some operands at the next fewer or the next more bits that they may have."""
    made = dict(bits)
    for _ in range(int(rng.integers(1, _MOST_MOVES + 1))):
        group, at = operands[int(rng.integers(len(operands)))]
        step = int(rng.choice((-1, 1)))
        for layer in group.layers if at < 0 else group.layers[at : at + 1]:
            weight, activation = made[layer.name]
            if at < 0:
                made[layer.name] = weight, _next(group.activation_bits, activation, step)
            else:
                made[layer.name] = _next(layer.weight_bits, weight, step), activation
    return made


def _next(candidates: Sequence[int], bits: int, step: int) -> int:
    """The neighbouring candidate; the last one has none, and stays."""
    beyond = [candidate for candidate in candidates if (candidate - bits) * step > 0]
    return min(beyond, key=lambda candidate: abs(candidate - bits), default=bits)
