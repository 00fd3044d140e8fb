"""Programs: instructions, their binary form, and the image that goes to memory.

A program image is little-endian 64-bit words: the header, the fetch, execute and write-back instructions, the end word,
padding to 64 bytes, then weight rows and parameters. Offsets in instructions count bytes from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hwgen import isa
from hwgen.errors import InputError

_ALIGN = 64


@dataclass(frozen=True)
class Instruction:
    """An opcode and the value of each of its fields; fields not given are 0."""

    op: isa.Opcode
    values: Mapping[str, int]

    @classmethod
    def make(cls, op: str, **values: int) -> Instruction:
        """Build and check one instruction.

        Raises:
            ValueError: an unknown field, or a value that its field cannot hold.
        """
        opcode = isa.BY_NAME[op]
        known = {field.name: field for field, _ in opcode.layout()}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"{op} has no field '{name}'")
            if not known[name].lo <= value <= known[name].hi:
                raise ValueError(f"{op}.{name} = {value} does not fit {known[name].width} bits")
        return cls(opcode, {**dict.fromkeys(known, 0), **values, "opcode": opcode.code})

    def encode(self) -> bytes:
        """The instruction's 64 bytes."""
        word = 0
        for field, lsb in self.op.layout():
            word |= (self.values[field.name] & ((1 << field.width) - 1)) << lsb
        return word.to_bytes(isa.INSTRUCTION_BITS // 8, "little")

    @classmethod
    def decode(cls, data: bytes) -> Instruction:
        """Inverse of :meth:`encode`.

        Raises:
            InputError: an opcode that does not exist.
        """
        word = int.from_bytes(data, "little")
        opcode = isa.BY_CODE.get(word & 0xFF)
        if opcode is None:
            raise InputError(f"{word & 0xFF:#04x} is not an opcode.")
        values = {}
        for field, lsb in opcode.layout():
            raw = word >> lsb & ((1 << field.width) - 1)
            values[field.name] = raw - (1 << field.width) if field.signed and raw >> (field.width - 1) else raw
        return cls(opcode, values)

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def text(self) -> str:
        """One line: the name and every field that is not zero."""
        parts = [
            f"{name}={value:#x}" if name == "pad_planes" else f"{name}={value}"
            for name, value in self.values.items()
            if value and name != "opcode"
        ]
        return " ".join([self.op.name, *parts])


@dataclass(frozen=True)
class Program:
    """Three instruction streams and where each one's loop over the images starts, plus the data they load."""

    engine_hash: int
    fetch: tuple[Instruction, ...]
    execute: tuple[Instruction, ...]
    write_back: tuple[Instruction, ...]
    fetch_loop: int
    data: bytes
    batch: int = 1

    @property
    def streams(self) -> tuple[tuple[Instruction, ...], ...]:
        return self.fetch, self.execute, self.write_back


def code_bytes(instructions: int) -> int:
    """Bytes before the data of a program with this many instructions."""
    words = isa.HEADER_WORDS + instructions * isa.WORDS + 1
    return -(-words * 8 // _ALIGN) * _ALIGN


def assemble(program: Program) -> bytes:
    """The memory image of a program."""
    count = sum(len(stream) for stream in program.streams)
    words = isa.HEADER_WORDS + count * isa.WORDS + 1
    loops = (program.fetch_loop, 0, 0)
    header = [isa.PROGRAM_MAGIC | isa.PROGRAM_VERSION << 32, program.engine_hash | words << 32]
    header += [len(stream) | loop << 16 for stream, loop in zip(program.streams, loops, strict=True)]
    header += [program.batch]
    header += [0] * (isa.HEADER_WORDS - len(header))
    image = np.array(header, "<u8").tobytes()
    image += b"".join(item.encode() for stream in program.streams for item in stream)
    image += isa.PROGRAM_END.to_bytes(8, "little")
    return image.ljust(code_bytes(count), b"\0") + program.data


def disassemble(image: bytes) -> Program:
    """Read a memory image back.

    Raises:
        InputError: not a program, another version, truncated, or an unknown opcode; all that can be told at once.
    """
    if len(image) < (isa.HEADER_WORDS + 1) * 8:
        raise InputError(f"It has {len(image)} bytes; a program has at least {(isa.HEADER_WORDS + 1) * 8}.", "program")
    header = [int(word) for word in np.frombuffer(image, "<u8", isa.HEADER_WORDS)]
    if header[0] & 0xFFFFFFFF != isa.PROGRAM_MAGIC:
        raise InputError("It does not begin with a program header.", "program")
    if header[0] >> 32 & 0xFFFF != isa.PROGRAM_VERSION:
        raise InputError(
            f"It has version {header[0] >> 32 & 0xFFFF}; this is for version {isa.PROGRAM_VERSION}.", "program"
        )
    counts = [word & 0xFFFF for word in header[2:5]]
    total = isa.HEADER_WORDS + sum(counts) * isa.WORDS + 1
    if len(image) < total * 8 or header[1] >> 32 != total:
        raise InputError(f"It should hold {total} words of instructions but is truncated or edited.", "program")
    if int.from_bytes(image[(total - 1) * 8 : total * 8], "little") != isa.PROGRAM_END:
        raise InputError("Its end word is missing.", "program")
    streams: list[tuple[Instruction, ...]] = []
    position, problems = isa.HEADER_WORDS * 8, []
    for stage, count in zip(isa.Stage, counts, strict=True):
        stream = []
        for index in range(count):
            try:
                stream.append(Instruction.decode(image[position : position + isa.WORDS * 8]))
                if stream[-1].op.stage is not stage:
                    problems.append(
                        f"{stage.name.lower()} instruction {index}: {stream[-1].op.name} belongs to another stage."
                    )
            except InputError as error:
                problems.append(f"{stage.name.lower()} instruction {index}: {error.problems[0]}")
            position += isa.WORDS * 8
        streams.append(tuple(stream))
    if problems:
        raise InputError(problems, "program")
    fetch, execute, write_back = streams
    loop, data = header[2] >> 16 & 0xFFFF, image[code_bytes(sum(counts)) :]
    return Program(header[1] & 0xFFFFFFFF, fetch, execute, write_back, loop, data, header[5] & 0xFF or 1)


def listing(instructions: Iterable[Instruction]) -> str:
    """A disassembly, one instruction a line."""
    return "\n".join(f"{index:4d}  {item.text()}" for index, item in enumerate(instructions))
