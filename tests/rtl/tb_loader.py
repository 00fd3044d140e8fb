"""cocotb tests of bs_loader."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from shell_bench import Everywhere, ReadMaster, parameters, reset

from hwgen import isa

OF_HEADER = (isa.Error.PROGRAM_MAGIC, isa.Error.PROGRAM_ENGINE, isa.Error.PROGRAM_LENGTH)
STAGES = {stage: [op for op in isa.OPCODES if op.stage is stage] for stage in isa.Stage}


def random_instruction(rng: random.Random, stage: isa.Stage) -> int:
    """512 random bits with an opcode of the stage, no count of zero."""
    op = rng.choice(STAGES[stage])
    word = rng.getrandbits(504) << 8 | op.code
    for field, lsb in op.layout():
        if field.positive:
            word |= 1 << (lsb + rng.randrange(field.width))
    return word


def header_words(hash_: int, counts: list[int], loops: list[int], batch: int = 0) -> list[int]:
    """The header of a program, from the format's description."""
    total = 8 + 8 * sum(counts) + 1
    words = [isa.PROGRAM_MAGIC | isa.PROGRAM_VERSION << 32, hash_ | total << 32]
    words += [count | loop << 16 for count, loop in zip(counts, loops, strict=True)]
    return [*words, batch, 0, 0]


def program_words(hash_: int, streams: list[list[int]], loops: list[int], batch: int = 0) -> list[int]:
    """The 64-bit words of a program."""
    words = header_words(hash_, [len(stream) for stream in streams], loops, batch)
    for stream in streams:
        for instruction in stream:
            words += [instruction >> (64 * index) & (2**64 - 1) for index in range(8)]
    return [*words, isa.PROGRAM_END]


class Placed(Everywhere):
    """Memory with a program at a random place anywhere in it, and nothing far from that."""

    def __init__(self, words: list[int], rng: random.Random) -> None:
        self.base = 8 * rng.randrange((1 << 29) - len(words) - 512)
        self._bytes = b"".join(word.to_bytes(8, "little") for word in words) + rng.randbytes(4096)

    def __getitem__(self, place: slice) -> bytes:
        first, end = place.start - self.base, place.stop - self.base
        return self._bytes[first:end] if first >= 0 else b""


class TB:
    """A loader whose writes are collected in ``memories``."""

    def __init__(self, dut: Any, seed: int, stall: float = 0.3) -> None:
        self.dut, self.random, self.stall = dut, random.Random(seed), stall
        values = parameters()
        self.hash = values["ENGINE_HASH"]
        self.most = values["PROGRAM_DEPTH"] // 8
        self.clocked = False
        self.asked = 0  # commands of the last program
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

    async def run(self, words: list[int], *, fresh: bool = True) -> str:
        """Load ``words``, after a reset if ``fresh``; "done" or "error"."""
        dut, rng = self.dut, self.random
        content = Placed(words, rng)
        for memory in self.memories:
            memory.clear()
        if fresh:
            await reset(dut, ("start_i",), clock=not self.clocked)
        self.clocked = True
        master = ReadMaster(dut, "", content, rng, self.stall)
        tasks = [cocotb.start_soon(master.run()), cocotb.start_soon(self._collect())]
        dut.program_addr_i.value = content.base
        dut.start_i.value = 1
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        for _ in range(20_000):
            await RisingEdge(dut.clk)
            if int(dut.done_o.value) or int(dut.error_o.value):
                break
        done, error = int(dut.done_o.value), int(dut.error_o.value)
        assert done + error == 1
        # The end is a pulse; an error stays as it is, and nothing starts the loader again. Its last word may be written yet.
        shown = int(dut.error_code_o.value), int(dut.error_info_o.value)
        for _ in range(rng.randint(5, 12)):
            dut.start_i.value = error & rng.getrandbits(1)
            await RisingEdge(dut.clk)
            assert int(dut.error_o.value) == error and not int(dut.done_o.value)
            assert not int(dut.we_o.value) and not int(dut.cmd_valid_o.value)
            assert (int(dut.error_code_o.value), int(dut.error_info_o.value)) == shown
        dut.start_i.value = 0
        for task in tasks:
            task.cancel()
        asked = [(content.base, 8), (content.base + 64, (words[1] >> 32) - 8)]
        if done:
            assert master.idle and shown[0] == 0
            assert master.commands == asked
        else:
            assert master.commands == asked[: len(master.commands)]
        self.asked = len(master.commands)
        return "done" if done else "error"

    async def fails(self, words: list[int], error: isa.Error) -> int:
        """Assert that loading ends with ``error``, of the header before the rest is asked for; its information."""
        assert await self.run(words) == "error"
        code = int(self.dut.error_code_o.value)
        assert code == error, f"{isa.Error(code).name} instead of {error.name}"
        assert self.asked == (1 if error in OF_HEADER else 2)
        return int(self.dut.error_info_o.value)


