"""The accelerator as a Python object."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import BitFolder, Bundle
from .control import BUSY, CONTROLS, ERROR
from .errors import BundleError, DeviceError, DeviceTimeoutError, ImageError
from .platform import Memory, Platform, PynqPlatform
from .registers import DEVICE_ID, DEVICE_VERSION, ERROR_MEANING, OFFSET, STAGE

_COUNTERS = ("cycles", "fetch_cycles", "fill_cycles", "issue_cycles", "write_back_cycles", "read_beats", "write_beats")
_BEAT_BYTES = 8
_PAGE = 4096
# Cycles without any progress after which the engine gives up: 7 ms at 142.857 MHz, far above any memory latency.
_WATCHDOG_CYCLES = 1 << 20
_BATCH, _REMOTE_BATCH = 256, 64


class Accelerator:
    """An engine with a network on it.

    Args:
        bundle: folder or zip that ``bitsmith bundle`` made.
        device: a pynq device (the active one if None), or a ``Platform``.
        batch: images per run of the engine; two such batches are in memory. 256, remotely 64. Rounded up for a network that
            takes several images together.
        timeout_s: seconds without a finished image after which ``predict`` gives up. A slow simulation may need more.

    Raises:
        BundleError: a damaged bundle, or an engine that is not the one of the bundle's bit file.
    """

    def __init__(
        self, bundle: str | Path, device: Any = None, *, batch: int | None = None, timeout_s: float = 60.0
    ) -> None:
        self.timeout_s = timeout_s
        self.stats: dict[str, Any] = {}
        self.bundle = Bundle(bundle)
        self._memories: list[Memory] = []
        self._inputs: list[Memory] = []
        self._outputs: list[Memory] = []
        self._program: Memory | None = None
        self._platform: Platform = device if hasattr(device, "clock_mhz") else PynqPlatform.of(device)
        self._control = CONTROLS[self.bundle.control](self._platform)
        self._wanted_batch = batch or (_REMOTE_BATCH if self._platform.remote else _BATCH)
        if self._wanted_batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        self._closed = False
        self._cancelled = threading.Event()
        try:
            with self._platform.lock:
                self._quick(self._open)  # on the board pynq makes objects that belong to this thread's event loop
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ what users call
    def load(self, bundle: str | Path) -> None:
        """Run another network on the bitstream that is loaded.

        Raises:
            BundleError: its program was made for another engine; the network of before stays.
        """
        self._check_open()
        other = Bundle(bundle)
        with self._platform.lock:
            self._unbroken(self._upload, other)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The logits of any number of images.

        Args:
            images: uint8 (N, H, W, C), or (N, C, H, W) where that is not the same shape.

        Returns:
            int32 (N, classes).

        Raises:
            ImageError: wrong type, shape or codes out of range. DeviceError: the engine stopped with an error.
            DeviceTimeoutError: no progress. After any of them, and after Ctrl-C, the next call works again.
        """
        self._check_ready()
        planar = self._check_images(images)
        if planar and self._channels_last:
            images, planar = images.transpose(0, 2, 3, 1), False
        logits = np.empty((len(images), self._classes), np.int32)
        with self._platform.lock:
            self._cancelled.clear()
            self._unbroken(self._run_or_stop, images, planar, logits, cancel=self._cancelled)
        return logits

    def close(self) -> None:
        """Free all memory; a second call does nothing."""
        self._closed = True
        self._quick(self._free)

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def clock_mhz(self) -> float:
        """The engine's clock."""
        return float(self._quick(self._platform.clock_mhz))

    def state(self) -> dict[str, int]:
        """Every register that can be read, by name."""
        found: dict[str, int] = self._quick(lambda: {name: self._read(name) for name in OFFSET})
        return found

    # ------------------------------------------------------------------ loading
    def _open(self) -> None:
        bit = BitFolder()
        try:
            self._platform.load(self.bundle.unpack_bit(bit.path))
        finally:
            bit.remove()
        self._upload(self.bundle)

    def _upload(self, bundle: Bundle) -> None:
        facts = bundle.manifest
        image = np.frombuffer(bundle.program, np.uint8)
        self._control.stop()
        program = self._platform.allocate(-(-len(image) // _PAGE) * _PAGE)
        try:
            program.array[: len(image)] = image
            program.push(program.array.size)
            self._control.wake(program.address)
            self._check_engine(bundle)
        except BaseException:
            program.free()
            raise
        if self._program is not None:
            self._program.free()
        self._free_batches()
        self._program = program
        self.bundle = bundle
        self._shape: tuple[int, int, int] = tuple(facts["image_shape"])
        # Images that the program takes together: a run has a whole number of such groups.
        self._group: int = facts["image_batch"]
        self.batch = self._whole(self._wanted_batch)
        # The engine reads the image as one long pixel, in one order of its bytes: planar images are turned here.
        self._channels_last: bool = facts.get("channels_last", False)
        self._image_bytes = int(np.prod(self._shape))
        self._image_stride = -(-self._image_bytes // _BEAT_BYTES) * _BEAT_BYTES
        self._classes: int = facts["classes"]
        self._output_stride: int = facts["output_stride"]
        self._top_code: int = facts["top_code"]
        self._inputs, self._outputs = [], []  # until there is memory for both
        inputs = [self._allocate(self.batch * self._image_stride) for _ in range(2)]
        outputs = [self._allocate(self.batch * self._output_stride) for _ in range(2)]
        self._inputs, self._outputs = inputs, outputs

    def _whole(self, count: int) -> int:
        return -(-count // self._group) * self._group

    def _allocate(self, size: int) -> Memory:
        memory = self._platform.allocate(size)
        self._memories.append(memory)
        return memory

    def _free(self) -> None:
        self._free_batches()
        if self._program is not None:
            program, self._program = self._program, None
            program.free()

    def _free_batches(self) -> None:
        while self._memories:
            self._memories.pop().free()

    def _check_engine(self, bundle: Bundle) -> None:
        identity, version = self._read("id"), self._read("version")
        if identity != DEVICE_ID or version >> 16 != DEVICE_VERSION >> 16:
            raise BundleError(
                f"The device answers with identity {identity:#010x}, version {version:#010x}; this driver is for"
                f" {DEVICE_ID:#010x}, {DEVICE_VERSION:#010x}: the bitstream is another one."
            )
        engine = self._read("engine")
        if engine != bundle.engine_hash:
            raise BundleError(
                f"{bundle.path}: its program is for engine {bundle.engine_hash:08x}, the bitstream that is loaded holds"
                f" engine {engine:08x}; open the bundle with a new Accelerator, which loads its own bitstream."
            )

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the accelerator was closed")

    def _check_ready(self) -> None:
        self._check_open()
        if not self._inputs:
            raise RuntimeError(
                "the last load ended early and left no network: load one again, or open it with a smaller batch"
            )

    def _check_images(self, images: np.ndarray) -> bool:
        height, width, channels = self._shape
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise ImageError(f"The images are {found}; the network reads a NumPy array of uint8.")
        if images.ndim != 4 or images.shape[1:] not in (self._shape, (channels, height, width)):
            raise ImageError(
                f"The images have shape {images.shape}; the network reads (N, {height}, {width}, {channels}) or"
                f" (N, {channels}, {height}, {width})."
            )
        if self._top_code < 255 and images.size and int(images.max()) > self._top_code:
            raise ImageError(f"The images hold {int(images.max())}; this network's input codes end at {self._top_code}.")
        return images.shape[1:] != self._shape

    # ------------------------------------------------------------------ running
    def _unbroken(self, work: Callable[..., Any], *arguments: Any, cancel: threading.Event | None = None) -> Any:
        # Ctrl-C reaches the main thread alone. A call to a remote device that it cuts in two may leave the channel locked, and
        # the next call waits for ever: calls are made by another thread, which ends between two of them.
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def call() -> None:
            try:
                done.set_result(work(*arguments))
            except BaseException as error:
                done.set_exception(error)

        worker = threading.Thread(target=call, name="bitsmith", daemon=True)
        worker.start()
        try:
            return done.result()
        except BaseException:
            if cancel is not None:
                cancel.set()
            raise
        finally:
            worker.join()

    def _quick(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do it here on the board, where no channel can be left locked."""
        return self._unbroken(work, *arguments) if self._platform.remote else work(*arguments)

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise concurrent.futures.CancelledError

    def _run_or_stop(self, images: np.ndarray, planar: bool, logits: np.ndarray) -> None:
        try:
            self._run(images, planar, logits)
        except BaseException:
            self._control.stop()
            raise

    def _run(self, images: np.ndarray, planar: bool, logits: np.ndarray) -> None:
        begun = time.perf_counter()
        totals = dict.fromkeys(_COUNTERS, 0)
        batches = [slice(at, min(at + self.batch, len(images))) for at in range(0, len(images), self.batch)]
        if batches:
            if self._control.status() & BUSY:
                self._control.stop()  # a run that nobody waits for any more
            self._check_engine(self.bundle)  # another Accelerator may have loaded another bitstream
            self.fill(0, images[batches[0]])
        for index, batch in enumerate(batches):
            half = index & 1
            self._check_cancelled()
            self._start(half, batch.stop - batch.start, planar)
            # While the engine runs: the next images in, the last logits out.
            if index + 1 < len(batches):
                self.fill(1 - half, images[batches[index + 1]])
            if index:
                self._collect(1 - half, logits[batches[index - 1]])
            self._wait(self._whole(batch.stop - batch.start))
            for name in _COUNTERS:
                totals[name] += self._read(name)
        if batches:
            self._collect((len(batches) - 1) & 1, logits[batches[-1]])
        self._note(len(images), time.perf_counter() - begun, totals)

    def fill(self, half: int, images: np.ndarray) -> None:
        """Copy at most ``batch`` images (N, ...) of the network's shape into input buffer ``half``, 0 or 1.

        Where the network takes several images together, black ones fill up the last group.
        """
        memory, count, whole = self._inputs[half], len(images), self._whole(len(images))
        rows = memory.array[: whole * self._image_stride].reshape(whole, self._image_stride)
        np.copyto(rows[:count, : self._image_bytes], images.reshape(count, self._image_bytes))
        rows[count:] = 0
        memory.push(rows.size)

    def _collect(self, half: int, logits: np.ndarray) -> None:
        memory, count = self._outputs[half], len(logits)
        memory.pull(count * self._output_stride)
        rows = memory.array[: count * self._output_stride].view("<i4").reshape(count, -1)
        np.copyto(logits, rows[:, : self._classes])

    def _start(self, half: int, count: int, planar: bool) -> None:
        assert self._program is not None
        for name, value in (
            ("watchdog", _WATCHDOG_CYCLES),
            ("program_addr", self._program.address),
            ("image_addr", self._inputs[half].address),
            ("image_stride", self._image_stride),
            ("output_addr", self._outputs[half].address),
            ("output_stride", self._output_stride),
            ("image_count", self._whole(count)),
            ("image_planar", int(planar)),
        ):
            self._control.write(name, value)
        self._control.start()

    def _wait(self, count: int) -> None:
        seen, since, pause = -1, time.monotonic(), 0.00002
        while True:
            self._check_cancelled()
            status = self._control.status()
            if status & ERROR:
                raise self._device_error()
            if not status & BUSY:
                return
            done = self._control.images_done()
            now = time.monotonic()
            if done != seen:
                seen, since = done, now
            elif now - since > self.timeout_s:
                raise DeviceTimeoutError(self._timeout_text(done, count))
            if not self._platform.wait(min(1.0, self.timeout_s)):
                time.sleep(pause)
                pause = min(2 * pause, 0.01 if self._platform.remote else 0.0005)

    def _read(self, name: str) -> int:
        return self._control.read(name)

    def _device_error(self) -> DeviceError:
        code, info = self._read("error"), self._read("error_info")
        meaning = ERROR_MEANING.get(code, "an error that this driver does not know")
        where = f"stage {STAGE.get(info >> 24, info >> 24)}, layer {info >> 16 & 0xFF}, opcode {info & 0xFF:#04x}"
        return DeviceError(f"The engine stopped: {meaning} (error {code}; {where}).", code, info)

    def _timeout_text(self, done: int, count: int) -> str:
        layers = self._read("layer")
        stages = ", ".join(
            f"{name} {self._read(f'{name}_cycles')} cycles, layer {layers >> 8 * at & 0xFF}"
            for at, name in enumerate(("fetch", "fill", "issue", "write_back"))
        )
        return (
            f"No image was finished for {self.timeout_s:g} s ({done} of {count} are done after {self._read('cycles')}"
            f" cycles). Work done per stage: {stages}."
        )

    def _note(self, images: int, seconds: float, totals: dict[str, int]) -> None:
        clock = self._platform.clock_mhz()
        self.stats = {
            "images": images,
            "seconds": seconds,
            "images_per_s": images / seconds if seconds else 0.0,
            "engine_images_per_s": images * clock * 1e6 / totals["cycles"] if totals["cycles"] else 0.0,
            "clock_mhz": clock,
            **{name: totals[name] for name in _COUNTERS[:5]},
            "dma_read_bytes": totals["read_beats"] * _BEAT_BYTES,
            "dma_write_bytes": totals["write_beats"] * _BEAT_BYTES,
        }
