"""cocotb tests of bs_walker: the runs of whole maps, tiles repeated at random."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from shell_bench import parameters

Run = tuple[int, int, int, int, int]  # x, y, lower positions, first column, columns


def runs_of_tile(tile: int, width: int, height: int, stride: int, columns: int, pooled: bool = False) -> list[Run]:
    """Runs of position tile ``tile``: consecutive columns of one output row, as many as a window read can serve."""
    if pooled:
        windows = runs_of_tile(tile, width, height, 1, columns // 4)
        return [
            (x, y, lower, 2 * at + lower * columns // 2, 2 * count) for lower in (0, 1) for x, y, _, at, count in windows
        ]
    longest = {1: columns, 2: columns // 2}.get(stride, 1)
    runs: list[Run] = []
    for column in range(columns):
        y, x = divmod(tile * columns + column, width)
        if y >= height:
            break
        if runs and y == runs[-1][1] and column % longest:
            runs[-1] = (*runs[-1][:4], runs[-1][4] + 1)
        else:
            runs.append((x, y, 0, column, 1))
    return runs


@cocotb.test()
async def random_maps(dut: Any) -> None:
    """Every run of every tile from the band's start on, most often to the map's end, with idle cycles and repeated tiles."""
    columns, rng = parameters()["D_N"], random.Random(7)
    Clock(dut.clk, 10, unit="ns").start()
    dut.start_i.value = dut.next_i.value = dut.again_i.value = 0
    seen = repeats = 0
    for index in range(200):
        stride = rng.choice([1, 1, 2, 2, rng.randrange(16)])
        width, height = rng.choice([(1, 1), (rng.randint(1, 40), rng.randint(1, 12)), (columns, 3)])
        if rng.random() < 0.4:
            width, height = rng.choice([1, 2, 3, rng.randint(1, 1023)]), rng.randint(1, 1023)
        if index == 0:
            width, height = 1023, 2
        pooled = index > 0 and rng.random() < 0.4
        if pooled:
            stride = 1
        positions = columns // 4 if pooled else columns
        tiles = -(-width * height // positions)
        tile = rng.randrange(tiles) if index else 0
        if index:
            tiles = min(tiles, tile + 40)
        dut.stride_i.value, dut.out_width_i.value, dut.out_height_i.value = stride, width, height
        dut.start_y_i.value, dut.start_x_i.value = divmod(tile * positions, width)
        dut.pooled_i.value = int(pooled)
        dut.start_i.value, dut.next_i.value = 1, rng.getrandbits(1)
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        # Every run with whether it is the last one of its tile, and whether the tile comes again.
        walk: list[tuple[Run, int, int]] = []
        while tile < tiles:
            runs = runs_of_tile(tile, width, height, stride, columns, pooled)
            again = int(rng.random() < 0.3)
            walk += [(run, int(run == runs[-1]), again) for run in runs]
            tile += 1 - again
            repeats += again
        dut.next_i.value, dut.again_i.value = rng.getrandbits(1), walk[0][2]
        await RisingEdge(dut.clk)
        for at, (run, last, _) in enumerate(walk):
            dut.next_i.value, dut.again_i.value = 0, rng.getrandbits(1)
            while rng.random() < 0.2:
                await RisingEdge(dut.clk)
            ahead = walk[at + 1] if at + 1 < len(walk) else None
            dut.next_i.value, dut.again_i.value = 1, ahead[2] if ahead else rng.getrandbits(1)
            await RisingEdge(dut.clk)
            x, y, lower, column, count = run
            got = (dut.x_o, dut.y_o, dut.lower_o, dut.column_o, dut.columns_o, dut.last_o)
            want = (x, y, lower, column, ((1 << count) - 1) << column, last)
            assert tuple(int(signal.value) for signal in got) == want, (width, height, stride, pooled, at)
            seen += 1
        dut.next_i.value = 0
    assert seen > 1000 and repeats > 50
