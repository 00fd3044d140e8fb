"""The same programs, legal and damaged, through RTL and HLS: memory and status are equal word for word."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hwgen import isa
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from hwgen.program import Instruction, Program, assemble
from hwgen.render_hls import render_hls_sources
from hwgen.schedule import schedule
from sim.compiled import CompiledEngine, compile_engine
from sim.hls import compile_kernel, run_kernel
from sim.random_network import random_network

SHAPE = EngineConfig(rows=8, columns=4, slots=9, lane_rows=4, weight_depth=2048, plane_depth=2048, byte_depth=2048,
                     column_depth=512)  # fmt: skip
BOARD = load_board("pynq-z2")
IMAGES, SIZE, LIMIT = 2, 1 << 19, 3_000_000
IMAGE_ADDR, OUTPUT_ADDR = SIZE - (1 << 14), SIZE - (1 << 13)
# What does not depend on time.
COMPARED = ("status", "error", "error_info", "images_done")
WORK = ("fill_cycles", "issue_cycles", "write_back_cycles", "read_beats", "write_beats")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    rtl = write_rtl(SHAPE, BOARD, tmp_path_factory.mktemp("rtl"))
    return compile_engine(rtl), compile_kernel(render_hls_sources(SHAPE, BOARD.name, "test"))


def memory_of(program: bytes, seed: int) -> NDArray[np.uint8]:
    memory = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
    assert len(program) <= IMAGE_ADDR
    memory[: len(program)] = np.frombuffer(program, np.uint8)
    return memory


def both(
    engines: tuple[Path, Path], program: bytes, seed: int, *, planar: int = 0, count: int = IMAGES, work: bool = True
) -> dict[str, int]:
    """Run a program on both; the registers that they agree on."""
    library, kernel = engines
    memory = memory_of(program, seed)
    settings = {"watchdog": 3000, "image_addr": IMAGE_ADDR, "image_stride": 2048, "output_addr": OUTPUT_ADDR}
    settings |= {"output_stride": 1024, "image_count": count, "image_planar": planar}
    with CompiledEngine(library, SIZE) as engine:
        engine.memory[:] = memory
        for name, value in settings.items():
            engine.write_register(name, value)
        engine.write_register("control", 5)
        assert engine.run(LIMIT)
        names = COMPARED + (WORK if work else ())
        expected = {name: engine.read_register(name) for name in names}
        after = engine.memory.copy()
    done = run_kernel(kernel, SHAPE, memory, settings)
    found = {name: done.registers[name] for name in names}
    if expected["error"] == isa.Error.WATCHDOG:
        # The RTL's fill runs ahead of the array, so another stage may be the first that waits.
        found["error_info"] = expected["error_info"]
    assert found == expected
    assert np.array_equal(done.memory, after)
    return expected


def programs(count: int, start: int = 0) -> Iterator[tuple[int, Program]]:
    """Programs of random networks that fit the shape."""
    from hwgen.errors import InputError

    seed = start
    while count:
        seed += 1
        try:
            plan = schedule(random_network(seed), SHAPE)
        except InputError:
            continue
        if len(assemble(plan.program)) <= IMAGE_ADDR and plan.image_bytes <= 2048:
            count -= 1
            yield seed, plan.program


def test_legal_programs(engines: tuple[Path, Path]) -> None:
    for seed, program in programs(6):
        found = both(engines, assemble(program), seed, planar=seed & 1)
        assert (found["error"], found["images_done"]) == (isa.Error.NONE, IMAGES), seed


def test_no_images_is_done_at_once(engines: tuple[Path, Path]) -> None:
    _, program = next(programs(1))
    assert both(engines, assemble(program), 1, count=0)["status"] == 2


def damaged(program: Program, rng: random.Random) -> Iterator[tuple[str, bytes, isa.Error]]:
    """One damage of each kind: what, the memory image, the error."""
    image = assemble(program)

    def word(index: int, value: int) -> bytes:
        changed = bytearray(image)
        changed[8 * index : 8 * index + 8] = (value % (1 << 64)).to_bytes(8, "little")
        return bytes(changed)

    header = [int.from_bytes(image[8 * at : 8 * at + 8], "little") for at in range(5)]
    instructions = sum(len(stream) for stream in program.streams)
    yield "magic", word(0, header[0] ^ 1 << rng.randrange(48)), isa.Error.PROGRAM_MAGIC
    yield "engine", word(1, header[1] ^ 1 << rng.randrange(32)), isa.Error.PROGRAM_ENGINE
    yield "words", word(1, header[1] + (1 << 32)), isa.Error.PROGRAM_LENGTH
    yield "count", word(2 + rng.randrange(3), 0xFFFF), isa.Error.PROGRAM_LENGTH
    yield "loop", word(3, header[3] | 0xFFFF << 16), isa.Error.PROGRAM_LENGTH
    yield "end", word(isa.HEADER_WORDS + instructions * isa.WORDS, 0), isa.Error.PROGRAM_END
    at = isa.HEADER_WORDS + rng.randrange(instructions) * isa.WORDS
    yield "opcode", word(at, 0xEE | rng.randrange(256) << 8), isa.Error.ILLEGAL_OPCODE

    def fetch(kind: str, **values: int) -> bytes:
        stream = [
            Instruction(item.op, {**item.values, **values}) if item.op.name == kind else item for item in program.fetch
        ]
        return assemble(replace(program, fetch=tuple(stream)))

    yield "weights beyond", fetch("load_weights", base=SHAPE.weight_depth), isa.Error.ADDRESS
    yield "params beyond", fetch("load_params", base=SHAPE.param_depth), isa.Error.ADDRESS
    yield "image beyond", fetch("load_image", base=SHAPE.plane_depth), isa.Error.ADDRESS
    yield "no pixels", fetch("load_image", pixels=0), isa.Error.ADDRESS
    yield "no planes", fetch("load_image", bits=0), isa.Error.ADDRESS
    yield "no weights come", fetch("load_weights", post_issue=0), isa.Error.WATCHDOG


def test_damaged_programs(engines: tuple[Path, Path]) -> None:
    for seed, program in programs(2, start=20):
        for what, image, error in damaged(program, random.Random(seed)):
            found = both(engines, image, seed, work=False)
            assert found["error"] == error, what


@pytest.mark.parametrize(("op", "field"), [(op.name, field.name) for op, field, _, _ in isa.counts()])
def test_a_count_of_zero_ends_both_alike(engines: tuple[Path, Path], op: str, field: str) -> None:
    """Loops of zero turns would wrap in the RTL and never begin in C++: neither gets that far."""
    for _, program in programs(60, start=60):
        streams = [list(stream) for stream in program.streams]
        found = [(s, at) for s, stream in enumerate(streams) for at, item in enumerate(stream) if item.op.name == op]
        if found:
            break
    stage, at = found[-1]
    item = streams[stage][at]
    assert item.values[field] > 0
    streams[stage][at] = Instruction(item.op, {**item.values, field: 0})
    changed = replace(program, fetch=tuple(streams[0]), execute=tuple(streams[1]), write_back=tuple(streams[2]))
    result = both(engines, assemble(changed), 5, work=False)
    assert (result["error"], result["error_info"] >> 24) == (isa.Error.ADDRESS, stage)
    assert result["images_done"] == 0


def test_empty_loads_do_nothing(engines: tuple[Path, Path]) -> None:
    _, program = next(programs(1, start=40))
    empty = [
        Instruction(item.op, {**item.values, name: 0})
        for item in program.fetch
        for kind, name in (("load_weights", "rows"), ("load_params", "channels"))
        if item.op.name == kind
    ]
    # What they would have posted is posted by the real ones behind them.
    quiet = [Instruction(item.op, {**item.values, "post_issue": 0}) for item in empty]
    changed = replace(program, fetch=(*quiet, *program.fetch), fetch_loop=program.fetch_loop + len(quiet))
    assert both(engines, assemble(changed), 3)["error"] == isa.Error.NONE
