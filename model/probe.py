"""What a bit more or less of each operand is worth beside the chosen bits of all others, by retraining each such assignment.

Strengths and trials go by weights that the search has trained; how well a network does at bits that it is retrained for is another
matter. A knapsack adds up what single changes do to the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite

from model.assign import Group, Layer
from model.choose import Bits
from model.moves import Operand, bits_of, moved, operands

_SPREAD = 20.0  # between the logarithms of the best and the worst score


@dataclass(frozen=True)
class Probe:
    """What a change of one operand did. loss: beside that of the unchanged assignment, after as much retraining."""

    layer: str
    operand: str
    bits: int
    loss: float


def probe(
    groups: Sequence[Group], bits: Bits, loss: Callable[[Bits], float], progress: Callable[[int, int], None]
) -> tuple[list[Group], list[Probe]]:
    """The groups with the candidates at ``bits`` and next to them, scored by what they add to the loss; and what was measured.

    Args:
        loss: after retraining at given bits; a change that makes it infinite is no candidate.
        progress: told (measured, all) as they are measured.
    """
    changes = [
        (operand, changed)
        for operand in operands(groups)
        for step in (-1, 1)
        if (changed := moved(bits, operand, step)) != bits
    ]
    base = loss(bits)
    progress(1, len(changes) + 1)
    found: list[Probe] = []
    added: dict[tuple[str, str], dict[int, float]] = {}
    for done, ((group, at), changed) in enumerate(changes, 2):
        measured = Probe(*_name((group, at)), bits_of(group, at, changed), loss(changed) - base)
        progress(done, len(changes) + 1)
        if not isfinite(measured.loss):
            continue
        found.append(measured)
        scores = added.setdefault((measured.layer, measured.operand), {bits_of(group, at, bits): 0.0})
        scores[measured.bits] = measured.loss
    scale = _SPREAD / (max((abs(item.loss) for item in found), default=0.0) or 1.0)
    return [_scored(group, bits, added, scale) for group in groups], found


def _name(operand: Operand) -> tuple[str, str]:
    group, at = operand
    return group.layers[max(at, 0)].name, "input" if at < 0 else "weight"


def _scored(group: Group, bits: Bits, added: Mapping[tuple[str, str], Mapping[int, float]], scale: float) -> Group:
    def choice(at: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        known = added.get(_name((group, at)), {bits_of(group, at, bits): 0.0})
        return tuple(sorted(known)), tuple(exp(-scale * known[item]) for item in sorted(known))

    layers = [Layer(layer.name, *choice(at), layer.cost) for at, layer in enumerate(group.layers)]
    return Group(*choice(-1), tuple(layers))
