"""The virtual board's server with a stand-in for the engine: what it refuses and what it survives."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import board_case
import numpy as np
import pytest
from board_case import OFFSET, StandIn

from hwgen.address_map import ENGINE, INTERRUPTS, Window
from hwgen.bitfile import firmware, virtual_bit
from hwgen.driver.bitsmith_driver import Accelerator
from hwgen.errors import InputError
from sim.board.buffers import AREA, BufferError, Buffers, connected
from sim.board.chip import SLCR, Chip
from sim.board.client import Remote, RemoteError, RemoteMemory, RemotePlatform
from sim.board.files import FIRMWARE, MANAGER
from sim.board.server import BoardServer
from sim.board.virtual import open_board
from sim.board.wire import CHUNK_BYTES, methods

DESIGN = "d" * 64
BIT = firmware(virtual_bit(DESIGN, 1, "xc7z020clg400-1"))


@pytest.fixture
def engine() -> StandIn:
    return StandIn()


@pytest.fixture
def server(engine: StandIn) -> Iterator[BoardServer]:
    with BoardServer(Chip(lambda: engine), "Pynq-Z2", DESIGN, port=0) as made:
        yield made


@pytest.fixture
def remote(server: BoardServer) -> Iterator[Remote]:
    made = Remote("127.0.0.1", server.port)
    yield made
    made.close()


def configure(remote: Remote, data: bytes = BIT) -> None:
    remote.write_file(f"{FIRMWARE}/x.bin", data)
    remote.write_file(f"{MANAGER}/flags", b"0")
    remote.write_file(f"{MANAGER}/firmware", b"x.bin")


def test_identity(remote: Remote) -> None:
    assert b"armv7l" in remote.read_file("/proc/version")
    assert RemotePlatform(remote).board == "Pynq-Z2"
    assert remote.read_file(f"{MANAGER}/state") == b"unknown\n"
    configure(remote)
    assert remote.read_file(f"{MANAGER}/state") == b"operating\n"
    assert not remote.exists("/etc/passwd") and remote.exists(f"{FIRMWARE}/x.bin")


@pytest.mark.parametrize("path", ["/etc/passwd", f"{FIRMWARE}/y.bin", f"{FIRMWARE}/../../etc/passwd", ""])
def test_other_files_are_not_there(remote: Remote, path: str) -> None:
    with pytest.raises(RemoteError, match="no such file on this board"):
        remote.read_file(path)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/etc/passwd", "clients write only to"),
        ("/proc/version", "clients write only to"),
        (f"{FIRMWARE}/../x.bin", "clients write only to"),
        (f"{FIRMWARE}/sub/x.bin", "clients write only to"),
        (f"{FIRMWARE}//x.bin", "clients write only to"),
        (f"{FIRMWARE}/x.sh", "firmware is a .bin file"),
        (f"{FIRMWARE}/x", "firmware is a .bin file"),
        (f"{MANAGER}/firmware", "no such firmware"),
    ],
)
def test_other_files_are_not_written(remote: Remote, path: str, sentence: str) -> None:
    with pytest.raises(RemoteError, match=sentence):
        remote.write_file(path, b"data")


def test_foreign_firmware_is_refused(remote: Remote, server: BoardServer) -> None:
    with pytest.raises(RemoteError, match="not the firmware of a virtual board"):
        configure(remote, b"\x99\x55\x66\xaa" * 100)
    assert remote.read_file(f"{MANAGER}/state") == b"write error\n"
    with pytest.raises(RemoteError, match="is for the design eeeeeeeeeeee, this board simulates dddddddddddd"):
        configure(remote, firmware(virtual_bit("e" * 64, 1, "xc7z020clg400-1")))
    assert not server.chip.configured
    remote.write_file(f"{FIRMWARE}/x.bin", BIT)
    remote.write_file(f"{MANAGER}/flags", b"1")
    with pytest.raises(RemoteError, match="no partial reconfiguration"):
        remote.write_file(f"{MANAGER}/firmware", b"x.bin")
    with pytest.raises(RemoteError, match="more than the"):
        remote.write_file(f"{FIRMWARE}/big.bin", bytes(17 << 20))
    configure(remote)
    assert server.chip.configured


def test_the_address_map(remote: Remote) -> None:
    with pytest.raises(RemoteError, match="nothing lies at 0x43c00000"):
        remote.map(ENGINE.base, ENGINE.size)  # no bitstream yet
    configure(remote)
    for base, length in ((0, 4), (ENGINE.base - 4, 8), (ENGINE.base, ENGINE.size + 4), (ENGINE.base, 0), (2**63, 4)):
        with pytest.raises(RemoteError, match="nothing lies at"):
            remote.map(base, length)
    window = remote.map(ENGINE.base, 0x100)
    assert window.read(OFFSET["engine"]) == board_case.ENGINE.hash
    for offset in (0x100, 2, 0xFFFF_FFFF_FFFF_FFFC):
        with pytest.raises(RemoteError, match="do not lie in the 256 bytes"):
            window.read(offset)
    with pytest.raises(RemoteError, match="no register at 0xfc"):
        window.read(0xFC)


def test_malformed_requests(remote: Remote) -> None:
    configure(remote)
    ident = remote.call("mmio", "get_mmio", base_addr=ENGINE.base, length=64).mmio_id
    with pytest.raises(RemoteError, match="reads have 1, 2 or 4 bytes, not 8"):
        remote.call("mmio", "read", mmio_id=ident, offset=0, length=8)
    for data in (b"", b"abc"):
        with pytest.raises(RemoteError, match="writes have a multiple of 4 bytes"):
            remote.call("mmio", "write", mmio_id=ident, offset=0, data=data)
    with pytest.raises(RemoteError, match="there is no mapping 'x'"):
        remote.call("mmio", "read", mmio_id="x", offset=0, length=4)
    for name in ("flush", "invalidate", "freebuffer", "physical_address", "cacheable", "read"):
        with pytest.raises(RemoteError, match="there is no buffer 'x'"):
            remote.call("buffer", name, buffer_id="x")
    with pytest.raises(RemoteError, match="set through the registers"):
        remote.call("remote_device", "set_pl_clk", i=0)
    raw = remote.channel.unary_unary("/mmio.Mmio/read")
    with pytest.raises(Exception, match=r"(?i)deserializ"):
        raw(b"\xff\xff\xff", timeout=5)
    unknown = remote.channel.unary_unary("/mmio.Mmio/explode")
    with pytest.raises(Exception, match="UNIMPLEMENTED"):
        unknown(b"", timeout=5)
    assert remote.exists("/proc/version")


def test_clients_that_vanish_in_the_middle_of_a_call(server: BoardServer, remote: Remote) -> None:
    """Half a file, half a buffer: the next client brings the whole file, and the board's threads are free again."""
    for _ in range(20):
        gone = Remote("127.0.0.1", server.port)
        memory = RemoteMemory(gone, 100_000)
        for service, name, fields in (
            ("remote_device.RemoteDevice", "writefile", {"file_path": f"{FIRMWARE}/half.bin", "data": bytes(1000)}),
            ("buffer.RemoteBuffer", "write", {"buffer_id": memory._ident, "data": bytes(1000)}),
        ):
            call: Any
            method, call = gone._calls[service.split(".")[0]][name]
            sent = threading.Event()

            def requests(made: Any = method, fields: Any = fields, sent: threading.Event = sent) -> Iterator[Any]:
                yield made.request(**fields)
                sent.set()
                time.sleep(30)

            going = call.future(requests())  # kept: a call that nobody holds is cancelled
            assert sent.wait(5) and not going.done()
        gone.channel.close()
    remote.write_file(f"{FIRMWARE}/half.bin", BIT[:40])  # its name promises all of it
    remote.write_file(f"{MANAGER}/flags", b"0")
    with pytest.raises(RemoteError, match="not the firmware of a virtual board"):
        remote.write_file(f"{MANAGER}/firmware", b"half.bin")
    assert not remote.exists(f"{FIRMWARE}/half.bin")
    configure(remote)
    assert server.chip.configured


def test_firmware_fills_up(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.board.files.MAX_STORED_BYTES", 2500)
    for name in ("a", "b", "b"):
        remote.write_file(f"{FIRMWARE}/{name}.bin", bytes(1000))
    with pytest.raises(RemoteError, match="no space is left"):
        remote.write_file(f"{FIRMWARE}/c.bin", bytes(1000))


def test_random_bytes_on_the_port(server: BoardServer, remote: Remote) -> None:
    for seed in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(np.random.default_rng(seed).bytes(10_000))
    assert remote.exists("/proc/version")


def test_gpio_answers_politely(remote: Remote) -> None:
    for name, method in methods("gpio.Gpio").items():
        call = remote.channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        answer = call(method.request(), timeout=5)
        if name in ("get_gpio", "read"):
            assert "no GPIO pin" in answer.message


def test_buffers_hold_what_is_written(remote: Remote, engine: StandIn) -> None:
    memory = RemoteMemory(remote, CHUNK_BYTES * 2 + 12345)
    content = np.random.default_rng(3).integers(0, 256, memory.array.size, np.uint8)
    memory.array[:] = content
    memory.push(memory.array.size)
    assert engine.read(memory.address, memory.array.size) == content.tobytes()
    engine.write(memory.address + 5, b"hello")
    memory.pull(memory.array.size)
    assert memory.array[5:10].tobytes() == b"hello" and (memory.array[10:] == content[10:]).all()
    memory.free()
    memory.free()


def test_oversized_buffers_are_refused(remote: Remote) -> None:
    for size in (0, -5):
        with pytest.raises(RemoteError, match="cannot be made"):
            RemoteMemory(remote, size)
    with pytest.raises(RemoteError, match=r"no room for 2147483647 bytes: 134217728 of 134217728 are free"):
        RemoteMemory(remote, 2**31 - 1)
    small = RemoteMemory(remote, 10)
    small.array = np.zeros(11, np.uint8)
    with pytest.raises(RemoteError, match="do not fit a buffer of 10"):
        small.push(11)
    for start, end in ((4, 2), (0, 11), (-1, 2)):
        with pytest.raises(RemoteError, match="does not lie in a buffer"):
            remote.call("buffer", "read", buffer_id=small._ident, start=start, end=end)


def test_allocation() -> None:
    here = Buffers(Window(0x1000, 0x4000), alive=lambda owner: owner != "gone")
    first, second = here.allocate(1, "a"), here.allocate(0x1001, "a")
    assert (first.address, second.address) == (0x1000, 0x2000)
    here.free(first.ident)
    assert here.allocate(0x1000, "gone").address == 0x1000
    here.allocate(0x1000, "gone")
    with pytest.raises(BufferError, match="no room for 12288 bytes"):
        here.allocate(0x3000, "b")  # even without the one who is gone
    assert len(here) == 1 and here.allocate(0x1000, "b").address == 0x1000


def test_vanished_clients_are_noticed(server: BoardServer) -> None:
    gone = Remote("127.0.0.1", server.port)
    most = AREA.size - (1 << 20)
    RemoteMemory(gone, most)
    other = Remote("127.0.0.1", server.port)
    with pytest.raises(RemoteError, match="no room"):
        RemoteMemory(other, most)
    gone.channel.close()
    deadline = time.monotonic() + 5
    while True:
        try:
            RemoteMemory(other, most)
            break
        except RemoteError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    other.close()
    assert connected("unix:whatever")


def test_it_runs_while_busy_and_rests_while_idle(server: BoardServer, remote: Remote, engine: StandIn) -> None:
    configure(remote)
    window = remote.map(ENGINE.base, 0x100)
    engine.busy_cycles = 1 << 40
    window.write(OFFSET["control"], 5)
    left = engine.left
    time.sleep(0.1)
    assert window.read(OFFSET["status"]) == 1 and engine.left < left
    window.write(OFFSET["control"], 2)
    time.sleep(0.1)
    assert not server.chip._wake.is_set()


def test_a_simulation_that_stops_is_an_error_not_the_end(remote: Remote, engine: StandIn) -> None:
    configure(remote)
    window = remote.map(ENGINE.base, 0x100)
    engine.step = lambda _: (_ for _ in ()).throw(RuntimeError("protocol broken"))  # type: ignore[method-assign, assignment]
    window.write(OFFSET["control"], 1)
    time.sleep(0.1)
    with pytest.raises(RemoteError, match="the simulation stopped: protocol broken"):
        window.read(OFFSET["status"])
    del engine.step
    configure(remote)
    assert remote.map(ENGINE.base, 0x100).read(OFFSET["status"]) == 0


def test_the_interrupt_controller(remote: Remote, engine: StandIn) -> None:
    configure(remote)
    engine.busy_cycles = 1
    window, controller = remote.map(ENGINE.base, 0x100), remote.map(INTERRUPTS.base, 32)
    controller.write(0x10, 1)
    controller.write(0x1C, 3)
    assert controller.read(0x04) == 0
    window.write(OFFSET["control"], 5)
    time.sleep(0.1)
    assert controller.read(0x04) == 1
    controller.write(0x14, 1)
    assert controller.read(0x04) == 0 and controller.read(0x08) == 0
    engine.reset()
    controller.write(0x0C, 1)
    assert controller.read(0x00) == 0


def test_clock_registers(remote: Remote) -> None:
    slcr = remote.map(SLCR.base, 0x200)
    assert slcr.read(0x108) >> 12 & 0x7F == 20
    assert RemotePlatform(remote).clock_mhz() == 100.0
    slcr.write(0x170, 7 << 8 | 1 << 20)
    assert RemotePlatform(remote).clock_mhz() == pytest.approx(1000 / 7)


def test_many_clients_at_once(server: BoardServer, engine: StandIn) -> None:
    wrong: list[str] = []

    def work(seed: int) -> None:
        remote = Remote("127.0.0.1", server.port)
        for _ in range(5):
            memory = RemoteMemory(remote, 50_000)
            memory.array[:] = seed
            memory.push(memory.array.size)
            memory.array[:] = 0
            memory.pull(memory.array.size)
            if not (memory.array == seed).all():
                wrong.append(f"client {seed}")
            memory.free()
        remote.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(server.buffers) == 0


def test_restart_on_the_same_port(engine: StandIn) -> None:
    with BoardServer(Chip(lambda: engine), "Pynq-Z2", DESIGN, port=0) as first:
        port = first.port
        with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1:{port}"):
            BoardServer(Chip(lambda: engine), "Pynq-Z2", DESIGN, port=port)
        Remote("127.0.0.1", port).close()
    assert engine.closed
    engine.closed = False
    with BoardServer(Chip(lambda: engine), "Pynq-Z2", DESIGN, port=port) as second:
        remote = Remote("127.0.0.1", second.port)
        configure(remote)
        remote.close()
    assert engine.closed


def test_it_listens_on_loopback_only(server: BoardServer) -> None:
    table = "\n".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    listening = [line.split()[1] for line in table.splitlines() if f":{server.port:04X} " in line and " 0A " in line]
    assert len(listening) == 1 and listening[0].endswith(f"0100007F:{server.port:04X}")  # 127.0.0.1


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such bundle"):
        open_board(tmp_path / "none")
    with pytest.raises(RemoteError, match="does not speak"), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        Remote("127.0.0.1", closed.getsockname()[1])


def test_the_driver_through_the_wire(tmp_path: Path) -> None:
    packed = board_case.bundle(tmp_path / "tiny")
    from hwgen.bundle import read_bundle

    engine = StandIn()
    design = read_bundle(packed).manifest["design"]
    with BoardServer(Chip(lambda: engine), "Pynq-Z2", design, port=0) as server:
        remote = Remote("127.0.0.1", server.port)
        with Accelerator(packed, RemotePlatform(remote), batch=4) as acc:
            pictures = np.zeros((10, 6, 6, 3), np.uint8)
            pictures[:, 0, 0, 0] = np.arange(10)
            assert (acc.predict(pictures)[:, 0] == np.arange(10)).all()
            assert acc.clock_mhz == pytest.approx(1000 / 7)
        assert len(server.buffers) == 0
        remote.close()
