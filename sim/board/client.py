"""A board over PYNQ's remote protocol, for the driver, without pynq."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import grpc
import numpy as np
from numpy.typing import NDArray

from hwgen.bitfile import firmware
from hwgen.driver.bitsmith_driver.errors import AcceleratorError
from hwgen.driver.bitsmith_driver.platform import IP_NAME, Memory
from sim.board.files import BOARD_NAME, FIRMWARE, MANAGER
from sim.board.wire import CHUNK_BYTES, PORT, stubs

_CONNECT_S = 5.0
_CALL_S = 60.0
_CRYSTAL_MHZ = 50.0
_SLCR, _SLCR_BYTES = 0xF800_0000, 0x200
_IO_PLL, _FCLK0 = 0x108, 0x170


class RemoteError(AcceleratorError):
    """The board refused something, or went away."""


class Remote:
    """The services of one board.

    Raises:
        RemoteError: nothing answers at this address within 5 s.
    """

    def __init__(self, host: str, port: int = PORT) -> None:
        self.address = f"{host}:{port}"
        # A connection of its own: the board tells clients apart by it.
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        try:
            grpc.channel_ready_future(self.channel).result(timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            self.channel.close()
            raise RemoteError(f"{self.address} does not speak PYNQ's remote protocol.") from None
        self._calls = {
            service.split(".")[0]: stubs(self.channel, service)
            for service in ("remote_device.RemoteDevice", "mmio.Mmio", "buffer.RemoteBuffer")
        }

    def call(self, service: str, name: str, requests: list[dict[str, Any]] | None = None, **fields: Any) -> Any:
        """Call a method; ``requests`` for one that takes a stream. A stream of responses comes as a list.

        Raises:
            RemoteError: a status other than OK, or a response whose ``msg`` says what is wrong.
        """
        method, call = self._calls[service][name]
        try:
            if method.stream_in:
                stream: Iterator[Any] = iter([method.request(**item) for item in requests or []])
                answer = call(stream, timeout=_CALL_S)
            else:
                answer = call(method.request(**fields), timeout=_CALL_S)
            answers = list(answer) if method.stream_out else [answer]
        except grpc.RpcError as error:
            details = getattr(error, "details", lambda: "")()
            raise RemoteError(f"{self.address}, {service} {name}: {details or error}.") from None
        for item in answers:
            if problem := getattr(item, "msg", ""):
                raise RemoteError(f"{self.address}, {service} {name}: {problem}.")
        return answers if method.stream_out else answer

    def exists(self, path: str) -> bool:
        """Whether the board has this file."""
        return bool(self.call("remote_device", "existsfile", file_path=path).exists)

    def read_file(self, path: str) -> bytes:
        """A file of the board."""
        return b"".join(item.data for item in self.call("remote_device", "readfile", file_path=path))

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file of the board."""
        parts = [{"file_path": path, "data": data[at : at + CHUNK_BYTES]} for at in range(0, len(data), CHUNK_BYTES)]
        self.call("remote_device", "writefile", parts)

    def map(self, base: int, length: int) -> Mapping:
        """Registers."""
        return Mapping(self, str(self.call("mmio", "get_mmio", base_addr=base, length=length).mmio_id))

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


class Mapping:
    """A window of registers."""

    def __init__(self, remote: Remote, ident: str) -> None:
        self._remote = remote
        self._ident = ident

    def read(self, offset: int) -> int:
        """One 32-bit register."""
        return int(self._remote.call("mmio", "read", mmio_id=self._ident, offset=offset, length=4).data)

    def write(self, offset: int, value: int) -> None:
        """Write one 32-bit register."""
        self._remote.call("mmio", "write", mmio_id=self._ident, offset=offset, data=value.to_bytes(4, "little"))