@cocotb.test()
async def loads(dut: Any) -> None:
    """All instructions arrive in the right memories with the right counts, loop starts and batch, also one program after another."""
    tb = TB(dut, seed=1)
    cases = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [tb.most] * 3]
    cases += [[tb.random.randint(0, tb.most) for _ in range(3)] for _ in range(5)]
    for counts in cases:
        loops = [tb.random.choice([0, count, tb.random.randint(0, count)]) for count in counts]
        streams, batch = tb.streams(counts), tb.random.choice([0, 1, tb.random.randrange(256)])
        fresh = not tb.clocked or tb.random.random() < 0.5
        assert await tb.run(program_words(tb.hash, streams, loops, batch), fresh=fresh) == "done"
        assert int(dut.batch_o.value) == max(batch, 1)
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

    for bit in range(48):
        await tb.fails(edited(0, good[0] ^ 1 << bit), isa.Error.PROGRAM_MAGIC)
    for bit in range(32):
        await tb.fails(edited(1, good[1] ^ 1 << bit), isa.Error.PROGRAM_ENGINE)
        await tb.fails(edited(1, good[1] ^ 1 << (32 + bit)), isa.Error.PROGRAM_LENGTH)
    for stage in range(3):
        for bit in range(16):
            await tb.fails(edited(2 + stage, good[2 + stage] ^ 1 << bit), isa.Error.PROGRAM_LENGTH)
    assert await tb.run(good) == "done"
    for stage in range(3):
        # More than the memory holds, though the words in all agree.
        for most in (tb.most + 1, *(1 << bit for bit in range(16) if 1 << bit > tb.most), 0xFFFF):
            counts = [1, 1, 1]
            counts[stage] = most
            await tb.fails(header_words(tb.hash, counts, [0, 0, 0]), isa.Error.PROGRAM_LENGTH)
        # A loop that starts behind the end.
        count = tb.random.randrange(tb.most)
        for start in (count + 1, *(1 << bit for bit in range(16) if 1 << bit > count), 0xFFFF):
            counts, loops = [tb.most] * 3, [0] * 3
            counts[stage], loops[stage] = count, start
            await tb.fails(header_words(tb.hash, counts, loops), isa.Error.PROGRAM_LENGTH)


@cocotb.test()
async def rejects_end(dut: Any) -> None:
    """A program without its end word is truncated."""
    tb = TB(dut, seed=3)
    good = program_words(tb.hash, tb.streams([1, 1, 1]), [0, 0, 0])
    for bit in range(64):
        await tb.fails([*good[:-1], good[-1] ^ 1 << bit], isa.Error.PROGRAM_END)
    await tb.fails([*program_words(tb.hash, [[], [], []], [0, 0, 0])[:-1], 0], isa.Error.PROGRAM_END)


@cocotb.test()
async def rejects_opcodes(dut: Any) -> None:
    """An opcode of another stage or of none is named with its stage and layer."""
    tb = TB(dut, seed=4)
    for stage in isa.Stage:
        own = {op.code for op in STAGES[stage]}
        near = {code ^ 1 << bit for code in own for bit in range(8)}
        foreign = ({op.code for op in isa.OPCODES} | near | {0, 0xFF}) - own
        for code in sorted(foreign):
            streams, at, layer = tb.streams([2, 2, 2]), tb.random.randrange(2), tb.random.randrange(256)
            streams[stage][at] = (streams[stage][at] >> 16 << 16) | layer << 8 | code
            info = await tb.fails(program_words(tb.hash, streams, [0, 0, 0]), isa.Error.ILLEGAL_OPCODE)
            assert info == stage << 24 | layer << 16 | code


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
