"""The compiled path counts the cycles that cocotb counts, and finds what is broken."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import one_layer
from numpy.typing import NDArray

from hwgen import isa
from hwgen.board import load_board
from hwgen.build import Build, generate
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network import Network
from hwgen.program import Instruction, disassemble
from hwgen.schedule import schedule
from sim import failure, golden
from sim.compiled import CompiledEngine, MemoryTiming, RegisterError, SimulationError, compile_engine
from sim.fst import read_declared
from sim.job import Job, Result, Setting
from sim.monitor import TensorMonitor
from sim.random_network import random_images, random_network
from sim.verify import verify

SHAPE = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=8192, plane_depth=2048,
                     byte_depth=2048, column_depth=1024)  # fmt: skip
SEEDS = (100, 102)
IMAGES = 4


@pytest.fixture(scope="module", params=SEEDS)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("compiled") / "build"
    return generate(random_network(request.param), SHAPE, load_board("pynq-z2"), folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """One build for what does not depend on the network."""
    folder = tmp_path_factory.mktemp("compiled") / "build"
    return generate(random_network(SEEDS[0]), SHAPE, load_board("pynq-z2"), folder)


def images(build: Build, count: int = IMAGES) -> NDArray[np.uint8]:
    return random_images(build.network, count, 1)


def job(build: Build, folder: Path, **changes: Any) -> Setting:
    """A job's memory map and registers for a build."""
    made = Job(str(build.path), 1, (30, 30), 0.0, 1_000_000)
    chosen = images(build)
    replace(made, **changes).write(folder, chosen, golden.run(build.network, chosen))
    return Setting(folder)


def started(engine: CompiledEngine, setting: Setting) -> None:
    setting.fill(engine.memory)
    for name, value in setting.registers():
        engine.write_register(name, value)


@pytest.mark.parametrize("beats_per_cycle", [None, 0.3])
def test_it_counts_the_cycles_that_cocotb_counts(build: Build, beats_per_cycle: float | None) -> None:
    found = {
        simulator: verify(
            build.path, images=images(build), seed=7, simulator=simulator, processes=1, latency=(1, 90), stall=0.3,
            beats_per_cycle=beats_per_cycle,
        )
        for simulator in ("compiled", "cocotb")
    }  # fmt: skip
    for figures in found.values():
        assert not figures["problem"] and not figures["mismatches"], figures["first_mismatches"]
        del figures["simulator"], figures["seconds"]
    # Registers, counters, cycles per layer and predictions: everything, in spite of random latencies and pauses.
    assert found["compiled"] == found["cocotb"]


def test_processes_share_the_images(one: Build) -> None:
    alone, shared = (verify(one.path, images=images(one), processes=count) for count in (1, 3))
    assert shared["processes"] == 3
    for key in ("images", "mismatches", "tensors_compared", "predictions", "problem"):
        assert alone[key] == shared[key]
    assert shared["counters"]["images_done"] == IMAGES


