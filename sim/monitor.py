"""The tensor monitor: rebuilds every tensor from what the engine writes to its buffers, and compares it.

The monitor knows from the schedule which row comes next on each write port, so a write to a wrong row, a missing or a
surplus write are found as well as a wrong bit. It is passive: it sees the ports, and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from hwgen.bands import Band
from hwgen.network import Tensor
from hwgen.schedule import Schedule


@dataclass(frozen=True)
class Mismatch:
    """One wrong value, or one wrong write: where, what was expected, what was found.

    cycle: of the write, since the monitor began to watch. address: of the instruction that made it, in bytes from the
    program's start. None where there is no one write or instruction.
    """

    image: int
    node: str
    tensor: str
    where: str
    expected: int
    found: int
    cycle: int | None = None
    address: int | None = None

    def __str__(self) -> str:
        facts = [] if self.cycle is None else [f"cycle {self.cycle}"]
        facts += [] if self.address is None else [f"program address {self.address:#x}"]
        return (
            f"image {self.image}, node '{self.node}', tensor '{self.tensor}', {self.where}:"
            f" expected {self.expected}, found {self.found}" + (f" ({', '.join(facts)})" if facts else "")
        )


@dataclass(frozen=True)
class ExpectedWrite:
    """One write to a buffer row.

    The row holds D_N pixels of some channels each: from pixel ``bank`` of the row on lie the pixels
    [first, first + pixels) of the map, their channels from ``channel`` on.

    enables: of the row's parts; None: any. plane: of the codes; 0 where whole codes are written. copy: image of the
    batch; 0 where the tensor is that of all its images.
    """

    band: Band
    made: Tensor
    row: int
    enables: int | None
    first: int
    pixels: int
    bank: int
    channel: int
    plane: int = 0
    copy: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """The tensor, of one image of a batch."""
        return self.made.name, self.copy

    def __str__(self) -> str:
        return f"plane {self.plane} of the pixels from {self.first} and the channels from {self.channel} on"


class Port:
    """A write port: what it writes for a batch of images, in order, and how far it is.

    Args:
        name: "plane" or "byte". order: the writes of one batch. width: channels of a pixel in a row.
    """

    def __init__(self, name: str, order: Sequence[ExpectedWrite], width: int) -> None:
        self.name = name
        self.order = order
        self.width = width
        self.batch = self.at = 0
        self.maps: dict[tuple[str, int], NDArray[np.int64]] = {}
        self.cycles: dict[tuple[str, int], NDArray[np.int64]] = {}
        last = {item.key: at for at, item in enumerate(order)}
        self.ends = [last[item.key] == at for at, item in enumerate(order)]

    def advance(self, writes: int) -> None:
        """Count ``writes`` as seen."""
        self.at += writes
        if self.at == len(self.order):
            self.at, self.batch = 0, self.batch + 1


@dataclass
class Tally:
    """What has been compared so far.

    tensors: maps compared whole, over all images. wrong: wrong values and writes. mismatches: the first of them.
    compared, wrong_by_tensor: the same by tensor name ("-" where a write belongs to none).
    """

    tensors: int = 0
    wrong: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    wrong_by_tensor: Counter[str] = field(default_factory=Counter)


class TensorMonitor:
    """Compares the plane writes, byte writes and logits of a run with the golden tensors.

    Args:
        schedule: the program that runs.
        golden: every tensor by name, integer codes (N, H, W, C), as the golden model gives them; N whole batches.
        most: mismatches kept in full; the rest is only counted.
        first_image: number of the first image in what mismatches say.
    """

    def __init__(
        self, schedule: Schedule, golden: Mapping[str, NDArray[np.integer]], most: int = 20, first_image: int = 0
    ) -> None:
        self.schedule = schedule
        self.engine = schedule.engine
        self.images = len(golden[schedule.network.output])
        self.batches = self.images // schedule.batch
        self.golden: dict[tuple[str, int], NDArray[np.integer]] = {}
        self.matters: dict[tuple[str, int], NDArray[np.bool_]] = {}  # by pixel; not kept where every pixel does
        for band in schedule.bands:
            self._expect(band, golden)
        self.most = most
        self.first_image = first_image
        self.tally = Tally()
        self.logits_image = 0
        self.planes = Port("plane", list(self._plane_writes()), self.engine.rows)
        self.bytes = Port("byte", list(self._byte_writes()), self.engine.lane_rows)

    def _expect(self, band: Band, golden: Mapping[str, NDArray[np.integer]]) -> None:
        """Keep the golden codes of what a band's pass stores, a batch at a time."""
        item, batch = band.item, self.schedule.memory.batch
        for made in item.tensors:
            codes = golden[made.name]
            if made is item.bytes and item.subsample:
                # Only these channels of a shortcut are stored; the others are zero.
                first = item.bytes_first_channel
                codes = codes[..., first : first + made.shape[2]]
            if band.layer < batch.turn or batch.size == 1:
                self.golden[made.name, band.copy] = codes[band.copy :: batch.size]
            elif band.layer > batch.turn:
                self.golden[made.name, 0] = codes.reshape(self.batches, *made.shape)
            elif made is item.planes:
                height, width, channels = codes.shape[1:]
                rows = made.shape[0] // batch.size
                stack = np.zeros((self.batches, batch.size, rows, made.shape[1], channels), codes.dtype)
                stack[:, :, :height, :width] = codes.reshape(self.batches, batch.size, height, width, channels)
                matters = np.zeros((batch.size, rows, made.shape[1]), bool)
                matters[:, :height, :width] = True
                self.golden[made.name, 0] = stack.reshape(self.batches, *made.shape)
                self.matters[made.name, 0] = matters.ravel()

    def _copy(self, band: Band) -> int:
        return band.copy if band.layer < self.schedule.memory.batch.turn else 0

    # ---------------------------------------------------------------- expected writes of one batch
    def _plane_writes(self) -> Iterator[ExpectedWrite]:
        columns, rows = self.engine.columns, self.engine.rows
        for band in self.schedule.bands:
            made = band.item.planes
            if made is None:
                continue
            region = self.schedule.memory.plane_region(made.name, band.copy)
            pooled = band.item.window.pooled
            pixels = band.item.window.tile_positions(columns)
            first = self.schedule.memory.batch.stack_tile(band.layer, band.copy) + band.first
            for tile in range(first, first + band.tiles):
                at, bank = divmod(tile * pixels, columns)
                for row_tile in range(band.first_row_tile, band.first_row_tile + band.row_tiles):
                    group, chunk = divmod(row_tile, self.engine.rows_per_group)
                    for plane in reversed(range(made.bits)) if pooled else range(made.bits):
                        row = region.base + (group * made.bits + plane) * region.pitch + region.row(at)
                        yield ExpectedWrite(
                            band, made, row, 1 << chunk, tile * pixels, pixels, bank, row_tile * rows, plane,
                            self._copy(band),
                        )  # fmt: skip

    def _byte_writes(self) -> Iterator[ExpectedWrite]:
        columns, lane_rows = self.engine.columns, self.engine.lane_rows
        for band in self.schedule.bands:
            made = band.item.bytes
            if made is None:
                continue
            region = self.schedule.memory.bytes[made.name]
            first_group = band.first_row_tile * self.engine.beats
            groups = range(first_group, first_group + band.row_tiles * self.engine.beats)
            subsample = band.item.subsample
            # Subsampled, a tile gives half a row, and only in every second row of the map.
            pixels = columns // 2 if subsample else columns
            per_row = band.item.window.out_width // columns
            for tile in range(band.first, band.first + band.tiles):
                at = tile
                if subsample:
                    y, x = divmod(tile, per_row)
                    if y % 2:
                        continue
                    at = y // 2 * per_row + x
                row, bank = divmod(at * pixels, columns)
                enables = (2 if bank else 1) if subsample else 3
                for group in groups:
                    at_row = region.base + group * region.pitch + region.row(row)
                    yield ExpectedWrite(
                        band, made, at_row, enables, at * pixels, pixels, bank, group * lane_rows, copy=self._copy(band)
                    )

    # ---------------------------------------------------------------- the ports
    def plane_write(self, enables: int, row: int, data: int, cycle: int | None = None) -> None:
        """One row of bit planes. enables: write enables; data: bit position * D_M + channel."""
        raw = np.frombuffer(data.to_bytes(self.engine.columns * self.engine.rows // 8, "little"), np.uint8)
        self._write(self.planes, enables, row, np.unpackbits(raw, bitorder="little"), cycle)

    def byte_write(self, enables: int, row: int, data: int, cycle: int | None = None) -> None:
        """One row of bytes. enables: of its halves; data: byte position * LANE_ROWS + channel of the group."""
        self._write(self.bytes, enables, row, np.frombuffer(data.to_bytes(self.engine.lanes, "little"), np.uint8), cycle)

    def _write(self, port: Port, enables: int, row: int, values: NDArray[np.uint8], cycle: int | None) -> None:
        if not port.order or port.batch >= self.batches:
            what = f"a {port.name} write " + ("after the last image" if port.order else "where the network has none")
            self._wrong_write(self.images, None, "-", what, 0, row, cycle)
            return
        want = port.order[port.at]
        made = want.made
        if row != want.row or want.enables not in (None, enables):
            image = port.batch * self.schedule.batch + want.band.copy
            self._wrong_write(image, want.band, made.name, f"{want}: written row", want.row, row, cycle)
        shape = (made.shape[0] * made.shape[1], made.shape[2])
        found = port.maps.setdefault(want.key, np.zeros(shape, np.int64))
        cycles = port.cycles.setdefault(want.key, np.full(shape, -1, np.int64))
        place = (slice(want.first, want.first + want.pixels), slice(want.channel, want.channel + port.width))
        part = found[place]
        cells = values.reshape(-1, port.width)[want.bank :][: part.shape[0], : part.shape[1]]
        part += cells.astype(np.int64) << want.plane
        if cycle is not None:
            cycles[place] = cycle
        if port.ends[port.at]:
            codes = port.maps.pop(want.key)
            if port is self.planes:
                codes += made.lo  # signed codes lie in offset binary
            elif made.signed:
                codes = codes.astype(np.int8).astype(np.int64)
            self._compare(port.batch, want.key, want.band, made, codes, port.cycles.pop(want.key))
        port.advance(1)

    def accept(self, port: Port) -> None:
        """Count the next batch of a port as compared and right."""
        for want, end in zip(port.order, port.ends, strict=True):
            if end:
                self.tally.tensors += 1
                self.tally.compared[want.made.name] += 1
        port.advance(len(port.order))

    def logits(self, image: int, found: NDArray[np.integer]) -> None:
        """The logits of one image as they lie in memory, int32, at least the classes."""
        last = self.schedule.bands[-1]
        classes = last.item.code.shape[2]
        codes = np.asarray(found[:classes], np.int64).reshape(1, classes)
        made = replace(last.item.code, shape=(1, 1, classes))
        batch, copy = divmod(image, self.schedule.batch)
        expected = self.golden[made.name, 0][batch].reshape(self.schedule.batch, classes)[copy : copy + 1]
        self._compare_codes(image, last, made, expected, codes, np.full(codes.shape, -1, np.int64))
        self.logits_image = max(self.logits_image, image + 1)

    def finish(self) -> Tally:
        """The tally; missing writes are mismatches."""
        for port in (self.planes, self.bytes):
            expected = len(port.order) * self.batches
            if port.order and (port.batch, port.at) != (self.batches, 0):
                written = port.batch * len(port.order) + port.at
                self._wrong_write(port.batch * self.schedule.batch, None, "-", f"{port.name} writes", expected, written)
        if self.logits_image != self.images:
            self._wrong_write(
                self.logits_image,
                None,
                self.schedule.network.output,
                "images with logits",
                self.images,
                self.logits_image,
            )
        return self.tally

    # ---------------------------------------------------------------- comparing
    def _compare(
        self,
        batch: int,
        key: tuple[str, int],
        band: Band,
        made: Tensor,
        found: NDArray[np.int64],
        cycles: NDArray[np.int64],
    ) -> None:
        expected = np.asarray(self.golden[key][batch], np.int64).reshape(found.shape)
        if key in self.matters:
            expected = np.where(self.matters[key][:, None], expected, found)
        self._compare_codes(batch * self.schedule.batch + key[1], band, made, expected, found, cycles)

    def _compare_codes(
        self,
        image: int,
        band: Band,
        made: Tensor,
        expected: NDArray[np.integer],
        found: NDArray[np.int64],
        cycles: NDArray[np.int64],
    ) -> None:
        self.tally.tensors += 1
        self.tally.compared[made.name] += 1
        wrong = np.argwhere(expected != found)
        # Behind the turn of a batch a map holds all its images, one after the other.
        batch = self.schedule.memory.batch
        pixels = max(len(found) // (batch.size if band.layer >= batch.turn else 1), 1)
        before = band.item.bytes_first_channel if made is band.item.bytes else 0
        self.tally.wrong += len(wrong)
        self.tally.wrong_by_tensor[made.name] += len(wrong)
        for position, channel in wrong[: max(self.most - len(self.tally.mismatches), 0)]:
            later, position_there = divmod(int(position), pixels)
            y, x = divmod(position_there, made.shape[1])
            cycle = int(cycles[position, channel])
            self.tally.mismatches.append(
                Mismatch(
                    self.first_image + image + later,
                    band.item.name,
                    made.name,
                    f"y {y}, x {x}, channel {before + int(channel)}",
                    int(expected[position, channel]),
                    int(found[position, channel]),
                    None if cycle < 0 else cycle,
                    self._address(band, int(position)),
                )
            )

    def _wrong_write(
        self, image: int, band: Band | None, tensor: str, where: str, expected: int, found: int, cycle: int | None = None
    ) -> None:
        self.tally.wrong += 1
        self.tally.wrong_by_tensor[tensor] += 1
        if len(self.tally.mismatches) < self.most:
            node = "-" if band is None else band.item.name
            address = None if band is None else self._address(band, band.first * self.engine.columns)
            self.tally.mismatches.append(
                Mismatch(self.first_image + image, node, tensor, where, expected, found, cycle, address)
            )

    def _address(self, last: Band, position: int) -> int | None:
        """Where the write-back instruction lies that makes an output position of the pass of ``last``."""
        tile = position // self.engine.columns
        band = next(
            (
                item
                for item in self.schedule.bands
                if item.layer == last.layer and item.first <= tile < item.first + item.tiles
            ),
            last,
        )
        program = self.schedule.program
        for index, instruction in enumerate(program.write_back):
            first = self.schedule.memory.batch.stack_tile(band.layer, band.copy) + band.first
            if (instruction["layer"], instruction["start_tile"]) == (band.layer, first):
                before = len(program.fetch) + len(program.execute) + index
                return (isa.HEADER_WORDS + before * isa.WORDS) * (isa.WORD_BITS // 8)
        return None
