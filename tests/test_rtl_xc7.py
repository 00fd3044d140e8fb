"""The 7-series forms of the array do what the portable forms do: the same benches, on Yosys' models of the primitives."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtl.shell_bench import simulate

from hwgen.popcount import plan
from hwgen.render import render_popcount
from sim.xc7_models import primitives

ARRAY = [
    "bs_pairs_xc7",
    "bs_counter_xc7",
    "bs_full_adder_xc7",
    "bs_adder3_xc7",
    "bs_popcount",
    "bs_accumulator",
    "bs_dot_unit",
]

LANE = ["bs_value", "bs_mac", "bs_less", "bs_clip", "bs_lane"]


def array_sources(folder: Path, width: int) -> list[Path]:
    popcount = folder / "bs_popcount_xc7.sv"
    popcount.write_text(render_popcount(width), encoding="utf-8")
    return [primitives(folder, ["LUT6", "LUT6_2", "CARRY4"]), popcount]


@pytest.mark.parametrize(("width", "bits"), [(24, 12), (40, 13), (72, 16), (144, 28)])
def test_dot_unit(tmp_path: Path, width: int, bits: int) -> None:
    parameters = {"D_K": width, "PARTS": 1, "ACC_BITS": bits, "XC7": 1}
    simulate(tmp_path, "bs_dot_unit", ARRAY, "tb_dot_unit", parameters, extra=array_sources(tmp_path, width))


def test_array(tmp_path: Path) -> None:
    parameters = {"D_M": 2, "D_N": 2, "D_K": 24, "PARTS": 2, "LANE_ROWS": 1, "ACC_BITS": 16, "COUNT_BITS": 10, "XC7": 1}
    sources = array_sources(tmp_path, 24)
    simulate(tmp_path, "bs_array", [*ARRAY, "bs_array"], "tb_array", parameters, extra=sources)


@pytest.mark.parametrize(("bits", "sums"), [(28, 1), (14, 0)])
def test_lane(tmp_path: Path, bits: int, sums: int) -> None:
    extra = [primitives(tmp_path, ["LUT6_2", "CARRY4", "DSP48E1"])]
    simulate(tmp_path, "bs_lane", LANE, "tb_lane", {"ACC_BITS": bits, "SUMS": sums, "XC7": 1}, extra=extra)


@pytest.mark.parametrize("pairs", [2, 3, 5, 7, 9, 12])
@pytest.mark.parametrize("width", [8, 24, 40, 144, 480])
def test_plan_keeps_the_weighted_sum(width: int, pairs: int) -> None:
    """Every bit is used once, and each counter's outputs have room for its inputs."""
    made = plan(width, pairs)
    weight = {}
    for group in made.groups:
        weight[group.sum] = 0
        weight |= dict.fromkeys(group.carries, 1)
    assert sum(group.pairs for group in made.groups) == width
    used: list[str] = []
    for level in made.levels:
        for counter in level.counters:
            for step, bits in enumerate(counter.bits):
                real = [bit for bit in bits if bit != "1'b0"]
                assert len(bits) == 6 and {weight[bit] for bit in real} == {weight[counter.bits[0][0]] + 2 * step}
                used += real
            assert len(counter.sums) == 2 * len(counter.bits) + 1
            weight |= {name: weight[counter.bits[0][0]] + step for step, name in enumerate(counter.sums)}
        for adder in level.adders:
            assert len({weight[bit] for bit in adder.bits}) == 1
            weight |= {name: weight[adder.bits[0]] + step for step, name in enumerate(adder.sums)}
            used += adder.bits
        for old, new in level.passed:
            weight[new] = weight[old]
            used.append(old)
    for row in made.terms:
        for bit, name in enumerate(row):
            if name != "1'b0":
                assert weight[name] == bit
                used.append(name)
    assert len(used) == len(set(used))
    # What is left over can only be carries that the width never sets.
    assert all(weight[name] >= made.count_bits for name in set(weight) - set(used))
