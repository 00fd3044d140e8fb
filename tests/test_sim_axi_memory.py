"""The memory model complains about masters that break the protocol; without a simulator, on played signals."""

from __future__ import annotations

from typing import Any

import pytest

from sim.axi_memory import DECERR, OKAY, SLVERR, AxiMemory, AxiPort, Timing

ADDRESS = ("addr", "len", "size", "burst", "id", "valid", "ready")
READ = (*(f"ar{name}" for name in ADDRESS), "rvalid", "rdata", "rresp", "rlast", "rid", "rready")
WRITE = (
    *(f"aw{name}" for name in ADDRESS),
    "wvalid",
    "wready",
    "wdata",
    "wstrb",
    "wlast",
    "wid",
    "bvalid",
    "bresp",
    "bid",
    "bready",
)
BURST = {"addr": 64, "len": 1, "size": 3, "burst": 1, "id": 5}


class Pin:
    """A signal and its handle, with the calls that the model makes of a simulator."""

    def __init__(self, width: int) -> None:
        self.width, self.now, self._handle = width, 0, self

    def __len__(self) -> int:
        return self.width

    def get_signal_val_long(self) -> int:
        return self.now

    def get_signal_val_binstr(self) -> str:
        return format(self.now, f"0{self.width}b")

    def set_signal_val_int(self, _: Any, value: int) -> None:
        self.now = value

    def set_signal_val_binstr(self, _: Any, value: str) -> None:
        self.now = int(value, 2)


class Master:
    """The signals of a port; ``drive`` sets some, ``step`` is a cycle."""

    _name = "master"

    def __init__(self, memory: AxiMemory, names: tuple[str, ...] = (*READ, *WRITE), timing: Timing | None = None) -> None:
        for name in names:
            setattr(self, f"m_{name}", Pin(64 if name in ("rdata", "wdata") else 32 if name.endswith("addr") else 8))
        self.memory = memory
        self.port: AxiPort = memory.attach(self, "m", timing or Timing((1, 1)))

    def drive(self, **values: int) -> None:
        for name, value in values.items():
            getattr(self, f"m_{name}").now = value

    def address(self, channel: str, **changes: int) -> None:
        self.drive(**{f"{channel}{name}": value for name, value in (BURST | changes).items()}, **{f"{channel}valid": 1})

    def step(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            self.memory.cycle += 1
            for step in self.port.steps():
                step(self.memory.cycle)


@pytest.fixture
def master() -> Master:
    return Master(AxiMemory(1 << 14))


@pytest.mark.parametrize("channel", ["ar", "aw"])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"len": 16}, "burst of 17 beats; AXI3 allows 16"),
        ({"size": 2}, "expected INCR of 8-byte beats"),
        ({"burst": 0}, "expected INCR of 8-byte beats"),
        ({"addr": 68}, "is not a multiple of 8"),
        ({"addr": 4096 - 8}, "crosses 4096 bytes"),
    ],
)
def test_bursts_that_axi3_forbids(master: Master, channel: str, changes: dict[str, int], sentence: str) -> None:
    master.step()
    master.address(channel, **changes)
    with pytest.raises(AssertionError, match=f"AXI port m, cycle 2: .*{sentence}"):
        master.step()


@pytest.mark.parametrize("channel", ["ar", "aw"])
def test_an_address_waits_as_it_is(master: Master, channel: str) -> None:
    master.address(channel)
    master.step()  # not ready before this edge: it waits
    master.drive(**{f"{channel}addr": 72})
    with pytest.raises(AssertionError, match=f"{channel} payload changed"):
        master.step()


@pytest.mark.parametrize("channel", ["ar", "aw"])
def test_valid_stays(master: Master, channel: str) -> None:
    master.address(channel)
    master.step()
    master.drive(**{f"{channel}valid": 0})
    with pytest.raises(AssertionError, match=f"{channel}valid fell before {channel}ready"):
        master.step()


def accepted(master: Master, **changes: int) -> None:
    """A write of two beats whose address was taken; data is taken from the next cycle on."""
    master.step()
    master.address("aw", **changes)
    master.step()
    master.drive(awvalid=0, bready=1)


def test_words_come_back(master: Master) -> None:
    accepted(master)
    for beat in range(2):
        master.drive(wvalid=1, wdata=0x0102030405060708 + beat, wstrb=0xFF if beat else 0x0F, wlast=beat, wid=5)
        master.step()
    master.drive(wvalid=0)
    master.step(3)
    assert master.memory.read(64, 16) == bytes([8, 7, 6, 5, 0, 0, 0, 0, 9, 7, 6, 5, 4, 3, 2, 1])
    assert master.port.idle and master.port.counters.write_bursts == 1
    master.address("ar")
    master.step()
    master.drive(arvalid=0, rready=1)
    words = []
    for _ in range(6):
        master.step()
        if master.m_rvalid.now:  # type: ignore[attr-defined]
            words.append((master.m_rdata.now, master.m_rlast.now))  # type: ignore[attr-defined]
    assert words == [(0x05060708, 0), (0x0102030405060709, 1)]


@pytest.mark.parametrize(
    ("beat", "sentence"),
    [({"wid": 4}, "WID 4 differs from AWID 5"), ({"wlast": 1}, "wlast is 1 at beat 1 of 2")],
)
def test_data_that_does_not_fit_its_address(master: Master, beat: dict[str, int], sentence: str) -> None:
    accepted(master)
    master.drive(**({"wvalid": 1, "wdata": 1, "wstrb": 0xFF, "wlast": 0, "wid": 5} | beat))
    with pytest.raises(AssertionError, match=sentence):
        master.step(2)


@pytest.mark.parametrize(
    ("change", "sentence"), [({"wdata": 2}, "w payload changed"), ({"wvalid": 0}, "wvalid fell before wready")]
)
def test_data_without_an_address_waits_as_it_is(master: Master, change: dict[str, int], sentence: str) -> None:
    master.drive(wvalid=1, wdata=1)
    master.step()
    master.drive(**change)
    with pytest.raises(AssertionError, match=sentence):
        master.step()


def test_answers_by_address() -> None:
    memory = AxiMemory(1 << 12, base=1 << 12)
    memory.fail(5000, 5008)
    found = [memory.response(address, 1) for address in (4096, 5000, 0, 8184, 8192)]
    assert found == [OKAY, SLVERR, DECERR, OKAY, DECERR]
    memory.heal()
    assert memory.response(5000, 1) == OKAY


def test_what_is_not_there() -> None:
    memory = AxiMemory(64)
    with pytest.raises(ValueError, match="8 bytes at 0x3c do not fit"):
        memory.write(60, bytes(8))
    with pytest.raises(ValueError, match="master has no port m_arvalid or m_awvalid"):
        Master(memory, ())
