"""What the driver needs of a board, and how pynq gives it: locally on the board, or remotely."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

IP_NAME = "bitsmith"


class Memory(Protocol):
    """Physically contiguous memory. array: uint8, flat, the host's view. address: what the engine uses."""

    array: np.ndarray
    address: int

    def push(self, count: int) -> None:
        """Make the first ``count`` bytes that the host wrote visible to the engine."""

    def pull(self, count: int) -> None:
        """Make the first ``count`` bytes that the engine wrote visible to the host."""

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""


class Platform(Protocol):
    """A board: one lock for all who use it, because there is one engine."""

    remote: bool
    lock: threading.RLock

    def load(self, bit: Path) -> None:
        """Configure the device with this bit file, unless it is loaded already."""

    def read(self, offset: int) -> int:
        """Read the register at byte ``offset``."""

    def write(self, offset: int, value: int) -> None:
        """Write the register at byte ``offset``."""

    def clock_mhz(self) -> float:
        """The engine's clock."""

    def allocate(self, size: int) -> Memory:
        """``size`` bytes."""

    def wait(self, seconds: float) -> bool:
        """Sleep until the interrupt or for ``seconds``; False where there are no interrupts (it has not slept)."""


class PynqMemory:
    """A ``pynq.allocate`` buffer."""

    def __init__(self, size: int, device: Any, *, remote: bool) -> None:
        import pynq

        self._buffer = pynq.allocate((size,), np.uint8, target=device)
        self._remote = remote
        self.array = np.asarray(self._buffer)
        self.address = int(self._buffer.device_address)

    def push(self, count: int) -> None:
        # A remote buffer knows no offsets and no parts: it is sent as a whole.
        (self._buffer if self._remote else self._buffer[:count]).flush()

    def pull(self, count: int) -> None:
        (self._buffer if self._remote else self._buffer[:count]).invalidate()

    def free(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self.array = np.empty(0, np.uint8)
            buffer.freebuffer()


class PynqPlatform:
    """The device ``pynq`` finds: the board itself, or the one that PYNQ_REMOTE_DEVICES names.

    Accelerators on one device share a platform: the same bitstream is not loaded twice.
    """

    _shared: ClassVar[dict[int, PynqPlatform]] = {}

    @classmethod
    def of(cls, device: Any = None) -> PynqPlatform:
        """The platform of a pynq device; the active one if None."""
        import pynq

        found = pynq.Device.active_device if device is None else device
        if id(found) not in cls._shared:
            cls._shared[id(found)] = cls(found)
        return cls._shared[id(found)]

    def __init__(self, device: Any) -> None:
        self.device = device
        self.remote = bool(device.has_capability("REMOTE"))
        self.lock = threading.RLock()
        self.overlay: Any = None
        self._bit = ""
        self._mmio: Any = None
        self._interrupt: _Interrupt | None = None

    def load(self, bit: Path) -> None:
        import pynq

        if self.overlay is not None and self._bit == bit.name and self.overlay.is_loaded():
            return
        self._bit = ""  # also where it ends early
        self.overlay = pynq.Overlay(str(bit), device=self.device)
        self._bit = bit.name
        name, ip = next((item for item in self.overlay.ip_dict.items() if item[0].split("/")[0] == IP_NAME), (None, None))
        if name is None or ip is None:
            raise RuntimeError(f"{bit.name}: its .hwh names no IP '{IP_NAME}'")
        self._mmio = pynq.MMIO(ip["phys_addr"], ip["addr_range"], device=self.device)
        pins = ip.get("interrupts", {})
        self._interrupt = None if self.remote or not pins else _Interrupt(next(iter(pins.values()))["fullpath"])

    def read(self, offset: int) -> int:
        return int(self._mmio.read(offset))

    def write(self, offset: int, value: int) -> None:
        self._mmio.write(offset, int(value))

    def clock_mhz(self) -> float:
        import pynq

        return float(pynq.Clocks.fclk0_mhz)

    def allocate(self, size: int) -> Memory:
        return PynqMemory(size, self.device, remote=self.remote)

    def wait(self, seconds: float) -> bool:
        return self._interrupt is not None and self._interrupt.wait(seconds)


class _Interrupt:
    """pynq's interrupt, awaited on a loop of its own.

    pynq ties the device file to the loop of the thread that makes the interrupt object. In a notebook that loop is busy
    while a cell runs, so it would never be told.
    """

    def __init__(self, pin: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="bitsmith-interrupt", daemon=True)
        self._thread.start()
        self._pin: Any = None
        with contextlib.suppress(Exception):  # no device file, no rights: poll instead
            self._pin = asyncio.run_coroutine_threadsafe(self._make(pin), self._loop).result(timeout=5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @staticmethod
    async def _make(pin: str) -> Any:
        from pynq.interrupt import Interrupt

        return Interrupt(pin)

    def wait(self, seconds: float) -> bool:
        if self._pin is None:
            return False
        waiting = asyncio.run_coroutine_threadsafe(self._pin.wait(), self._loop)
        try:
            waiting.result(timeout=seconds)
        except (concurrent.futures.TimeoutError, asyncio.TimeoutError):
            waiting.cancel()
        return True
