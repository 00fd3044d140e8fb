"""cocotb tests of bs_logits_writer."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import parameters, reset, wait_until


class TB:
    """A logits writer with a write DMA that stalls and keeps what it gets as (address, words)."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.random = dut, random.Random(seed)
        self.clocked = False
        values = parameters()
        self.rows, self.depth = values["LANE_ROWS"], values["LOGIT_DEPTH"]
        self.writes: list[tuple[int, list[int]]] = []

    async def start(self, address: int, stride: int) -> None:
        """Reset; the first image's logits go to ``address``, each next one's ``stride`` further."""
        self.writes.clear()
        self.dut.output_addr_i.value, self.dut.output_stride_i.value = self.address, self.stride = address, stride
        quiet = ("valid_i", "last_i", "cmd_ready_i", "data_ready_i", "dma_done_i")
        await reset(self.dut, quiet, clock=not self.clocked)
        if not self.clocked:
            cocotb.start_soon(self._dma())
            cocotb.start_soon(self._watch())
        self.clocked = True

    async def _watch(self) -> None:
        """written_o follows dma_done_i by one cycle."""
        expected = 0
        while True:
            await RisingEdge(self.dut.clk)
            assert int(self.dut.written_o.value) == expected
            expected = int(self.dut.dma_done_i.value)

    async def _dma(self) -> None:
        dut = self.dut
        while True:
            waiting = None
            ready = 0
            while True:
                await RisingEdge(dut.clk)
                command = int(dut.cmd_valid_o.value), int(dut.cmd_addr_o.value), int(dut.cmd_words_o.value)
                assert waiting in (None, command), "the command changed before it was taken"
                if command[0]:
                    waiting = command
                    if ready:
                        break
                ready = int(self.random.random() < 0.3)
                dut.cmd_ready_i.value = ready
            dut.cmd_ready_i.value = 0
            words: list[int] = []
            _, address, count = command
            ready = 0
            while len(words) < count:
                await RisingEdge(dut.clk)
                if ready and int(dut.data_valid_o.value):
                    words.append(int(dut.data_o.value))
                ready = int(len(words) < count and self.random.random() < 0.6)
                dut.data_ready_i.value = ready
            dut.data_ready_i.value = 0
            await ClockCycles(dut.clk, self.random.randint(1, 30))
            assert not int(dut.idle_o.value), "idle before the memory has answered"
            dut.dma_done_i.value = 1
            await RisingEdge(dut.clk)
            dut.dma_done_i.value = 0
            self.writes.append((address, words))

    async def image(self, logits: list[int], idle: float, *, whole: bool = True) -> None:
        """Send the logits of one image, as many as fill whole beats; not whole: more were to come."""
        dut = self.dut
        for start in range(0, len(logits), self.rows):
            while self.random.random() < idle:
                await RisingEdge(dut.clk)
            beat = logits[start : start + self.rows]
            dut.valid_i.value = 1
            dut.data_i.value = sum(value << (32 * index) for index, value in enumerate(beat))
            dut.last_i.value = int(whole and start + self.rows >= len(logits))
            await RisingEdge(dut.clk)
            dut.valid_i.value = 0
            dut.last_i.value = 0

    async def check(self, lengths: Iterable[int]) -> None:
        """Send images of so many beats each, one after the other; each must be written where it belongs, and counted."""
        dut = self.dut
        for index, beats in enumerate(lengths):
            assert int(dut.idle_o.value)
            logits = [self.random.getrandbits(32) for _ in range(beats * self.rows)]
            await self.image(logits, self.random.choice([0.0, 0.5]))
            await wait_until(dut, "idle_o")
            padded = logits + [0] * (len(logits) % 2)
            words = [padded[at] | padded[at + 1] << 32 for at in range(0, len(padded), 2)]
            await ClockCycles(dut.clk, 2)
            assert self.writes[-1] == (self.address + index * self.stride, words), f"image {index} of {beats} beats"
            assert int(dut.images_done_o.value) == index + 1 == len(self.writes)


@cocotb.test()
async def images(dut: Any) -> None:
    """Every image lands at its address with all of its logits, up to a full buffer, and is counted when acknowledged."""
    tb = TB(dut, seed=1)
    await tb.start(0x1000, 0x140)
    await tb.check([1, 2, 3, 5, tb.depth] + [tb.random.randint(1, tb.depth) for _ in range(6)])


@cocotb.test()
async def anywhere(dut: Any) -> None:
    """The images may lie anywhere in 4 GiB and any distance apart."""
    tb = TB(dut, seed=2)
    for _ in range(40):
        count = tb.random.randint(2, 4)
        stride = 8 * (tb.random.getrandbits(tb.random.randint(5, 29)) // (count - 1))
        room = (1 << 32) - (count - 1) * stride
        await tb.start(8 * tb.random.randrange(room // 8), stride)
        await tb.check(tb.random.randint(1, 5) for _ in range(count))


@cocotb.test()
async def reset_within_an_image(dut: Any) -> None:
    """What a reset leaves of an image does not get into the next one."""
    tb = TB(dut, seed=3)
    for beats in range(1, 8):
        await tb.start(0x1000, 0x140)
        await tb.image([tb.random.getrandbits(32) for _ in range(beats * tb.rows)], 0.3, whole=False)
        await ClockCycles(dut.clk, tb.random.randint(0, 12))
        await tb.start(0x2000, 0x140)
        await tb.check([3, 2])