def test_a_wrong_golden_code_is_told_with_its_image(one: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the third image, which the second process has as its first."""
    name, planes = next((item.name, item.planes) for item in one.schedule.passes if item.planes is not None)
    right = golden.run

    def wrong(network: Network, given: NDArray[np.uint8]) -> dict[str, NDArray[np.int32]]:
        tensors = right(network, given)
        tensors[planes.name][2, 0, 0, 0] ^= 1
        return tensors

    monkeypatch.setattr(golden, "run", wrong)
    told = {}
    for simulator in ("compiled", "cocotb"):
        result = verify(one.path, images=images(one), simulator=simulator, processes=2, stall=0)
        assert result["mismatches"] == 1
        told[simulator] = result["first_mismatches"][0].partition(" (cycle")[0]
    assert told["compiled"] == told["cocotb"]
    assert f"image 2, node '{name}', tensor '{planes.name}', y 0, x 0, channel 0" in told["compiled"]


def test_a_broken_weight_image_is_told_with_node_address_and_cycle(one: Build, tmp_path: Path) -> None:
    broken = generate(one.network, SHAPE, one.board, tmp_path / "build")
    image = bytearray(broken.program.read_bytes())
    program = disassemble(bytes(image))
    start = len(image) - len(program.data)
    for at in range(start, start + 64):
        image[at] ^= 0xFF
    broken.program.write_bytes(image)
    facts = json.loads((broken.path / "build.json").read_text())
    facts["program_sha256"] = hashlib.sha256(image).hexdigest()
    (broken.path / "build.json").write_text(json.dumps(facts))
    result = verify(broken.path, images=images(one))
    first = result["first_mismatches"][0]
    assert result["mismatches"] and f"node '{one.schedule.passes[0].name}'" in first and "cycle " in first
    address = int(first.split("program address ")[1].split(")")[0].split(",")[0], 16)
    instruction = Instruction.decode(bytes(image[address : address + isa.INSTRUCTION_BITS // 8]))
    assert (instruction.op.name, instruction["layer"]) == ("conv_out", 0)


def test_a_write_that_no_network_asks_for_is_told() -> None:
    """Logits alone are written to memory: neither buffer is."""
    network = one_layer()
    chosen = random_images(network, 1, 1)
    monitor = TensorMonitor(schedule(network, SHAPE), golden.run(network, chosen))
    monitor.plane_write(1, 0, 0)
    monitor.byte_write(1, 0, 0)
    assert monitor.tally.wrong == 2
    assert all("where the network has none" in str(mismatch) for mismatch in monitor.tally.mismatches)


def test_broken_rtl_is_found(one: Build, tmp_path: Path) -> None:
    broken = generate(one.network, SHAPE, one.board, tmp_path / "build")
    top = broken.path / "rtl" / "bs_top.sv"
    text = top.read_text()
    assert text.count(".weight_data_i(weight_data)") == 1
    top.write_text(text.replace(".weight_data_i(weight_data)", ".weight_data_i(weight_data ^ 64'd1)"))
    waves = tmp_path / "waves"
    result = verify(broken.path, images=images(one), processes=2, failing_waves=waves)
    assert result["mismatches"] and not result["problem"]
    # The cycles around the first wrong write, and no others.
    cycle = min(int(found) for found in re.findall(r"\(cycle (\d+)", "\n".join(result["first_mismatches"])))
    assert result["failing_waves"] == str(waves / "failure.fst")
    declared = read_declared(waves / "failure.fst")
    assert declared.first == 2 * max(cycle - failure.BEFORE, 1) - 3 and declared.last == 2 * (cycle + failure.AFTER)
    assert cycle + failure.AFTER < result["counters"]["cycles"]
    # Both lists name signals that the file has, the port of the wrong write among them, and mark its cycle.
    listed = (waves / "failure.gtkw").read_text().splitlines()[5:]
    names = {name.replace(" ", "") for name in declared.signals}
    assert set(listed) <= names and any(name.partition("[")[0].endswith("u_write_back.plane_data_o") for name in listed)
    commands = (waves / "failure.sucl").read_text().splitlines()
    assert {f"variable_add {name.partition('[')[0]}" for name in listed} <= set(commands)
    assert f"cursor_set {2 * cycle - 1}" in commands and f" {2 * cycle - 1} -1" in (waves / "failure.gtkw").read_text()


def test_a_right_run_leaves_no_failing_window(one: Build, tmp_path: Path) -> None:
    result = verify(one.path, images=images(one), failing_waves=tmp_path / "waves")
    assert not result["mismatches"] and result["failing_waves"] == "" and not (tmp_path / "waves").exists()


def test_the_window_of_a_fault_is_the_end_of_the_run() -> None:
    ended = Result("stuck", 0, 0, [], {}, {}, [], {}, ended=5000)
    assert failure.window(ended) == (5000 - failure.BEFORE, 5000 + failure.AFTER, 5000)
    assert failure.window(replace(ended, problem="", wrong=1, first_wrong=7)) == (1, 7 + failure.AFTER, 7)
    assert failure.window(replace(ended, problem="")) is None


def test_errors_of_the_engine_come_back(one: Build, tmp_path: Path) -> None:
    setting = job(one, tmp_path / "job")
    with CompiledEngine(compile_engine(one.rtl), setting.memory_bytes) as engine:
        setting.fill(engine.memory)
        engine.memory[isa.HEADER_WORDS * 8] = 0x7F
        for name, value in setting.registers():
            engine.write_register(name, value)
        assert engine.run(100_000)
        assert engine.read_register("error") == isa.Error.ILLEGAL_OPCODE
        assert engine.read_register("error_info") & 0xFF == 0x7F

        engine.fail(setting.image_addr, setting.image_addr + 8)
        started(engine, setting)
        assert engine.run(1_000_000)
        assert engine.read_register("error") == isa.Error.AXI_READ

        engine.heal()
        started(engine, setting)
        assert engine.run(1_000_000)
        assert engine.read_register("error") == isa.Error.NONE
        assert engine.read_register("images_done") == IMAGES
        classes = one.schedule.passes[-1].code.shape[2]
        expected = setting.golden[one.network.output].reshape(IMAGES, classes)
        assert np.array_equal([row[:classes] for row in setting.logits(engine.memory)], expected)


def test_memory_registers_and_time(one: Build) -> None:
    with CompiledEngine(compile_engine(one.rtl), 4096, memory_base=0x10000) as engine:
        engine.write(0x10010, b"abc")
        assert engine.read(0x1000F, 5) == b"\0abc\0"
        for address in (0xFFFF, 0x10FFE):
            with pytest.raises(ValueError, match="memory"):
                engine.read(address, 3)
        assert engine.read_register("id") == engine.read_register(0) != 0
        assert engine.read_register("engine") == SHAPE.hash
        with pytest.raises(RegisterError, match="0xfc"):
            engine.read_register(0xFC)
        before = engine.cycles
        engine.step(123)
        assert engine.cycles == before + 123
        assert not engine.run(50)
        engine.write_register("watchdog", 77)
        engine.reset()
        assert engine.read_register("watchdog") == 0
        engine.close()
        engine.close()


def test_every_write_is_recorded_once(one: Build, tmp_path: Path) -> None:
    setting = job(one, tmp_path / "job")
    timing = MemoryTiming((5, 40), 0.2, beats_per_cycle=1.0, seed=3)
    with CompiledEngine(compile_engine(one.rtl), setting.memory_bytes, timing) as engine:
        setting.fill(engine.memory)
        engine.watch()
        for name, value in setting.registers():
            engine.write_register(name, value)
        assert engine.run(1_000_000)
        events = engine.take_events()
        assert engine.logits_seen == IMAGES
        assert not len(engine.take_events().planes.rows)
    bands = Counter(layer for _, layer in events.first_issue)
    expected = Counter(instruction["layer"] for instruction in one.schedule.program.execute for _ in range(IMAGES))
    assert bands == expected
    assert np.all(np.diff(events.planes.cycles.astype(np.int64)) > 0)


def test_waves_are_recorded(one: Build, tmp_path: Path) -> None:
    result = verify(one.path, images=images(one), waves=tmp_path / "waves")
    assert result["processes"] == 1 and not result["mismatches"]
    text = (tmp_path / "waves" / "dump.vcd").read_text()
    assert "plane_we_o" in text and f"#{result['counters']['cycles']}" in text


def test_what_cannot_be_done_is_said(one: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compiled, cocotb, hls"):
        verify(one.path, images=images(one), simulator="modelsim")
    with pytest.raises(SimulationError, match="no waves"):
        CompiledEngine(compile_engine(one.rtl), 4096, waves=tmp_path / "dump.vcd")


def test_an_engine_that_hangs_is_told(one: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.verify._limit", lambda *_: 1000)
    for simulator in ("compiled", "cocotb"):
        result = verify(one.path, images=images(one), simulator=simulator)
        assert "has not finished after 1000 cycles" in result["problem"] and result["predictions"] == []
