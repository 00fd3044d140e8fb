"""cocotb tests of bs_tokens: the counter against a plain integer."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from shell_bench import parameters, reset


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """``enough_o`` follows the count in the same cycle (AHEAD: for the need of the cycle before); giving while taking keeps both."""
    values, rng = parameters(), random.Random(2)
    bits, ahead = values["COUNT_BITS"], values["AHEAD"]
    most = (1 << bits) - 1
    await reset(dut, ("give_i", "take_i", "need_i"))
    count, full, both, refused, before = 0, 0, 0, 0, 0
    took = [0] * 2  # in the cycles before, the last one last
    filling = True  # until no token more may wait, then until none does
    for cycle in range(4000):
        filling = count < most if filling else count == 0
        need = rng.choice([count, min(count + 1, most), rng.randint(0, most), rng.randint(0, 2)])
        need = before if ahead and rng.random() < 0.5 else need
        enough = count >= (before if ahead else need) and not any(took if ahead else took[1:])
        settled = need == before or not ahead
        # While it fills, hardly anything is taken but single tokens.
        take = int(enough and settled and rng.random() < (0.7 if not filling else 0.3 if need <= 1 else 0.002))
        give = int(count < most and rng.random() < (0.9 if filling else 0.3))
        dut.need_i.value, dut.take_i.value, dut.give_i.value = need, take, give
        await RisingEdge(dut.clk)
        if cycle:
            assert int(dut.enough_o.value) == int(enough), (cycle, count, need)
        count += give - (need if take else 0)
        both += give & take
        refused += int(count < need)
        full += int(count == most)
        before, took = need, [took[1], take]
    assert both > 50 and refused > 50 and full > 5


@cocotb.test()
async def reset_clears(dut: Any) -> None:
    """After a reset no token is left."""
    await reset(dut, ("give_i", "take_i", "need_i"))
    dut.give_i.value, dut.need_i.value = 1, 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    assert int(dut.enough_o.value) == 1
    await reset(dut, ("give_i",), clock=False)
    await RisingEdge(dut.clk)
    assert int(dut.enough_o.value) == 0
