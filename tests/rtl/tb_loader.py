"""cocotb tests of bs_loader."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import ReadMaster, parameters, reset

from hwgen import isa

BASE = 4096
STAGES = {stage: [op for op in isa.OPCODES if op.stage is stage] for stage in isa.Stage}


def random_instruction(rng: random.Random, stage: isa.Stage) -> int:
    """512 random bits with an opcode of the stage, no count of zero."""
    op = rng.choice(STAGES[stage])
    word = rng.getrandbits(504) << 8 | op.code
    for field, lsb in op.layout():
        if field.positive:
            word |= 1 << (lsb + rng.randrange(field.width))
    return word


def program_words(hash_: int, streams: list[list[int]], loops: list[int]) -> list[int]:
    """The 64-bit words of a program, from the format's description."""
    total = 8 + 8 * sum(map(len, streams)) + 1
    words = [isa.PROGRAM_MAGIC | isa.PROGRAM_VERSION << 32, hash_ | total << 32]
    words += [len(stream) | loop << 16 for stream, loop in zip(streams, loops, strict=True)]
    words += [0, 0, 0]
    for stream in streams:
        for instruction in stream:
            words += [instruction >> (64 * index) & (2**64 - 1) for index in range(8)]
    return [*words, isa.PROGRAM_END]


class TB:
    """A loader whose writes are collected in ``memories``."""

    def __init__(self, dut: Any, seed: int, stall: float = 0.3) -> None:
        self.dut, self.random, self.stall = dut, random.Random(seed), stall
        values = parameters()
        self.hash = values["ENGINE_HASH"]
        self.most = values["PROGRAM_DEPTH"] // 8
        self.clocked = False
        self.memories: list[dict[int, int]] = [{}, {}, {}]

    def streams(self, counts: list[int]) -> list[list[int]]:
        return [
            [random_instruction(self.random, stage) for _ in range(count)]
            for stage, count in zip(isa.Stage, counts, strict=True)
        ]

    async def _collect(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            enables = int(self.dut.we_o.value)
            for stage in range(3):
                if enables >> stage & 1:
                    self.memories[stage][int(self.dut.addr_o.value)] = int(self.dut.data_o.value)

    async def run(self, words: list[int]) -> str:
        """Load ``words``; "done" or "error"."""
        dut = self.dut
        content = bytes(BASE) + b"".join(word.to_bytes(8, "little") for word in words) + bytes(4096)
        for memory in self.memories:
            memory.clear()
        await reset(dut, ("start_i",), clock=not self.clocked)
        self.clocked = True
        master = ReadMaster(dut, "", content, self.random, self.stall)
        tasks = [cocotb.start_soon(master.run()), cocotb.start_soon(self._collect())]
        dut.program_addr_i.value = BASE
        dut.start_i.value = 1
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        result = ""
        for _ in range(20_000):
            await RisingEdge(dut.clk)
            if int(dut.done_o.value) or int(dut.error_o.value):
                result = "done" if int(dut.done_o.value) else "error"
                break
        await ClockCycles(dut.clk, 5)
        for task in tasks:
            task.cancel()
        if result == "done":
            assert master.idle
        return result

    async def fails(self, words: list[int], error: isa.Error) -> int:
        """Assert that loading ends with ``error``; its information."""
        assert await self.run(words) == "error"
        code = int(self.dut.error_code_o.value)
        assert code == error, f"{isa.Error(code).name} instead of {error.name}"
        return int(self.dut.error_info_o.value)


@cocotb.test()
async def loads(dut: Any) -> None:
    """All instructions arrive in the right memories with the right counts and loop starts."""
    tb = TB(dut, seed=1)
    cases = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [tb.most] * 3]
    cases += [[tb.random.randint(0, tb.most) for _ in range(3)] for _ in range(5)]
    for counts in cases:
        loops = [tb.random.randint(0, count) for count in counts]
        streams = tb.streams(counts)
        assert await tb.run(program_words(tb.hash, streams, loops)) == "done"
        for stage, stream in enumerate(streams):
            got = tb.memories[stage]
            assert len(got) == 8 * len(stream)
            for index, instruction in enumerate(stream):
                assert sum(got[8 * index + word] << (64 * word) for word in range(8)) == instruction
        packed_counts, packed_loops = int(dut.count_o.value), int(dut.loop_start_o.value)
        assert [packed_counts >> (16 * stage) & 0xFFFF for stage in range(3)] == counts
        assert [packed_loops >> (16 * stage) & 0xFFFF for stage in range(3)] == loops


