"""Strips: the first passes of a network, interleaved band by band, so that large maps never lie on chip whole.

A strip is a share of a map's rows, the same share of every map. The last pass that finds what it reads goes first, so little
of a map is there at a time. Maps between interleaved passes live in rings: a power of two of position tiles, tile t in row
t modulo the ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwgen.network import Tensor
from hwgen.passes import ArrayPass, Pass, PoolPass

_PART_PIXELS = 8  # an image's part begins at a multiple of this


@dataclass(frozen=True)
class Stretch:
    """Position tiles [first, first + tiles) of a pass, or of the image where ``index`` is -1."""

    index: int
    first: int
    tiles: int


@dataclass(frozen=True)
class Strips:
    """count: into which every map is cut. passes: how many are interleaved. order: what is computed and loaded, one after
    the other. rings: position tiles by tensor name.
    """

    count: int
    passes: int
    order: tuple[Stretch, ...]
    rings: dict[str, int]


def can_interleave(item: Pass) -> bool:
    """Whether a pass may run in strips: it stores whole tiles where they belong, and nothing but maps."""
    if isinstance(item, ArrayPass):
        return not (item.logits or item.sums or item.window.pooled or item.subsample)
    return isinstance(item, PoolPass)


def plan_strips(passes: Sequence[Pass], interleaved: int, count: int, image: Tensor, columns: int) -> Strips:
    """Interleave the first passes, every map in ``count`` strips.

    Args:
        interleaved: how many passes; each of them must pass :func:`can_interleave`.
        columns: position tiles hold so many pixels.
    """
    return _Planner(passes, interleaved, count, image, columns).plan()


def _map_tiles(tensor: Tensor, columns: int) -> int:
    return -(-tensor.shape[0] * tensor.shape[1] // columns)


class _Planner:
    def __init__(self, passes: Sequence[Pass], interleaved: int, count: int, image: Tensor, columns: int) -> None:
        self.passes = passes[:interleaved]
        self.later = passes[interleaved:]
        self.count = count
        self.image = image
        self.columns = columns
        self.maker = {item.name: index for index, made in enumerate(self.passes) for item in _stored(made)}
        self.tiles = [made.window.tiles(columns) for made in self.passes]
        self.done = [0] * len(self.passes)  # tiles that are there
        self.loaded = 0  # tiles of the image

    # ---------------------------------------------------------------- what a pass reads
    def _reads(self, index: int) -> Iterator[tuple[str, bool]]:
        """Tensors that a pass reads, and whether through its window."""
        item = self.passes[index]
        yield item.source.name, True
        if isinstance(item, ArrayPass) and item.skip is not None:
            yield item.skip.name, False

    def _last_tile(self, index: int, tiles: int) -> int:
        """Source tiles, from the first on, that the first ``tiles`` tiles of a pass read through its window."""
        window = self.passes[index].window
        if not tiles:
            return 0
        return window.last_pixel(min(tiles * self.columns, window.positions) - 1) // self.columns + 1

    def _first_tile(self, index: int, tiles: int) -> int:
        """First source tile that the tiles from ``tiles`` on read through the window."""
        window = self.passes[index].window
        row = tiles * self.columns // window.out_width * window.stride - window.pad
        return max(row, 0) * window.in_width // self.columns

    # ---------------------------------------------------------------- order
    def _ready(self, index: int, end: int) -> bool:
        """Whether everything is there that the first ``end`` tiles of a pass read."""
        return all(
            (self._last_tile(index, end) if windowed else end)
            <= (self.loaded if name == self.image.name else self.done[self.maker[name]])
            for name, windowed in self._reads(index)
        )

    def _next(self) -> Stretch:
        """What the last pass that can goes on with: so maps are used up before more of them is made."""
        for index in reversed(range(len(self.passes))):
            first, whole = self.done[index], self.tiles[index]
            end = min(first + -(-whole // self.count), whole)
            if first < whole and self._ready(index, end):
                self.done[index] = end
                return Stretch(index, first, end - first)
        first, whole = self.loaded, _map_tiles(self.image, self.columns)
        step = max(_PART_PIXELS // self.columns, 1)
        self.loaded = min(first + -(-whole // (self.count * step)) * step, whole)
        return Stretch(-1, first, self.loaded - first)

    def _live(self, name: str) -> int:
        """Tiles of a tensor from the first that is still read to the last that is there."""
        end = self.loaded if name == self.image.name else self.done[self.maker[name]]
        first = end
        for index, done in enumerate(self.done):
            for source, windowed in self._reads(index):
                if source == name and done < self.tiles[index]:
                    first = min(first, self._first_tile(index, done) if windowed else done)
        return end - first

    def plan(self) -> Strips:
        inside = [
            made.name
            for item in self.passes
            for made in _stored(item)
            if not any(_reads_outside(later, made.name) for later in self.later)
        ]
        rings = dict.fromkeys([self.image.name, *inside], max(2, _PART_PIXELS // self.columns))
        stretches: list[Stretch] = []
        while self.done != self.tiles:
            stretches.append(self._next())
            for name in rings:
                rings[name] = max(rings[name], self._live(name))
        rings = {name: 1 << (tiles - 1).bit_length() for name, tiles in rings.items()}
        order = tuple(part for stretch in stretches for part in self._cut(stretch, rings))
        return Strips(self.count, len(self.passes), order, rings)

    def _cut(self, stretch: Stretch, rings: dict[str, int]) -> Iterator[Stretch]:
        """Cut where a ring that is written, or read for the skip, begins anew."""
        if stretch.index < 0:
            names = [self.image.name]
        else:
            item = self.passes[stretch.index]
            names = [made.name for made in _stored(item)]
            if isinstance(item, ArrayPass) and item.skip is not None:
                names.append(item.skip.name)
        found = [rings[name] for name in names if name in rings]
        first, end = stretch.first, stretch.first + stretch.tiles
        while first < end:
            stop = min([end, *(first // ring * ring + ring for ring in found)])
            yield Stretch(stretch.index, first, stop - first)
            first = stop


def _stored(item: Pass) -> tuple[Tensor, ...]:
    return tuple({made.name: made for made in (item.planes, item.bytes) if made is not None}.values())


def _reads_outside(item: Pass, name: str) -> bool:
    if isinstance(item, ArrayPass) and item.skip is not None and item.skip.name == name:
        return True
    return item.source.name == name
