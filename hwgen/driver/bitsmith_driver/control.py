"""How an engine is talked to: its registers by name, and how a run begins and ends."""

from __future__ import annotations

import time

from .errors import DeviceTimeoutError
from .platform import Platform
from .registers import OFFSET

BUSY, ERROR = 1, 4
_START, _STOP, _INTERRUPT_ENABLE = 1, 2, 4
_STOP_SECONDS = 5.0


class Control:
    """The RTL's register map, from the first byte of the engine's window."""

    base = 0

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def read(self, name: str) -> int:
        """The register ``name``."""
        return self._platform.read(self.base + OFFSET[name])

    def write(self, name: str, value: int) -> None:
        """Write the register ``name``."""
        self._platform.write(self.base + OFFSET[name], value)

    def wake(self, program: int) -> None:
        """Make identity, version and engine readable; ``program``: byte address of a program in memory."""

    def start(self) -> None:
        """Begin a run; the interrupt will tell of its end."""
        self.write("control", _START | _INTERRUPT_ENABLE)

    def status(self) -> int:
        """The status register."""
        return self.read("status")

    def images_done(self) -> int:
        """Images whose logits are in memory, of the run that is going on."""
        return self.read("images_done")

    def stop(self) -> None:
        """Leave the engine idle, whatever it did.

        Raises:
            DeviceTimeoutError: it stays busy.
        """
        self._abort()
        until = time.monotonic() + _STOP_SECONDS
        while self.status() & BUSY:
            if time.monotonic() > until:
                raise DeviceTimeoutError(f"The engine did not stop within {_STOP_SECONDS} s; load the bitstream again.")
            time.sleep(0.001)

    def _abort(self) -> None:
        self.write("control", _STOP)


class KernelControl(Control):
    """An HLS kernel: Vitis keeps the first 16 bytes of the window for itself, the register map lies behind them.

    A run cannot be cut short, and the register map belongs to the kernel while one is going on. What the registers say
    of the engine is there after the first run.
    """

    base = 0x100
    _CONTROL, _GLOBAL_INTERRUPT, _INTERRUPT_ENABLED, _INTERRUPT_STATUS = 0x0, 0x4, 0x8, 0xC
    _AP_START, _AP_IDLE, _AP_DONE = 1, 4, 1  # the last one: of the interrupts

    def wake(self, program: int) -> None:
        self.write("program_addr", program)
        self.write("image_count", 0)
        self.start()
        super().stop()

    def start(self) -> None:
        self._platform.write(self._GLOBAL_INTERRUPT, 1)
        self._platform.write(self._INTERRUPT_ENABLED, self._AP_DONE)
        self._platform.write(self._CONTROL, self._AP_START)

    def status(self) -> int:
        if not self._platform.read(self._CONTROL) & self._AP_IDLE:
            return BUSY
        if pending := self._platform.read(self._INTERRUPT_STATUS):
            self._platform.write(self._INTERRUPT_STATUS, pending)  # a one toggles
        return super().status() & ~BUSY

    def images_done(self) -> int:
        return 0

    def _abort(self) -> None:
        pass


CONTROLS = {"registers": Control, "kernel": KernelControl}
