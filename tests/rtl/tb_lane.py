"""cocotb tests of bs_lane: one result a cycle against the formula of its header."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from core_bench import signed
from shell_bench import parameters

COUNT = 2500


def bounds(rng: random.Random, value: int) -> tuple[int, int]:
    """Lowest and highest code for a value: of a usual format, or any, with one of them often next to the value."""
    if rng.random() < 0.4:
        return rng.choice([(0, 255), (-128, 127), (0, 15), (-8, 7), (0, 3), (-2, 1)])
    near = value + rng.randint(-2, 2) if rng.random() < 0.7 else rng.randint(-256, 255)
    near = min(max(near, -256), 255)
    low, high = sorted((near, rng.choice([near, rng.randint(-256, 255), rng.randint(-256, 255)])))
    return low, high


def draw(rng: random.Random, acc_bits: int) -> dict[str, int]:
    """The inputs of one result, by port name; a good part of them lands between the bounds."""
    bipolar = rng.getrandbits(1)
    scale = rng.randint(1, acc_bits)
    upper = rng.getrandbits(scale)
    acc = rng.randint(0, upper) if bipolar else signed(rng.getrandbits(scale), scale) if rng.random() < 0.8 else upper
    if not bipolar and acc >= 1 << acc_bits - 1:
        acc -= 1 << acc_bits
    shift = rng.randint(0, 31)
    mul = signed(rng.getrandbits(18), 18) >> rng.randint(0, 17)
    bias = signed(rng.getrandbits(rng.choice([47, shift + 4, shift + 9])), 47) + (1 << shift >> 1)
    rq_shift = rng.randint(0, 31)
    rest = 7 - rq_shift % 8  # what the factors of the second rounding come shifted by
    given = {
        "take_sum_1_i": int(rng.random() < 0.2), "sum_1_i": signed(rng.getrandbits(18), 18),
        "acc_0_i": acc, "column_acc_0_i": upper, "bipolar_0_i": bipolar, "mul_1_i": mul, "bias_1_i": bias,
        "skip_0_i": rng.getrandbits(8), "skip_signed_0_i": rng.getrandbits(1),
        "skip_mul_0_i": rng.getrandbits(24) >> rng.randint(0, 24), "shift_bytes_5_i": shift >> 3, "shift_bits_6_i": shift & 7,
        "inject_7_i": int(rng.random() < 0.2), "inject_code_7_i": rng.randint(-128, 255),
        "rq_mul_7_i": signed(rng.getrandbits(18), 18) >> rng.randint(0, 17) << rest,
        "rq_bias_8_i": signed(rng.getrandbits(32), 32) >> rng.randint(0, 20) << rest, "rq_bytes_10_i": rq_shift // 8,
        "requant_11_i": rng.getrandbits(1),
    }  # fmt: skip
    given["lo_7_i"], given["hi_7_i"] = bounds(rng, shifted(given))
    given["rq_lo_11_i"], given["rq_hi_11_i"] = bounds(rng, shifted_again(given))
    return given


def sum_of(given: dict[str, int]) -> int:
    """What is shifted and limited."""
    value = 2 * given["acc_0_i"] - given["column_acc_0_i"] if given["bipolar_0_i"] else given["acc_0_i"]
    if parameters()["SUMS"] and given["take_sum_1_i"]:
        value = given["sum_1_i"]
    skip = signed(given["skip_0_i"], 8) if given["skip_signed_0_i"] else given["skip_0_i"]
    return signed(value * given["mul_1_i"] + given["bias_1_i"] + skip * given["skip_mul_0_i"], 48)


def shifted(given: dict[str, int]) -> int:
    return sum_of(given) >> 8 * given["shift_bytes_5_i"] + given["shift_bits_6_i"]


def code_of(given: dict[str, int]) -> int:
    if given["inject_7_i"]:
        return given["inject_code_7_i"]
    return min(max(shifted(given), given["lo_7_i"]), given["hi_7_i"])


def shifted_again(given: dict[str, int]) -> int:
    """What the second rounding limits."""
    return (code_of(given) * given["rq_mul_7_i"] + given["rq_bias_8_i"]) >> (8 * given["rq_bytes_10_i"] + 7)


def expected(given: dict[str, int]) -> dict[str, int]:
    """The outputs by port name."""
    code = code_of(given)
    second = min(max(shifted_again(given), given["rq_lo_11_i"]), given["rq_hi_11_i"])
    stored = second if given["requant_11_i"] else code
    return {"sum_o": sum_of(given), "code_o": code, "stored_o": stored & 255, "code_12_o": code & 255}


@cocotb.test()
async def random_results(dut: Any) -> None:
    """A new result every cycle; each control is right only in the cycle that its suffix names."""
    acc_bits, rng = parameters()["ACC_BITS"], random.Random(5)
    given = [draw(rng, acc_bits) for _ in range(COUNT)]
    wanted = [expected(item) for item in given]
    widths = {"sum_o": 48, "code_o": 9, "stored_o": 8, "code_12_o": 8}
    latency = {"sum_o": 5, "code_o": 8, "stored_o": 12, "code_12_o": 12}
    Clock(dut.clk, 10, unit="ns").start()
    for cycle in range(COUNT + 12):
        for name in given[0]:
            index = cycle - int(name.rsplit("_", 2)[1])
            if 0 <= index < COUNT:
                port = getattr(dut, name)
                port.value = given[index][name] & ((1 << len(port)) - 1)
        await RisingEdge(dut.clk)
        for name, late in latency.items():
            index = cycle - late
            if 0 <= index < COUNT:
                got = int(getattr(dut, name).value)
                assert got == wanted[index][name] & ((1 << widths[name]) - 1), (name, index, given[index])
    inside = sum(
        item["lo_7_i"] < want["code_o"] < item["hi_7_i"]
        for item, want in zip(given, wanted, strict=True)
        if not item["inject_7_i"]
    )
    assert inside > COUNT // 20


@cocotb.test()
async def extremes(dut: Any) -> None:
    """The largest products that the accumulator and the multipliers allow keep their sign."""
    acc_bits, rng = parameters()["ACC_BITS"], random.Random(6)
    quiet = dict.fromkeys(draw(rng, acc_bits), 0) | {
        "lo_7_i": -256,
        "hi_7_i": 255,
        "shift_bytes_5_i": 3,
        "shift_bits_6_i": 7,
    }
    top = (1 << acc_bits) - 1
    cases = []
    for mul in (-(1 << 17), (1 << 17) - 1):
        for acc in (-(1 << acc_bits - 1), (1 << acc_bits - 1) - 1):
            cases.append(quiet | {"mul_1_i": mul, "acc_0_i": acc})
        for acc in (0, top):
            cases.append(quiet | {"mul_1_i": mul, "acc_0_i": acc, "column_acc_0_i": top, "bipolar_0_i": 1})
    cases.append(quiet | {"skip_0_i": 128, "skip_signed_0_i": 1, "skip_mul_0_i": (1 << 24) - 1})
    cases.append(quiet | {"skip_0_i": 255, "skip_mul_0_i": (1 << 24) - 1})
    Clock(dut.clk, 10, unit="ns").start()
    for case in cases:
        for name, value in case.items():
            port = getattr(dut, name)
            port.value = value & ((1 << len(port)) - 1)
        for _ in range(13):
            await RisingEdge(dut.clk)
        assert signed(int(dut.sum_o.value), 48) == expected(case)["sum_o"], case
        assert signed(int(dut.code_o.value), 9) == expected(case)["code_o"], case
