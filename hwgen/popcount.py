"""The population counter of the array on the 7 series, planned as a bit heap.

A bit heap is a set of bits, each of a weight 2**w, whose weighted sum is the count. Groups of bit pairs put their bits
in; levels of counters then turn many bits into few of the same sum, until no weight has more than three; a ternary
adder does the rest. The plan depends only on the word's width; ``hls_templates/rtl/bs_popcount_xc7.sv.j2`` wires it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

PAIRS = 7  # bit pairs of a group: three in two LUTs, two in each LUT more; measured in docs/area.md
ADDER_HEIGHT = 3  # bits of one weight that the last adder takes
_COUNTER_BITS = 6
_MOST_LEVELS = 4  # counters in one carry chain
ZERO = "1'b0"  # a place that no bit fills

Heap = dict[int, list[str]]  # weight exponent: its bits, as SystemVerilog expressions


@dataclass(frozen=True)
class Group:
    """Bit pairs ``first`` to ``first + pairs - 1``: a sum bit of weight 1, ``carries`` bits of weight 2."""

    first: int
    pairs: int
    sum: str
    carries: tuple[str, ...]


@dataclass(frozen=True)
class Counter:
    """A chain of 6-bit counters: ``bits[n]`` of weight 4**n over the lowest; ``sums`` from the lowest up."""

    bits: tuple[tuple[str, ...], ...]
    sums: tuple[str, ...]


@dataclass(frozen=True)
class FullAdder:
    """Three bits of one weight to a sum and a carry."""

    bits: tuple[str, ...]
    sums: tuple[str, ...]


@dataclass(frozen=True)
class Level:
    """One level of counters. size: bits that leave it, ``level_<n>[size-1:0]``; registered: whether behind registers."""

    number: int
    size: int
    registered: bool
    counters: tuple[Counter, ...]
    adders: tuple[FullAdder, ...]
    passed: tuple[tuple[str, str], ...]  # from, to


@dataclass(frozen=True)
class Plan:
    """A whole counter. terms: three rows of ``count_bits`` bits each, from bit 0 up, for the last adder."""

    width: int
    count_bits: int
    groups: tuple[Group, ...]
    front: int
    levels: tuple[Level, ...]
    terms: tuple[tuple[str, ...], ...]

    @property
    def luts(self) -> int:
        """LUTs of the netlist."""
        front = sum(pairs // 2 + (pairs % 2 if pairs > 1 else 1) for pairs in (group.pairs for group in self.groups))
        tree = sum(2 * sum(len(counter.bits) for counter in level.counters) + len(level.adders) for level in self.levels)
        return front + tree + self.count_bits


class _Names:
    """Hands out the bits of one vector."""

    def __init__(self, vector: str) -> None:
        self.vector, self.size = vector, 0

    def take(self) -> str:
        self.size += 1
        return f"{self.vector}[{self.size - 1}]"


def _counters(left: dict[int, deque[str]], out: Heap, names: _Names) -> list[Counter]:
    """Every chain that full sixes allow, from the lowest weight up."""
    found = []
    for weight in sorted(left):
        while len(left[weight]) >= _COUNTER_BITS:
            groups: list[tuple[str, ...]] = []
            at = weight
            while len(left.get(at, ())) >= _COUNTER_BITS and len(groups) < _MOST_LEVELS:
                groups.append(tuple(left[at].popleft() for _ in range(_COUNTER_BITS)))
                at += 2
            sums = tuple(names.take() for _ in range(2 * len(groups) + 1))
            for step, name in enumerate(sums):
                out.setdefault(weight + step, []).append(name)
            found.append(Counter(tuple(groups), sums))
    return found


def _level(heap: Heap, number: int, registered: bool) -> tuple[Level, Heap]:
    names = _Names(f"level_{number}")
    left = {weight: deque(bits) for weight, bits in heap.items()}
    out: Heap = {}
    counters = _counters(left, out, names)
    adders: list[FullAdder] = []
    passed: list[tuple[str, str]] = []
    for weight in sorted(left):
        bits = left[weight]
        while len(bits) >= 3 and len(bits) + len(out.get(weight, ())) > ADDER_HEIGHT:
            if len(bits) == 5 and len(bits) + len(out.get(weight, ())) > ADDER_HEIGHT + 1:
                # Five bits fill a counter but for one.
                sums = tuple(names.take() for _ in range(3))
                counters.append(Counter(((*(bits.popleft() for _ in range(5)), ZERO),), sums))
            else:
                sums = tuple(names.take() for _ in range(2))
                adders.append(FullAdder(tuple(bits.popleft() for _ in range(3)), sums))
            for step, name in enumerate(sums):
                out.setdefault(weight + step, []).append(name)
        for bit in bits:
            name = names.take()
            passed.append((bit, name))
            out.setdefault(weight, []).append(name)
    return Level(number, names.size, registered, tuple(counters), tuple(adders), tuple(passed)), out


def plan(width: int, pairs: int = PAIRS) -> Plan:
    """The counter of words of ``width`` bits (8 to 512) with groups of ``pairs`` bit pairs (2 to 15)."""
    names = _Names("front")
    groups = []
    heap: Heap = {0: [], 1: []}
    for first in range(0, width, pairs):
        count = min(pairs, width - first)
        group = Group(first, count, names.take(), tuple(names.take() for _ in range(count // 2)))
        groups.append(group)
        heap[0].append(group.sum)
        heap[1] += group.carries
    heaps = [heap]
    while max(len(bits) for bits in heaps[-1].values()) > ADDER_HEIGHT:
        heaps.append(_level(heaps[-1], len(heaps), registered=False)[1])
    # Registers stand behind the groups, half of the levels, all levels, and the adder.
    depth = max(2, len(heaps) - 1)
    levels = []
    for number in range(1, depth + 1):
        level, heap = _level(heap, number, registered=number in (depth // 2, depth))
        levels.append(level)
    count_bits = width.bit_length() + 1
    terms = tuple(
        tuple(heap[bit][row] if row < len(heap.get(bit, ())) else ZERO for bit in range(count_bits))
        for row in range(ADDER_HEIGHT)
    )
    return Plan(width, count_bits, tuple(groups), names.size, tuple(levels), terms)
