"""Single changes of an assignment: an operand goes to its next fewer or its next more bits."""

from __future__ import annotations

from collections.abc import Sequence

from model.assign import Group
from model.choose import Bits

Operand = tuple[Group, int]  # a layer's place in its group; -1: the tensor that the group reads


def operands(groups: Sequence[Group]) -> list[Operand]:
    """The operands that have a choice."""
    return [(group, at) for group in groups for at in range(-1, len(group.layers)) if len(candidates(group, at)) > 1]


def candidates(group: Group, at: int) -> tuple[int, ...]:
    """An operand's candidates."""
    return group.activation_bits if at < 0 else group.layers[at].weight_bits


def bits_of(group: Group, at: int, bits: Bits) -> int:
    """An operand's bits in an assignment."""
    weight, activation = bits[group.layers[max(at, 0)].name]
    return activation if at < 0 else weight


def moved(bits: Bits, operand: Operand, step: int) -> Bits:
    """The assignment with an operand at its next candidate, below where ``step`` is -1, above where it is 1; where there is none, as
    it was."""
    group, at = operand
    there = _next(candidates(group, at), bits_of(group, at, bits), step)
    made = dict(bits)
    for layer in group.layers if at < 0 else group.layers[at : at + 1]:
        weight, activation = made[layer.name]
        made[layer.name] = (weight, there) if at < 0 else (there, activation)
    return made


def _next(known: Sequence[int], bits: int, step: int) -> int:
    beyond = [candidate for candidate in known if (candidate - bits) * step > 0]
    return min(beyond, key=lambda candidate: abs(candidate - bits), default=bits)
