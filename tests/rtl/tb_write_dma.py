"""cocotb tests of bs_write_dma."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import parameters, random_address, random_base, reset, send, wait_until

from sim.axi_memory import AxiMemory, Timing, reader

SIZE = 1 << 16
SMALL = 8192  # one 4 KiB boundary inside


class TB:
    """A write DMA on a memory filled with 0xA5; ``queue`` holds the words to send."""

    def __init__(self, dut: Any, timing: Timing, idle: float, seed: int, size: int = SIZE) -> None:
        self.dut = dut
        self.random = random.Random(seed)
        self.idle = idle
        self.memory = AxiMemory(size, seed=seed)
        self.memory.data[:] = 0xA5
        self.port = self.memory.attach(dut, "m_axi", timing)
        self.queue: list[int] = []
        self.done = 0

    async def start(self) -> None:
        self.memory.start(self.dut.clk)
        await reset(self.dut, ("cmd_valid_i", "data_valid_i", "abort_i"))
        cocotb.start_soon(self._source())

    async def _source(self) -> None:
        ready, done = reader(self.dut.data_ready_o), reader(self.dut.done_o)
        shown = False
        while True:
            await RisingEdge(self.dut.clk)
            self.done += done()
            # Whoever sends may give up after an abort, and clears the queue.
            if shown and (ready() or not self.queue):
                del self.queue[:1]
                shown = False
            if not shown and self.queue and self.random.random() >= self.idle:
                self.dut.data_i.value = self.queue[0]
                shown = True
            self.dut.data_valid_i.value = int(shown)

    async def command(self, address: int, words: list[int]) -> None:
        self.queue.extend(words)
        await send(self.dut, "cmd", {"cmd_addr_i": address, "cmd_words_i": len(words)})


@cocotb.test()
@cocotb.parametrize(
    ("timing", [Timing((1, 1)), Timing((30, 120)), Timing((1, 40), stall=0.5, outstanding=2)]), ("idle", [0.0, 0.5])
)
async def random_commands(dut: Any, timing: Timing, idle: float) -> None:
    """The memory holds exactly the words that were sent, and done comes once per command."""
    tb = TB(dut, timing, idle, seed=7)
    await tb.start()
    image = bytearray(tb.memory.read(0, SIZE))
    for index in range(25):
        count = tb.random.choice([1, 2, 16, 17, tb.random.randint(1, 300)])
        words = [tb.random.getrandbits(64) for _ in range(count)]
        address = random_address(tb.random, SIZE, count)
        image[address : address + 8 * count] = b"".join(word.to_bytes(8, "little") for word in words)
        await tb.command(address, words)
        await wait_until(dut, "idle_o")
        assert tb.port.idle, "idle before the last answer"
        await RisingEdge(dut.clk)
        assert tb.done == index + 1
    assert tb.memory.read(0, SIZE) == bytes(image)
    assert tb.queue == []
    assert not int(dut.error_o.value)


@cocotb.test()
@cocotb.parametrize(timing=[Timing((1, 1)), Timing((1, 20), stall=0.7)])
async def anywhere(dut: Any, timing: Timing) -> None:
    """Commands lie anywhere in 4 GiB, also where the address carries far, and begin with bursts of few words."""
    tb = TB(dut, timing, 0.1, seed=10, size=SMALL)
    await tb.start()
    for _ in range(60):
        tb.memory.base = base = random_base(tb.random, SMALL)
        image = bytearray(tb.memory.read(base, SMALL))
        words = [tb.random.getrandbits(64) for _ in range(tb.random.randint(1, 50))]
        start = tb.random.choice([random_address(tb.random, SMALL, len(words)), SMALL // 2 - 8 * tb.random.randint(1, 2)])
        image[start : start + 8 * len(words)] = b"".join(word.to_bytes(8, "little") for word in words)
        await tb.command(base + start, words)
        await wait_until(dut, "idle_o")
        assert tb.memory.read(base, SMALL) == bytes(image), f"{len(words)} words at {base + start:#x}"
    assert not int(dut.error_o.value)


@cocotb.test()
async def lengths(dut: Any) -> None:
    """A command goes on for all of its length: each of these would end early if a bit of it were lost."""
    tb = TB(dut, Timing((5, 5)), 0.0, seed=11)
    await tb.start()
    for bit in range(len(dut.cmd_words_i)):
        count = (1 << bit) + tb.random.randint(1, 40)
        words = [tb.random.getrandbits(64) for _ in range(min(count, 100))]
        address = 8 * tb.random.randrange(512)
        done = tb.done
        tb.queue.extend(words)
        await send(dut, "cmd", {"cmd_addr_i": address, "cmd_words_i": count})
        await ClockCycles(dut.clk, 250)
        assert tb.memory.read(address, 8 * len(words)) == b"".join(word.to_bytes(8, "little") for word in words)
        assert tb.done - done == int(count == len(words)) == int(dut.idle_o.value), f"{count} words"
        # The rest of a long command never comes.
        dut.abort_i.value = 1
        await wait_until(dut, "idle_o")
        dut.abort_i.value = 0
        await ClockCycles(dut.clk, 2)


@cocotb.test()
async def in_flight(dut: Any) -> None:
    """As many bursts as the module was built for wait for their answers, and no more."""
    tb = TB(dut, Timing((300, 400)), 0.0, seed=12)
    await tb.start()
    task = cocotb.start_soon(tb.command(0, [tb.random.getrandbits(64) for _ in range(600)]))
    flying = most = 0
    await ClockCycles(dut.clk, 2)
    while not int(dut.idle_o.value):
        flying += int(dut.m_axi_awvalid.value) and int(dut.m_axi_awready.value)
        flying -= int(dut.m_axi_bvalid.value) and int(dut.m_axi_bready.value)
        most = max(most, flying)
        await RisingEdge(dut.clk)
    await task
    assert tb.port.idle
    assert most == parameters()["OUTSTANDING"]


@cocotb.test()
@cocotb.parametrize(delay=[2, 9, 30, 55])
async def abort_completes_the_burst(dut: Any, delay: int) -> None:
    """An abort leaves no open burst; what was not sent before it is not written."""
    tb = TB(dut, Timing((5, 30), stall=0.3), 0.5, seed=delay)
    await tb.start()
    words = [tb.random.getrandbits(64) for _ in range(200)]
    await tb.command(256, words)
    await ClockCycles(dut.clk, delay)
    dut.abort_i.value = 1
    await wait_until(dut, "idle_o")
    assert tb.port.idle
    await ClockCycles(dut.clk, 2)
    # No command is taken now.
    done = tb.done
    dut.cmd_valid_i.value = 1
    for _ in range(4):
        await RisingEdge(dut.clk)
        assert int(dut.idle_o.value)
    dut.cmd_valid_i.value = 0
    await ClockCycles(dut.clk, 4)
    assert int(dut.idle_o.value)
    assert tb.done == done
    dut.abort_i.value = 0
    tb.queue.clear()
    await ClockCycles(dut.clk, 2)
    written = tb.port.counters.write_beats - tb.port.counters.zero_strobe_beats
    kept = b"".join(word.to_bytes(8, "little") for word in words[:written])
    assert tb.memory.read(256, 8 * written) == kept
    assert set(tb.memory.read(256 + 8 * written, 8 * (200 - written))) == {0xA5}
    await tb.command(4080, words[:40])
    await wait_until(dut, "idle_o")
    assert tb.memory.read(4080, 320) == b"".join(word.to_bytes(8, "little") for word in words[:40])


@cocotb.test()
@cocotb.parametrize(response=[2, 3])
async def error_response(dut: Any, response: int) -> None:
    """SLVERR and DECERR raise error_o, which stays."""
    tb = TB(dut, Timing((5, 5)), 0.0, seed=8)
    await tb.start()
    await tb.command(0, [1, 2, 3])
    await wait_until(dut, "idle_o")
    assert not int(dut.error_o.value)
    tb.memory.fail(512, 520, response)
    for address in (512, 0):
        await tb.command(address, [1])
        await wait_until(dut, "idle_o")
        assert int(dut.error_o.value)
