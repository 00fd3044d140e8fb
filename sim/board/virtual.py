"""A virtual board from a bundle: its RTL compiled, behind a server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hwgen.address_map import DDR, Window
from hwgen.board import load_board
from hwgen.bundle import design_hash, read_bundle
from hwgen.errors import InputError
from sim.board.buffers import AREA
from sim.board.chip import Chip
from sim.board.server import BoardServer
from sim.board.wire import PORT
from sim.compiled import CompiledEngine, MemoryTiming, compile_engine

# What a read through a high-performance port takes at the fabric's clock, and what the 16-bit DDR3 sustains.
_LATENCY_CYCLES = (25, 60)
_BEAT_BYTES = 8


def open_board(bundle: Path, *, host: str = "127.0.0.1", port: int = PORT, memory: Window = AREA) -> BoardServer:
    """A server, not started, with the bundle's RTL behind it.

    Args:
        bundle: folder or zip of ``bitsmith bundle --virtual``.
        memory: where buffers are handed out.

    Raises:
        InputError: not a bundle, not a virtual one, no simulator, or the address is taken.
    """
    read = read_bundle(bundle)
    if not read.virtual:
        raise InputError("Its bit file is for a real board; make a bundle with --virtual to simulate it.", str(bundle))
    facts = read.manifest
    board = load_board(str(facts["board"]))
    with tempfile.TemporaryDirectory(prefix="bitsmith-board-") as scratch:
        sources = [Path(scratch) / Path(name).name for name in facts["rtl"]]
        for name, path in zip(facts["rtl"], sources, strict=True):
            path.write_bytes(read.read(name))
        if design_hash(sources) != facts["design"]:
            raise InputError("Its RTL is not the design that its bit file names; make the bundle again.", str(bundle))
        library = compile_engine(sources)
    timing = MemoryTiming(
        latency=_LATENCY_CYCLES, beats_per_cycle=board.ddr_bytes_per_s / (_BEAT_BYTES * facts["clock_mhz"] * 1e6)
    )
    chip = Chip(lambda: CompiledEngine(library, DDR.size, timing, memory_base=DDR.base))
    name = board.name.capitalize().replace("-z", "-Z")
    return BoardServer(chip, name, facts["design"], host=host, port=port, memory=memory)
