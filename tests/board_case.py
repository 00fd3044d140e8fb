"""Bundles and a stand-in engine for the tests of the board side."""

from __future__ import annotations

import random
from pathlib import Path

import networks
import numpy as np

from bitsmith.board_commands import golden_samples
from hwgen import isa
from hwgen.board import load_board
from hwgen.build import Build, generate
from hwgen.bundle import write_bundle
from hwgen.engine import EngineConfig
from hwgen.network import Network
from hwgen.network_file import read_network

ROOT = Path(__file__).parent.parent
PYNQ_PYTHON = ROOT / ".venv-pynq" / "bin" / "python"
# Small enough to compile in seconds.
ENGINE = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=1024, plane_depth=512, byte_depth=512,
    column_depth=512,
)  # fmt: skip
OFFSET = {item.name: item.offset for item in isa.REGISTERS}


def digits() -> Network:
    """A trained network for scikit-learn's digits, with its 360 test images."""
    return read_network(Path(__file__).parent / "data" / "digits")


def build(folder: Path, network: Network | None = None, engine: EngineConfig = ENGINE, batch: int = 1) -> Build:
    return generate(network or networks.tiny(samples=5), engine, load_board("pynq-z2"), folder, batch=batch)


def bundle(folder: Path, network: Network | None = None, engine: EngineConfig = ENGINE, batch: int = 1) -> Path:
    """A virtual bundle ``folder`` (and its zip, which is returned). batch: images that the program takes together."""
    made = build(folder.with_name(folder.name + "-build"), network, engine, batch)
    return write_bundle(made, golden_samples(made), folder, virtual=True)


def loopback() -> str:
    """An address of this machine that no other test uses: pynq's client knows no other port than 7967."""
    return f"127.{random.SystemRandom().randint(1, 250)}.{random.SystemRandom().randint(1, 250)}.2"


class StandIn:
    """An engine that needs ``busy_cycles`` for a run and writes image i's first byte as its logits."""

    def __init__(self, busy_cycles: int = 20_000) -> None:
        self.memory = np.zeros(1 << 29, np.uint8)
        self.registers: dict[int, int] = {}
        self.busy_cycles = busy_cycles
        self.left = 0
        self.fails_with = 0
        self.closed = False
        self.reset()

    def read(self, address: int, size: int) -> bytes:
        return self.memory[address : address + size].tobytes()

    def write(self, address: int, content: bytes) -> None:
        self.memory[address : address + len(content)] = np.frombuffer(content, np.uint8)

    def read_register(self, register: int) -> int:
        if register not in OFFSET.values():
            raise RuntimeError("SLVERR")
        return self.registers.get(register, 0)

    def write_register(self, register: int, value: int) -> None:
        if register == OFFSET["control"]:
            self.registers[register] = value & 4
            if value & 2:
                self.left, self.registers[OFFSET["status"]] = 0, 0
            if value & 1:
                self.left = self.busy_cycles
                self.registers[OFFSET["status"]] = 1
                self.registers[OFFSET["images_done"]] = 0
        else:
            self.registers[register] = value

    def step(self, cycles: int) -> None:
        if self.left <= 0:
            return
        self.left -= cycles
        if self.left <= 0:
            self.finish()

    def finish(self) -> None:
        get = {name: self.registers.get(offset, 0) for name, offset in OFFSET.items()}
        if self.fails_with:
            self.registers |= {OFFSET["status"]: 4, OFFSET["error"]: self.fails_with, OFFSET["error_info"]: 0x02050030}
            return
        for index in range(get["image_count"]):
            pixel = int(self.memory[get["image_addr"] + index * get["image_stride"]])
            self.write(get["output_addr"] + index * get["output_stride"], pixel.to_bytes(4, "little"))
        self.registers |= {
            OFFSET["status"]: 2,
            OFFSET["images_done"]: get["image_count"],
            OFFSET["cycles"]: self.busy_cycles,
        }

    def reset(self) -> None:
        self.registers = {
            OFFSET["id"]: isa.DEVICE_ID,
            OFFSET["version"]: isa.DEVICE_VERSION,
            OFFSET["engine"]: ENGINE.hash,
        }
        self.left = 0

    def close(self) -> None:
        self.closed = True