@cocotb.test()
async def rejects_header(dut: Any) -> None:
    """Magic, version, engine, lengths: each has its error."""
    tb = TB(dut, seed=2)
    good = program_words(tb.hash, tb.streams([2, 1, 2]), [1, 0, 0])

    def edited(index: int, value: int) -> list[int]:
        return [*good[:index], value, *good[index + 1 :]]

    await tb.fails(edited(0, good[0] ^ 1), isa.Error.PROGRAM_MAGIC)
    await tb.fails(edited(0, good[0] ^ (1 << 33)), isa.Error.PROGRAM_MAGIC)
    await tb.fails(edited(1, good[1] ^ (1 << 31)), isa.Error.PROGRAM_ENGINE)
    await tb.fails(edited(1, good[1] + (1 << 32)), isa.Error.PROGRAM_LENGTH)
    await tb.fails(edited(3, 2), isa.Error.PROGRAM_LENGTH)
    await tb.fails(edited(2, 2 | 3 << 16), isa.Error.PROGRAM_LENGTH)
    assert await tb.run(good) == "done"
    for stage in range(3):
        counts = [1, 1, 1]
        counts[stage] = tb.most + 1
        await tb.fails(program_words(tb.hash, tb.streams(counts), [0, 0, 0]), isa.Error.PROGRAM_LENGTH)


@cocotb.test()
async def rejects_end(dut: Any) -> None:
    """A program without its end word is truncated."""
    tb = TB(dut, seed=3)
    good = program_words(tb.hash, tb.streams([1, 1, 1]), [0, 0, 0])
    await tb.fails([*good[:-1], good[-1] ^ 1], isa.Error.PROGRAM_END)
    await tb.fails([*program_words(tb.hash, [[], [], []], [0, 0, 0])[:-1], 0], isa.Error.PROGRAM_END)


@cocotb.test()
async def rejects_opcodes(dut: Any) -> None:
    """An opcode of another stage or of none is named with its stage and layer."""
    tb = TB(dut, seed=4)
    for stage in isa.Stage:
        own = {op.code for op in STAGES[stage]}
        foreign = {op.code for op in isa.OPCODES} - own
        for code in sorted(foreign | {0, 0xFF}):
            streams = tb.streams([2, 2, 2])
            streams[stage][1] = (streams[stage][1] >> 16 << 16) | 0x5A << 8 | code
            info = await tb.fails(program_words(tb.hash, streams, [0, 0, 0]), isa.Error.ILLEGAL_OPCODE)
            assert info == stage << 24 | 0x5A << 16 | code


@cocotb.test()
async def rejects_counts_of_zero(dut: Any) -> None:
    """Each count that is zero is found, wherever its bits lie; a single bit in it, the lowest or the highest, is enough."""
    tb = TB(dut, seed=5)
    for op, field, _, _ in isa.counts():
        lsb = next(lsb for item, lsb in op.layout() if item is field)
        mask = ((1 << field.width) - 1) << lsb
        for bits in (0, 1, 1 << (field.width - 1)):
            streams = tb.streams([2, 2, 2])
            while streams[op.stage][1] & 0xFF != op.code:
                streams[op.stage][1] = random_instruction(tb.random, op.stage)
            streams[op.stage][1] = streams[op.stage][1] & ~mask | bits << lsb
            words = program_words(tb.hash, streams, [0, 0, 0])
            if bits:
                assert await tb.run(words) == "done", (op.name, field.name, bits)
            else:
                layer = streams[op.stage][1] >> 8 & 0xFF
                assert await tb.fails(words, isa.Error.ADDRESS) == op.stage << 24 | layer << 16 | op.code
