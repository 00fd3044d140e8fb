"""cocotb tests of bs_axil_regs."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import parameters, reset

from hwgen import isa
from sim.axi_memory import OKAY, SLVERR
from sim.axil import AxilMaster

OFFSET = {register.name: register.offset for register in isa.REGISTERS}
STATUS_PINS = {
    "images_done": "images_done_i", "cycles": "cycles_i", "fetch_cycles": "fetch_cycles_i",
    "fill_cycles": "fill_cycles_i", "issue_cycles": "issue_cycles_i", "write_back_cycles": "write_back_cycles_i",
    "read_beats": "read_beats_i", "write_beats": "write_beats_i", "layer": "layer_i", "error_info": "error_info_i",
}  # fmt: skip
SETTINGS = ("watchdog", "program_addr", "image_addr", "image_stride", "output_addr", "output_stride", "image_count")
CONSTANT = {"id": isa.DEVICE_ID, "version": isa.DEVICE_VERSION}


class TB:
    """Registers with an AXI4-Lite master; ``pulses`` counts start and stop."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut, self.random = dut, random.Random(5)
        self.axil = AxilMaster(dut, "s_axil", dut.clk, stall=stall)
        self.pulses = {"start_o": 0, "stop_o": 0}

    async def start(self) -> None:
        for pin in [*STATUS_PINS.values(), "busy_i", "done_i", "error_i", "error_code_i"]:
            getattr(self.dut, pin).value = 0
        await reset(self.dut)
        cocotb.start_soon(self._count())

    async def _count(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            for name in self.pulses:
                self.pulses[name] += int(getattr(self.dut, name).value)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5])
async def settings(dut: Any, stall: float) -> None:
    """Every writable register keeps what was written, byte by byte, and shows it to control."""
    tb = TB(dut, stall)
    await tb.start()
    values = {name: 0 for name in SETTINGS} | {"image_count": 1}
    # Enough of them that every bit of every register meets both values in its own byte, written and not, and in the others.
    for _ in range(400):
        name = tb.random.choice(SETTINGS)
        value, strobe = tb.random.getrandbits(32), tb.random.choice([15, tb.random.getrandbits(4)])
        await tb.axil.write(OFFSET[name], value, strobe)
        mask = sum(0xFF << (8 * lane) for lane in range(4) if strobe >> lane & 1)
        values[name] = values[name] & ~mask | value & mask
        other = tb.random.choice(SETTINGS)
        assert await tb.axil.read(OFFSET[other]) == values[other], other
        assert int(getattr(dut, f"{name}_o").value) == values[name]
    await tb.axil.write(OFFSET["image_planar"], 0xFFFFFFFF)
    assert await tb.axil.read(OFFSET["image_planar"]) == 1
    assert tb.pulses == {"start_o": 0, "stop_o": 0}


@cocotb.test()
async def control_pulses(dut: Any) -> None:
    """Start and stop are pulses of one cycle and read as 0; the interrupt enable stays."""
    tb = TB(dut, 0.3)
    await tb.start()
    for value, pulses, enabled in [(1, (1, 0), 0), (5, (2, 0), 1), (2, (2, 1), 0), (4, (2, 1), 1), (0, (2, 1), 0)]:
        await tb.axil.write(OFFSET["control"], value)
        await ClockCycles(dut.clk, 3)
        assert tuple(tb.pulses.values()) == pulses
        assert int(dut.irq_enable_o.value) == enabled
        assert await tb.axil.read(OFFSET["control"]) == enabled << 2
    await tb.axil.write(OFFSET["control"], 7, strobe=0b1110)
    await ClockCycles(dut.clk, 3)
    assert tuple(tb.pulses.values()) == (2, 1)


@cocotb.test()
async def read_only(dut: Any) -> None:
    """Identity, status and counters are read and cannot be written."""
    tb = TB(dut, 0.2)
    await tb.start()
    expected = dict(CONSTANT) | {"engine": parameters()["ENGINE_HASH"]}
    for name, pin in STATUS_PINS.items():
        expected[name] = tb.random.getrandbits(32)
        getattr(dut, pin).value = expected[name]
    for index, pin in enumerate(("busy_i", "done_i", "error_i")):
        getattr(dut, pin).value = index % 2
    dut.error_code_i.value = expected["error"] = 0xC3
    expected["status"] = 0b010
    for name in expected:
        await tb.axil.write(OFFSET[name], 0xFFFFFFFF)
    for name, value in expected.items():
        assert await tb.axil.read(OFFSET[name]) == value, name
    assert set(expected) | set(SETTINGS) | {"control", "image_planar"} == set(OFFSET)


@cocotb.test()
async def unmapped(dut: Any) -> None:
    """Addresses without a register answer SLVERR, reads with 0, and change nothing."""
    tb = TB(dut, 0.2)
    await tb.start()
    for address in range(0, 256, 4):
        response = OKAY if address in OFFSET.values() else SLVERR
        assert (await tb.axil.access_read(address))[1] == response, hex(address)
        if response == SLVERR:
            assert await tb.axil.access_read(address) == (0, SLVERR)
            assert await tb.axil.access_write(address, 0xFFFFFFFF) == SLVERR
    assert tb.pulses == {"start_o": 0, "stop_o": 0}
    for name in SETTINGS:
        assert await tb.axil.read(OFFSET[name]) == int(name == "image_count")
