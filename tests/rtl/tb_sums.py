"""cocotb tests of bs_sums: sums of random maps, as close together as the pipeline allows."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from core_bench import pack, signed, unpack
from shell_bench import parameters, reset

GAP = 4  # least cycles between two beats of a group
BUSY = 4  # cycles from a beat's own until the one before that in which its sum is written


async def watch_busy(dut: Any) -> None:
    """busy_o is high with a beat and as long as its sum is on its way, and no longer; start it as a task."""
    beats = deque([0] * BUSY, BUSY)
    while True:
        await RisingEdge(dut.clk)
        beats.append(int(dut.valid_i.value))
        assert int(dut.busy_o.value) == int(any(beats)), list(beats)


@cocotb.test()
@cocotb.parametrize(is_signed=[False, True])
async def random_maps(dut: Any, is_signed: bool) -> None:
    """Several maps one after the other; the first beat of a group forgets the map before."""
    values, rng = parameters(), random.Random(6)
    columns, rows, bits = values["D_N"], values["LANE_ROWS"], values["SUM_BITS"]
    quiet = ("valid_i", "first_i", "signed_i", "columns_i", "group_i", "code_i", "group_read_i")
    await reset(dut, quiet)
    dut.signed_i.value = int(is_signed)
    cocotb.start_soon(watch_busy(dut))
    for _ in range(6):
        groups, tiles = rng.randint(1, values["GROUPS"]), rng.randint(1, 9)
        extreme = rng.random() < 0.3
        sums = [[0] * rows for _ in range(groups)]
        for tile in range(tiles):
            count = rng.randint(1, columns) if tile == tiles - 1 else columns
            for group in range(groups):
                codes = [0xFF if extreme and not is_signed else rng.getrandbits(8) for _ in range(columns * rows)]
                if extreme and is_signed:
                    codes = [0x80] * len(codes)
                for position in range(count):
                    for row in range(rows):
                        code = codes[position * rows + row]
                        sums[group][row] += signed(code, 8) if is_signed else code
                dut.valid_i.value, dut.first_i.value = 1, int(tile == 0)
                dut.columns_i.value, dut.group_i.value = count, group
                dut.code_i.value = pack(codes, 8)
                await RisingEdge(dut.clk)
                dut.valid_i.value = 0
                dut.code_i.value = rng.getrandbits(8 * columns * rows)
                if rng.random() < 0.2:
                    await ClockCycles(dut.clk, rng.randint(1, 3))
            if groups < GAP:
                await ClockCycles(dut.clk, GAP - groups)
        while int(dut.busy_o.value):
            await RisingEdge(dut.clk)
        for group in reversed(range(groups)):  # the latest one first
            dut.group_read_i.value = group
            await ClockCycles(dut.clk, 3)
            found = [signed(value, bits) for value in unpack(int(dut.sum_o.value), bits, rows)]
            wanted = [signed(value, bits) for value in sums[group]]
            assert found == wanted, (group, groups, tiles)
