"""BIT files: the container that Vivado writes and pynq reads, and the one that a virtual board takes instead.

A BIT file is a header of tagged fields (design, part, date, time) and the payload. The payload for a virtual board is text
that names a simulated design. It has no synchronisation word, so an FPGA would ignore it to the end.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from hwgen.errors import InputError

_PREAMBLE = bytes.fromhex("00090ff00ff00ff00ff0000001")
_SYNC_WORDS = (bytes.fromhex("aa995566"), bytes.fromhex("665599aa"))
_HEAD = "bitsmith virtual board: this text stands for a simulated design, no FPGA configures from it\n"


@dataclass(frozen=True)
class BitFile:
    """design: the tool's design string. part: without the device family, e.g. 7z020clg400."""

    design: str
    part: str
    date: str
    time: str
    payload: bytes

    def encode(self) -> bytes:
        """The file."""
        out = bytearray(_PREAMBLE)
        for tag, text in (("a", self.design), ("b", self.part), ("c", self.date), ("d", self.time)):
            data = text.encode("ascii") + b"\0"
            out += tag.encode() + struct.pack(">H", len(data)) + data
        return bytes(out + b"e" + struct.pack(">I", len(self.payload)) + self.payload)

    @classmethod
    def decode(cls, data: bytes) -> BitFile:
        """Read a file.

        Raises:
            InputError: not a BIT file, or truncated.
        """
        fields: dict[str, str] = {}
        try:
            at = 2 + struct.unpack_from(">H", data)[0] + 2
            while (tag := chr(data[at])) != "e":
                (length,) = struct.unpack_from(">H", data, at + 1)
                fields[tag] = data[at + 3 : at + 3 + length].rstrip(b"\0").decode("ascii")
                at += 3 + length
            (length,) = struct.unpack_from(">I", data, at + 1)
            payload = data[at + 5 :]
            made = cls(fields["a"], fields["b"], fields["c"], fields["d"], payload)
        except (struct.error, IndexError, KeyError, UnicodeDecodeError):
            raise InputError("It is not a BIT file: its header cannot be read.") from None
        if len(payload) != length:
            raise InputError(f"Its header promises {length} bytes of bitstream, it holds {len(payload)}.")
        return made


def virtual_bit(design: str, engine_hash: int, part: str) -> bytes:
    """A BIT file whose payload names ``design``, the hash of the simulated sources."""
    text = _HEAD + json.dumps({"design": design, "engine_hash": f"{engine_hash:08x}"}) + "\n"
    payload = text.encode("ascii")
    payload += b"\n" * (-len(payload) % 4)
    assert not any(word in payload for word in _SYNC_WORDS)
    # No date: the same design gives the same bytes, and so the same file name.
    return BitFile(f"bitsmith;virtual={design[:12]}", part.removeprefix("xc").split("-")[0], "-", "-", payload).encode()


def firmware(bit: bytes) -> bytes:
    """What the FPGA manager is given: the payload with the bytes of each 32-bit word turned round."""
    payload = BitFile.decode(bit).payload
    return b"".join(payload[at : at + 4][::-1] for at in range(0, len(payload), 4))


def virtual_design(data: bytes) -> str:
    """The design that firmware names.

    Raises:
        InputError: it is not for a virtual board.
    """
    payload = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    head, _, rest = payload.partition(b"\n")
    try:
        if head + b"\n" != _HEAD.encode("ascii"):
            raise ValueError
        return str(json.loads(rest)["design"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "It is not the firmware of a virtual board; make the bundle with 'bitsmith bundle --virtual'."
        ) from None
