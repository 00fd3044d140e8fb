"""cocotb tests of bs_ram: chunk enables, latency."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from shell_bench import parameters


@cocotb.test()
async def random_access(dut: Any) -> None:
    """Reads give what the row held two edges ago, whole rows and single chunks are written."""
    values, rng = parameters(), random.Random(1)
    width, depth, chunks = values["WIDTH"], values["DEPTH"], values["CHUNKS"]
    part = width // chunks
    rows: list[int | None] = [None] * depth
    Clock(dut.clk, 10, unit="ns").start()
    for row in range(depth):
        dut.we_i.value, dut.waddr_i.value, dut.raddr_i.value = (1 << chunks) - 1, row, row
        rows[row] = rng.getrandbits(width)
        dut.wdata_i.value = rows[row]
        await RisingEdge(dut.clk)
    pipeline: list[int | None] = [None, None]
    checked = 0
    for _ in range(1500):
        enable = rng.choice([0, 0, (1 << chunks) - 1, rng.getrandbits(chunks)])
        write, data = rng.randrange(depth), rng.getrandbits(width)
        read = rng.randrange(depth)
        dut.we_i.value, dut.waddr_i.value, dut.wdata_i.value, dut.raddr_i.value = enable, write, data, read
        await RisingEdge(dut.clk)
        if pipeline[0] is not None:
            assert int(dut.rdata_o.value) == pipeline[0]
            checked += 1
        pipeline = [pipeline[1], None if enable and read == write else rows[read]]
        mask = sum(((1 << part) - 1) << part * chunk for chunk in range(chunks) if enable >> chunk & 1)
        rows[write] = (rows[write] or 0) & ~mask | data & mask
    assert checked > 1000
