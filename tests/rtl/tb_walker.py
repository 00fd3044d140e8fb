"""cocotb tests of bs_walker: the runs of whole maps, tiles repeated at random."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from shell_bench import parameters

Run = tuple[int, int, int, int]  # x, y, first column, columns


def runs_of_tile(
    tile: int, width: int, height: int, stride: int, columns: int, pooled: bool = False
) -> list[Run]:
    """Runs of position tile ``tile``: consecutive columns of one output row, as many as a window read can serve."""
    if pooled:
        windows = runs_of_tile(tile, width, height, 1, columns // 4)
        return [
            (2 * x, 2 * y + lower, 2 * at + lower * columns // 2, 2 * count)
            for lower in (0, 1)
            for x, y, at, count in windows
        ]
    longest = {1: columns, 2: columns // 2}.get(stride, 1)
    runs: list[Run] = []
    for column in range(columns):
        y, x = divmod(tile * columns + column, width)
        if y >= height:
            break
        if runs and y == runs[-1][1] and column % longest:
            runs[-1] = (*runs[-1][:3], runs[-1][3] + 1)
        else:
            runs.append((x, y, column, 1))
    return runs


@cocotb.test()
async def random_maps(dut: Any) -> None:
    """Every run of every tile from the band's start to the end of the map, with idle cycles and repeated tiles."""
    columns, rng = parameters()["D_N"], random.Random(7)
    Clock(dut.clk, 10, unit="ns").start()
    dut.start_i.value = dut.next_i.value = dut.again_i.value = 0
    seen = repeats = 0
    for index in range(150):
        stride = rng.choice([1, 1, 2, 2, 3, 15])
        width, height = rng.choice([(1, 1), (rng.randint(1, 40), rng.randint(1, 12)), (columns, 3)])
        if index == 0:
            width, height = 1023, 2
        pooled = index > 0 and rng.random() < 0.4
        if pooled:
            stride = 1
        positions = columns // 4 if pooled else columns
        tiles = -(-width * height // positions)
        tile = rng.randrange(tiles) if index else 0
        dut.stride_i.value, dut.out_width_i.value, dut.out_height_i.value = stride, width, height
        dut.start_y_i.value, dut.start_x_i.value = divmod(tile * positions, width)
        dut.pooled_i.value = int(pooled)
        dut.start_i.value, dut.next_i.value = 1, rng.getrandbits(1)
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        while tile < tiles:
            runs = runs_of_tile(tile, width, height, stride, columns, pooled)
            again = int(rng.random() < 0.3)
            for x, y, column, count in runs:
                dut.next_i.value, dut.again_i.value = 0, rng.getrandbits(1)
                while rng.random() < 0.2:
                    await RisingEdge(dut.clk)
                dut.next_i.value, dut.again_i.value = 1, again
                await RisingEdge(dut.clk)
                got = int(dut.x_o.value), int(dut.y_o.value), int(dut.column_o.value), int(dut.columns_o.value)
                assert got == (x, y, column, ((1 << count) - 1) << column), (width, height, stride, tile)
                assert int(dut.last_o.value) == int((x, y, column, count) == runs[-1]), (width, height, stride, tile)
                seen += 1
            tile += 1 - again
            repeats += again
        dut.next_i.value = 0
    assert seen > 1000 and repeats > 50
