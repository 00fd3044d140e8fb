"""The memory planner: where every tensor, weight row and parameter lies on chip, and what that leaves free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hwgen.batch import ALONE, Batch
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.fill import run_operations, tile_runs
from hwgen.network import Tensor
from hwgen.passes import NIBBLE, ArrayPass, MeanPass, Pass, PoolPass, count_fits
from hwgen.residency import WeightPart, place_weights
from hwgen.strips import Strips, can_interleave, plan_strips
from hwgen.words import WordPlan, plan_words

_STRIP_ROWS = (16, 8, 6, 4, 3, 2, 1)  # of the last interleaved pass
_STRIP_SHARE = 12  # strips take at most two thirds of a program memory: an instruction has eight words


@dataclass(frozen=True)
class Region:
    """Rows [base, base + rows) of a buffer; ``pitch`` rows lie between two planes or channel groups.

    ring: of that many position tiles the latest lie there, a power of two and the pitch; 0: the whole map does.
    """

    base: int
    rows: int
    pitch: int
    ring: int = 0

    def copy(self, index: int, size: int) -> Region:
        """The share of one image in a region for ``size`` images."""
        return Region(self.base + index * self.rows // size, self.rows // size, self.pitch)

    def row(self, tile: int) -> int:
        """Row of a position tile, after the first row of its plane or channel group."""
        return tile % self.ring if self.ring else tile

    def overlaps(self, other: Region) -> bool:
        return self.base < other.base + other.rows and other.base < self.base + self.rows


@dataclass(frozen=True)
class MemoryPlan:
    """planes, bytes: regions by tensor name. words, param_base: by pass name. weights: in program order.

    image_free_after: index of the array pass after whose reading the next image may be loaded. strips: how the first
    passes are interleaved, where their maps are too large.
    """

    planes: dict[str, Region]
    bytes: dict[str, Region]
    words: dict[str, WordPlan]
    weights: tuple[WeightPart, ...]
    param_base: dict[str, int]
    params: int
    image_free_after: int
    strips: Strips | None = None
    batch: Batch = ALONE

    def plane_region(self, name: str, copy: int) -> Region:
        """Where the planes of a tensor lie, of one image of the batch."""
        region = self.planes[name]
        return region.copy(copy, self.batch.size) if name == self.batch.waiting else region

    @property
    def resident_rows(self) -> int:
        """Weight rows that are loaded once per run, from row 0 on."""
        return sum(part.rows for part in self.weights if not part.streamed)

    @property
    def streamed_rows(self) -> int:
        """Weight rows that are loaded for every image."""
        return sum(part.rows for part in self.weights if part.streamed)

    def used_rows(self) -> dict[str, int]:
        """Rows in use per buffer."""
        return {
            "weight": max((part.base + part.rows for part in self.weights), default=0),
            "plane": max((region.base + region.rows for region in self.planes.values()), default=0),
            "byte": max((region.base + region.rows for region in self.bytes.values()), default=0),
            "param": self.params,
        }


@dataclass(frozen=True)
class _Need:
    tensor: Tensor
    rows: int
    pitch: int
    spans: tuple[tuple[int, int], ...]  # first and last pass during which it must lie there
    ring: int = 0

    def meets(self, other: _Need) -> bool:
        return any(a <= d and c <= b for a, b in self.spans for c, d in other.spans)


def choose_words(made: ArrayPass, engine: EngineConfig) -> WordPlan:
    """Plain or merged words: what fits the column buffer, then what takes fewer cycles, then fewer weight rows."""
    window = made.window
    taps = window.kernel_h * window.kernel_w
    ways = [(True, True)] if made.nibbles else [(False, False)]
    # Merged words share a weight row between planes of equal sign, and count all channels.
    if made.bipolar and not made.nibbles and count_fits(made.codes[0].size, made.source.bits):
        ways.append((True, False))
    plans = [
        plan_words(
            made.source.shape[2],
            made.channels_out,
            taps,
            made.weight_planes,
            made.source.bits,
            engine,
            depthwise=made.depthwise,
            merged=merged,
            nibbles=nibbles,
        )
        for merged, nibbles in ways
    ]
    runs = tile_runs(window, engine.columns)

    def cost(plan: WordPlan) -> tuple[bool, float, int]:
        fill = sum(runs) / len(runs) * run_operations(plan, window, engine.slots, depthwise=made.depthwise)
        array = plan.row_tiles * max(plan.row_words, engine.beats)
        return plan.column_words > engine.half_words, max(array, fill), plan.weight_rows

    return min(plans, key=cost)


def _place(need: _Need, placed: Sequence[tuple[_Need, Region]]) -> Region:
    """The lowest rows that are free for a map, beside those that live at the same time."""
    rivals = sorted((region for other, region in placed if need.meets(other)), key=lambda region: region.base)
    step = max(need.ring, 1)
    base = 0
    for region in rivals:
        if base + need.rows <= region.base:
            break
        base = max(base, -(-(region.base + region.rows) // step) * step)
    return Region(base, need.rows, need.pitch, need.ring)


def _first_fit(needs: Sequence[_Need]) -> list[tuple[_Need, Region]]:
    """One map after the other where it fits first."""
    placed: list[tuple[_Need, Region]] = []
    for need in needs:
        placed.append((need, _place(need, placed)))
    return placed


def _regions(placed: Sequence[tuple[_Need, Region]]) -> dict[str, Region]:
    return {need.tensor.name: region for need, region in placed}


def _needs(
    passes: Sequence[Pass],
    batch: Batch,
    strips: Strips | None,
    made_in: Callable[[Pass], Tensor | None],
    reads: Callable[[Pass, str], bool],
    rows: Callable[[Tensor], tuple[int, int]],
) -> list[_Need]:
    needs = []
    together = strips.passes if strips is not None else 0  # these run all at the same time
    rings = strips.rings if strips is not None else {}
    sources: list[tuple[Tensor, int]] = [
        (tensor, index) for index, item in enumerate(passes) if (tensor := made_in(item)) is not None
    ]
    for tensor, index in sources:
        last = max((at for at, item in enumerate(passes) if reads(item, tensor.name)), default=index)
        count, pitch = rows(tensor)
        span = (0, max(last, together - 1)) if index < together else (index, last)
        if tensor.name == batch.waiting:
            # One for each image: the passes before run again meanwhile.
            count, span = count * batch.size, (0, last)
        needs.append(_Need(tensor, count, pitch, (span,), rings.get(tensor.name, 0)))
    return needs


class _Maps:
    """Where maps lie, for one way to interleave the first passes."""

    def __init__(
        self, passes: Sequence[Pass], image: Tensor, engine: EngineConfig, strips: Strips | None, batch: Batch
    ) -> None:
        self.passes = passes
        self.batch = batch
        self.image = image
        self.engine = engine
        self.strips = strips
        self.nibbles = any(isinstance(item, ArrayPass) and item.nibbles for item in passes)
        self.planes, self.image_free_after = self._planes()
        needs = _needs(passes, batch, strips, lambda item: item.bytes, _reads_bytes, self._byte_rows)
        self.bytes = _regions(_first_fit(needs))

    @property
    def fit(self) -> bool:
        engine = self.engine
        return _top(self.planes) <= engine.plane_depth and _top(self.bytes) <= engine.byte_depth

    def _pitch(self, tensor: Tensor) -> int:
        whole = -(-tensor.shape[0] * tensor.shape[1] // self.engine.columns)
        return self.strips.rings.get(tensor.name, whole) if self.strips is not None else whole

    def _plane_rows(self, tensor: Tensor) -> tuple[int, int]:
        pitch = self._pitch(tensor)
        if self.nibbles and tensor is self.image:
            return -(-tensor.bits // NIBBLE) * pitch, pitch
        return -(-tensor.shape[2] // self.engine.slot_channels) * tensor.bits * pitch, pitch

    def _byte_rows(self, tensor: Tensor) -> tuple[int, int]:
        pitch = self._pitch(tensor)
        return -(-tensor.shape[2] // self.engine.rows) * self.engine.beats * pitch, pitch

    def _planes(self) -> tuple[dict[str, Region], int]:
        """Regions of the plane buffer; the next image as early as possible, later where large maps need its rows."""
        passes, strips = self.passes, self.strips
        together = strips.passes if strips is not None else 0
        last = max([together - 1, *(at for at, item in enumerate(passes) if _reads_planes(item, self.image.name))])
        ring = strips.rings.get(self.image.name, 0) if strips is not None else 0
        placed = _first_fit(_needs(passes, self.batch, strips, lambda item: item.planes, _reads_planes, self._plane_rows))
        regions = _regions(placed)
        # The image last: above the first maps it meets few others.
        for free_after in (at for at, item in enumerate(passes) if isinstance(item, ArrayPass) and at >= last):
            spans = ((-1, last), (free_after + 1, len(passes)))
            need = _Need(self.image, *self._plane_rows(self.image), spans, ring)
            regions[self.image.name] = _place(need, placed)
            if _top(regions) <= self.engine.plane_depth:
                break
        return regions, free_after


def _top(regions: Mapping[str, Region]) -> int:
    return max((region.base + region.rows for region in regions.values()), default=0)


def _reads_planes(item: Pass, name: str) -> bool:
    return isinstance(item, ArrayPass) and item.source.name == name


def _reads_bytes(item: Pass, name: str) -> bool:
    if isinstance(item, ArrayPass):
        return item.skip is not None and item.skip.name == name
    return isinstance(item, PoolPass) and item.source.name == name


def _interleaved(
    passes: Sequence[Pass], image: Tensor, words: Mapping[str, WordPlan], engine: EngineConfig
) -> tuple[_Maps, tuple[WeightPart, ...]] | None:
    """Maps and weights with as few passes in strips, and as few strips, as fit; None where nothing does."""
    array = [item for item in passes if isinstance(item, ArrayPass)]
    for together in range(1, len(passes)):
        if not can_interleave(passes[together - 1]):
            return None
        height = passes[together - 1].window.out_height
        for rows in _STRIP_ROWS:
            strips = plan_strips(passes, together, -(-height // rows), image, engine.columns)
            if rows >= height or len(strips.order) > engine.program_depth // _STRIP_SHARE:
                continue
            maps = _Maps(passes, image, engine, strips, ALONE)
            if not maps.fit:
                continue
            try:
                return maps, place_weights(array, words, engine, frozenset(item.name for item in passes[:together]))
            except InputError:
                break  # more passes have more weights
    return None


def plan_memory(passes: Sequence[Pass], image: str, engine: EngineConfig, batch: Batch = ALONE) -> MemoryPlan:
    """Place everything.

    Raises:
        InputError: buffers that are too small, all at once, with what would fit.
    """
    words, param_base = {}, {}
    params = 0
    problems = []
    for item in passes:
        if isinstance(item, MeanPass):
            param_base[item.name] = params
            params += -(-item.channels_out // engine.rows) * engine.rows
        if not isinstance(item, ArrayPass):
            continue
        plan = choose_words(item, engine)
        words[item.name] = plan
        param_base[item.name] = params
        params += plan.row_tiles * engine.rows
        if plan.column_words > engine.half_words:
            problems.append(
                f"node '{item.name}': a position tile needs {plan.column_words} column words, half the column buffer"
                f" holds {engine.half_words}; use an engine with column_depth {2 * _power(plan.column_words)}."
            )
    source = next(item.source for item in passes if item.source.name == image)
    maps = _Maps(passes, source, engine, None, batch)
    found = None if maps.fit or batch.size > 1 else _interleaved(passes, source, words, engine)
    weights: tuple[WeightPart, ...] = ()
    if found is not None:
        maps, weights = found
    else:
        try:
            front = frozenset(item.name for item in passes[: max(batch.turn, 0)])
            weights = place_weights([item for item in passes if isinstance(item, ArrayPass)], words, engine, front)
        except InputError as error:
            problems += error.problems
    memory = MemoryPlan(
        maps.planes, maps.bytes, words, weights, param_base, params, maps.image_free_after, maps.strips, batch
    )
    used = memory.used_rows()
    for buffer, depth, what in (
        ("plane", engine.plane_depth, "rows of bit planes"),
        ("byte", engine.byte_depth, "rows of skip and pool codes"),
        ("param", engine.param_depth, "parameter channels"),
    ):
        if used[buffer] > depth:
            problems.append(
                f"The network needs {used[buffer]} {what}, the engine has {depth}: {used[buffer] - depth} too many."
                f" An engine with {buffer}_depth {_power(used[buffer])} would hold it, or fewer bits or channels."
            )
    if problems:
        raise InputError(problems, f"engine {engine.name}")
    return memory


def _power(value: int) -> int:
    return 1 << (value - 1).bit_length()
