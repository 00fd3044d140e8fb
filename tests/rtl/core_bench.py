"""What the benches of the core's modules share: packed arrays, and a played memory of several banks."""

from __future__ import annotations

from collections.abc import Sequence


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
