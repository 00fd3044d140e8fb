"""cocotb tests of bs_fifo: against a plain queue, in every cycle."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge
from shell_bench import parameters, reset

AHEAD = 5  # words beside the memory: in the four rows and at the output
LATENCY = 4


class TB:
    """A buffer and the words that are to be in it."""

    def __init__(self, dut: Any, seed: int) -> None:
        values = parameters()
        self.dut, self.rng, self.width, self.depth = dut, random.Random(seed), values["WIDTH"], values["DEPTH"]
        self.words: deque[tuple[int, int]] = deque()  # each with the cycle in which it was pushed
        self.now = self.taken = self.ended = 0

    def chance(self, probability: float) -> int:
        return int(self.rng.random() < probability)

    async def cycle(self, push: float, ready: float, end: str | None = None) -> None:
        """One cycle with these probabilities, and all outputs; ``end``: an input that empties the buffer.

        Who uses it never pushes while it is full.
        """
        dut = self.dut
        await FallingEdge(dut.clk)  # full_o of this cycle is there, and the inputs may yet be set
        full = int(dut.full_o.value)
        pushed, word = self.chance(push) & (full ^ 1), self.rng.getrandbits(self.width)
        taking = self.chance(ready)
        dut.push_i.value, dut.data_i.value, dut.ready_i.value = pushed, word, taking
        if end:
            getattr(dut, end).value = 1
        await RisingEdge(dut.clk)
        assert int(dut.full_o.value) == full, "full_o must not depend on the inputs of its cycle"
        valid, held = int(dut.valid_o.value), len(self.words)
        assert int(dut.empty_o.value) == int(held == 0), (held, self.now)
        assert valid == int(held > 0 and self.now - self.words[0][1] >= LATENCY), (held, self.now)
        assert not valid or int(dut.data_o.value) == self.words[0][0], (held, self.now)
        assert not full or held >= self.depth, held
        assert held <= self.depth + AHEAD
        if valid and taking:
            self.words.popleft()
            self.taken += 1
        if pushed:
            self.words.append((word, self.now))
        if end:
            self.words.clear()
            self.ended += 1
            getattr(dut, end).value = 0
        self.now += 1


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Every word comes, in order, four cycles after it was pushed or right behind the one before it, for whatever pace."""
    bench = TB(dut, seed=1)
    rng, depth = bench.rng, bench.depth
    await reset(dut, ("flush_i", "push_i", "data_i", "ready_i"))
    filled = 0
    for _ in range(10):
        # Streams of a word a cycle, and traffic that often finds the buffer empty; these move the pointers to anywhere.
        for push, ready in ((1.0, 1.0), (0.5, 0.5), (0.2, 0.9)):
            for _ in range(rng.randint(20, 200)):
                await bench.cycle(push, ready)
        # Full, and some time around it.
        ready = rng.choice([0.0, 0.3])
        for _ in range(3 * (depth + AHEAD)):
            if int(dut.full_o.value):
                break
            await bench.cycle(1.0, ready)
        filled += int(dut.full_o.value)
        for _ in range(100):
            await bench.cycle(0.9, rng.choice([0.1, 0.5, 0.9]))
        # Empty, except when the end comes before.
        while bench.words and not bench.chance(1 / (3 * depth)):
            await bench.cycle(0.1, 0.9)
        if bench.words:
            await bench.cycle(0.5, 0.5, rng.choice(["flush_i", "rst"]))
    assert filled == 10 and bench.taken > 5 * depth, (filled, bench.taken)


@cocotb.test()
async def ends(dut: Any) -> None:
    """A flush, or a reset, empties the buffer in whatever state it is, of the word that comes with it, too."""
    bench = TB(dut, seed=2)
    await reset(dut, ("flush_i", "push_i", "data_i", "ready_i"))
    for _ in range(100):
        push, ready = bench.rng.choice([(1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.3, 0.9)])
        for _ in range(bench.rng.randint(0, 12)):
            await bench.cycle(push, ready)
        await bench.cycle(0.7, 0.5, bench.rng.choice(["flush_i", "rst"]))
        for _ in range(bench.rng.randint(0, 6)):
            await bench.cycle(0.0, 0.5)
    assert bench.ended == 100
