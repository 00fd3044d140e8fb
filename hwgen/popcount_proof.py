"""Proof that a planned population counter keeps the sum of the word's bits.

Every unit keeps the weighted sum of its bits: pairs, counters and adders are proved for every input with Yosys
(``tests/test_rtl_proofs.py``). So it is enough that each bit enters one unit, at its own weight, and that the largest
sum of a unit's bits fits the bits that leave it.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Iterable, Iterator

from hwgen.popcount import ZERO, Level, Plan

Bit = tuple[str, int]  # name, weight exponent


class _Columns:
    """The bits that leave one level and enter the next."""

    def __init__(self, given: Iterable[Bit] = ()) -> None:
        self.given, self.taken = Multiset(given), Multiset[Bit]()

    @property
    def weights(self) -> dict[str, int]:
        return dict(self.given.keys())

    def turn(self, bits: Iterable[Bit], sums: Iterable[Bit], out: _Columns) -> None:
        """A unit that takes ``bits`` and gives ``sums`` to the next level."""
        bits, sums = [bit for bit in bits if bit[0] != ZERO], list(sums)
        self.taken.update(bits)
        out.given.update(sums)
        most, room = (sum(1 << weight for _, weight in side) for side in (bits, sums))
        if most > room:
            raise ValueError(f"{', '.join(name for name, _ in sums)}: {room} at most, but the bits make up to {most}.")

    def close(self) -> None:
        """Every bit has been given once and taken once, at its weight."""
        wrong = {bit for bit in self.given | self.taken if self.given[bit] != 1 or self.taken[bit] != 1}
        if wrong:
            names = ", ".join(f"{name} of weight 2^{weight}" for name, weight in sorted(wrong))
            raise ValueError(f"lost, repeated or moved to another weight: {names}.")


def _units(level: Level, weights: dict[str, int]) -> Iterator[tuple[list[Bit], list[Bit]]]:
    """Each unit's bits and sums."""
    for counter in level.counters:
        base = weights[counter.bits[0][0]]
        yield (
            [(bit, base + 2 * step) for step, column in enumerate(counter.bits) for bit in column],
            [(name, base + at) for at, name in enumerate(counter.sums)],
        )
    for adder in level.adders:
        base = weights[adder.bits[0]]
        yield [(bit, base) for bit in adder.bits], [(name, base + at) for at, name in enumerate(adder.sums)]
    for source, name in level.passed:
        yield [(source, weights[source])], [(name, weights[source])]


def prove(plan: Plan) -> Plan:
    """The plan, whose three terms add up to the number of ones in the word, whatever the word is.

    Raises:
        ValueError: it loses, repeats or moves a bit, or has no room for a sum.
    """
    columns, out = _Columns((f"word[{at}]", 0) for at in range(plan.width)), _Columns()
    for group in plan.groups:
        word = ((f"word[{at}]", 0) for at in range(group.first, group.first + group.pairs))
        columns.turn(word, [(group.sum, 0), *((carry, 1) for carry in group.carries)], out)
    columns.close()
    for level in plan.levels:
        columns, out = out, _Columns()
        for bits, sums in _units(level, columns.weights):
            columns.turn(bits, sums, out)
        columns.close()
    out.taken.update((bit, weight) for term in plan.terms for weight, bit in enumerate(term) if bit != ZERO)
    out.close()
    if plan.width >= 1 << plan.count_bits:
        raise ValueError(f"{plan.width} ones do not fit {plan.count_bits} bits.")
    return plan
