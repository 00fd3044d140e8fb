"""cocotb tests of bs_work: instructions of random fields against the fields by their names."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import Timer
from core_bench import layout, pack_struct, unpack_struct

from hwgen import isa
from hwgen.program import Instruction


def work_of(instruction: Instruction) -> int:
    """The instruction as write-back sees it: its fields by their names, and zero where it has none of that name."""
    get, pool = instruction.values, instruction.op.name == "pool"
    named = {
        "is_pool": int(pool),
        "alone": int(pool or get["from_sums"]),
        "post": get["post_fill"],
        "rq_bytes": get["rq_shift"] // 8,
        "rq_bits": 7 - get["rq_shift"] % 8,  # so far factors go up that whole bytes and seven bits remain of the shift
    }
    found = {**get, **named}
    beat = {name: found.get(name, 0) for name in layout("beat_t")}
    work = {name: found.get(name, 0) for name in layout("work_t")}
    return pack_struct("work_t", {**work, "beat": pack_struct("beat_t", beat)})


@cocotb.test()
async def random_fields(dut: Any) -> None:
    """Both instructions in turn, every field anywhere in its range; what lies behind the last field is not looked at."""
    rng = random.Random(17)
    for _ in range(1500):
        op = isa.BY_NAME[rng.choice(["conv_out", "pool"])]
        fields = {field.name: rng.randint(field.lo, field.hi) for field in op.fields}
        instruction = Instruction.make(op.name, layer=rng.randrange(256), **fields)
        rest = rng.getrandbits(isa.INSTRUCTION_BITS) >> op.used_bits << op.used_bits
        dut.instr_i.value = int.from_bytes(instruction.encode(), "little") | rest
        dut.is_pool_i.value = int(op.name == "pool")
        await Timer(1, unit="ns")
        got, want = int(dut.work_o.value), work_of(instruction)
        assert got == want, (instruction.text(), unpack_struct("work_t", got ^ want))
