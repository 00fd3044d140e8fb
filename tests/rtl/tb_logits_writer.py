"""cocotb tests of bs_logits_writer."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import parameters, reset, wait_until

ADDRESS, STRIDE = 0x1000, 0x140


class TB:
    """A logits writer with a write DMA that stalls and keeps what it gets as (address, words)."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.random = dut, random.Random(seed)
        values = parameters()
        self.rows, self.depth = values["LANE_ROWS"], values["LOGIT_DEPTH"]
        self.writes: list[tuple[int, list[int]]] = []

    async def start(self) -> None:
        self.dut.output_addr_i.value, self.dut.output_stride_i.value = ADDRESS, STRIDE
        await reset(self.dut, ("valid_i", "last_i", "cmd_ready_i", "data_ready_i", "dma_done_i"))
        cocotb.start_soon(self._dma())

    async def _dma(self) -> None:
        dut = self.dut
        while True:
            await ClockCycles(dut.clk, self.random.randint(1, 5))
            dut.cmd_ready_i.value = 1
            while True:
                await RisingEdge(dut.clk)
                if int(dut.cmd_valid_o.value):
                    break
            dut.cmd_ready_i.value = 0
            words: list[int] = []
            address, count = int(dut.cmd_addr_o.value), int(dut.cmd_words_o.value)
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

    async def image(self, logits: list[int], idle: float) -> None:
        """Send the logits of one image, as many as fill whole beats."""
        dut = self.dut
        for start in range(0, len(logits), self.rows):
            while self.random.random() < idle:
                await RisingEdge(dut.clk)
            beat = logits[start : start + self.rows]
            dut.valid_i.value = 1
            dut.data_i.value = sum(value << (32 * index) for index, value in enumerate(beat))
            dut.last_i.value = int(start + self.rows >= len(logits))
            await RisingEdge(dut.clk)
            dut.valid_i.value = 0
            dut.last_i.value = 0


@cocotb.test()
async def images(dut: Any) -> None:
    """Every image lands at its address with all of its logits, up to a full buffer, and is counted when acknowledged."""
    tb = TB(dut, seed=1)
    await tb.start()
    lengths = [1, 2, 3, 5, tb.depth] + [tb.random.randint(1, tb.depth) for _ in range(6)]
    for index, beats in enumerate(lengths):
        assert int(dut.idle_o.value)
        logits = [tb.random.getrandbits(32) for _ in range(beats * tb.rows)]
        await tb.image(logits, tb.random.choice([0.0, 0.5]))
        await wait_until(dut, "idle_o")
        padded = logits + [0] * (len(logits) % 2)
        words = [padded[at] | padded[at + 1] << 32 for at in range(0, len(padded), 2)]
        await ClockCycles(dut.clk, 2)
        assert tb.writes[-1] == (ADDRESS + index * STRIDE, words), f"image {index} of {beats} beats"
        assert int(dut.images_done_o.value) == index + 1 == len(tb.writes)
