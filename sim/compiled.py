"""The compiled simulation of an engine: the Verilated ``bs_top`` with memory, register master and recorder, all in C++.

The model is a shared library (``sim/cpp``), compiled once per RTL and kept in the cache of :mod:`sim.verilator`. No Python
runs in a cycle, so it is tens of times faster than cocotb, and it counts the same cycles.

    engine = CompiledEngine(compile_engine(build.rtl), memory_bytes=1 << 24)
    engine.memory[:len(program)] = np.frombuffer(program, np.uint8)
    engine.write_register("image_count", 1)
    ...
    engine.write_register("control", 5)  # start, interrupt enabled
    engine.run(1_000_000)
    engine.read_register("status")

Time passes only in ``run``, ``step`` and the register accesses: an idle engine costs nothing.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from sim import verilator

PUBLIC = (
    "bs_core.u_write_back",
    "bs_write_back.plane_*_o",
    "bs_write_back.byte_*_o",
    "bs_write_back.logits_*_o",
    "bs_core.layer_*_q",
)
REGISTER = {item.name: item.offset for item in isa.REGISTERS}
RESET_CYCLES = 8

_CPP = Path(__file__).parent / "cpp"
# harness.cpp includes the headers, which are listed for the cache key.
HARNESS = (*sorted(_CPP.glob("*.cpp")), *sorted(_CPP.glob("*.hpp")))
_CALL_CYCLES = 20_000  # between two of them, Python can be interrupted
_ERROR_ROOM = 1024
_PLANES, _BYTES, _ISSUES = range(3)


class SimulationError(RuntimeError):
    """The engine broke the protocol of a port, stopped in the middle, or lacks a signal that the harness needs."""


class RegisterError(Exception):
    """A register access was answered with SLVERR or DECERR."""


@dataclass(frozen=True)
class MemoryTiming:
    """How the memory behind the masters behaves.

    Args:
        latency: least and most cycles from an address to its first beat or, for writes, from the last beat to its answer.
        stall: probability, per cycle, that a channel of a port pauses: 0 to below 1.
        outstanding: bursts accepted per port and direction before it stops taking addresses.
        beats_per_cycle: 8-byte beats that all ports together move per cycle, both directions; None: no limit. 1.6 GB/s
            are 4/3 at 150 MHz.
        seed: of latencies and pauses, and of the values that registers and buffers hold before the first reset.
    """

    latency: tuple[int, int] = (30, 30)
    stall: float = 0.0
    outstanding: int = 16
    beats_per_cycle: float | None = None
    seed: int = 1


NO_CYCLE = -1


@dataclass(frozen=True)
class Writes:
    """Writes of one buffer port, oldest first, n of them.

    cycles: int64 (n,), since ``watch``; NO_CYCLE where nothing has a clock. rows: uint32 (n,). enables: uint32 (n,). data:
    uint8 (n, bytes of a row).
    """

    cycles: NDArray[np.int64]
    rows: NDArray[np.uint32]
    enables: NDArray[np.uint32]
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Events:
    """What the recorder saw. first_issue: (cycle, layer) of each band's first word."""

    planes: Writes
    bytes: Writes
    first_issue: list[tuple[int, int]]


def compile_engine(rtl: Sequence[Path], *, trace: str = "", build_root: Path | None = None, quick: bool = False) -> Path:
    """The library of an engine, compiled if the cache lacks it.

    Args:
        rtl: sources of ``bs_top``, package first (``Build.rtl``).
        trace: format of the waves that it can record, at half the speed: "vcd" or "fst"; empty: none.
        build_root: the cache; that of :mod:`sim.verilator` if None.
        quick: compile faster, simulate slower: for short runs on small engines.

    Raises:
        sim.verilator.BuildError: the design does not compile.
        InputError: no Verilator, or a tool that it needs is missing.
    """
    return verilator.build_library(
        rtl, "bs_top", HARNESS, public=PUBLIC, trace=trace, build_root=build_root, optimise="-O1" if quick else "-O2"
    )


