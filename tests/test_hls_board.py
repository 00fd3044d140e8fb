"""Bundles of HLS builds: the driver on a board whose engine is the compiled kernel, behind the registers that Vitis gives it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import board_case
import networks
import numpy as np
import pytest
from board_case import StandIn
from test_board_driver import Platform

from bitsmith.board_commands import golden_samples
from hwgen import isa
from hwgen.bitfile import virtual_bit
from hwgen.board import load_board
from hwgen.build import Build, generate
from hwgen.bundle import write_bundle
from hwgen.driver.bitsmith_driver import Accelerator, BundleError, DeviceError
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.hwh import render_hwh
from hwgen.network import Network
from hwgen.render_hls import render_hls_sources
from sim.hls import compile_kernel, run_kernel

BOARD = load_board("pynq-z2")
CONTROL, GLOBAL_INTERRUPT, INTERRUPTS, PENDING, REGISTERS = 0x0, 0x4, 0x8, 0xC, 0x100
NAME = {item.offset: item.name for item in isa.REGISTERS}
MEMORY = 1 << 22


class Kernel:
    """The compiled kernel behind ap_ctrl_hs; a run takes ``slices`` waits. Registers are not to be touched while it runs."""

    def __init__(self, program: Path, slices: int = 2) -> None:
        self.program, self.slices, self.left = program, slices, 0
        self.memory = np.zeros(MEMORY, np.uint8)
        self.registers = dict.fromkeys(NAME.values(), 0xDEADBEEF)
        self.enabled = self.pending = self.runs = 0

    def read(self, address: int, size: int) -> bytes:
        return self.memory[address : address + size].tobytes()

    def write(self, address: int, content: bytes) -> None:
        self.memory[address : address + len(content)] = np.frombuffer(content, np.uint8)

    def read_register(self, offset: int) -> int:
        if offset == CONTROL:
            return 0 if self.left else 4
        if offset < 0x10:
            return self.pending if offset == PENDING else self.enabled
        assert not self.left, "a register was read during a run"
        return self.registers[NAME[offset - REGISTERS]]

    def write_register(self, offset: int, value: int) -> None:
        if offset == CONTROL:
            assert value == 1 and not self.left
            self.left = self.slices
        elif offset == PENDING:
            self.pending ^= value
        elif offset < 0x10:
            self.enabled |= value << (offset == INTERRUPTS)
        else:
            assert not self.left, "a register was written during a run"
            self.registers[NAME[offset - REGISTERS]] = value

    def step(self, cycles: int) -> None:
        if not self.left:
            return
        self.left -= 1
        if not self.left:
            done = run_kernel(self.program, board_case.ENGINE, self.memory, self.registers)
            self.memory[:] = done.memory
            self.registers = dict(done.registers)
            self.pending |= self.enabled >> 1
            self.runs += 1


class KernelBoard(Platform):
    """A board with the kernel; time passes with every look at it."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(cast(StandIn, kernel))
        self.kernel = kernel

    def read(self, offset: int) -> int:
        self.engine.step(1)
        return self.engine.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        self.engine.write_register(offset, value)


def bundle(folder: Path, network: Network, engine: EngineConfig = board_case.ENGINE, batch: int = 1) -> Path:
    build = generate(network, engine, BOARD, folder.with_name(folder.name + "-build"), backend="hls", batch=batch)
    return write_bundle(build, golden_samples(build), folder, virtual=False, bit=bit_of(build))


def bit_of(build: Build) -> Path:
    """Stands for what Vivado makes."""
    path = build.path / "vivado" / "bitsmith.bit"
    path.write_bytes(virtual_bit("0" * 64, build.engine.hash, BOARD.part))
    path.with_suffix(".hwh").write_text(render_hwh(BOARD, BOARD.clock_mhz), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def kernel() -> Path:
    return compile_kernel(render_hls_sources(board_case.ENGINE, BOARD.name, "test"))


def test_the_driver_runs_hls_bundles(kernel: Path, tmp_path: Path) -> None:
    first, second = (
        bundle(tmp_path / "first", networks.tiny(samples=5)),
        bundle(tmp_path / "second", networks.tiny(seed=2, samples=4)),
    )
    foreign = bundle(tmp_path / "foreign", networks.tiny(), EngineConfig())
    board = KernelBoard(Kernel(kernel))
    with Accelerator(first, board, batch=3) as acc:
        images, _, golden = acc.bundle.samples()
        for _ in range(2):
            assert (acc.predict(images) == golden).all()
        assert (acc.predict(np.ascontiguousarray(images.transpose(0, 3, 1, 2))) == golden).all()
        assert acc.stats["issue_cycles"] > 0 and acc.stats["dma_write_bytes"] > 0
        assert board.kernel.pending == 0, "the interrupt stays raised"
        acc.load(second)
        others, _, other_golden = acc.bundle.samples()
        assert (acc.predict(others) == other_golden).all()
        with pytest.raises(BundleError, match="open the bundle with a new Accelerator"):
            acc.load(foreign)
        assert acc._program is not None
        acc._program.array[:64] = 0
        acc._program.push(acc._program.array.size)
        with pytest.raises(DeviceError, match="does not begin with the program header") as caught:
            acc.predict(others)
        assert caught.value.code == isa.Error.PROGRAM_MAGIC
        acc.load(first)
        assert (acc.predict(images) == golden).all()
    assert board.memories == []


def test_programs_that_take_images_together(kernel: Path, tmp_path: Path) -> None:
    packed = bundle(tmp_path / "three", networks.linear_end(), batch=3)
    with Accelerator(packed, KernelBoard(Kernel(kernel)), batch=4) as acc:
        images, _, golden = acc.bundle.samples()
        for count in (1, 3, 7):
            assert (acc.predict(images[:count]) == golden[:count]).all()


def test_ctrl_c_waits_for_the_kernel(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = bundle(tmp_path / "tiny", networks.tiny(samples=5))
    board = KernelBoard(Kernel(kernel, slices=20))
    with Accelerator(packed, board) as acc:
        images, _, golden = acc.bundle.samples()
        with monkeypatch.context() as patch:
            patch.setattr(board, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                acc.predict(images)
        assert not board.engine.left
        assert (acc.predict(images) == golden).all()


def test_a_virtual_board_has_no_hls_kernel(tmp_path: Path) -> None:
    build = generate(networks.tiny(samples=1), board_case.ENGINE, BOARD, tmp_path / "b", backend="hls")
    with pytest.raises(InputError, match=r"The virtual board simulates RTL, and the build's backend is hls"):
        write_bundle(build, golden_samples(build), tmp_path / "bundle", virtual=True)
