"""cocotb tests of bs_array: accumulation, column counts and read-out of back-to-back row tiles."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from core_bench import pack, unpack
from shell_bench import parameters, reset

LEAD = 3  # cycles from start_o to the first beat
START = 3  # cycles from the last word to start_o


@cocotb.test()
async def random_tiles(dut: Any) -> None:
    """Row tiles with pauses and as close as the read-out allows; every beat stands where start_o promised it."""
    values, rng = parameters(), random.Random(4)
    rows, columns, width, lanes = values["D_M"], values["D_N"], values["D_K"], values["LANE_ROWS"]
    bits, beats = values["ACC_BITS"], values["D_M"] // values["LANE_ROWS"]
    count_bits = values["COUNT_BITS"]
    mask = (1 << bits) - 1
    await reset(dut, ("valid_i", "clear_i", "shift_i", "negative_i", "last_i", "weights_i", "columns_i", "counts_i"))

    acc = [[0] * columns for _ in range(rows)]
    upper = [0] * columns
    starts: set[int] = set()
    due: dict[int, tuple[int, list[int]]] = {}  # cycle: beat and column counts that must stand there
    left, cycle, last_end, tiles, closest = rng.randint(1, 6), 0, -100, 0, 10**9
    first = True
    while tiles < 250 or cycle <= max(due, default=0):
        weights = [rng.getrandbits(width) for _ in range(rows)]
        data = [rng.choice([rng.getrandbits(width), (1 << width) - 1, 0]) for _ in range(columns)]
        shift, negative = rng.getrandbits(1), rng.getrandbits(1)
        last = left == 1
        valid = tiles < 250 and rng.random() < 0.85 and not (last and cycle - last_end < beats)
        dut.valid_i.value, dut.clear_i.value, dut.last_i.value = int(valid), int(first), int(last)
        dut.shift_i.value, dut.negative_i.value = shift, negative
        dut.weights_i.value, dut.columns_i.value = pack(weights, width), pack(data, width)
        counts = [rng.getrandbits(rng.choice([4, count_bits])) for _ in data]
        dut.counts_i.value = pack(counts, count_bits)
        await RisingEdge(dut.clk)
        assert int(dut.start_o.value) == int(cycle in starts), cycle
        if cycle in due:
            beat, sums = due[cycle]
            assert int(dut.acc_o.value) == beat, cycle
            assert unpack(int(dut.column_acc_o.value), bits, columns) == sums, cycle
        if valid:
            factor = 0 if first else 2 if shift else 1
            sign = -1 if negative else 1
            for n in range(columns):
                upper[n] = upper[n] * factor + counts[n]
                for m in range(rows):
                    acc[m][n] = acc[m][n] * factor + sign * (weights[m] & data[n]).bit_count()
            first, left = False, left - 1
            if last:
                starts.add(cycle + START)
                for beat_index in range(beats):
                    part = acc[beat_index * lanes : (beat_index + 1) * lanes]
                    flat = pack([value for row in part for value in row], bits)
                    due[cycle + START + LEAD + beat_index] = flat, [value & mask for value in upper]
                closest = min(closest, cycle - last_end)
                left, last_end, tiles, first = rng.randint(1, 6), cycle, tiles + 1, True
        cycle += 1
    assert closest == beats and len(due) == 250 * beats
