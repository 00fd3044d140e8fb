"""FST files that the reader understands, made by hand: both ways in which writers pack names."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from sim import fst

NAMES = (
    b"\xfe\x00top\0\0"  # a scope, its kind, name and component
    b"\x10\x00clk\0\x01\x00"  # a wire, its direction, name, width and what it is an alias of
    b"\xfc\x00\x00misc\0\x80\x01\xfd"  # an attribute with a number of two bytes, and its end
    b"\xfe\x00u_core\0\0\x10\x00bus [7:0]\0\x08\x00\xff"
    b"\x10\x00rst\0\x01\x00\xff"
)


def block(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + (len(content) + 8).to_bytes(8, "big") + content


def lz4_of_literals(content: bytes) -> bytes:
    """One sequence that holds everything as it is; longer than 15 bytes."""
    rest = len(content) - 15
    return bytes([0xF0, *[255] * (rest // 255), rest % 255]) + content


HEADER = block(0, struct.pack(">QQ", 3, 400) + bytes(20))


@pytest.mark.parametrize(
    "packed", [block(6, bytes(8) + lz4_of_literals(NAMES)), block(4, bytes(8) + zlib.compress(NAMES, wbits=31))]
)
def test_times_and_names(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "a.fst"
    path.write_bytes(HEADER + block(1, b"values") + packed)
    assert fst.read_declared(path) == fst.Declared(3, 400, ("top.clk", "top.u_core.bus [7:0]", "top.rst"))


@pytest.mark.parametrize(
    "content", [b"", HEADER, block(4, bytes(8) + zlib.compress(NAMES, wbits=31)), b"no waveform at all"]
)
def test_half_a_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.fst"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.fst is no complete FST file"):
        fst.read_declared(path)


def test_lz4() -> None:
    """Copies of what came before, those that overlap themselves among them; lengths of one byte and of more."""
    assert fst._lz4(b"\x30abc\x03\x00") == b"abcabca"  # four bytes from three before
    assert fst._lz4(b"\x1fx\x01\x00\x05\x10y") == b"x" * (1 + 15 + 5 + 4) + b"y"
    assert fst._lz4(lz4_of_literals(bytes(range(256)) * 3)) == bytes(range(256)) * 3
