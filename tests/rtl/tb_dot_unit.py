"""cocotb tests of bs_dot_unit against plain integers."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from shell_bench import parameters


@cocotb.test()
async def random_words(dut: Any) -> None:
    """Clear, Horner shift, subtraction and pauses; data in every cycle, the controls four cycles later, the sign three."""
    values, rng = parameters(), random.Random(3)
    width, acc_bits = values["D_K"], values["ACC_BITS"]
    mask = (1 << acc_bits) - 1
    Clock(dut.clk, 10, unit="ns").start()
    counts: list[int] = [0] * 4  # of the words in the pipeline, oldest first
    signs = [0, rng.getrandbits(1)]  # of the oldest count, and of the one behind it
    acc: int | None = None
    updates = wraps = 0
    for cycle in range(2000):
        weight, column = rng.getrandbits(width), rng.getrandbits(width)
        if rng.random() < 0.1:
            weight = column = (1 << width) - 1
        valid = int(cycle > 4 and rng.random() < 0.75)
        clear, shift = int(rng.random() < 0.05 or acc is None), rng.getrandbits(1)
        negative = signs[0]
        dut.weight_i.value, dut.column_i.value = weight, column
        dut.valid_i.value, dut.clear_i.value, dut.shift_i.value, dut.negative_i.value = valid, clear, shift, signs[1]
        await RisingEdge(dut.clk)
        if acc is not None:
            assert int(dut.acc_o.value) == acc & mask, cycle
        if valid:
            previous = 0 if clear else 2 * (acc or 0) if shift else acc or 0
            acc = previous + (-counts[0] if negative else counts[0])
            updates += 1
            wraps += int(not -(1 << acc_bits - 1) <= acc < 1 << acc_bits - 1)
        counts = [*counts[1:], (weight & column).bit_count()]
        signs = [signs[1], rng.getrandbits(1)]
    assert updates > 1000 and wraps > 0
