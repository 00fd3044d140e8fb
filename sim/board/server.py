"""The gRPC server of a virtual board."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from hwgen.address_map import Window
from hwgen.errors import InputError
from sim.board.buffers import AREA, Buffer, BufferError, Buffers
from sim.board.chip import BusError, Chip
from sim.board.files import MAX_FIRMWARE_BYTES, FileError, Files
from sim.board.wire import CHUNK_BYTES, MESSAGES, PORT, handlers

_THREADS = 8
_READ_BYTES = (1, 2, 4)
_SECONDS_TO_STOP = 2.0
_MAX_MMIO = 1024  # per board; a client makes a handful


def _too_much(context: grpc.ServicerContext, count: int, limit: int) -> None:
    if count > limit:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{count} bytes are more than the {limit} that fit")


class DeviceService:
    """Files and configuration. What the board refuses ends the call with a status that says why."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()

    def existsfile(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["remote_device.ExistsFileResponse"](exists=self._files.exists(request.file_path))

    def readfile(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            data = self._files.read(request.file_path)
        except FileError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        for at in range(0, max(len(data), 1), CHUNK_BYTES):
            yield MESSAGES["remote_device.ReadFileResponse"](data=data[at : at + CHUNK_BYTES])

    def writefile(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        path, data = "", bytearray()
        for request in requests:
            if path and request.file_path != path:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "one call writes one file")
            path = request.file_path
            data += request.data
            _too_much(context, len(data), MAX_FIRMWARE_BYTES)
        try:
            with self._lock:
                self._files.write(path, bytes(data))
        except FileError as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        return MESSAGES["remote_device.WriteFileResponse"]()

    def set_bitstream_attrs(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["remote_device.SetBitstreamAttrsResponse"](status=not request.partial)

    def shutdown(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        # It asks the board to quiesce the fabric before a new bitstream, which here loses nothing.
        return MESSAGES["remote_device.ShutdownResponse"](status=True)

    def set_pl_clk(self, _request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "clocks are set through the registers at 0xF8000000")

    def download(self, _requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "bitstreams are loaded through the FPGA manager's files")


class MmioService:
    """Registers. Refusals are answered in the response's ``msg``, as pynq expects them."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._windows: dict[str, tuple[int, int]] = {}

    def get_mmio(self, request: Any, _context: grpc.ServicerContext) -> Any:
        answer = MESSAGES["mmio.GetMmioResponse"]
        base, length = request.base_addr, request.length
        if self._chip.window(base, length) is None:
            return answer(msg=f"nothing lies at {base:#010x} to {base + length:#010x} of the address map")
        while len(self._windows) >= _MAX_MMIO:
            self._windows.pop(next(iter(self._windows)))
        ident = uuid.uuid4().hex
        self._windows[ident] = base, length
        return answer(status=True, mmio_id=ident)

    def _address(self, ident: str, offset: int, count: int) -> int:
        if ident not in self._windows:
            raise BusError(f"there is no mapping '{ident}'")
        base, length = self._windows[ident]
        if offset % 4 or offset + count > length:
            raise BusError(f"{count} bytes at offset {offset:#x} do not lie in the {length} bytes of the mapping")
        return base + offset

    def read(self, request: Any, _context: grpc.ServicerContext) -> Any:
        answer = MESSAGES["mmio.ReadResponse"]
        try:
            if request.length not in _READ_BYTES:
                raise BusError(f"reads have 1, 2 or 4 bytes, not {request.length}")
            word = self._chip.read_word(self._address(request.mmio_id, request.offset, 4))
        except BusError as error:
            return answer(msg=str(error))
        return answer(status=True, data=word & ((1 << 8 * request.length) - 1))

    def write(self, request: Any, _context: grpc.ServicerContext) -> Any:
        answer = MESSAGES["mmio.WriteResponse"]
        data = request.data
        try:
            if not data or len(data) % 4:
                raise BusError(f"writes have a multiple of 4 bytes, not {len(data)}")
            address = self._address(request.mmio_id, request.offset, len(data))
            for at in range(0, len(data), 4):
                self._chip.write_word(address + at, int.from_bytes(data[at : at + 4], "little"))
        except BusError as error:
            return answer(msg=str(error))
        return answer(status=True)


class BufferService:
    """Contiguous memory. A client's copy and the DDR are two things: both ways of syncing go through here."""

    def __init__(self, chip: Chip, buffers: Buffers) -> None:
        self._chip = chip
        self._buffers = buffers
        self._lock = threading.Lock()

    def _find(self, ident: str) -> Buffer:
        with self._lock:
            return self._buffers.find(ident)

    def allocate(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            with self._lock:
                made = self._buffers.allocate(request.size, context.peer())
        except BufferError as error:
            # pynq does not look at this response's msg; a status reaches its caller.
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return MESSAGES["buffer.AllocateResponse"](buffer_id=made.ident)

    def write(self, requests: Iterator[Any], _context: grpc.ServicerContext) -> Any:
        answer = MESSAGES["buffer.BufferWriteResponse"]
        at: int | None = None
        for request in requests:
            try:
                buffer = self._find(request.buffer_id)
                at = request.start if at is None else at
                if at < 0 or at + len(request.data) > buffer.size:
                    raise BufferError(f"{len(request.data)} bytes at {at} do not fit a buffer of {buffer.size}")
            except BufferError as error:
                return answer(msg=str(error))
            self._chip.write_memory(buffer.address + at, request.data)
            at += len(request.data)
        return answer()

    def read(self, request: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        answer = MESSAGES["buffer.BufferReadResponse"]
        try:
            buffer = self._find(request.buffer_id)
            stop = request.end or buffer.size
            if not 0 <= request.start <= stop <= buffer.size:
                raise BufferError(f"{request.start} to {stop} does not lie in a buffer of {buffer.size} bytes")
        except BufferError as error:
            yield answer(msg=str(error))
            return
        for at in range(request.start, stop, CHUNK_BYTES):
            yield answer(data=self._chip.read_memory(buffer.address + at, min(CHUNK_BYTES, stop - at)))

    def _answer(self, kind: str, ident: str, **facts: Any) -> Any:
        try:
            self._find(ident)
        except BufferError as error:
            return MESSAGES[f"buffer.{kind}Response"](msg=str(error))
        return MESSAGES[f"buffer.{kind}Response"](**facts)

    def freebuffer(self, request: Any, _context: grpc.ServicerContext) -> Any:
        try:
            with self._lock:
                self._buffers.free(request.buffer_id)
        except BufferError as error:
            return MESSAGES["buffer.FreeBufferResponse"](msg=str(error))
        return MESSAGES["buffer.FreeBufferResponse"]()

    def flush(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return self._answer("Flush", request.buffer_id)

    def invalidate(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return self._answer("Invalidate", request.buffer_id)

    def cacheable(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return self._answer("Cacheable", request.buffer_id, cacheable=True)

    def physical_address(self, request: Any, _context: grpc.ServicerContext) -> Any:
        answer = MESSAGES["buffer.AddressResponse"]
        try:
            return answer(address=self._find(request.buffer_id).address)
        except BufferError as error:
            return answer(msg=str(error))

    # The board's process has it mapped somewhere, which says nothing to a client.
    virtual_address = physical_address


class GpioService:
    """This board has no pins: everything is answered, nothing is there."""

    def get_gpio(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GetGpioResponse"](message=f"the virtual board has no GPIO pin {request.index}")

    def read(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GpioReadResponse"](message="the virtual board has no GPIO pins", value=0)

    def write(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GpioWriteResponse"]()

    def unexport(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GpioUnexportResponse"]()

    def is_exported(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GpioIsExportedResponse"](is_exported=False)

    def get_gpio_base_path(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GetGpioBasePathResponse"]()

    def get_gpio_npins(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["gpio.GetGpioNPinsResponse"](npins=0)


class BoardServer:
    """A virtual board on a port. Use it as a context manager, or ``start`` and ``stop`` it.

    Args:
        chip: closed with the server.
        board, design: see :class:`Files`.
        host: address to listen on; the default is reached from this machine only.
        port: 0 takes a free one; ``port`` then says which.

    Raises:
        InputError: the address cannot be listened on.
    """

    def __init__(
        self,
        chip: Chip,
        board: str,
        design: str,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        memory: Window = AREA,
    ) -> None:
        self.chip = chip
        self.buffers = Buffers(memory)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="virtual-board"),
            options=[("grpc.so_reuseport", 0)],
        )
        for name, service in (
            ("remote_device.RemoteDevice", DeviceService(Files(board, design, chip.configure))),
            ("mmio.Mmio", MmioService(chip)),
            ("buffer.RemoteBuffer", BufferService(chip, self.buffers)),
            ("gpio.Gpio", GpioService()),
        ):
            self._server.add_generic_rpc_handlers((handlers(name, service),))
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            self.chip.close()
            raise InputError(f"Cannot listen on {host}:{port}; another program may be using it: choose another --port.")

    def start(self) -> None:
        """Serve, on threads of its own."""
        self._server.start()

    def wait(self) -> None:
        """Until the server is stopped."""
        self._server.wait_for_termination()

    def stop(self) -> None:
        """End all calls and free the simulation; a second call does nothing."""
        self._server.stop(_SECONDS_TO_STOP).wait()
        self.chip.close()

    def __enter__(self) -> BoardServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
