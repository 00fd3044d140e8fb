"""The chip of a virtual board: processing system, interrupt controller, and the simulated engine behind its windows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from hwgen import isa
from hwgen.address_map import ENGINE, INTERRUPTS, Window

SLCR = Window(0xF800_0000, 0x1000)
# 50 MHz times PLL_FDIV (bits 18:12); the clock of the fabric is 100 MHz until a bitstream asks for another.
_SLCR_RESET = {
    0x100: 26 << 12 | 0x8,  # ARM_PLL_CTRL: 1300 MHz
    0x104: 21 << 12 | 0x8,  # DDR_PLL_CTRL: 1050 MHz
    0x108: 20 << 12 | 0x8,  # IO_PLL_CTRL: 1000 MHz
    0x120: 0x1F00_0200,  # ARM_CLK_CTRL: ARM PLL / 2
    **dict.fromkeys((0x170, 0x180, 0x190, 0x1A0), 1 << 20 | 10 << 8),  # FPGAx_CLK_CTRL: IO PLL / 10 / 1
}
_STATUS = next(item.offset for item in isa.REGISTERS if item.name == "status")
_CONTROL = next(item.offset for item in isa.REGISTERS if item.name == "control")
_REGISTER_SPAN = max(item.offset for item in isa.REGISTERS) + 4
_BUSY, _DONE_OR_ERROR = 1, 6
_START, _INTERRUPT_ENABLE = 1, 4
# Between two of these, a client's access gets its turn.
_SLICE_CYCLES = 5_000
_PAUSE_S = 0.0002

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Engine(Protocol):
    """What the chip needs of a simulation. Addresses are bytes of the DDR; register offsets are bytes."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the memory."""

    def write(self, address: int, content: bytes) -> None:
        """Store bytes in the memory."""

    def read_register(self, register: int) -> int:
        """One AXI4-Lite read."""

    def write_register(self, register: int, value: int) -> None:
        """One AXI4-Lite write."""

    def step(self, cycles: int) -> None:
        """Let clock cycles pass."""

    def reset(self) -> None:
        """Registers as after power-up; memory stays."""

    def close(self) -> None:
        """Free the simulation."""


class BusError(Exception):
    """An access that the bus answers with an error: nothing there, or not allowed."""


class Chip:
    """The chip.

    Args:
        engine: makes the simulation; called once, on the thread that later frees it: Verilator's models want that.

    One lock serialises everything that touches the simulation. A thread lets it run while the engine is busy and sleeps
    while it is idle.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._configured = False
        self._slcr = dict(_SLCR_RESET)
        self._interrupts = _InterruptController()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = False
        self._failure = ""
        made: Future[Engine] = Future()
        self._runner = threading.Thread(target=self._run, args=(engine, made), name="virtual-board-clock", daemon=True)
        self._runner.start()
        self._engine = made.result()

    # ------------------------------------------------------------------ configuration
    def configure(self) -> None:
        """What a new bitstream does: the engine is there and reset."""
        with self._lock:
            self._failure = ""
            self._engine.reset()
            self._interrupts = _InterruptController()
            self._configured = True

    @property
    def configured(self) -> bool:
        return self._configured

    # ------------------------------------------------------------------ memory
    def read_memory(self, address: int, count: int) -> bytes:
        """Bytes of the DDR."""
        with self._lock:
            return self._engine.read(address, count)

    def write_memory(self, address: int, data: bytes) -> None:
        """Store bytes in the DDR."""
        with self._lock:
            self._engine.write(address, data)

    # ------------------------------------------------------------------ registers
    def window(self, address: int, count: int) -> Window | None:
        """The window that holds these bytes; None where nothing answers."""
        windows = (SLCR, ENGINE, INTERRUPTS) if self._configured else (SLCR,)
        return next((item for item in windows if count > 0 and item.holds(address, count)), None)

    def read_word(self, address: int) -> int:
        """Read a 32-bit register.

        Raises:
            BusError: nothing there, or the simulation has failed.
        """
        window = self.window(address, 4)
        if window is None or address % 4:
            raise BusError(f"nothing answers a read of {address:#010x}")
        offset = address - window.base
        with self._lock:
            if window is SLCR:
                return self._slcr.get(offset, 0)
            if window is INTERRUPTS:
                return self._interrupts.read(offset, self._irq())
            return self._engine_access(lambda engine: engine.read_register(offset), offset)

    def write_word(self, address: int, value: int) -> None:
        """Write a 32-bit register.

        Raises:
            BusError: nothing there, or the simulation has failed.
        """
        window = self.window(address, 4)
        if window is None or address % 4:
            raise BusError(f"nothing answers a write to {address:#010x}")
        offset = address - window.base
        with self._lock:
            if window is SLCR:
                self._slcr[offset] = value
            elif window is INTERRUPTS:
                self._interrupts.write(offset, value)
            else:
                self._engine_access(lambda engine: engine.write_register(offset, value), offset)
                self._wake.set()

    def _engine_access(self, access: Callable[[Engine], _T], offset: int) -> _T:
        if self._failure:
            raise BusError(self._failure)
        if offset >= _REGISTER_SPAN:
            raise BusError(f"the engine has no register at {offset:#x}")
        try:
            return access(self._engine)
        except Exception as error:
            raise BusError(f"the engine answered with an error: {error}") from error

    def _irq(self) -> bool:
        engine = self._engine
        return bool(engine.read_register(_STATUS) & _DONE_OR_ERROR and engine.read_register(_CONTROL) & _INTERRUPT_ENABLE)

    # ------------------------------------------------------------------ time
    def _run(self, make: Callable[[], Engine], made: Future[Engine]) -> None:
        try:
            engine = make()
        except BaseException as error:
            made.set_exception(error)
            return
        made.set_result(engine)
        try:
            while True:
                self._wake.wait()
                with self._lock:
                    if self._closing:
                        return
                    if not self._step():
                        self._wake.clear()
                # Locks are not fair: without a pause, clients would wait for the end of the run.
                time.sleep(_PAUSE_S)
        finally:
            engine.close()

    def _step(self) -> bool:
        """Let a slice of time pass; whether the engine is still busy."""
        if self._failure:
            return False
        try:
            self._engine.step(_SLICE_CYCLES)
            return bool(self._engine.read_register(_STATUS) & _BUSY)
        except Exception as error:
            self._failure = f"the simulation stopped: {error}"
            _log.exception("the simulation stopped")
            return False

    def close(self) -> None:
        """End the thread and free the simulation."""
        with self._lock:
            self._closing = True
            self._wake.set()
        self._runner.join()


class _InterruptController:
    """The registers of an axi_intc with one level-sensitive input."""

    _ISR, _IPR, _IER, _IAR, _SIE, _CIE, _MER = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x1C

    def __init__(self) -> None:
        self._latched = self._enabled = self._master = 0

    def read(self, offset: int, irq: bool) -> int:
        self._latched |= int(irq)
        values = {
            self._ISR: self._latched,
            self._IPR: self._latched & self._enabled,
            self._IER: self._enabled,
            self._MER: self._master,
        }
        return values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self._IAR:
            self._latched &= ~value
        elif offset == self._IER:
            self._enabled = value & 1
        elif offset == self._SIE:
            self._enabled |= value & 1
        elif offset == self._CIE:
            self._enabled &= ~value
        elif offset == self._MER:
            self._master = value & 3
