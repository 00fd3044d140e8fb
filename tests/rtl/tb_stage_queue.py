"""cocotb tests of bs_stage_queue."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import parameters, reset

WORDS = 8


class TB:
    """A queue with random instructions in its memory."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut = dut
        self.random = random.Random(seed)
        self.depth = parameters()["DEPTH"]
        self.instructions = [self.random.getrandbits(512) for _ in range(self.depth // WORDS)]

    async def load(self) -> None:
        await reset(self.dut, ("we_i", "start_i", "instr_ready_i"))
        self.dut.we_i.value = 1
        for address in range(self.depth):
            self.dut.addr_i.value = address
            self.dut.data_i.value = self.instructions[address // WORDS] >> (64 * (address % WORDS)) & (2**64 - 1)
            await RisingEdge(self.dut.clk)
        self.dut.we_i.value = 0

    async def run(
        self, count: int, loop_start: int, images: int, work: int, limit: int, batch: int = 1
    ) -> tuple[list[Any], int]:
        """Take instructions, each after 0 to ``work`` cycles; what came, and the cycles it took."""
        dut = self.dut
        dut.count_i.value, dut.loop_start_i.value, dut.images_i.value = count, loop_start, images
        dut.batch_i.value = batch
        dut.start_i.value = 1
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        taken: list[Any] = []
        pause = ready = 0
        for cycle in range(limit):
            await RisingEdge(dut.clk)
            if cycle > 0 and int(dut.finished_o.value):
                return taken, cycle
            if ready and int(dut.instr_valid_o.value):
                taken.append((int(dut.instr_o.value), int(dut.first_image_o.value)))
                pause = self.random.randint(0, work)
            ready = int(pause == 0)
            pause = max(0, pause - 1)
            dut.instr_ready_i.value = ready
        raise AssertionError(f"not finished after {limit} cycles, {len(taken)} instructions taken")

    def expected(self, count: int, loop_start: int, images: int, batch: int = 1) -> list[Any]:
        return [
            (self.instructions[index], int(image == 0))
            for image in range(0, images, batch)
            for index in range(0 if image == 0 else loop_start, count)
        ]


@cocotb.test()
async def order(dut: Any) -> None:
    """Every instruction of every image, in order, with its image; also when there is nothing to do."""
    tb = TB(dut, seed=1)
    await tb.load()
    most = tb.depth // WORDS
    cases = [(0, 0, 3), (1, 0, 1), (1, 1, 5), (most, 0, 2), (most, most - 1, 4), (most, most, 3), (3, 1, 0)]
    cases += [(count, tb.random.randint(0, count), tb.random.randint(1, 5)) for count in range(1, most)]
    for case in cases:
        batch = tb.random.choice([1, 1, 2, 3, 200])
        taken, _ = await tb.run(*case, work=tb.random.choice([0, 3, 25]), limit=40_000, batch=batch)
        assert taken == tb.expected(*case, batch), (case, batch)


@cocotb.test()
async def no_bubble(dut: Any) -> None:
    """A stage that works ten cycles on an instruction finds the next one ready."""
    tb = TB(dut, seed=2)
    await tb.load()
    dut.count_i.value, dut.loop_start_i.value, dut.images_i.value = 4, 0, 10
    dut.start_i.value = 1
    await RisingEdge(dut.clk)
    dut.start_i.value = 0
    while not int(dut.instr_valid_o.value):
        await RisingEdge(dut.clk)
    for _ in range(39):
        dut.instr_ready_i.value = 1
        await RisingEdge(dut.clk)
        dut.instr_ready_i.value = 0
        await ClockCycles(dut.clk, 10)
        assert int(dut.instr_valid_o.value)


@cocotb.test()
async def reset_ends(dut: Any) -> None:
    """After a reset in the middle nothing is left of the run."""
    tb = TB(dut, seed=3)
    await tb.load()
    dut.count_i.value, dut.loop_start_i.value, dut.images_i.value = 2, 0, 100
    dut.start_i.value = 1
    await RisingEdge(dut.clk)
    dut.start_i.value = 0
    await ClockCycles(dut.clk, 30)
    dut.rst.value = 1
    await ClockCycles(dut.clk, 1)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 30)
    assert int(dut.finished_o.value) and not int(dut.instr_valid_o.value)
    taken, _ = await tb.run(2, 1, 3, work=0, limit=1000)
    assert taken == tb.expected(2, 1, 3)
