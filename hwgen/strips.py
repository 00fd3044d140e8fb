"""Strips: the first passes of a network, interleaved band by band, so that large maps never lie on chip whole.

A strip is a share of a map's rows, the same share of every map. The last pass that finds what it reads goes first, so little
of a map is there at a time. Maps between interleaved passes live in rings: a power of two of position tiles, tile t in row
t modulo the ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hwgen.network import Tensor
from hwgen.passes import ArrayPass, Pass, PoolPass, Window

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
    tiles = -(-image.shape[0] * image.shape[1] // columns)
    return _plan(tuple(map(_flow, passes)), interleaved, count, image.name, tiles, columns)


@dataclass(frozen=True)
class _Flow:
    """What a pass reads, through its window and as it lies (the skip), and what it stores: names of tensors."""

    window: Window
    source: str
    skip: str | None
    stored: tuple[str, ...]


def _flow(item: Pass) -> _Flow:
    skip = item.skip.name if isinstance(item, ArrayPass) and item.skip is not None else None
    stored = dict.fromkeys(made.name for made in (item.planes, item.bytes) if made is not None)
    return _Flow(item.window, item.source.name, skip, tuple(stored))


# A search for an engine asks for the same strips hundreds of times: of its shape only the columns count.
@lru_cache(maxsize=1024)
def _plan(flows: tuple[_Flow, ...], interleaved: int, count: int, image: str, image_tiles: int, columns: int) -> Strips:
    return _Planner(flows, interleaved, count, image, image_tiles, columns).plan()


class _Planner:
    def __init__(
        self, flows: Sequence[_Flow], interleaved: int, count: int, image: str, image_tiles: int, columns: int
    ) -> None:
        self.flows = flows[:interleaved]
        self.later = flows[interleaved:]
        self.count = count
        self.image, self.image_tiles = image, image_tiles
        self.columns = columns
        self.maker = {name: index for index, item in enumerate(self.flows) for name in item.stored}
        self.readers: dict[str, list[tuple[int, bool]]] = {}
        for index in range(len(self.flows)):
            for name, windowed in self._reads(index):
                self.readers.setdefault(name, []).append((index, windowed))
        self.tiles = [item.window.tiles(columns) for item in self.flows]
        self.done = [0] * len(self.flows)  # tiles that are there
        self.loaded = 0  # tiles of the image

    # ---------------------------------------------------------------- what a pass reads
    def _reads(self, index: int) -> Iterator[tuple[str, bool]]:
        """Tensors that a pass reads, and whether through its window."""
        item = self.flows[index]
        yield item.source, True
        if item.skip is not None:
            yield item.skip, False

    def _last_tile(self, index: int, tiles: int) -> int:
        """Source tiles, from the first on, that the first ``tiles`` tiles of a pass read through its window."""
        window = self.flows[index].window
        if not tiles:
            return 0
        return window.last_pixel(min(tiles * self.columns, window.positions) - 1) // self.columns + 1

    def _first_tile(self, index: int, tiles: int) -> int:
        """First source tile that the tiles from ``tiles`` on read through the window."""
        window = self.flows[index].window
        row = tiles * self.columns // window.out_width * window.stride - window.pad
        return max(row, 0) * window.in_width // self.columns

    # ---------------------------------------------------------------- order
    def _ready(self, index: int, end: int) -> bool:
        """Whether everything is there that the first ``end`` tiles of a pass read."""
        return all(
            (self._last_tile(index, end) if windowed else end)
            <= (self.loaded if name == self.image else self.done[self.maker[name]])
            for name, windowed in self._reads(index)
        )

    def _next(self) -> Stretch:
        """What the last pass that can goes on with: so maps are used up before more of them is made."""
        for index in reversed(range(len(self.flows))):
            first, whole = self.done[index], self.tiles[index]
            end = min(first + -(-whole // self.count), whole)
            if first < whole and self._ready(index, end):
                self.done[index] = end
                return Stretch(index, first, end - first)
        first, whole = self.loaded, self.image_tiles
        step = max(_PART_PIXELS // self.columns, 1)
        self.loaded = min(first + -(-whole // (self.count * step)) * step, whole)
        return Stretch(-1, first, self.loaded - first)

    def _live(self, name: str) -> int:
        """Tiles of a tensor from the first that is still read to the last that is there."""
        end = self.loaded if name == self.image else self.done[self.maker[name]]
        first = end
        for index, windowed in self.readers.get(name, ()):
            done = self.done[index]
            if done < self.tiles[index]:
                first = min(first, self._first_tile(index, done) if windowed else done)
        return end - first

    def plan(self) -> Strips:
        outside = {name for item in self.later for name in (item.source, item.skip)}
        inside = [name for item in self.flows for name in item.stored if name not in outside]
        rings = dict.fromkeys([self.image, *inside], max(2, _PART_PIXELS // self.columns))
        stretches: list[Stretch] = []
        while self.done != self.tiles:
            stretches.append(made := self._next())
            for name in self._made(made.index):  # more of the others is not live than before
                if name in rings:
                    rings[name] = max(rings[name], self._live(name))
        rings = {name: 1 << (tiles - 1).bit_length() for name, tiles in rings.items()}
        order = tuple(part for stretch in stretches for part in self._cut(stretch, rings))
        return Strips(self.count, len(self.flows), order, rings)

    def _made(self, index: int) -> tuple[str, ...]:
        """Tensors of which a stretch makes or loads tiles."""
        return (self.image,) if index < 0 else self.flows[index].stored

    def _cut(self, stretch: Stretch, rings: dict[str, int]) -> Iterator[Stretch]:
        """Cut where a ring that is written, or read for the skip, begins anew."""
        skip = None if stretch.index < 0 else self.flows[stretch.index].skip
        found = [rings[name] for name in (*self._made(stretch.index), skip) if name in rings]
        first, end = stretch.first, stretch.first + stretch.tiles
        while first < end:
            stop = min([end, *(first // ring * ring + ring for ring in found)])
            yield Stretch(stretch.index, first, stop - first)
            first = stop