class CompiledEngine:
    """One engine with its memory. Use it as a context manager, or ``close`` it.

    Args:
        library: from :func:`compile_engine`.
        memory_bytes: size of the memory, a multiple of 8; pages that nothing touches take no room.
        memory_base: byte address of the first one, as the engine sees it.
        waves: file to record; the library must be compiled with ``trace``.
        window: first and last cycle to record, counted since ``watch`` (cycle c ends at time 2 c - 1); None: all, and the
            time since the start.

    ``memory`` is a uint8 array over the memory: writing to it is writing to the memory, at any time.
    """

    def __init__(
        self,
        library: Path,
        memory_bytes: int,
        timing: MemoryTiming | None = None,
        *,
        memory_base: int = 0,
        waves: Path | None = None,
        window: tuple[int, int] | None = None,
    ) -> None:
        chosen = timing or MemoryTiming()
        self._library = _load(library)
        self.memory: NDArray[np.uint8] = np.zeros(memory_bytes, np.uint8)
        self.memory_base = memory_base
        _, state, _ = random.Random(chosen.seed).getstate()
        error = ctypes.create_string_buffer(_ERROR_ROOM)
        self._engine = self._library.bitsmith_new(
            self.memory.ctypes.data, memory_bytes, memory_base, chosen.beats_per_cycle or 0.0, *chosen.latency,
            chosen.stall, chosen.outstanding, (ctypes.c_uint32 * len(state))(*state), error, _ERROR_ROOM,
        )  # fmt: skip
        if not self._engine:
            raise SimulationError(f"The compiled simulation cannot start: {error.value.decode()}.")
        if waves is not None:
            self._checked(self._library.bitsmith_trace(self._engine, str(waves).encode(), *(window or (0, 0))))
        self._checked(self._library.bitsmith_reset(self._engine, RESET_CYCLES))

    # ---------------------------------------------------------------- life
    def close(self) -> None:
        """Free the model, and finish the waveform. Closing twice is allowed."""
        if self._engine:
            self._library.bitsmith_delete(self._engine)
            self._engine = None

    def __enter__(self) -> CompiledEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reset(self) -> None:
        """Hold the reset for some cycles; registers are as after power-up, memory stays."""
        self._checked(self._library.bitsmith_reset(self._engine, RESET_CYCLES))

    # ---------------------------------------------------------------- memory
    def write(self, address: int, content: bytes | NDArray[Any]) -> None:
        """Store ``content`` from byte ``address`` on.

        Raises:
            ValueError: it does not fit the memory.
        """
        raw = np.frombuffer(content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes(), np.uint8)
        self._span(address, len(raw))[:] = raw

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address``.

        Raises:
            ValueError: they are not all in the memory.
        """
        return self._span(address, size).tobytes()

    def fail(self, start: int, stop: int, response: int = 2) -> None:
        """Answer bursts that touch ``start <= address < stop`` with ``response`` (2: SLVERR, 3: DECERR)."""
        self._library.bitsmith_fail(self._engine, start, stop, response)

    def heal(self) -> None:
        """Forget all ``fail`` ranges."""
        self._library.bitsmith_heal(self._engine)

    # ---------------------------------------------------------------- registers
    def write_register(self, register: str | int, value: int) -> None:
        """Write a register, by its name or its byte offset.

        Raises:
            RegisterError: the answer is not OKAY.
        """
        offset = REGISTER[register] if isinstance(register, str) else register
        if response := self._checked(self._library.bitsmith_write(self._engine, offset, value)):
            raise RegisterError(f"writing register {offset:#04x} was answered with {response}")

    def read_register(self, register: str | int) -> int:
        """The value of a register, by its name or its byte offset.

        Raises:
            RegisterError: the answer is not OKAY.
        """
        offset = REGISTER[register] if isinstance(register, str) else register
        value = ctypes.c_uint32()
        if response := self._checked(self._library.bitsmith_read(self._engine, offset, ctypes.byref(value))):
            raise RegisterError(f"reading register {offset:#04x} was answered with {response}")
        return value.value

    # ---------------------------------------------------------------- time
    @property
    def cycles(self) -> int:
        """Clock cycles since the model was made."""
        return int(self._library.bitsmith_cycles(self._engine))

    def step(self, cycles: int) -> None:
        """Let ``cycles`` pass."""
        self._run(cycles, False)

    def run(self, limit: int) -> bool:
        """Run until the interrupt is raised, at most ``limit`` cycles; whether it was.

        Raises:
            SimulationError: a master broke the AXI protocol, or the RTL stopped.
        """
        return self._run(limit, True)

    def _run(self, cycles: int, until_irq: bool) -> bool:
        while cycles > 0:
            now = min(cycles, _CALL_CYCLES)
            if self._checked(self._library.bitsmith_run(self._engine, now, until_irq)):
                return True
            cycles -= now
        return False

    # ---------------------------------------------------------------- recorder
    def watch(self) -> None:
        """Start recording buffer writes and first issues; their cycles count from here."""
        self._library.bitsmith_watch(self._engine)

    @property
    def logits_seen(self) -> int:
        """Images whose logits have left the write-back stage since ``watch``."""
        return int(self._library.bitsmith_logits_seen(self._engine))

    def take_events(self) -> Events:
        """What was recorded since the last call."""
        issues = self._records(_ISSUES, [("cycle", "<u8"), ("layer", "<u8")])
        made = Events(self._writes(_PLANES), self._writes(_BYTES), [(int(row[0]), int(row[1])) for row in issues])
        self._library.bitsmith_forget(self._engine)
        return made

    def _writes(self, kind: int) -> Writes:
        records = self._records(kind, [("cycle", "<i8"), ("row", "<u4"), ("enables", "<u4")])
        return Writes(records["cycle"], records["row"], records["enables"], records["data"])

    def _records(self, kind: int, head: list[tuple[str, str]]) -> NDArray[Any]:
        count, size = ctypes.c_uint64(), ctypes.c_uint64()
        start = self._library.bitsmith_records(self._engine, kind, ctypes.byref(count), ctypes.byref(size))
        fields: list[Any] = [*head]
        if data := size.value - np.dtype(fields).itemsize:
            fields.append(("data", "u1", (data,)))
        return np.frombuffer(ctypes.string_at(start, count.value * size.value), np.dtype(fields))

    # ---------------------------------------------------------------- inside
    def _span(self, address: int, size: int) -> NDArray[np.uint8]:
        start = address - self.memory_base
        if start < 0 or start + size > len(self.memory):
            raise ValueError(f"{size} bytes at {address:#x} do not lie in the memory")
        return self.memory[start : start + size]

    def _checked(self, answer: int) -> int:
        if answer < 0:
            raise SimulationError(self._library.bitsmith_error(self._engine).decode())
        return answer


@cache
def _load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    engine, u32, u64, i32 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "new": (
            engine,
            [engine, u64, u64, ctypes.c_double, u32, u32, ctypes.c_double, u32, engine, ctypes.c_char_p, u64],
        ),
        "delete": (None, [engine]),
        "error": (ctypes.c_char_p, [engine]),
        "reset": (i32, [engine, i32]),
        "write": (i32, [engine, u32, u32]),
        "read": (i32, [engine, u32, engine]),
        "run": (i32, [engine, u64, i32]),
        "trace": (i32, [engine, ctypes.c_char_p, u64, u64]),
        "watch": (None, [engine]),
        "cycles": (u64, [engine]),
        "logits_seen": (u64, [engine]),
        "fail": (None, [engine, u64, u64, i32]),
        "heal": (None, [engine]),
        "records": (engine, [engine, i32, engine, engine]),
        "forget": (None, [engine]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, f"bitsmith_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded
