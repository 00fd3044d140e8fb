"""Builds a module of the shell alone and runs its cocotb tests; also what those tests share."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RTL = Path(__file__).resolve().parents[2] / "hls_templates" / "rtl"
BENCHES = Path(__file__).resolve().parent


def simulate(
    tmp_path: Path,
    top: str,
    modules: Sequence[str],
    bench: str,
    parameters: Mapping[str, int] | None = None,
    *,
    testcase: str | None = None,
    rtl: Path = RTL,
    seed: int = 1,
) -> None:
    """Compile ``modules`` (the package first, rendered) with top module ``top`` and run ``bench``; assert it passes."""
    from hwgen.render import render_package
    from sim.verilator import build

    package = tmp_path / "bs_pkg.sv"
    package.write_text(render_package(), encoding="utf-8")
    sources = [package, *(rtl / f"{module}.sv" for module in modules)]
    compiled = build(sources, top, parameters)
    compiled.test(
        bench, tmp_path / "run", python_path=[BENCHES], testcase=testcase, seed=seed, timeout_s=300
    ).check()


def parameters() -> dict[str, int]:
    """Inside a simulation: the elaboration parameters that were set."""
    values: dict[str, int] = json.loads(os.environ["BITSMITH_PARAMETERS"])
    return values


async def reset(dut: Any, quiet: Sequence[str] = ()) -> None:
    """Start the clock, drive the inputs named in ``quiet`` to 0 and hold ``rst`` for four cycles."""
    from cocotb.clock import Clock
    from cocotb.triggers import ClockCycles

    for name in quiet:
        getattr(dut, name).value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 1)


async def send(dut: Any, prefix: str, fields: Mapping[str, int]) -> None:
    """One valid/ready transfer on ``{prefix}_valid_i``/``{prefix}_ready_o`` with the named inputs."""
    from cocotb.triggers import RisingEdge

    for name, value in fields.items():
        getattr(dut, name).value = value
    getattr(dut, f"{prefix}_valid_i").value = 1
    while True:
        await RisingEdge(dut.clk)
        if int(getattr(dut, f"{prefix}_ready_o").value):
            break
    getattr(dut, f"{prefix}_valid_i").value = 0


async def wait_until(dut: Any, name: str, value: int = 1, limit: int = 100_000) -> int:
    """Cycles until output ``name`` equals ``value``; an AssertionError after ``limit``."""
    from cocotb.triggers import RisingEdge

    for cycle in range(limit):
        await RisingEdge(dut.clk)
        if int(getattr(dut, name).value) == value:
            return cycle
    raise AssertionError(f"{name} did not become {value} within {limit} cycles")


def random_words(rng: random.Random, count: int) -> bytes:
    """``count`` random 64-bit words as bytes."""
    return rng.randbytes(8 * count)
