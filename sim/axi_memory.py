"""A memory behind any number of AXI3/AXI4 slave ports, for cocotb testbenches.

One coroutine serves all ports, a few Python operations per port and cycle. It checks what it is told against the
protocol: bursts of at most 16 beats that never cross 4 KiB, payload stable while valid waits for ready, WLAST where it
belongs, WID equal to AWID. A violation raises ``AssertionError``, which fails the running test.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

WORD_BYTES = 8
MAX_BURST_BEATS = 16
BOUNDARY_BYTES = 4096
OKAY, SLVERR, DECERR = 0, 2, 3

_SIZE_8_BYTES = 3
_INCR = 1
_DEPOSIT = 0


def reader(signal: Any) -> Callable[[], int]:
    """A function that returns the signal as a non-negative int.

    It reads through the simulator handle: ``signal.value`` builds a LogicArray, ten times slower.
    """
    width = len(signal) if hasattr(signal, "__len__") else 1
    if width <= 32:
        mask = (1 << width) - 1
        read_long = signal._handle.get_signal_val_long
        return lambda: read_long() & mask
    read_bits = signal._handle.get_signal_val_binstr
    return lambda: int(read_bits(), 2)


def writer(signal: Any) -> Callable[[int], None]:
    """A function that drives the signal, up to 64 bits, with a non-negative int."""
    width = len(signal) if hasattr(signal, "__len__") else 1
    handle = signal._handle
    if width < 32:
        return lambda value: handle.set_signal_val_int(_DEPOSIT, value)
    form = f"0{width}b"
    return lambda value: handle.set_signal_val_binstr(_DEPOSIT, format(value, form))


@dataclass(frozen=True)
class Timing:
    """How a port behaves.

    Args:
        latency: least and most cycles from an address to its first beat or, for writes, from the last beat to its answer.
        stall: probability, per cycle, that a channel of the port pauses: 0 to below 1.
        outstanding: bursts accepted per direction before the port stops taking addresses.
    """

    latency: tuple[int, int] = (30, 30)
    stall: float = 0.0
    outstanding: int = 16


@dataclass
class _Burst:
    ready_cycle: int
    address: int
    beats: int
    ident: int
    response: int
    beat: int = 0


@dataclass
class Counters:
    """Beats moved and most bursts in flight, since the start."""

    read_beats: int = 0
    write_beats: int = 0
    read_bursts: int = 0
    write_bursts: int = 0
    most_reads: int = 0
    zero_strobe_beats: int = 0


class AxiMemory:
    """``size`` bytes from address ``base``; ``data`` is a uint8 array over them.

    Args:
        size: bytes, a multiple of 8.
        base: byte address of the first one.
        seed: of latencies and stalls.
        beats_per_cycle: 8-byte beats that all ports together move per cycle, both directions; None: no limit.
    """

    def __init__(self, size: int, base: int = 0, *, seed: int = 1, beats_per_cycle: float | None = None) -> None:
        storage = bytearray(size)
        self.data: NDArray[np.uint8] = np.frombuffer(storage, np.uint8)
        self.base = base
        self.cycle = 0
        self.ports: list[AxiPort] = []
        self.random = random.Random(seed)
        self._bytes = memoryview(storage)
        self._beats_per_cycle = beats_per_cycle
        self._allowance = 0.0
        self._bad: list[tuple[int, int, int]] = []
        self._task: cocotb.task.Task[None] | None = None

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address``."""
        start = address - self.base
        return bytes(self._bytes[start : start + size])

    def write(self, address: int, content: bytes | NDArray[Any]) -> None:
        """Store ``content`` from ``address`` on."""
        raw = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
        start = address - self.base
        if start < 0 or start + len(raw) > len(self.data):
            raise ValueError(f"{len(raw)} bytes at {address:#x} do not fit the memory")
        self._bytes[start : start + len(raw)] = raw

    def fail(self, start: int, stop: int, response: int = SLVERR) -> None:
        """Answer bursts that touch ``start <= address < stop`` with ``response``."""
        self._bad.append((start, stop, response))

    def heal(self) -> None:
        """Forget all ``fail`` ranges."""
        self._bad.clear()

    def attach(self, dut: Any, prefix: str, timing: Timing | None = None) -> AxiPort:
        """Serve the master port of ``dut`` whose signals begin with ``prefix``; either direction may be absent."""
        port = AxiPort(self, dut, prefix, timing or Timing())
        self.ports.append(port)
        return port

    def start(self, clk: Any) -> None:
        """Begin to serve all attached ports, once per rising edge of ``clk``."""
        self._task = cocotb.start_soon(self._serve(clk))

    def response(self, address: int, beats: int) -> int:
        """What a burst is answered with."""
        stop = address + beats * WORD_BYTES
        if address < self.base or stop > self.base + len(self.data):
            return DECERR
        for bad_start, bad_stop, code in self._bad:
            if address < bad_stop and stop > bad_start:
                return code
        return OKAY

    def may_move(self) -> bool:
        """Whether the shared rate leaves room for one more beat now; takes the room if so."""
        if self._beats_per_cycle is None:
            return True
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    async def _serve(self, clk: Any) -> None:
        edge = RisingEdge(clk)
        steps = [step for port in self.ports for step in port.steps()]
        turn = 0
        while True:
            await edge
            self.cycle += 1
            if self._beats_per_cycle is not None:
                # Unused room is not kept: a memory controller cannot move yesterday's beats today.
                self._allowance = min(self._allowance, 1.0) + self._beats_per_cycle
                # Ports take turns at the shared rate.
                turn = (turn + 1) % len(steps)
                for step in steps[turn:] + steps[:turn]:
                    step(self.cycle)
            else:
                for step in steps:
                    step(self.cycle)


