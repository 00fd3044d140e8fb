"""cocotb tests of bs_top: what its ports do before a program is started."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from shell_bench import ATTRIBUTES, reset

from hwgen import isa
from sim.axi_memory import OKAY, SLVERR
from sim.axil import AxilMaster

_QUIET = ("arready", "rvalid", "awready", "wready", "bvalid")


async def start(dut: Any, stall: float) -> AxilMaster:
    """The master of the registers, after a reset beside a memory that answers nothing."""
    axil = AxilMaster(dut, "s_axil", dut.clk, stall=stall)
    names = [f"m_axi_{port}_{name}" for port in (0, 1) for name in _QUIET]
    await reset(dut, [name for name in names if hasattr(dut, name)])
    return axil


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5])
async def registers(dut: Any, stall: float) -> None:
    """Every address answers as the table of registers says; settings keep what they are given, each its own."""
    axil, rng = await start(dut, stall), random.Random(1)
    access = {register.offset: register.access for register in isa.REGISTERS}
    control = next(register.offset for register in isa.REGISTERS if register.name == "control")
    given: dict[int, int] = {}
    for address in range(0, 256, 4):
        value = rng.getrandbits(32) & (~7 if address == control else -1)  # no start, no stop
        assert await axil.access_write(address, value) == (OKAY if address in access else SLVERR), hex(address)
        if access.get(address) == "rw":
            given[address] = value
    for register in isa.REGISTERS:
        if register.name in ("control", "image_planar"):
            given[register.offset] = given[register.offset] & (4 if register.name == "control" else 1)
    for address in range(0, 256, 4):
        value, response = await axil.access_read(address)
        assert response == (OKAY if address in access else SLVERR), hex(address)
        assert address not in given or value == given[address], hex(address)


@cocotb.test()
async def attributes(dut: Any) -> None:
    """Memory is asked for whole words at rising addresses, plain and bufferable."""
    axil = await start(dut, 0.0)
    await axil.write(next(register.offset for register in isa.REGISTERS if register.name == "control"), 1)
    await ClockCycles(dut.clk, 20)
    for channel in ("m_axi_0_ar", "m_axi_0_aw", "m_axi_1_ar"):
        for name, value in ATTRIBUTES.items():
            assert int(getattr(dut, channel + name).value) == value, channel + name
