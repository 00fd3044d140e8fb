"""The memory planner: where every tensor, weight row and parameter lies on chip, and what that leaves free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.fill import run_operations, tile_runs
from hwgen.network import Tensor
from hwgen.passes import NIBBLE, ArrayPass, MeanPass, Pass, PoolPass, count_fits
from hwgen.residency import WeightPart, place_weights
from hwgen.words import WordPlan, plan_words


@dataclass(frozen=True)
class Region:
    """Rows [base, base + rows) of a buffer; ``pitch`` rows lie between two planes or channel groups."""

    base: int
    rows: int
    pitch: int

    def overlaps(self, other: Region) -> bool:
        return self.base < other.base + other.rows and other.base < self.base + self.rows


@dataclass(frozen=True)
class MemoryPlan:
    """planes, bytes: regions by tensor name. words, param_base: by pass name. weights: in program order.

    image_free_after: index of the array pass after whose reading the next image may be loaded.
    """

    planes: dict[str, Region]
    bytes: dict[str, Region]
    words: dict[str, WordPlan]
    weights: tuple[WeightPart, ...]
    param_base: dict[str, int]
    params: int
    image_free_after: int

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


def _first_fit(needs: Sequence[_Need]) -> dict[str, Region]:
    """Lowest free rows for each map, those that live at the same time side by side."""
    placed: list[tuple[_Need, Region]] = []
    for need in needs:
        rivals = sorted(
            (region for other, region in placed if need.meets(other)),
            key=lambda region: region.base,
        )
        base = 0
        for region in rivals:
            if base + need.rows <= region.base:
                break
            base = max(base, region.base + region.rows)
        placed.append((need, Region(base, need.rows, need.pitch)))
    return {need.tensor.name: region for need, region in placed}


def _needs(
    passes: Sequence[Pass],
    image: _Need | None,
    made_in: Callable[[Pass], Tensor | None],
    reads: Callable[[Pass, str], bool],
    rows: Callable[[Tensor], tuple[int, int]],
) -> list[_Need]:
    needs = []
    sources: list[tuple[Tensor, int]] = [
        (tensor, index) for index, item in enumerate(passes) if (tensor := made_in(item)) is not None
    ]
    for tensor, index in sources:
        last = max((at for at, item in enumerate(passes) if reads(item, tensor.name)), default=index)
        count, pitch = rows(tensor)
        needs.append(_Need(tensor, count, pitch, ((index, last),)))
    # The image last: above the first maps it meets few others.
    return needs if image is None else [*needs, image]


def plan_memory(passes: Sequence[Pass], image: str, engine: EngineConfig) -> MemoryPlan:
    """Place everything.

    Raises:
        InputError: buffers that are too small, all at once, with what would fit.
    """

    nibbles = any(isinstance(item, ArrayPass) and item.nibbles for item in passes)

    def plane_rows(tensor: Tensor) -> tuple[int, int]:
        pitch = -(-tensor.shape[0] * tensor.shape[1] // engine.columns)
        if nibbles and tensor.name == image:
            return -(-tensor.bits // NIBBLE) * pitch, pitch
        return -(-tensor.shape[2] // engine.slot_channels) * tensor.bits * pitch, pitch

    def byte_rows(tensor: Tensor) -> tuple[int, int]:
        pitch = -(-tensor.shape[0] * tensor.shape[1] // engine.columns)
        return -(-tensor.shape[2] // engine.rows) * engine.beats * pitch, pitch

    def reads_planes(item: Pass, name: str) -> bool:
        return isinstance(item, ArrayPass) and item.source.name == name

    def reads_bytes(item: Pass, name: str) -> bool:
        if isinstance(item, ArrayPass):
            return item.skip is not None and item.skip.name == name
        return isinstance(item, PoolPass) and item.source.name == name

    def place_planes(free_after: int) -> dict[str, Region]:
        """The next image is loaded while the passes after ``free_after`` run."""
        source = next(item.source for item in passes if item.source.name == image)
        need = _Need(source, *plane_rows(source), ((-1, readers[-1]), (free_after + 1, len(passes))))
        return _first_fit(_needs(passes, need, lambda item: item.planes, reads_planes, plane_rows))

    # The next image as early as possible, later where its rows are needed for large maps.
    readers = [index for index, item in enumerate(passes) if reads_planes(item, image)]
    array = [index for index, item in enumerate(passes) if isinstance(item, ArrayPass) and index >= readers[-1]]
    for image_free_after in array:
        planes = place_planes(image_free_after)
        if max(region.base + region.rows for region in planes.values()) <= engine.plane_depth:
            break
    as_bytes = _first_fit(_needs(passes, None, lambda item: item.bytes, reads_bytes, byte_rows))
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
    weights: tuple[WeightPart, ...] = ()
    try:
        weights = place_weights([item for item in passes if isinstance(item, ArrayPass)], words, engine)
    except InputError as error:
        problems += error.problems
    memory = MemoryPlan(planes, as_bytes, words, weights, param_base, params, image_free_after)
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
