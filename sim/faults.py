"""Faults of a run, provoked on a whole engine: what goes wrong, and what the registers must say then.

docs/verification.md has the table. A fault ends the run with its code; it never hangs, and the next run is as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwgen import isa
from hwgen.program import Instruction, assemble
from sim.job import START_WITH_INTERRUPT, STATUS_BUSY, STATUS_ERROR, Layout
from sim.soak import Station, Work

_SLVERR, _DECERR = 2, 3
_FIRST = isa.HEADER_WORDS * 8
_ILLEGAL = 0xEE
_WATCHDOG = 2000
_BEYOND = 1 << 30
_STREAMS = {isa.Stage.FETCH: "fetch", isa.Stage.EXECUTE: "execute", isa.Stage.WRITE_BACK: "write_back"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a run.

    error, stage: what the registers must say; stage None: nothing. program: the program's bytes with the fault in them.
    place: byte address of the word that memory answers with ``response``. register: set to an address outside the memory.
    again: a second start.
    """

    error: isa.Error
    stage: isa.Stage | None = None
    program: Callable[[Work], bytes] = lambda work: work.program
    place: Callable[[Layout], int] | None = None
    response: int = _SLVERR
    register: str = ""
    again: bool = False


def _changed(work: Work, stream: str, index: int, **values: int) -> bytes:
    """The program with other values in one instruction."""
    program = work.plan.program
    items = list(getattr(program, stream))
    items[index] = Instruction(items[index].op, {**items[index].values, **values})
    changes: dict[str, Any] = {stream: tuple(items)}
    return assemble(replace(program, **changes))


def _header(work: Work, word: int, byte: int, value: int, size: int = 2) -> bytes:
    at = 8 * word + byte
    return work.program[:at] + value.to_bytes(size, "little") + work.program[at + size :]


def _without_end(work: Work) -> bytes:
    words = int.from_bytes(work.program[12:16], "little")
    return work.program[: 8 * words - 8] + bytes(8) + work.program[8 * words :]


def _illegal(stage: isa.Stage) -> Callable[[Work], bytes]:
    def spoilt(work: Work) -> bytes:
        before = sum(len(stream) for stream in work.plan.program.streams[:stage])
        at = _FIRST + before * isa.WORDS * 8
        return work.program[:at] + bytes([_ILLEGAL]) + work.program[at + 1 :]

    return spoilt


def _given(program: bytes) -> Callable[[Work], bytes]:
    return lambda work: program


def _load_beyond(work: Work) -> bytes:
    at = next(at for at, item in enumerate(work.plan.program.fetch) if item.op.name == "load_weights")
    return _changed(work, "fetch", at, base=work.plan.engine.weight_depth - 1, rows=2)


