"""Reads what an FST file declares: its span of time and the names of its signals. Values are for the viewers."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_HEADER, _ZLIB_HIERARCHY, _HIERARCHY = 0, 4, 6
_SCOPE, _UP, _ATTRIBUTE, _ATTRIBUTE_END = 254, 255, 252, 253


@dataclass(frozen=True)
class Declared:
    """first, last: time of the first and last change. signals: dotted path with the range as the file has it, "a.b [7:0]"."""

    first: int
    last: int
    signals: tuple[str, ...]


def read_declared(path: Path) -> Declared:
    """Times and signals of an FST file.

    Raises:
        ValueError: it is none.
    """
    raw, at = path.read_bytes(), 0
    times: tuple[int, int] | None = None
    signals: tuple[str, ...] | None = None
    while at + 9 <= len(raw):
        kind, size = raw[at], int.from_bytes(raw[at + 1 : at + 9], "big")
        block = raw[at + 9 : at + 1 + size]
        if kind == _HEADER:
            times = struct.unpack(">QQ", block[:16])
        elif kind == _HIERARCHY:
            signals = _names(_lz4(block[8:]))
        elif kind == _ZLIB_HIERARCHY:
            signals = _names(zlib.decompress(block[8:], wbits=31))
        at += 1 + size
    if times is None or signals is None:
        raise ValueError(f"{path} is no complete FST file")
    return Declared(*times, signals)


def _lz4(block: bytes) -> bytes:
    """A block of lz4, decoded."""
    made, at = bytearray(), 0

    def length(nibble: int) -> int:
        nonlocal at
        if nibble == 15:
            while block[at] == 255:
                nibble, at = nibble + 255, at + 1
            nibble, at = nibble + block[at], at + 1
        return nibble

    while at < len(block):
        token, at = block[at], at + 1
        count = length(token >> 4)
        made += block[at : at + count]
        at += count
        if at >= len(block):
            break
        distance, at = int.from_bytes(block[at : at + 2], "little"), at + 2
        for _ in range(length(token & 15) + 4):
            made.append(made[-distance])
    return bytes(made)


def _names(hierarchy: bytes) -> tuple[str, ...]:
    found: list[str] = []
    scopes: list[str] = []
    at = 0

    def text() -> str:
        nonlocal at
        end = hierarchy.index(0, at)
        word, at = hierarchy[at:end].decode("utf-8", "replace"), end + 1
        return word

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = hierarchy[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(hierarchy):
        kind, at = hierarchy[at], at + 1
        if kind == _SCOPE:
            at += 1
            scopes.append(text())
            text()
        elif kind == _UP:
            scopes.pop()
        elif kind == _ATTRIBUTE:
            at += 2
            text()
            number()
        elif kind != _ATTRIBUTE_END:
            at += 1  # direction
            name = text()
            number(), number()  # width, alias of
            found.append(".".join([*scopes, name]))
    return tuple(found)
