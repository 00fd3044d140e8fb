"""The planned population counter: its proof holds for every width, and sees a bit that is lost, repeated or moved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwgen.popcount import Counter, Plan, plan
from hwgen.popcount_proof import prove


def test_every_plan_keeps_the_sum() -> None:
    for width in range(8, 513):
        for pairs in (2, 7, 15):
            prove(plan(width, pairs))


def changed(made: Plan, number: int, *, counters: tuple[Counter, ...]) -> Plan:
    levels = list(made.levels)
    levels[number] = replace(levels[number], counters=counters)
    return replace(made, levels=tuple(levels))


def spoilt(kind: str) -> Plan:
    """A counter of 144 bits with one wire wrong."""
    made = plan(144)
    level = made.levels[0]
    counter, *others = level.counters
    column = counter.bits[0]
    match kind:
        case "repeated":
            return changed(
                made, 0, counters=(replace(counter, bits=((column[1], *column[1:]), *counter.bits[1:])), *others)
            )
        case "lost":
            return changed(
                made, 0, counters=(replace(counter, bits=((*column[:-1], "1'b0"), *counter.bits[1:])), *others)
            )
        case "moved":
            low, high, *rest = counter.sums
            return changed(made, 0, counters=(replace(counter, sums=(high, low, *rest)), *others))
        case "no room":
            return changed(made, 0, counters=(replace(counter, sums=counter.sums[:-1]), *others))
        case "term":
            row, *rows = made.terms
            return replace(made, terms=((row[1], row[0], *row[2:]), *rows))
        case "group":
            group, *groups = made.groups
            return replace(made, groups=(replace(group, first=1), *groups))
        case _:
            return replace(made, count_bits=7)


@pytest.mark.parametrize("kind", ["repeated", "lost", "moved", "no room", "term", "group", "bits"])
def test_a_wrong_wire_is_found(kind: str) -> None:
    with pytest.raises(ValueError, match=r"lost|make up to|do not fit"):
        prove(spoilt(kind))
