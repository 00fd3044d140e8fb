"""The driver on a stand-in for the engine: what is copied when, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import board_case
import networks
import numpy as np
import pytest
from board_case import OFFSET, StandIn

from hwgen.driver.bitsmith_driver import (
    Accelerator,
    BundleError,
    DeviceError,
    DeviceTimeoutError,
    ImageError,
)
from hwgen.driver.bitsmith_driver.check import check
from hwgen.engine import EngineConfig

PAGE = 4096


class Memory:
    def __init__(self, platform: Platform, size: int, address: int) -> None:
        self.platform, self.address, self.size = platform, address, size
        self.array = np.zeros(size, np.uint8)

    def push(self, count: int) -> None:
        self.platform.log.append(f"push {self.address:#x}")
        self.platform.engine.write(self.address, self.array[:count].tobytes())

    def pull(self, count: int) -> None:
        self.platform.log.append(f"pull {self.address:#x}")
        self.array[:count] = np.frombuffer(self.platform.engine.read(self.address, count), np.uint8)

    def free(self) -> None:
        if self in self.platform.memories:
            self.platform.memories.remove(self)


class Platform:
    """A board whose memory and host memory are two things; the engine runs while the driver waits."""

    remote = False

    def __init__(self, engine: StandIn | None = None) -> None:
        self.engine = engine or StandIn()
        self.lock = threading.RLock()
        self.memories: list[Memory] = []
        self.log: list[str] = []
        self.next = 1 << 20
        self.loads = 0

    def load(self, bit: Path) -> None:
        assert bit.is_file() and bit.with_suffix(".hwh").is_file()
        self.loads += 1

    def read(self, offset: int) -> int:
        return self.engine.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == OFFSET["control"]:
            self.log.append({5: "start", 2: "stop"}[value])
        self.engine.write_register(offset, value)

    def clock_mhz(self) -> float:
        return 100.0

    def allocate(self, size: int) -> Memory:
        memory = Memory(self, size, self.next)
        self.next += -(-size // PAGE) * PAGE
        self.memories.append(memory)
        return memory

    def wait(self, seconds: float) -> bool:
        self.engine.step(5_000)
        return True


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return board_case.bundle(tmp_path_factory.mktemp("driver") / "tiny")


def images(count: int) -> Any:
    """Image i begins with the byte i."""
    made = np.zeros((count, 6, 6, 3), np.uint8)
    made[:, 0, 0, 0] = np.arange(count) % 200
    return made


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_any_number_of_images(packed: Path, count: int) -> None:
    platform = Platform()
    with Accelerator(packed, platform, batch=8) as acc:
        logits = acc.predict(images(count))
        assert logits.shape == (count, 5) and logits.dtype == np.int32
        assert (logits[:, 0] == np.arange(count) % 200).all()
        assert acc.stats["images"] == count
        assert acc.stats["cycles"] == platform.engine.busy_cycles * -(-count // 8)
    assert platform.memories == []


def test_buffers_are_doubled_and_the_next_batch_is_in_before_the_last_is_done(packed: Path) -> None:
    platform = Platform()
    with Accelerator(packed, platform, batch=8) as acc:
        a, b = (item.address for item in acc._inputs)
        x, y = (item.address for item in acc._outputs)
        assert len(platform.memories) == 5
        platform.log.clear()
        acc.predict(images(24))
        assert platform.log == [
            f"push {a:#x}", "start", f"push {b:#x}", "start", f"push {a:#x}", f"pull {x:#x}", "start", f"pull {y:#x}",
            f"pull {x:#x}",
        ]  # fmt: skip
        platform.log.clear()
        acc.predict(images(24))
        assert len(platform.memories) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 7, 13])
def test_programs_that_take_images_together(tmp_path: Path, count: int) -> None:
    """Runs hold whole groups of three; black images fill up the last."""
    platform = Platform()
    packed = board_case.bundle(tmp_path / "three", networks.linear_end(), batch=3)
    with Accelerator(packed, platform, batch=4) as acc:
        assert acc.batch == 6
        for memory in acc._inputs:
            memory.array[:] = 255
        started: list[int] = []
        start = acc._control.start

        def note() -> None:
            started.append(platform.engine.registers[OFFSET["image_count"]])
            start()

        acc._control.start = note  # type: ignore[method-assign]
        assert (acc.predict(images(count))[:, 0] == np.arange(count)).all()
        last = -(-(count % 6) // 3) * 3
        assert started == [6] * (count // 6) + [last] * (last > 0)
        if last:
            filled = acc._inputs[(len(started) - 1) & 1].array[: last * acc._image_stride].reshape(last, -1)
            assert not filled[count % 6 :].any()
        assert acc.stats["images"] == count


def test_both_layouts(packed: Path) -> None:
    platform = Platform()
    with Accelerator(packed, platform) as acc:
        acc.predict(images(2))
        assert platform.engine.registers[OFFSET["image_planar"]] == 0
        acc.predict(np.ascontiguousarray(images(2).transpose(0, 3, 1, 2)))
        assert platform.engine.registers[OFFSET["image_planar"]] == 1
        sliced = images(8)[::2]
        assert (acc.predict(sliced)[:, 0] == [0, 2, 4, 6]).all()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (images(1).astype(np.float32), "The images are float32; the network reads a NumPy array of uint8"),
        ([1, 2], "The images are list"),
        (images(1)[0], r"have shape \(6, 6, 3\); the network reads \(N, 6, 6, 3\) or \(N, 3, 6, 6\)"),
        (np.zeros((2, 6, 5, 3), np.uint8), "have shape"),
    ],
)
def test_wrong_images(packed: Path, wrong: Any, sentence: str) -> None:
    with Accelerator(packed, Platform()) as acc:
        with pytest.raises(ImageError, match=sentence):
            acc.predict(wrong)
        assert (acc.predict(images(3))[:, 0] == [0, 1, 2]).all()


def test_codes_out_of_range(tmp_path: Path) -> None:
    acc = Accelerator(board_case.bundle(tmp_path / "digits", board_case.digits()), Platform())
    with pytest.raises(ImageError, match="hold 99; this network's input codes end at 15"):
        acc.predict(np.full((1, 8, 8, 1), 99, np.uint8))


def test_device_errors_have_a_meaning_and_pass(packed: Path) -> None:
    platform = Platform()
    with Accelerator(packed, platform) as acc:
        platform.engine.fails_with = 6
        with pytest.raises(
            DeviceError, match=r"read was answered with SLVERR or DECERR \(error 6; stage write-back, layer 5"
        ):
            acc.predict(images(3))
        platform.engine.fails_with = 0
        assert (acc.predict(images(3))[:, 0] == [0, 1, 2]).all()


def test_timeouts_say_what_each_stage_does(packed: Path) -> None:
    platform = Platform(StandIn(busy_cycles=1 << 60))
    with Accelerator(packed, platform, timeout_s=0.01) as acc:
        platform.engine.registers |= {OFFSET["fill_cycles"]: 77, OFFSET["layer"]: 0x04030201}
        with pytest.raises(
            DeviceTimeoutError, match=r"0 of 3 are done.*fetch 0 cycles, layer 1, fill 77 cycles, layer 2"
        ):
            acc.predict(images(3))
        assert platform.log[-1] == "stop"
        platform.engine.busy_cycles = 1
        assert (acc.predict(images(3))[:, 0] == [0, 1, 2]).all()


def test_ctrl_c_stops_the_engine(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    with Accelerator(packed, platform) as acc:
        with monkeypatch.context() as patch:
            patch.setattr(platform, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                acc.predict(images(3))
        assert platform.log[-1] == "stop" and platform.engine.left == 0
        assert (acc.predict(images(3))[:, 0] == [0, 1, 2]).all()


def test_a_run_that_somebody_left_is_stopped_first(packed: Path) -> None:
    platform = Platform()
    with Accelerator(packed, platform) as acc:
        platform.engine.write_register(OFFSET["control"], 1)
        assert (acc.predict(images(2))[:, 0] == [0, 1]).all()


def test_a_second_network_replaces_the_first_or_leaves_it(packed: Path, tmp_path: Path) -> None:
    platform = Platform()
    other = board_case.bundle(tmp_path / "other", networks.tiny(seed=2))
    foreign = board_case.bundle(tmp_path / "foreign", engine=EngineConfig())
    with Accelerator(packed, platform) as acc:
        acc.load(other)
        assert acc.bundle.path == other and len(platform.memories) == 5 and platform.loads == 1
        assert platform.memories[0].array[: len(acc.bundle.program)].tobytes() == acc.bundle.program
        with pytest.raises(
            BundleError, match=r"the bitstream that is loaded holds engine .*; open the bundle with a new"
        ):
            acc.load(foreign)
        assert acc.bundle.path == other
        assert (acc.predict(images(2))[:, 0] == [0, 1]).all()


def test_a_bitstream_that_another_accelerator_loaded_is_told(packed: Path, tmp_path: Path) -> None:
    platform = Platform()
    foreign = board_case.bundle(tmp_path / "foreign", engine=EngineConfig())
    with Accelerator(packed, platform) as acc:
        platform.engine.registers[OFFSET["engine"]] = EngineConfig().hash
        message = r"its program is for engine .*, the bitstream that is loaded holds"
        with Accelerator(foreign, platform), pytest.raises(BundleError, match=message):
            acc.predict(images(1))
        platform.engine.registers[OFFSET["engine"]] = board_case.ENGINE.hash
        assert (acc.predict(images(2))[:, 0] == [0, 1]).all()


def test_no_memory_for_the_next_network_is_told(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    with Accelerator(packed, platform) as acc:
        with monkeypatch.context() as patch:
            allocate, made = platform.allocate, list[Memory]()

            def scarce(size: int) -> Memory:
                if len(made) == 3:  # the program, both inputs
                    raise RuntimeError("Failed to allocate Memory!")
                made.append(allocate(size))
                return made[-1]

            patch.setattr(platform, "allocate", scarce)
            with pytest.raises(RuntimeError, match="Failed to allocate"):
                acc.load(packed)
            with pytest.raises(RuntimeError, match="left no network: load one again"):
                acc.predict(images(1))
        acc.load(packed)
        assert (acc.predict(images(2))[:, 0] == [0, 1]).all()
    assert platform.memories == []


def test_another_bitstream_is_told(packed: Path) -> None:
    platform = Platform()
    platform.engine.registers[OFFSET["id"]] = 0xDEADBEEF
    with pytest.raises(BundleError, match=r"identity 0xdeadbeef.*the bitstream is another one"):
        Accelerator(packed, platform)
    assert platform.memories == []


def test_closing(packed: Path) -> None:
    platform = Platform()
    acc = Accelerator(packed, platform)
    acc.close()
    acc.close()
    assert platform.memories == []
    with pytest.raises(RuntimeError, match="closed"):
        acc.predict(images(1))
    with pytest.raises(ValueError, match="at least 1"):
        Accelerator(packed, platform, batch=-1)


def test_check_counts_wrong_images(packed: Path) -> None:
    figures = check(packed, device=Platform(), images=4)  # the stand-in computes nothing
    assert figures["wrong_images"] == 4 and set(figures["latency_ms"]) == {"p50", "p90", "p99"}
    with pytest.raises(ValueError, match="the bundle holds 5"):
        check(packed, device=Platform(), images=6)


class FakePynq:
    """What the driver uses of pynq on a board; the engine works while the interrupt is awaited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.next = StandIn(), 1 << 20
        self.log: list[str] = []
        fake = self
        ip = {"phys_addr": 0x43C00000, "addr_range": 65536, "interrupts": {"irq_o": {"fullpath": "bitsmith/irq_o"}}}

        class Device:
            active_device: Any = None

            def has_capability(self, name: str) -> bool:
                return False

        class Overlay:
            ip_dict: ClassVar[dict[str, Any]] = {"axi_intc_0": {}, "bitsmith": ip}

            def __init__(self, path: str, device: Any) -> None:
                fake.log.append("overlay")

            def is_loaded(self) -> bool:
                return True

        class Mmio:
            def __init__(self, base: int, size: int, device: Any) -> None:
                assert (base, size) == (0x43C00000, 65536)

            def read(self, offset: int) -> int:
                fake.log.append("read status" if offset == OFFSET["status"] else "read")
                return fake.engine.read_register(offset)

            def write(self, offset: int, value: int) -> None:
                fake.engine.write_register(offset, value)

        class Interrupt:
            def __init__(self, pin: str) -> None:
                assert pin == "bitsmith/irq_o"
                asyncio.get_running_loop()  # pynq needs one that runs

            async def wait(self) -> None:
                fake.log.append("wait")
                await asyncio.sleep(0.01)
                fake.engine.step(1 << 40)

        class Buffer(np.ndarray):
            device_address: int

            def __array_finalize__(self, whole: Any) -> None:
                if whole is not None and hasattr(whole, "device_address"):
                    begin = self.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
                    self.device_address = whole.device_address + begin

            def flush(self) -> None:
                fake.engine.write(self.device_address, self.tobytes())

            def invalidate(self) -> None:
                self[:] = np.frombuffer(fake.engine.read(self.device_address, self.nbytes), np.uint8)

            def freebuffer(self) -> None:
                fake.log.append("free")

        def allocate(shape: tuple[int, ...], dtype: Any, target: Any) -> Buffer:
            made = np.zeros(shape, dtype).view(Buffer)
            made.device_address, fake.next = fake.next, fake.next + made.nbytes
            return made

        Device.active_device = Device()
        clocks = SimpleNamespace(fclk0_mhz=142.857)
        parts = {"Device": Device, "Overlay": Overlay, "MMIO": Mmio, "allocate": allocate, "Clocks": clocks}
        monkeypatch.setitem(sys.modules, "pynq", SimpleNamespace(**parts))
        monkeypatch.setitem(sys.modules, "pynq.interrupt", SimpleNamespace(Interrupt=Interrupt))


def test_on_the_board_it_sleeps_until_the_interrupt(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakePynq(monkeypatch)
    with Accelerator(packed, batch=4) as acc:
        fake.log.clear()
        assert (acc.predict(images(10))[:, 0] == range(10)).all()
        # Before each wait and after it the status is read once: no polling.
        assert fake.log.count("wait") == 3 and fake.log.count("read status") == 1 + 2 * 3
        assert acc.stats["clock_mhz"] == 142.857
        fake.log.clear()
        with Accelerator(packed, batch=4) as other:
            assert "overlay" not in fake.log  # the bitstream is there already
            assert (other.predict(images(1))[:, 0] == [0]).all()
        fake.log.clear()
    assert fake.log.count("free") == 5  # the program, two buffers in, two out


def test_two_threads_take_turns(packed: Path) -> None:
    platform = Platform()
    with Accelerator(packed, platform, batch=4) as acc:
        results: dict[int, Any] = {}

        def work(index: int) -> None:
            time.sleep(0.001 * index)
            results[index] = acc.predict(images(10 + index))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, logits in results.items():
            assert (logits[:, 0] == np.arange(10 + index)).all()
