"""Builds a module of the shell alone and runs its cocotb tests; also what those tests share."""

from __future__ import annotations

import json
import os
import random
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RTL = Path(__file__).resolve().parents[2] / "hls_templates" / "rtl"
BENCHES = Path(__file__).resolve().parent
# Of every burst: rising addresses of whole words, one ID, whose answers come in order; a plain access that may be buffered.
ATTRIBUTES = {"id": 0, "burst": 1, "size": 3, "lock": 0, "cache": 3, "prot": 0, "qos": 0}


def simulate(
    tmp_path: Path,
    top: str,
    modules: Sequence[str],
    bench: str,
    parameters: Mapping[str, int] | None = None,
    *,
    extra: Sequence[Path] = (),
    testcase: str | None = None,
    rtl: Path = RTL,
    seed: int = 1,
) -> None:
    """Compile ``modules`` (the package and ``extra`` first) with top module ``top`` and run ``bench``; assert it passes."""
    from hwgen.render import render_package
    from sim.verilator import build

    package = tmp_path / "bs_pkg.sv"
    package.write_text(render_package(), encoding="utf-8")
    sources = [package, *extra, *(rtl / f"{module}.sv" for module in modules)]
    compiled = build(sources, top, parameters)
    compiled.test(bench, tmp_path / "run", python_path=[BENCHES], testcase=testcase, seed=seed, timeout_s=300).check()


def parameters() -> dict[str, int]:
    """Inside a simulation: the elaboration parameters that were set."""
    values: dict[str, int] = json.loads(os.environ["BITSMITH_PARAMETERS"])
    return values


async def reset(dut: Any, quiet: Sequence[str] = (), *, clock: bool = True) -> None:
    """Start the clock (once per test), drive the inputs named in ``quiet`` to 0 and hold ``rst`` for four cycles."""
    from cocotb.clock import Clock
    from cocotb.triggers import ClockCycles

    for name in quiet:
        getattr(dut, name).value = 0
    dut.rst.value = 1
    if clock:
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


def random_address(rng: random.Random, size: int, words: int) -> int:
    """A multiple of 8 with room for ``words`` in ``size`` bytes, often shortly before a 4 KiB boundary."""
    most = size // 8 - words
    if rng.random() < 0.5:
        near = 512 * rng.randint(1, size // 4096 - 1) - rng.randint(1, 15)
        if near <= most:
            return 8 * near
    return 8 * rng.randrange(most)


def random_base(rng: random.Random, size: int) -> int:
    """Where ``size`` bytes lie within 4 GiB: a multiple of 4 KiB, often such that a multiple of a power of two is in the middle."""
    if rng.random() < 0.5:
        carry = 1 << rng.randint(size.bit_length(), 31)
        return rng.randrange(carry, 1 << 32, carry) - size // 2
    return 4096 * rng.randrange(((1 << 32) - size) // 4096 + 1)


def random_words(rng: random.Random, count: int) -> bytes:
    """``count`` random 64-bit words as bytes."""
    return rng.randbytes(8 * count)


class Everywhere:
    """Memory with something else at each of 2^32 addresses, read by slices; they may not go beyond the end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, place: slice) -> bytes:
        first, end = place.start // 8, -(-place.stop // 8)
        words = b"".join(random.Random(self.seed << 32 | word).randbytes(8) for word in range(first, end))
        return words[place.start - 8 * first :][: place.stop - place.start]


class ReadMaster:
    """Plays a read DMA for a module that gives commands on ``{prefix}cmd_*`` and takes words on ``{prefix}data_*``.

    Args:
        content: the memory, from address 0.
        stall: probability, per cycle, that commands or data pause.
    """

    def __init__(self, dut: Any, prefix: str, content: bytes | Everywhere, rng: random.Random, stall: float) -> None:
        self.dut, self.content, self.rng, self.stall = dut, content, rng, stall
        self.commands: list[tuple[int, int]] = []
        self._words: deque[tuple[int, int]] = deque()
        self._pins = {
            name: getattr(dut, f"{prefix}{name}")
            for name in (
                "cmd_valid_o", "cmd_ready_i", "cmd_addr_o", "cmd_words_o", "data_valid_i", "data_ready_o", "data_i",
            )
        }  # fmt: skip
        self._last = getattr(dut, f"{prefix}data_last_i", None)
        self._pins["cmd_ready_i"].value = 0
        self._pins["data_valid_i"].value = 0

    @property
    def idle(self) -> bool:
        return not self._words

    async def run(self) -> None:
        """Serve for ever; start it as a task."""
        from cocotb.triggers import RisingEdge

        pins = self._pins
        ready = shown = 0
        while True:
            await RisingEdge(self.dut.clk)
            if ready and int(pins["cmd_valid_o"].value):
                address, words = int(pins["cmd_addr_o"].value), int(pins["cmd_words_o"].value)
                self.commands.append((address, words))
                assert words > 0 and address % 8 == 0, f"command of {words} words at {address:#x}"
                for index in range(words):
                    raw = self.content[address + 8 * index : address + 8 * index + 8]
                    assert len(raw) == 8, f"read beyond the memory at {address + 8 * index:#x}"
                    self._words.append((int.from_bytes(raw, "little"), int(index + 1 == words)))
            if shown and int(pins["data_ready_o"].value):
                self._words.popleft()
                shown = 0
            ready = int(self.rng.random() >= self.stall)
            pins["cmd_ready_i"].value = ready
            if not shown and self._words and self.rng.random() >= self.stall:
                pins["data_i"].value = self._words[0][0]
                if self._last is not None:
                    self._last.value = self._words[0][1]
                shown = 1
            pins["data_valid_i"].value = shown
