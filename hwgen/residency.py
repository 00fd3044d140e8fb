"""Where weights live: resident for the whole run, or streamed from memory once per image.

Streamed weights share a ring of rows at the end of the weight buffer. They are loaded in program order, each part as
soon as the parts that its rows belonged to have been read. A streamed pass of many rows is cut into parts of whole
channel groups, so that loading and computing overlap within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.fill import run_operations, tile_runs
from hwgen.passes import ArrayPass
from hwgen.words import WordPlan

_ALL_SETS = 10  # passes of which every set is tried
_LATENCY = 120  # cycles from a load's start to its first row, a slow memory's
_IMAGES = 4  # walked to find the steady state


@dataclass(frozen=True)
class WeightPart:
    """Row tiles [first, first + row_tiles) of a pass, in rows [base, base + rows) of the weight buffer."""

    item: ArrayPass
    first: int
    row_tiles: int
    rows: int
    base: int
    streamed: bool

    def overlaps(self, other: WeightPart) -> bool:
        return self.base < other.base + other.rows and other.base < self.base + self.rows


def streamed_needs(parts: Sequence[WeightPart]) -> list[int]:
    """For each streamed part, how many streamed parts of this image must have been read before its load may start.

    0 or less reaches back into the image before: -n is all but the last n of it.
    """
    streamed = [part for part in parts if part.streamed]
    needs = []
    for at, part in enumerate(streamed):
        before = [k + 1 for k in range(at) if streamed[k].overlaps(part)]
        last_image = [k + 1 - len(streamed) for k in range(at, len(streamed)) if streamed[k].overlaps(part)]
        needs.append(max(before + last_image))
    return needs


def place_weights(
    passes: Sequence[ArrayPass],
    words: Mapping[str, WordPlan],
    engine: EngineConfig,
    resident: frozenset[str] = frozenset(),
) -> tuple[WeightPart, ...]:
    """Place the weights of every pass; parts in program order.

    Args:
        resident: passes whose weights must not be streamed.

    Raises:
        InputError: not even a channel group of some pass fits beside another.
    """
    total = sum(words[item.name].weight_rows for item in passes)
    if total <= engine.weight_depth:
        return _place(passes, words, engine, frozenset(), 0) or ()
    cycles = {item.name: _cycles(item, words[item.name], engine) for item in passes}
    tried = []
    movable = [item for item in passes if item.name not in resident]
    for streamed in _candidates(movable, words, cycles):
        ring = engine.weight_depth - sum(words[item.name].weight_rows for item in passes if item.name not in streamed)
        parts = _place(passes, words, engine, streamed, ring) if ring > 0 else None
        if parts is not None:
            rows = sum(part.rows for part in parts if part.streamed)
            tried.append((_period(parts, cycles, words, engine), rows, parts))
    if not tried:
        need = 2 * max(
            words[item.name].weight_pitch * engine.rows_per_group if _divisible(item) else words[item.name].weight_rows
            for item in passes
        )
        raise InputError(
            f"The weights need {total} rows, the engine has {engine.weight_depth}, too few even to stream them. An engine"
            f" with weight_depth {1 << (need - 1).bit_length()} would hold it, or fewer bits or channels.",
            f"engine {engine.name}",
        )
    return min(tried, key=lambda item: item[:2])[2]


def _candidates(
    passes: Sequence[ArrayPass], words: Mapping[str, WordPlan], cycles: Mapping[str, float]
) -> Iterator[frozenset[str]]:
    """Sets of passes to stream: all of them for few passes, else the first ones by several orders."""
    names = [item.name for item in passes]
    if len(names) <= _ALL_SETS:
        for count in range(1, len(names) + 1):
            yield from map(frozenset, combinations(names, count))
        return
    orders: tuple[Callable[[str], float], ...] = (
        lambda name: -cycles[name] / words[name].weight_rows,
        lambda name: -words[name].weight_rows,
        lambda name: -names.index(name),
        lambda name: names.index(name),
    )
    for order in orders:
        ordered = sorted(names, key=order)
        yield from (frozenset(ordered[:count]) for count in range(1, len(names) + 1))


def _place(
    passes: Sequence[ArrayPass],
    words: Mapping[str, WordPlan],
    engine: EngineConfig,
    streamed: frozenset[str],
    ring: int,
) -> tuple[WeightPart, ...] | None:
    """Residents from row 0 on, the ring at the end; None where a part does not fit half of the ring."""
    parts: list[WeightPart] = []
    base, at, start = 0, 0, engine.weight_depth - ring
    for item in passes:
        plan = words[item.name]
        if item.name not in streamed:
            parts.append(WeightPart(item, 0, plan.row_tiles, plan.weight_rows, base, False))
            base += plan.weight_rows
            continue
        step = plan.row_tiles
        if plan.weight_rows > ring // 2:
            group = engine.rows_per_group
            step = ring // 2 // plan.weight_pitch // group * group
            if not step or not _divisible(item):
                return None
        for first in range(0, plan.row_tiles, step):
            tiles = min(step, plan.row_tiles - first)
            rows = tiles * plan.weight_pitch
            if at + rows > ring:
                at = 0
            parts.append(WeightPart(item, first, tiles, rows, start + at, True))
            at += rows
    return tuple(parts)


def _divisible(item: ArrayPass) -> bool:
    """Whether a pass may run in parts: a depthwise one reads the groups from its source's first on."""
    return not item.depthwise


def _cycles(item: ArrayPass, plan: WordPlan, engine: EngineConfig) -> float:
    """Cycles of a pass, roughly: of the array, or of fill where that is slower."""
    runs = tile_runs(item.window, engine.columns)
    fill = sum(runs) * run_operations(plan, item.window, engine.slots, depthwise=item.depthwise)
    return max(len(runs) * plan.row_tiles * max(plan.row_words, engine.beats), fill)


def _period(
    parts: Sequence[WeightPart], cycles: Mapping[str, float], words: Mapping[str, WordPlan], engine: EngineConfig
) -> float:
    """Cycles from one image to the next, when loads and the array do nothing but wait for each other."""
    needs = streamed_needs(parts)
    read: list[float] = []  # when each streamed part has been read, over all images
    ends = []
    loaded = done = 0.0
    for image in range(_IMAGES):
        index = 0
        for part in parts:
            start = done
            if part.streamed:
                need = image * len(needs) + needs[index]
                loaded = max(loaded, read[need - 1] if need > 0 else 0.0) + part.rows * engine.row_chunks
                start = max(start, loaded + _LATENCY)
                index += 1
            done = start + cycles[part.item.name] * part.row_tiles / words[part.item.name].row_tiles
            if part.streamed:
                read.append(done)
        ends.append(done)
    return ends[-1] - ends[-2]
