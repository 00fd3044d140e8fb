"""The tensor monitor: rebuilds every tensor from what the engine writes to its buffers, and compares it.

The monitor knows from the schedule which row comes next on each write port, so a write to a wrong row, a missing or a
surplus write are found as well as a wrong bit. It is passive: it sees the ports, and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwgen.network import Tensor
from hwgen.schedule import Band, Schedule


@dataclass(frozen=True)
class Mismatch:
    """One wrong value, or one wrong write: where, what was expected, what was found."""

    image: int
    node: str
    tensor: str
    where: str
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"image {self.image}, node '{self.node}', tensor '{self.tensor}', {self.where}:"
            f" expected {self.expected}, found {self.found}"
        )


@dataclass(frozen=True)
class _PlaneWrite:
    band: Band
    tile: int
    row_tile: int
    plane: int
    row: int


@dataclass(frozen=True)
class _ByteWrite:
    band: Band
    tile: int
    group: int
    row: int


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
        golden: every tensor by name, integer codes (N, H, W, C), as the golden model gives them.
        most: mismatches kept in full; the rest is only counted.
    """

    def __init__(self, schedule: Schedule, golden: Mapping[str, NDArray[np.integer]], most: int = 20) -> None:
        self.schedule = schedule
        self.engine = schedule.engine
        self.golden = golden
        self.images = len(golden[schedule.network.output])
        self.most = most
        self.tally = Tally()
        self.planes_image = self.bytes_image = self.logits_image = 0
        self._plane_order = list(self._plane_writes())
        self._byte_order = list(self._byte_writes())
        self._plane_at = self._byte_at = 0
        self._plane_maps: dict[str, NDArray[np.int64]] = {}
        self._byte_maps: dict[str, NDArray[np.int64]] = {}
        self._plane_ends = self._ends([item.band for item in self._plane_order])
        self._byte_ends = self._ends([item.band for item in self._byte_order])

    # ---------------------------------------------------------------- expected writes of one image
    def _plane_writes(self) -> Iterator[_PlaneWrite]:
        for band in self.schedule.bands:
            made = band.item.planes
            if made is None:
                continue
            region = self.schedule.memory.planes[made.name]
            row_tiles = -(-band.item.code.shape[2] // self.engine.rows)
            for tile in range(band.first, band.first + band.tiles):
                for row_tile in range(row_tiles):
                    group = row_tile // self.engine.rows_per_group
                    for plane in range(made.bits):
                        row = region.base + (group * made.bits + plane) * region.pitch + tile
                        yield _PlaneWrite(band, tile, row_tile, plane, row)

    def _byte_writes(self) -> Iterator[_ByteWrite]:
        for band in self.schedule.bands:
            made = band.item.bytes
            if made is None:
                continue
            region = self.schedule.memory.bytes[made.name]
            groups = -(-band.item.code.shape[2] // self.engine.rows) * self.engine.beats
            for tile in range(band.first, band.first + band.tiles):
                for group in range(groups):
                    yield _ByteWrite(band, tile, group, region.base + group * region.pitch + tile)

    @staticmethod
    def _ends(bands: Sequence[Band]) -> list[bool]:
        """Whether a write is the last of its pass."""
        return [at + 1 == len(bands) or bands[at + 1].layer != band.layer for at, band in enumerate(bands)]

    # ---------------------------------------------------------------- the ports
    def plane_write(self, chunks: int, row: int, data: int) -> None:
        """One row of bit planes. chunks: write enables; data: bit position * D_M + channel."""
        engine = self.engine
        if self.planes_image >= self.images:
            self._wrong_write(self.planes_image, "-", "-", "a plane write after the last image", 0, row)
            return
        want = self._plane_order[self._plane_at]
        made = want.band.item.planes
        assert made is not None
        chunk = 1 << want.row_tile % engine.rows_per_group
        if row != want.row or chunks != chunk:
            where = f"plane {want.plane} of position tile {want.tile}, row tile {want.row_tile}: written row"
            self._wrong_write(self.planes_image, want.band.item.name, made.name, where, want.row, row)
        bits = np.unpackbits(
            np.frombuffer(data.to_bytes(engine.columns * engine.rows // 8, "little"), np.uint8), bitorder="little"
        ).reshape(engine.columns, engine.rows)
        found = self._map(self._plane_maps, made)
        first, channel = want.tile * engine.columns, want.row_tile * engine.rows
        part = found[first : first + engine.columns, channel : channel + engine.rows]
        part += bits[: part.shape[0], : part.shape[1]].astype(np.int64) << want.plane
        if self._plane_ends[self._plane_at]:
            codes = self._plane_maps.pop(made.name)
            self._compare(self.planes_image, want.band, made, codes + made.lo)
        self._plane_at += 1
        if self._plane_at == len(self._plane_order):
            self._plane_at, self.planes_image = 0, self.planes_image + 1

    def byte_write(self, row: int, data: int) -> None:
        """One row of bytes. data: byte position * LANE_ROWS + channel of the group."""
        engine = self.engine
        if self.bytes_image >= self.images:
            self._wrong_write(self.bytes_image, "-", "-", "a byte write after the last image", 0, row)
            return
        want = self._byte_order[self._byte_at]
        made = want.band.item.bytes
        assert made is not None
        if row != want.row:
            where = f"channel group {want.group} of position tile {want.tile}: written row"
            self._wrong_write(self.bytes_image, want.band.item.name, made.name, where, want.row, row)
        raw = np.frombuffer(data.to_bytes(engine.lanes, "little"), np.int8 if made.signed else np.uint8)
        found = self._map(self._byte_maps, made)
        first, channel = want.tile * engine.columns, want.group * engine.lane_rows
        part = found[first : first + engine.columns, channel : channel + engine.lane_rows]
        part[:] = raw.reshape(engine.columns, engine.lane_rows)[: part.shape[0], : part.shape[1]]
        if self._byte_ends[self._byte_at]:
            self._compare(self.bytes_image, want.band, made, self._byte_maps.pop(made.name))
        self._byte_at += 1
        if self._byte_at == len(self._byte_order):
            self._byte_at, self.bytes_image = 0, self.bytes_image + 1

    def logits(self, image: int, found: NDArray[np.integer]) -> None:
        """The logits of one image as they lie in memory, int32, at least the classes."""
        last = self.schedule.bands[-1]
        classes = last.item.code.shape[2]
        self._compare(image, last, last.item.code, np.asarray(found[:classes], np.int64).reshape(1, classes))
        self.logits_image = max(self.logits_image, image + 1)

    def finish(self) -> Tally:
        """The tally; missing writes are mismatches."""
        for what, order, image, at in (
            ("plane writes", self._plane_order, self.planes_image, self._plane_at),
            ("byte writes", self._byte_order, self.bytes_image, self._byte_at),
        ):
            expected = len(order) * self.images
            if order and (image, at) != (self.images, 0):
                self._wrong_write(image, "-", "-", what, expected, image * len(order) + at)
        if self.logits_image != self.images:
            self._wrong_write(
                self.logits_image, "-", self.schedule.network.output, "images with logits", self.images, self.logits_image
            )
        return self.tally

    # ---------------------------------------------------------------- comparing
    def _map(self, maps: dict[str, NDArray[np.int64]], made: Tensor) -> NDArray[np.int64]:
        if made.name not in maps:
            maps[made.name] = np.zeros((made.shape[0] * made.shape[1], made.shape[2]), np.int64)
        return maps[made.name]

    def _compare(self, image: int, band: Band, made: Tensor, found: NDArray[np.int64]) -> None:
        expected = np.asarray(self.golden[made.name][image], np.int64).reshape(found.shape)
        self.tally.tensors += 1
        self.tally.compared[made.name] += 1
        wrong = np.argwhere(expected != found)
        self.tally.wrong += len(wrong)
        self.tally.wrong_by_tensor[made.name] += len(wrong)
        for position, channel in wrong[: max(self.most - len(self.tally.mismatches), 0)]:
            y, x = divmod(int(position), made.shape[1])
            self.tally.mismatches.append(
                Mismatch(
                    image,
                    band.item.name,
                    made.name,
                    f"y {y}, x {x}, channel {int(channel)}",
                    int(expected[position, channel]),
                    int(found[position, channel]),
                )
            )

    def _wrong_write(self, image: int, node: str, tensor: str, where: str, expected: int, found: int) -> None:
        self.tally.wrong += 1
        self.tally.wrong_by_tensor[tensor] += 1
        if len(self.tally.mismatches) < self.most:
            self.tally.mismatches.append(Mismatch(image, node, tensor, where, expected, found))
