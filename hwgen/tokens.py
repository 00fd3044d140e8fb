"""Tokens: what every instruction waits for.

Each stage runs its instructions in order, so a dependency on an instruction of another stage is a count: wait until
that stage has finished so many of its instructions. The counts are absolute; a wait field is the difference to what the
stage has taken before. The first image depends on no image before it and has wait fields of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwgen.bands import Band
from hwgen.engine import EngineConfig
from hwgen.network import Network
from hwgen.passes import ArrayPass
from hwgen.plan import MemoryPlan


def waits(needs: Sequence[int], per_image: int) -> list[tuple[int, int]]:
    """(steady, first) wait counts from absolute needs.

    needs[j]: how many tokens of this image's giver instructions must have been given before instruction j starts;
    0 or negative counts reach back into the image before (-n: all but the last n of it).
    """
    first, taken = [], 0
    for need in needs:
        first.append(max(need - taken, 0))
        taken = max(taken, need)
    # From the second image on, what was left over is taken as well; the end state is the same for every image.
    end = taken
    steady, taken = [], end - per_image
    for need in needs:
        steady.append(max(need - taken, 0))
        taken = max(taken, need)
    if taken < end:
        steady[-1] += end - taken
    return list(zip(steady, first, strict=True))


class Dependencies:
    """What the bands of a program need of each other, as counts of finished instructions."""

    def __init__(self, network: Network, engine: EngineConfig, memory: MemoryPlan, bands: Sequence[Band]) -> None:
        self.network = network
        self.engine = engine
        self.memory = memory
        self.bands = bands
        self.array_bands = [band for band in bands if isinstance(band.item, ArrayPass)]

    def producer(self, reader: int, name: str, tile: int) -> int:
        """Index of the last write-back instruction that stores some of tile ``tile`` of a tensor for a band."""
        batch = self.memory.batch
        for at in reversed(range(reader)):
            band = self.bands[at]
            item = band.item
            if band.layer < batch.turn and band.copy != self.bands[reader].copy:
                continue
            if any(made.name == name for made in item.tensors):
                first = batch.stack_tile(band.layer, band.copy) + band.first
                end = first + band.tiles
                if item.subsample and item.bytes is not None and item.bytes.name == name:
                    # Every second row, the last one of an odd number too, and half of its pixels.
                    rows = -(-end * self.engine.columns // item.window.out_width)
                    first, end = first // 4, -(-(-(-rows // 2) * (item.window.out_width // 2)) // self.engine.columns)
                elif item.window.pooled and item.planes is not None and item.planes.name == name:
                    first, end = first // 4, -(-end // 4)  # a tile of a pooled map holds pixels of four
                if first <= tile < end:
                    return at
        raise AssertionError(f"nothing stores tile {tile} of {name}")

    def last_tile_read(self, band: Band) -> int:
        window = band.item.window
        position = min((band.first + band.tiles) * window.tile_positions(self.engine.columns), window.positions) - 1
        return window.last_pixel(position) // self.engine.columns

    def fill_needs(self) -> list[int]:
        """Write-back instructions of this image to be finished before each execute instruction."""
        return [
            0
            if band.item.source.name == self.network.input
            else self.producer(at, band.item.source.name, self.last_tile_read(band)) + 1
            for at, band in enumerate(self.bands)
            if isinstance(band.item, ArrayPass)
        ]

    def write_back_needs(self) -> list[int]:
        """Fills to be finished before each write-back instruction may overwrite its plane rows."""
        total = len(self.array_bands)
        needs = []
        before = 0  # array bands
        for band in self.bands:
            need = -total
            if band.item.planes is not None:
                mine = self.memory.plane_region(band.item.planes.name, band.copy)
                for at, reader in enumerate(self.array_bands):
                    if self.memory.plane_region(reader.item.source.name, reader.copy).overlaps(mine):
                        need = max(need, at + 1 if at < before else at + 1 - total)
            needs.append(need)
            before += isinstance(band.item, ArrayPass)
        return needs

    def image_parts(self) -> list[tuple[int, int]]:
        """Position tiles of the image, first and count, in the order in which they are loaded."""
        strips = self.memory.strips
        if strips is not None:
            return [(stretch.first, stretch.tiles) for stretch in strips.order if stretch.index < 0]
        height, width, _ = self.network.tensors[self.network.input].shape
        return [(0, -(-height * width // self.engine.columns))]

    def image_needs(self) -> list[int]:
        """Parts of the image to be loaded before each execute instruction."""
        parts = self.image_parts()
        needs = []
        for band in self.array_bands:
            last = self.last_tile_read(band) if band.item.source.name == self.network.input else -1
            needs.append(sum(first <= last for first, _ in parts) + (band.copy * len(parts) if last >= 0 else 0))
        return needs

    def image_posts(self) -> list[int]:
        """Execute instructions after which fill tells fetch that rows of the image are free."""
        # Fill reads in order: once it is through with the last of them, all of the image's rows are.
        batch, free_after = self.memory.batch, self.memory.image_free_after
        if batch.size > 1:
            # Between two images only the front runs.
            return [
                max(
                    at
                    for at, band in enumerate(self.array_bands)
                    if band.layer <= free_after
                    and (band.copy == copy if band.layer < batch.turn else copy == batch.size - 1)
                )
                for copy in range(batch.size)
            ]
        last = max(at for at, band in enumerate(self.array_bands) if band.layer <= free_after)
        readers = [at for at, band in enumerate(self.array_bands) if band.item.source.name == self.network.input]
        return sorted({*readers, last}) if self.memory.strips is not None else [last]

    def load_needs(self) -> list[int]:
        """Posts of this image before each part of it is loaded; 0: all those of the image before."""
        region = self.memory.planes[self.network.input]
        needs = []
        for first, tiles in self.image_parts():
            freed = first + tiles - region.ring  # tiles before this one are overwritten
            reading = [
                count
                for count, at in enumerate(self.image_posts(), 1)
                if region.ring and self._reads_image_before(self.array_bands[at], freed)
            ]
            needs.append(max(reading, default=0))
        # The posts of the images before, of which each has one in a batch.
        return [copy + need for copy in range(self.memory.batch.size) for need in needs]

    def _reads_image_before(self, band: Band, tile: int) -> bool:
        window = band.item.window
        if band.item.source.name != self.network.input:
            return False
        row = band.first * self.engine.columns // window.out_width * window.stride - window.pad
        return max(row, 0) * window.in_width // self.engine.columns < tile

    def fence(self, at: int) -> bool:
        """Whether the skip codes of a band may still be in the lanes when it is armed."""
        band = self.bands[at]
        if not isinstance(band.item, ArrayPass) or band.item.skip is None:
            return False
        tile = band.first + band.tiles - 1
        return self.producer(at, band.item.skip.name, tile) >= at - 2
