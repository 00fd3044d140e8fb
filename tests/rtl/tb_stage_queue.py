"""cocotb tests of bs_stage_queue."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
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

    async def start(self, count: int, loop_start: int, images: int, batch: int) -> None:
        """Begin a run; afterwards the inputs are anything, for they count with the pulse alone."""
        dut, inputs = self.dut, {"count_i": count, "loop_start_i": loop_start, "images_i": images, "batch_i": batch}
        for name, value in inputs.items():
            getattr(dut, name).value = value
        dut.start_i.value = 1
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        for name in inputs:
            getattr(dut, name).value = self.random.getrandbits(len(getattr(dut, name)))

    async def reset(self) -> None:
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 1)
        self.dut.rst.value = 0

    async def run(
        self, count: int, loop_start: int, images: int, work: int, limit: int, batch: int = 1, enough: int | None = None
    ) -> list[Any]:
        """Take instructions, each after 0 to ``work`` cycles; what came. A reset ends a run with more than ``enough``."""
        dut = self.dut
        await self.start(count, loop_start, images, batch)
        taken: list[Any] = []
        pause = ready = 0
        before: Any = None  # the outputs of a cycle before
        for cycle in range(limit):
            await RisingEdge(dut.clk)
            valid, finished = int(dut.instr_valid_o.value), int(dut.finished_o.value)
            shown = dut.instr_o.value, dut.first_image_o.value
            # It stands a cycle before it is valid, and until it is taken.
            assert not valid or shown == before, len(taken)
            before = shown
            if cycle > 0 and finished:
                assert not valid
                return taken
            if ready and valid:
                taken.append((int(dut.instr_o.value), int(dut.first_image_o.value)))
                if len(taken) == enough:
                    await self.reset()
                    return taken
                pause = self.random.randint(0, work)
            ready = int(pause == 0)
            pause = max(0, pause - 1)
            dut.instr_ready_i.value = ready
        raise AssertionError(f"not finished after {limit} cycles, {len(taken)} instructions taken")

    def expected(self, count: int, loop_start: int, images: int, batch: int = 1, enough: int | None = None) -> list[Any]:
        every = (
            (self.instructions[index], int(image == 0))
            for image in range(0, images, batch)
            for index in range(0 if image == 0 else loop_start, count)
        )
        return list(islice(every, enough))


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
        taken = await tb.run(*case, work=tb.random.choice([0, 3, 25]), limit=40_000, batch=batch)
        assert taken == tb.expected(*case, batch), (case, batch)


@cocotb.test()
async def batches(dut: Any) -> None:
    """Any batch, with so many images that a loop more or less would show, also in the last one."""
    tb = TB(dut, seed=4)
    await tb.load()
    for batch in [1 << bit for bit in range(8)] + [tb.random.randint(1, 255) for _ in range(30)]:
        loops, count = tb.random.randint(1, 9), tb.random.randint(1, 3)
        case = count, tb.random.randrange(count), max(1, loops * batch + tb.random.choice([-1, 0, 1]))
        taken = await tb.run(*case, work=0, limit=2000, batch=batch)
        assert taken == tb.expected(*case, batch), (case, batch)


@cocotb.test()
async def images_of_any_size(dut: Any) -> None:
    """Each bit of the number of images counts: a run with many does not end early, and a reset ends it."""
    tb = TB(dut, seed=5)
    await tb.load()
    for bit in range(32):
        batch, enough = tb.random.randint(100, 255), tb.random.randint(10, 20)
        case = 1, 0, 1 << bit
        taken = await tb.run(*case, work=0, limit=2000, batch=batch, enough=enough)
        assert taken == tb.expected(*case, batch, enough), (case, batch)


@cocotb.test()
async def millions_of_images(dut: Any) -> None:
    """As many loops as a short test can see: only the first one has the first images, and the last one ends the run."""
    tb = TB(dut, seed=6)
    await tb.load()
    images, batch = (1 << 22) + 1, 128
    dut.instr_ready_i.value = 1
    await tb.start(1, 0, images, batch)
    firsts: list[int] = []

    async def collect() -> None:
        while True:
            await RisingEdge(dut.instr_valid_o)  # at an edge alone, so that Python does not see every cycle
            firsts.append(int(dut.first_image_o.value))

    task = cocotb.start_soon(collect())
    await with_timeout(RisingEdge(dut.finished_o), 13 * 10 * (images // batch), "ns")
    task.cancel()
    assert firsts == [1] + [0] * (images // batch)


@cocotb.test()
async def no_bubble(dut: Any) -> None:
    """A stage that works ten cycles on an instruction finds the next one ready."""
    tb = TB(dut, seed=2)
    await tb.load()
    await tb.start(4, 0, 10, 1)
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
    await tb.start(2, 0, 100, 1)
    await ClockCycles(dut.clk, 30)
    await tb.reset()
    await ClockCycles(dut.clk, 30)
    assert int(dut.finished_o.value) and not int(dut.instr_valid_o.value)
    taken = await tb.run(2, 1, 3, work=0, limit=1000)
    assert taken == tb.expected(2, 1, 3)
