"""cocotb test of bs_burst."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import Timer

from sim.axi_memory import reader, writer

BEATS = 16
PAGE = 512  # 64-bit words in 4 KiB


@cocotb.test()
async def lengths(dut: Any) -> None:
    """As long as 16 beats, the words left and the 4 KiB allow: around every boundary, and for words with a single high bit."""
    rng = random.Random(1)
    address, words = writer(dut.word_addr_i), writer(dut.words_i)
    beats, last = reader(dut.beats_o), reader(dut.last_o)
    bits = len(dut.words_i)
    near = [(PAGE - before, left) for before in range(1, 2 * BEATS + 2) for left in range(1, 2 * BEATS + 2)]
    single = [
        (at, left + (1 << bit))
        for bit in range(5, bits)
        for left in range(4)
        for at in (0, PAGE - 3, rng.randrange(PAGE))
    ]
    one_zero = [(PAGE - 1 - (1 << bit), left) for bit in range(9) for left in range(1, 2 * BEATS)]
    anything = [(rng.randrange(PAGE), rng.randrange(1, 1 << rng.randint(1, bits))) for _ in range(1000)]
    for at, left in near + single + one_zero + anything:
        address(at)
        words(left)
        await Timer(1, unit="ns")
        most = min(BEATS, left, PAGE - at)
        assert (beats(), last()) == (most, int(most == left)), f"{left} words from word {at} of a page"
