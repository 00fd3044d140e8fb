"""Everything that can go wrong at run time, on a whole engine: the documented code, no hang, and then a right run.

docs/verification.md has the table; each fault is followed by the run of another network, on the same engine, that nobody cleans.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_sim_random import SHAPES, fitting

from hwgen import isa
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.program import Instruction, assemble
from sim.compiled import MemoryTiming, compile_engine
from sim.job import Layout
from sim.random_network import random_images, random_network
from sim.soak import Station, prepare

SHAPE = SHAPES["4x24x4"]
SLVERR, DECERR = 2, 3
FIRST = isa.HEADER_WORDS * 8
BUSY, ERROR = 1, 4
PATIENCE = 400_000


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    library = compile_engine(write_rtl(SHAPE, load_board("pynq-z2"), tmp_path_factory.mktemp("rtl")), quick=True)
    with Station(library, 3, MemoryTiming((5, 40), 0.1, seed=3)) as made:
        yield made


@pytest.fixture(scope="module")
def works():
    seeds = fitting(SHAPE, 8, 100)
    made = [prepare(random_network(seed), random_images(random_network(seed), 2, seed), SHAPE, seed) for seed in seeds]
    # The longest one goes wrong: something is still to come wherever it is interrupted.
    return sorted(made, key=lambda work: len(work.plan.passes), reverse=True)


def changed(program, stream, index, **values):
    """The program with other values in one instruction."""
    items = list(getattr(program, stream))
    items[index] = Instruction(items[index].op, {**items[index].values, **values})
    return assemble(replace(program, **{stream: tuple(items)}))


def spoilt(work, fault):
    """The program of a work with the fault in it."""
    program, image = work.plan.program, work.program
    words = int.from_bytes(image[8:16], "little") >> 32
    if fault == "magic":
        return b"\0" + image[1:]
    if fault == "engine":
        return assemble(replace(program, engine_hash=program.engine_hash ^ 1))
    if fault == "length":
        return image[:16] + (0xFFFF).to_bytes(2, "little") + image[18:]
    if fault == "end":
        return image[: 8 * words - 8] + bytes(8) + image[8 * words :]
    if fault == "opcode":
        return image[:FIRST] + b"\xee" + image[FIRST + 1 :]
    if fault == "row":
        at = next(at for at, item in enumerate(program.fetch) if item.op.name == "load_weights")
        return changed(program, "fetch", at, base=SHAPE.weight_depth - 1, rows=2)
    if fault == "zero":
        return changed(program, "execute", len(program.execute) - 1, row_tiles=0)
    if fault == "token":
        return changed(program, "execute", 0, wait_fetch=3, wait_fetch_first=3)
    return image


@pytest.mark.parametrize(
    ("fault", "error", "stage"),
    [
        ("magic", isa.Error.PROGRAM_MAGIC, None),
        ("engine", isa.Error.PROGRAM_ENGINE, None),
        ("length", isa.Error.PROGRAM_LENGTH, None),
        ("end", isa.Error.PROGRAM_END, None),
        ("opcode", isa.Error.ILLEGAL_OPCODE, None),
        ("row", isa.Error.ADDRESS, isa.Stage.FETCH),
        ("zero", isa.Error.ADDRESS, isa.Stage.EXECUTE),
        ("token", isa.Error.WATCHDOG, isa.Stage.FETCH),
        ("program SLVERR", isa.Error.AXI_READ, None),
        ("program DECERR", isa.Error.AXI_READ, None),
        ("data SLVERR", isa.Error.AXI_READ, isa.Stage.FETCH),
        ("image DECERR", isa.Error.AXI_READ, isa.Stage.FETCH),
        ("logits SLVERR", isa.Error.AXI_WRITE, isa.Stage.WRITE_BACK),
        ("logits DECERR", isa.Error.AXI_WRITE, isa.Stage.WRITE_BACK),
        ("image beyond memory", isa.Error.AXI_READ, isa.Stage.FETCH),
        ("output beyond memory", isa.Error.AXI_WRITE, isa.Stage.WRITE_BACK),
        ("second start", isa.Error.BUSY, None),
    ],
)
def test_fault(station, works, fault, error, stage):
    engine, (work, other) = station.engine, (works[0], works[1])
    layout = Layout(work.plan, spoilt(work, fault), work.images, 1)
    layout.fill(engine.memory)
    what, _, response = fault.partition(" ")
    place = {
        "program": 0, "data": len(work.program) - 8, "image": layout.image_addr, "logits": layout.output_addr,
    }.get(what)  # fmt: skip
    if place is not None and response in ("SLVERR", "DECERR"):
        engine.fail(place, place + 8, SLVERR if response == "SLVERR" else DECERR)
    changes = {"image beyond memory": "image_addr", "output beyond memory": "output_addr"}
    for name, value in layout.registers():
        value = 2000 if name == "watchdog" else 1 << 30 if name == changes.get(fault) else value
        engine.write_register(name, value)
    if fault == "second start":
        engine.step(300)
        assert engine.read_register("status") == BUSY
        engine.write_register("control", 5)
    assert engine.run(PATIENCE), "it hangs"
    assert engine.read_register("status") == ERROR
    assert isa.Error(engine.read_register("error")) is error
    if stage is not None:
        assert engine.read_register("error_info") >> 24 == stage
    engine.heal()
    result = station.run(other)
    assert not result.problem and not result.wrong, result.mismatches
    assert engine.read_register("error") == isa.Error.NONE


def test_stop_and_reset_in_the_middle(station, works):
    for delay in (0, 37, 411, 1503):
        for kind in ("stop", "reset"):
            layout = Layout(works[0].plan, works[0].program, works[0].images, delay)
            layout.fill(station.engine.memory)
            for name, value in layout.registers():
                station.engine.write_register(name, value)
            station.engine.step(delay)
            if kind == "stop":
                station.engine.write_register("control", 2)
                station.engine.step(1000)
            else:
                station.engine.reset()
            assert station.engine.read_register("status") == 0
            assert station.engine.read_register("error") == isa.Error.NONE
            result = station.run(works[1])
            assert not result.problem and not result.wrong, (kind, delay, result.mismatches)


def test_every_error_has_a_fault():
    tested = {mark.args[1][at][1] for mark in test_fault.pytestmark for at in range(len(mark.args[1]))}
    assert tested == set(isa.Error) - {isa.Error.NONE}