@dataclass
class _Address:
    """One address channel: what it showed in the last cycle, and what was accepted."""

    name: str
    valid: Callable[[], int]
    ready: Callable[[int], None]
    payload: tuple[Callable[[], int], ...]
    ready_now: int = 0
    waiting: tuple[int, ...] | None = None
    accepted: deque[tuple[int, ...]] = field(default_factory=deque)


class AxiPort:
    """One slave port of an AxiMemory. Made by ``AxiMemory.attach``."""

    def __init__(self, memory: AxiMemory, dut: Any, prefix: str, timing: Timing) -> None:
        self.memory = memory
        self.prefix = prefix
        self.timing = timing
        self.counters = Counters()
        self._reads: deque[_Burst] = deque()
        self._writes: deque[_Burst] = deque()
        self._answers: deque[_Burst] = deque()
        self._steps: list[Callable[[int], None]] = []

        def pin(name: str) -> Any:
            return getattr(dut, f"{prefix}_{name}")

        if hasattr(dut, f"{prefix}_arvalid"):
            self._ar = self._address_channel(pin, "ar")
            self._rvalid, self._rdata, self._rresp = writer(pin("rvalid")), writer(pin("rdata")), writer(pin("rresp"))
            self._rlast, self._rid, self._rready = writer(pin("rlast")), writer(pin("rid")), reader(pin("rready"))
            self._rvalid_now = 0
            self._rvalid(0)
            self._steps.append(self._step_read)
        if hasattr(dut, f"{prefix}_awvalid"):
            self._aw = self._address_channel(pin, "aw")
            self._wvalid, self._wready = reader(pin("wvalid")), writer(pin("wready"))
            self._wdata, self._wstrb, self._wlast = reader(pin("wdata")), reader(pin("wstrb")), reader(pin("wlast"))
            self._wid = reader(pin("wid")) if hasattr(dut, f"{prefix}_wid") else None
            self._bvalid, self._bresp, self._bid = writer(pin("bvalid")), writer(pin("bresp")), writer(pin("bid"))
            self._bready = reader(pin("bready"))
            self._wready_now = self._bvalid_now = 0
            self._waiting_beat: tuple[int, int, int] | None = None
            self._wready(0)
            self._bvalid(0)
            self._steps.append(self._step_write)
        if not self._steps:
            raise ValueError(f"{dut._name} has no port {prefix}_arvalid or {prefix}_awvalid")

    @staticmethod
    def _address_channel(pin: Callable[[str], Any], name: str) -> _Address:
        fields = ("addr", "len", "size", "burst", "id")
        channel = _Address(
            name, reader(pin(f"{name}valid")), writer(pin(f"{name}ready")),
            tuple(reader(pin(f"{name}{item}")) for item in fields),
        )  # fmt: skip
        channel.ready(0)
        return channel

    def steps(self) -> list[Callable[[int], None]]:
        """The functions to call once per cycle, at the rising edge."""
        return self._steps

    @property
    def idle(self) -> bool:
        """No burst is in flight."""
        return not (self._reads or self._writes or self._answers)

    def _paused(self) -> bool:
        return self.timing.stall > 0.0 and self.memory.random.random() < self.timing.stall

    def _complain(self, what: str) -> None:
        raise AssertionError(f"AXI port {self.prefix}, cycle {self.memory.cycle}: {what}")

    def _accept(self, channel: _Address, queue: deque[_Burst], cycle: int) -> None:
        """Take an address if there is one, then choose ready for the next cycle."""
        if channel.valid():
            payload = tuple(read() for read in channel.payload)
            if channel.waiting is not None and channel.waiting != payload:
                self._complain(f"{channel.name} payload changed while valid waited for ready")
            if channel.ready_now:
                channel.waiting = None
                queue.append(self._burst(channel.name, payload, cycle))
            else:
                channel.waiting = payload
        elif channel.waiting is not None:
            self._complain(f"{channel.name}valid fell before {channel.name}ready")
        ready = int(len(queue) < self.timing.outstanding and not self._paused())
        if ready != channel.ready_now:
            channel.ready(ready)
            channel.ready_now = ready

    def _burst(self, name: str, payload: tuple[int, ...], cycle: int) -> _Burst:
        address, length, size, burst, ident = payload
        beats = length + 1
        if beats > MAX_BURST_BEATS:
            self._complain(f"{name} burst of {beats} beats; AXI3 allows {MAX_BURST_BEATS}")
        if size != _SIZE_8_BYTES or burst != _INCR:
            self._complain(f"{name} size {size} burst {burst}; expected INCR of 8-byte beats")
        if address % WORD_BYTES:
            self._complain(f"{name} address {address:#x} is not a multiple of {WORD_BYTES}")
        if address // BOUNDARY_BYTES != (address + beats * WORD_BYTES - 1) // BOUNDARY_BYTES:
            self._complain(f"{name} burst of {beats} beats at {address:#x} crosses {BOUNDARY_BYTES} bytes")
        low, high = self.timing.latency
        delay = low if low == high else self.memory.random.randint(low, high)
        return _Burst(cycle + delay, address, beats, ident, self.memory.response(address, beats))

    def _step_read(self, cycle: int) -> None:
        reads = self._reads
        if self._rvalid_now and self._rready():
            self.counters.read_beats += 1
            burst = reads[0]
            burst.beat += 1
            if burst.beat == burst.beats:
                reads.popleft()
                self.counters.read_bursts += 1
            self._rvalid_now = 0
            self._rvalid(0)
        if (
            not self._rvalid_now
            and reads
            and cycle >= reads[0].ready_cycle
            and not self._paused()
            and self.memory.may_move()
        ):
            burst = reads[0]
            word = 0
            if burst.response == OKAY:
                start = burst.address + burst.beat * WORD_BYTES - self.memory.base
                word = int.from_bytes(self.memory._bytes[start : start + WORD_BYTES], "little")
            self._rdata(word)
            self._rresp(burst.response)
            self._rlast(int(burst.beat + 1 == burst.beats))
            self._rid(burst.ident)
            self._rvalid(1)
            self._rvalid_now = 1
        self._accept(self._ar, reads, cycle)
        if len(reads) > self.counters.most_reads:
            self.counters.most_reads = len(reads)

    def _step_write(self, cycle: int) -> None:
        if self._wvalid():
            beat = (self._wdata(), self._wstrb(), self._wlast())
            if self._waiting_beat is not None and self._waiting_beat != beat:
                self._complain("w payload changed while valid waited for ready")
            self._waiting_beat = None if self._wready_now else beat
            if self._wready_now:
                self._store(beat, cycle)
        elif self._waiting_beat is not None:
            self._complain("wvalid fell before wready")
        if self._bvalid_now and self._bready():
            self._answers.popleft()
            self.counters.write_bursts += 1
            self._bvalid_now = 0
            self._bvalid(0)
        if not self._bvalid_now and self._answers and cycle >= self._answers[0].ready_cycle and not self._paused():
            self._bresp(self._answers[0].response)
            self._bid(self._answers[0].ident)
            self._bvalid(1)
            self._bvalid_now = 1
        self._accept(self._aw, self._writes, cycle)
        # Data is taken only for an accepted address: one of the orders that a slave may insist on.
        ready = int(bool(self._writes) and not self._paused() and self.memory.may_move())
        if ready != self._wready_now:
            self._wready(ready)
            self._wready_now = ready

    def _store(self, beat: tuple[int, int, int], cycle: int) -> None:
        data, strobe, last = beat
        if not self._writes:
            self._complain("data without an address")
        burst = self._writes[0]
        if self._wid is not None and self._wid() != burst.ident:
            self._complain(f"WID {self._wid()} differs from AWID {burst.ident}")
        if burst.response == OKAY:
            start = burst.address + burst.beat * WORD_BYTES - self.memory.base
            if strobe == 0xFF:
                self.memory._bytes[start : start + WORD_BYTES] = data.to_bytes(WORD_BYTES, "little")
            else:
                for lane in range(WORD_BYTES):
                    if strobe >> lane & 1:
                        self.memory._bytes[start + lane] = data >> (8 * lane) & 0xFF
        self.counters.write_beats += 1
        self.counters.zero_strobe_beats += int(strobe == 0)
        burst.beat += 1
        if last != int(burst.beat == burst.beats):
            self._complain(f"wlast is {last} at beat {burst.beat} of {burst.beats}")
        if last:
            self._writes.popleft()
            low, high = self.timing.latency
            burst.ready_cycle = cycle + self.memory.random.randint(low, high)
            self._answers.append(burst)