class RemoteMemory:
    """A buffer on the board and its copy here."""

    def __init__(self, remote: Remote, size: int) -> None:
        self._remote = remote
        self._ident: str | None = str(remote.call("buffer", "allocate", size=size, dtype="|u1", cacheable=True).buffer_id)
        self.array: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.address = int(remote.call("buffer", "physical_address", buffer_id=self._ident).address)

    def push(self, count: int) -> None:
        data = self.array.tobytes()
        parts = [
            {"buffer_id": self._ident, "data": data[at : at + CHUNK_BYTES]} for at in range(0, len(data), CHUNK_BYTES)
        ]
        self._remote.call("buffer", "write", parts)
        self._remote.call("buffer", "flush", buffer_id=self._ident)

    def pull(self, count: int) -> None:
        self._remote.call("buffer", "invalidate", buffer_id=self._ident)
        answers = self._remote.call("buffer", "read", buffer_id=self._ident)
        self.array[:] = np.frombuffer(b"".join(item.data for item in answers), np.uint8)

    def free(self) -> None:
        ident, self._ident = self._ident, None
        if ident is not None:
            self._remote.call("buffer", "freebuffer", buffer_id=ident)


class RemotePlatform:
    """The driver's platform on a remote board."""

    remote = True

    def __init__(self, connection: Remote) -> None:
        self.lock = threading.RLock()
        self._remote = connection
        self._bit = ""
        self._engine: Mapping | None = None
        self._slcr = connection.map(_SLCR, _SLCR_BYTES)

    @property
    def board(self) -> str:
        """The board's name for itself."""
        if not self._remote.exists(BOARD_NAME):
            return "unknown"
        return self._remote.read_file(BOARD_NAME).decode("utf-8", "replace").strip("\0\n")

    def load(self, bit: Path) -> None:
        if self._bit == bit.name:
            return
        description = ElementTree.parse(bit.with_suffix(".hwh")).getroot()
        self._bit = ""  # also where it ends early
        self._set_clock(description)
        name = f"{bit.stem}.bin"
        self._remote.call("remote_device", "shutdown")
        self._remote.call("remote_device", "set_bitstream_attrs", binfile_name=name, partial=False)
        if not self._remote.exists(f"{FIRMWARE}/{name}"):  # the name carries the content's hash
            self._remote.write_file(f"{FIRMWARE}/{name}", firmware(bit.read_bytes()))
        self._remote.write_file(f"{MANAGER}/flags", b"0")
        self._remote.write_file(f"{MANAGER}/firmware", name.encode())
        window = next((item for item in description.iter("MEMRANGE") if item.get("INSTANCE") == IP_NAME), None)
        if window is None:
            raise RemoteError(f"{bit.name}: its .hwh names no IP '{IP_NAME}'.")
        base = int(window.attrib["BASEVALUE"], 16)
        self._engine = self._remote.map(base, int(window.attrib["HIGHVALUE"], 16) - base + 1)
        self._bit = bit.name

    def _set_clock(self, description: ElementTree.Element) -> None:
        values = {item.get("NAME"): item.get("VALUE") for item in description.iter("PARAMETER")}
        first, second = (int(values[f"PCW_FCLK0_PERIPHERAL_DIVISOR{index}"] or 0) for index in range(2))
        word = self._slcr.read(_FCLK0) & ~(0x3F << 8 | 0x3F << 20)
        self._slcr.write(_FCLK0, word | first << 8 | second << 20)

    def read(self, offset: int) -> int:
        assert self._engine is not None
        return self._engine.read(offset)

    def write(self, offset: int, value: int) -> None:
        assert self._engine is not None
        self._engine.write(offset, int(value))

    def clock_mhz(self) -> float:
        word = self._slcr.read(_FCLK0)
        pll = _CRYSTAL_MHZ * (self._slcr.read(_IO_PLL) >> 12 & 0x7F)
        return pll / ((word >> 8 & 0x3F) * (word >> 20 & 0x3F))

    def allocate(self, size: int) -> Memory:
        return RemoteMemory(self._remote, size)

    def wait(self, seconds: float) -> bool:
        return False  # the protocol has no interrupts
