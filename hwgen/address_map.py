"""Where the parts of the chip lie in the processor's address map, and the clock it gives them.

The hardware description, the Vivado script, the PS7 top and the virtual board all take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass

PLL_MHZ = 1000.0  # the I/O PLL of the PYNQ boards: 50 MHz times 20


@dataclass(frozen=True)
class Window:
    """``size`` bytes from ``base`` of the address map."""

    base: int
    size: int

    @property
    def last(self) -> int:
        return self.base + self.size - 1

    def holds(self, address: int, count: int = 1) -> bool:
        """Whether ``count`` bytes from ``address`` lie in the window."""
        return self.base <= address and address + count <= self.base + self.size


ENGINE = Window(0x43C0_0000, 0x1_0000)
INTERRUPTS = Window(0x4180_0000, 0x1_0000)  # axi_intc: pynq finds interrupts only behind one
DDR = Window(0x0000_0000, 0x2000_0000)


def clock_divisors(clock_mhz: float) -> tuple[int, int]:
    """The two dividers (1 to 63) of the processing system that come closest to ``clock_mhz``."""
    return min(
        ((first, second) for first in range(1, 64) for second in range(1, first + 1)),
        key=lambda pair: (abs(PLL_MHZ / (pair[0] * pair[1]) - clock_mhz), pair[1]),
    )