FAULTS: Mapping[str, Fault] = {
    "magic": Fault(isa.Error.PROGRAM_MAGIC, program=lambda work: b"\0" + work.program[1:]),
    "version": Fault(isa.Error.PROGRAM_MAGIC, program=lambda work: _header(work, 0, 4, isa.PROGRAM_VERSION + 1)),
    "engine": Fault(
        isa.Error.PROGRAM_ENGINE,
        program=lambda work: assemble(replace(work.plan.program, engine_hash=work.plan.program.engine_hash ^ 1)),
    ),
    "length fetch": Fault(isa.Error.PROGRAM_LENGTH, program=lambda work: _header(work, 2, 0, 0xFFFF)),
    "length execute": Fault(isa.Error.PROGRAM_LENGTH, program=lambda work: _header(work, 3, 0, 0xFFFF)),
    "length write_back": Fault(isa.Error.PROGRAM_LENGTH, program=lambda work: _header(work, 4, 0, 0xFFFF)),
    "end": Fault(isa.Error.PROGRAM_END, program=_without_end),
    "opcode fetch": Fault(isa.Error.ILLEGAL_OPCODE, isa.Stage.FETCH, _illegal(isa.Stage.FETCH)),
    "opcode execute": Fault(isa.Error.ILLEGAL_OPCODE, isa.Stage.EXECUTE, _illegal(isa.Stage.EXECUTE)),
    "opcode write_back": Fault(isa.Error.ILLEGAL_OPCODE, isa.Stage.WRITE_BACK, _illegal(isa.Stage.WRITE_BACK)),
    "row": Fault(isa.Error.ADDRESS, isa.Stage.FETCH, _load_beyond),
    "zero": Fault(
        isa.Error.ADDRESS,
        isa.Stage.EXECUTE,
        lambda work: _changed(work, "execute", len(work.plan.program.execute) - 1, row_tiles=0),
    ),
    "token": Fault(
        isa.Error.WATCHDOG, isa.Stage.FETCH, lambda work: _changed(work, "execute", 0, wait_fetch=3, wait_fetch_first=3)
    ),
    "program SLVERR": Fault(isa.Error.AXI_READ, place=lambda layout: 0),
    "program DECERR": Fault(isa.Error.AXI_READ, place=lambda layout: 0, response=_DECERR),
    "data SLVERR": Fault(isa.Error.AXI_READ, isa.Stage.FETCH, place=lambda layout: len(layout.program) - 8),
    "data DECERR": Fault(
        isa.Error.AXI_READ, isa.Stage.FETCH, place=lambda layout: len(layout.program) - 8, response=_DECERR
    ),
    "image SLVERR": Fault(isa.Error.AXI_READ, isa.Stage.FETCH, place=lambda layout: layout.image_addr),
    "image DECERR": Fault(isa.Error.AXI_READ, isa.Stage.FETCH, place=lambda layout: layout.image_addr, response=_DECERR),
    "logits SLVERR": Fault(isa.Error.AXI_WRITE, isa.Stage.WRITE_BACK, place=lambda layout: layout.output_addr),
    "logits DECERR": Fault(
        isa.Error.AXI_WRITE, isa.Stage.WRITE_BACK, place=lambda layout: layout.output_addr, response=_DECERR
    ),
    "image beyond memory": Fault(isa.Error.AXI_READ, isa.Stage.FETCH, register="image_addr"),
    "output beyond memory": Fault(isa.Error.AXI_WRITE, isa.Stage.WRITE_BACK, register="output_addr"),
    "second start": Fault(isa.Error.BUSY, again=True),
}


def renumbered(work: Work) -> Work:
    """The work with other layer numbers, 255 less each: stages only show them."""
    program = work.plan.program
    streams: dict[str, Any] = {
        name: tuple(
            Instruction(item.op, {**item.values, "layer": 255 - item["layer"]}) for item in getattr(program, name)
        )
        for name in _STREAMS.values()
    }
    other = replace(program, **streams)
    return replace(work, plan=replace(work.plan, program=other), program=assemble(other))


def zero_counts(work: Work) -> Iterator[tuple[str, Fault]]:
    """A fault for every field of the program's instructions that must not be zero."""
    done = set()
    for stage, stream in zip(isa.Stage, work.plan.program.streams, strict=True):
        for at, item in enumerate(stream):
            for op, field, _, _ in isa.counts():
                if op is item.op and (op.name, field.name) not in done:
                    done.add((op.name, field.name))
                    spoilt = _changed(work, _STREAMS[stage], at, **{field.name: 0})
                    yield f"{op.name}.{field.name} = 0", Fault(isa.Error.ADDRESS, stage, _given(spoilt))


def provoke(station: Station, work: Work, fault: Fault) -> str:
    """Run a work with the fault on a station that is idle; empty, or what the registers say that they should not."""
    engine = station.engine
    layout = Layout(work.plan, fault.program(work), work.images, work.seed)
    layout.fill(engine.memory)
    if fault.place is not None:
        place = fault.place(layout)
        engine.fail(place, place + 8, fault.response)
    for name, value in layout.registers():
        engine.write_register(name, _WATCHDOG if name == "watchdog" else _BEYOND if name == fault.register else value)
    if fault.again:
        engine.step(300)
        if engine.read_register("status") != STATUS_BUSY:
            return "It is not busy."
        engine.write_register("control", START_WITH_INTERRUPT)
    ended = engine.run(20_000 * station.patience)
    engine.heal()
    status, error, info = (engine.read_register(name) for name in ("status", "error", "error_info"))
    if not ended or status != STATUS_ERROR:
        return f"{'Status' if ended else 'It hangs with status'} {status}."
    if error != fault.error:
        return f"The error is {error}, not {fault.error.name}."
    if fault.stage is not None and info >> 24 != fault.stage:
        return f"The error's information {info:#010x} does not name stage {fault.stage.name}."
    return ""
