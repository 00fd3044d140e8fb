"""cocotb tests of bs_read_dma."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import random_address, random_base, random_words, reset, send, wait_until

from sim.axi_memory import AxiMemory, Timing, reader

SIZE = 1 << 16
SMALL = 8192  # one 4 KiB boundary inside


class TB:
    """A read DMA on a memory of random words; the received words lie in ``words`` as (value, last)."""

    def __init__(self, dut: Any, timing: Timing, pause: float, seed: int, size: int = SIZE) -> None:
        self.dut = dut
        self.random = random.Random(seed)
        self.pause = pause
        self.memory = AxiMemory(size, seed=seed)
        self.memory.write(0, random_words(self.random, size // 8))
        self.port = self.memory.attach(dut, "m_axi", timing)
        self.words: list[tuple[int, int]] = []

    async def start(self) -> None:
        self.memory.start(self.dut.clk)
        await reset(self.dut, ("cmd_valid_i", "data_ready_i", "abort_i"))
        cocotb.start_soon(self._sink())

    async def _sink(self) -> None:
        data, last, valid = reader(self.dut.data_o), reader(self.dut.data_last_o), reader(self.dut.data_valid_o)
        ready = 0
        while True:
            await RisingEdge(self.dut.clk)
            if ready and valid():
                self.words.append((data(), last()))
            ready = int(self.random.random() >= self.pause)
            self.dut.data_ready_i.value = ready

    async def command(self, address: int, words: int) -> None:
        await send(self.dut, "cmd", {"cmd_addr_i": address, "cmd_words_i": words})

    def expected(self, commands: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [
            (int.from_bytes(self.memory.read(address + 8 * index, 8), "little"), int(index + 1 == words))
            for address, words in commands
            for index in range(words)
        ]


@cocotb.test()
@cocotb.parametrize(("timing", [Timing((5, 5)), Timing((30, 120)), Timing((1, 40), stall=0.4)]), ("pause", [0.0, 0.6]))
async def random_commands(dut: Any, timing: Timing, pause: float) -> None:
    """Words come in order, each once, and last marks the end of each command."""
    tb = TB(dut, timing, pause, seed=3)
    await tb.start()
    commands = []
    for _ in range(30):
        words = tb.random.choice([1, 2, 15, 16, 17, tb.random.randint(1, 600)])
        commands.append((random_address(tb.random, SIZE, words), words))
    for address, words in commands:
        await tb.command(address, words)
        if tb.random.random() < 0.3:
            await ClockCycles(dut.clk, tb.random.randrange(50))
    await wait_until(dut, "idle_o")
    await ClockCycles(dut.clk, 4)
    assert tb.words == tb.expected(commands)
    assert tb.port.idle
    assert not int(dut.error_o.value)


@cocotb.test()
@cocotb.parametrize(timing=[Timing((1, 1)), Timing((1, 20), stall=0.6)])
async def anywhere(dut: Any, timing: Timing) -> None:
    """Commands lie anywhere in 4 GiB, also where the address carries far."""
    tb = TB(dut, timing, 0.1, seed=8, size=SMALL)
    await tb.start()
    for _ in range(60):
        tb.memory.base = random_base(tb.random, SMALL)
        words = tb.random.randint(1, 50)
        command = tb.memory.base + random_address(tb.random, SMALL, words), words
        tb.words.clear()
        await tb.command(*command)
        await wait_until(dut, "idle_o")
        await ClockCycles(dut.clk, 2)
        assert tb.words == tb.expected([command]), command
    assert not int(dut.error_o.value)


@cocotb.test()
async def lengths(dut: Any) -> None:
    """A command goes on for all of its length: each of these would end early if a bit of it were lost."""
    tb = TB(dut, Timing((5, 5)), 0.0, seed=9)
    await tb.start()
    for bit in range(len(dut.cmd_words_i)):
        words = (1 << bit) + tb.random.randint(1, 40)
        seen = min(words, 600)
        address = 8 * tb.random.randrange(512)
        tb.words.clear()
        await tb.command(address, words)
        await ClockCycles(dut.clk, 700)
        # A command of millions of words does not run to its end here.
        if words > seen:
            assert not int(dut.idle_o.value), f"{words} words"
            dut.abort_i.value = 1
        await wait_until(dut, "idle_o")
        dut.abort_i.value = 0
        await ClockCycles(dut.clk, 4)
        expected = [(word, int(index + 1 == words)) for index, (word, _) in enumerate(tb.expected([(address, seen)]))]
        assert tb.words[:seen] == expected, f"{words} words"


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """At 200 cycles of latency sixteen bursts in flight still give one word per cycle."""
    tb = TB(dut, Timing((200, 200)), 0.0, seed=4)
    await tb.start()
    begin = tb.memory.cycle
    await tb.command(0, 2048)
    await wait_until(dut, "idle_o")
    assert tb.memory.cycle - begin < 2048 + 230
    assert tb.port.counters.most_reads == 16
    assert tb.words == tb.expected([(0, 2048)])


@cocotb.test()
async def never_stalls_the_memory(dut: Any) -> None:
    """R is always ready, also when nobody takes the data: bursts are not issued without room."""
    tb = TB(dut, Timing((2, 4)), 1.0, seed=5)
    await tb.start()
    await tb.command(0, 4000)
    await ClockCycles(dut.clk, 1500)
    assert int(dut.m_axi_rready.value) == 1
    taken = tb.port.counters.read_beats
    assert taken <= 512
    await ClockCycles(dut.clk, 200)
    assert tb.port.counters.read_beats == taken
    tb.pause = 0.0
    await wait_until(dut, "idle_o")
    assert tb.words == tb.expected([(0, 4000)])


@cocotb.test()
@cocotb.parametrize(delay=[1, 20, 47, 61, 90])
async def abort_drains(dut: Any, delay: int) -> None:
    """After an abort nothing is in flight, nothing is left over and the next command gives its own words."""
    tb = TB(dut, Timing((10, 60), stall=0.3), 0.3, seed=delay)
    await tb.start()
    await tb.command(4096, 700)
    await ClockCycles(dut.clk, delay)
    # Whoever asked for the data may have stopped taking it.
    tb.pause = 1.0
    dut.abort_i.value = 1
    await wait_until(dut, "idle_o")
    assert tb.port.idle
    assert len(tb.words) < 700
    # What is asked for now is dropped as well.
    dut.cmd_valid_i.value = 1
    for _ in range(4):
        await RisingEdge(dut.clk)
        assert int(dut.idle_o.value)
    dut.cmd_valid_i.value = 0
    await ClockCycles(dut.clk, 4)
    assert int(dut.idle_o.value)
    dut.abort_i.value = 0
    await ClockCycles(dut.clk, 3)
    tb.words.clear()
    tb.pause = 0.3
    await tb.command(808, 100)
    await wait_until(dut, "idle_o")
    await ClockCycles(dut.clk, 4)
    assert tb.words == tb.expected([(808, 100)])


@cocotb.test()
@cocotb.parametrize(response=[2, 3])
async def error_response(dut: Any, response: int) -> None:
    """SLVERR and DECERR raise error_o, which stays."""
    tb = TB(dut, Timing((10, 20)), 0.0, seed=6)
    await tb.start()
    tb.memory.fail(1024, 1032, response)
    await tb.command(0, 64)
    await wait_until(dut, "idle_o")
    assert not int(dut.error_o.value)
    await tb.command(960, 64)
    await wait_until(dut, "idle_o")
    assert int(dut.error_o.value)
