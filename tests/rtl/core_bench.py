"""What the benches of the core's modules share: packed arrays and structs, and a played memory of several banks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from hwgen.render import render_package


def pack(values: Sequence[int], bits: int) -> int:
    """Elements of a packed array, element 0 lowest; negative ones as two's complement."""
    word = 0
    for index, value in enumerate(values):
        word |= (value & ((1 << bits) - 1)) << bits * index
    return word


def unpack(word: int, bits: int, count: int) -> list[int]:
    """Inverse of :func:`pack`, elements unsigned."""
    return [word >> bits * index & ((1 << bits) - 1) for index in range(count)]


def signed(value: int, bits: int) -> int:
    """The low ``bits`` of ``value`` as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


@cache
def layout(struct: str) -> dict[str, tuple[int, int]]:
    """Lowest bit and width of each member of a packed struct of the package, from the highest member down."""
    found = re.search(rf"typedef struct packed {{([^}}]*)}} {struct};", render_package())
    assert found, struct
    widths: dict[str, int] = {}
    for kind, top, name in re.findall(r"^ *(\w+)(?: signed)? *(?:\[(\d+):0\])? *(\w+);", found[1], re.M):
        widths[name] = int(top or 0) + 1 if kind == "logic" else sum(width for _, width in layout(kind).values())
    lsb, places = sum(widths.values()), {}
    for name, width in widths.items():
        lsb -= width
        places[name] = lsb, width
    return places


def pack_struct(struct: str, values: Mapping[str, int]) -> int:
    """A packed struct of the package as a port holds it: members not given are 0, negative ones two's complement."""
    places, word = layout(struct), 0
    for name, value in values.items():
        lsb, width = places[name]
        word |= (value & ((1 << width) - 1)) << lsb
    return word


def unpack_struct(struct: str, word: int) -> dict[str, int]:
    """Inverse of :func:`pack_struct`, members unsigned."""
    return {name: word >> lsb & ((1 << width) - 1) for name, (lsb, width) in layout(struct).items()}


class Banks:
    """Answers packed bank addresses with packed rows, two cycles later: call once a cycle, drive what comes back.

    Args:
        rows: ``rows[bank][row]``, each ``width`` bits.
    """

    def __init__(self, rows: Sequence[Sequence[int]], width: int, address_bits: int) -> None:
        self.rows, self.width, self.address_bits = rows, width, address_bits
        self._read = 0

    def step(self, addresses: int) -> int:
        shown = self._read
        places = unpack(addresses, self.address_bits, len(self.rows))
        self._read = pack([bank[place] for bank, place in zip(self.rows, places, strict=True)], self.width)
        return shown
