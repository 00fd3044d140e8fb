"""cocotb tests of bs_window: windows at, beside and outside maps of many sizes, a new one every cycle."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from core_bench import Banks, unpack
from shell_bench import parameters

LATENCY = 7


@cocotb.test()
async def random_windows(dut: Any) -> None:
    """Each lane is the pixel it stands for wherever that lies inside the map, and says so."""
    values, rng = parameters(), random.Random(9)
    columns, bits, taps, address_bits = values["D_N"], values["BITS"], values["TAPS"], values["ADDR_BITS"]
    depth, lanes = 1 << address_bits, columns + taps - 1
    rows = [[rng.getrandbits(bits) for _ in range(depth)] for _ in range(columns)]
    banks, halo = Banks(rows, bits, address_bits), Banks(rows, bits, address_bits)
    Clock(dut.clk, 10, unit="ns").start()
    asked: list[tuple[int, int, int, int, int, int]] = []
    inside = outside = 0
    for cycle in range(2500):
        width = rng.choice(
            [1, 2, 3, columns - 1, columns, columns + 1, rng.randint(1, 3 * columns), rng.randint(1, 1023)]
        )
        height = rng.choice([rng.randint(1, 20), rng.randint(1, 1023)])
        ring = rng.choice([0, 0, rng.randint(1, address_bits)])
        if not ring and width > depth * columns // 2:
            ring = address_bits
        if ring:
            base = rng.randrange(depth) >> ring << ring
        else:
            height = min(height, depth * columns // 2 // width)
            base = rng.randrange(depth - -(-width * height // columns))
        # Next to the edges, anywhere, and as far from either edge as a comparison that loses one bit takes for outside.
        far = (1 << rng.randrange(10)) + rng.randint(-lanes, lanes)
        x = rng.choice(
            [rng.randint(-lanes - 2, 2), width - rng.randint(-2, lanes), rng.randint(0, width), far, width - far]
        )
        y = rng.choice([rng.randint(-3, 2), height - rng.randint(-2, 3), rng.randint(0, height), far])
        if rng.random() < 0.05:
            y, x = rng.randint(-2048, 2047), rng.randint(-1024, 1023)
        asked.append((y, x, base, width, height, ring))
        dut.y_i.value, dut.x_i.value, dut.row_i.value = y, x, base
        dut.width_i.value, dut.height_i.value, dut.ring_i.value = width, height, ring
        await RisingEdge(dut.clk)
        if cycle >= LATENCY:
            y, x, base, width, height, ring = asked[cycle - LATENCY]
            got, valid = unpack(int(dut.lane_o.value), bits, lanes), int(dut.lane_valid_o.value)
            for lane in range(lanes):
                exists = 0 <= y < height and 0 <= x + lane < width
                assert valid >> lane & 1 == int(exists), (asked[cycle - LATENCY], lane)
                if exists:
                    row, bank = divmod(y * width + x + lane, columns)
                    row %= 1 << ring if ring else depth
                    assert got[lane] == rows[bank][base + row], (asked[cycle - LATENCY], lane)
                inside, outside = inside + exists, outside + (not exists)
        dut.bank_data_i.value = banks.step(int(dut.bank_addr_o.value))
        dut.halo_data_i.value = halo.step(int(dut.halo_addr_o.value))
    assert inside > 1000 and outside > 3000
