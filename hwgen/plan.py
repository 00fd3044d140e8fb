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
    """planes, bytes: regions by tensor name. words, param_base: by pass name. weights: in program order."""

    planes: dict[str, Region]
    bytes: dict[str, Region]
    words: dict[str, WordPlan]
    weights: tuple[WeightPart, ...]
    param_base: dict[str, int]
    params: int

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
    first: int
    last: int


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
            (region for other, region in placed if need.first <= other.last and other.first <= need.last),
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
    image: str,
    made_in: Callable[[Pass], Tensor | None],
    reads: Callable[[Pass, str], bool],
    rows: Callable[[Tensor], tuple[int, int]],
) -> list[_Need]:
    needs = []
    sources: list[tuple[Tensor, int]] = [
        (tensor, index) for index, item in enumerate(passes) if (tensor := made_in(item)) is not None
    ]
    first_source = next((item.source for item in passes if item.source.name == image), None)
    if first_source is not None and any(reads(item, image) for item in passes):
        # The next image is loaded while this one is still worked on.
        count, pitch = rows(first_source)
        needs.append(_Need(first_source, count, pitch, -1, len(passes)))
    for tensor, index in sources:
        last = max((at for at, item in enumerate(passes) if reads(item, tensor.name)), default=index)
        count, pitch = rows(tensor)
        needs.append(_Need(tensor, count, pitch, index, last))
    return needs


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

    planes = _first_fit(_needs(passes, image, lambda item: item.planes, reads_planes, plane_rows))
    as_bytes = _first_fit(_needs(passes, "", lambda item: item.bytes, reads_bytes, byte_rows))
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
    memory = MemoryPlan(planes, as_bytes, words, weights, param_base, params)
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
