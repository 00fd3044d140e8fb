"""Choosing the engine's shape: the fastest one for a network that fits the board.

Shapes are looked at in the order of their packed tile bound. The fitted area model drops those that do not fit, without
synthesis; the bound drops those that cannot be among the best; the cycle model times the rest at several buffer depths,
a weight buffer that holds only part of the network among them. What is dropped by a bound could not have been better.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hwgen.area import Area, estimate_area
from hwgen.board import Board
from hwgen.cycles import layer_bound, time_program
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.fill import run_operations, tile_runs
from hwgen.lower import lower
from hwgen.network import AvgPool, Network
from hwgen.passes import ArrayPass, Pass
from hwgen.plan import MemoryPlan, plan_memory
from hwgen.schedule import Schedule, schedule, tile_cycles

_log = logging.getLogger(__name__)
_ROWS = (4, 8, 16)
_COLUMNS = (4, 8, 16, 32)
_SLOTS = (3, 6, 9, 12, 15, 18, 24, 30)
_SLOT_CHANNELS = (16, 8)
_LANE_ROWS = (1, 2, 4, 8)
_COLUMN_DEPTHS = (512, 1024)
_PROGRAM_DEPTHS = (1024, 2048, 4096)
_LEAST_WEIGHTS = 512  # rows that one block RAM holds anyway
_MOST_WEIGHTS = 1 << 14
_KEEP = 10
_DEPTHS = ("weight_depth", "column_depth", "plane_depth", "byte_depth", "param_depth", "program_depth")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Busy:
    """Cycles per image in which the array, fill and the loading of streamed weights work; no image takes fewer."""

    array: int
    fill: int
    weights: int

    @property
    def bound(self) -> int:
        return max(self.array, self.fill, self.weights)


@dataclass(frozen=True)
class Candidate:
    """One engine, its modelled cycles per image, its estimated size, and what it is busy with."""

    engine: EngineConfig
    cycles_per_image: int
    area: Area
    busy: Busy

    @property
    def order(self) -> tuple[int, ...]:
        """What the best has least of: cycles, then LUTs, then block RAM."""
        return self.cycles_per_image, self.area.lut, self.area.bram36, self.engine.weight_depth


@dataclass(frozen=True)
class Refused:
    """A shape that does not fit: ``need`` of ``resource`` where ``limit`` is there. bound: its tile bound in cycles."""

    engine: EngineConfig
    bound: int
    resource: str
    need: int
    limit: int


@dataclass(frozen=True)
class Exploration:
    """candidates: best engine of each of the best shapes, best first. refused: shapes that the board cannot hold.

    shapes: how many there are; timed: on how many engines the cycle model was run.
    """

    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    shapes: int
    timed: int


def _power(value: int, least: int) -> int:
    return max(least, 1 << (max(value, 1) - 1).bit_length())


def fit_depths(network: Network, shape: EngineConfig) -> EngineConfig:
    """The shape with buffers just deep enough for the network (powers of two), and block RAM filled.

    Accumulators are widened to 32 bits where the network needs more than the shape has.

    Raises:
        InputError: the network cannot run on this shape at any depth.
    """
    return _fit(network, shape)[0]


def fit_board(network: Network, engine: EngineConfig, board: Board) -> Schedule:
    """The network on the engine, whose buffers grow to what it needs, as far as the board holds them.

    Weights are what can wait in memory: where the board lacks the block RAM for all of them, the weight buffer is as deep as it
    holds beside the others, shallower than the engine's own where those have grown, and the rest is streamed.

    Raises:
        InputError: the network cannot run on this shape, or not with any buffers that the board holds.
    """
    needed = fit_depths(network, engine)
    grown = replace(engine, **{name: max(getattr(engine, name), getattr(needed, name)) for name in _DEPTHS})
    need, limit = estimate_area(grown).bram36, board.resources.bram36
    problems: list[str] = []
    for tried in _depths(engine, grown, limit):
        try:
            return schedule(network, tried)
        except InputError as error:
            problems = error.problems
    if need > limit:
        problems = [
            f"Buffers that hold it whole need {need} BRAM36, {board.name} has {limit}; streaming its weights does not help."
            " Use fewer bits or channels, or another engine.",
            *problems,
        ]
    raise InputError(problems, f"network '{network.name}' on engine {engine.name}")


def _depths(engine: EngineConfig, grown: EngineConfig, limit: int) -> Iterator[EngineConfig]:
    """The grown engine and ones with smaller weight buffers where ``limit`` block RAMs hold them, last the engine as it is."""
    depth = grown.weight_depth
    while depth >= min(engine.weight_depth, _LEAST_WEIGHTS):
        # Streamed weights make more instructions.
        for program in (grown.program_depth, *(deep for deep in _PROGRAM_DEPTHS if deep > grown.program_depth)):
            made = replace(grown, weight_depth=depth, program_depth=program)
            if made == engine or estimate_area(made).bram36 <= limit:
                yield made
        depth //= 2
    if grown != engine:
        yield engine


def _fit(network: Network, shape: EngineConfig) -> tuple[EngineConfig, tuple[Pass, ...], MemoryPlan]:
    roomy = replace(
        shape,
        weight_depth=_MOST_WEIGHTS,
        plane_depth=1 << 14,
        byte_depth=1 << 14,
        param_depth=1 << 13,
        column_depth=1 << 10,
    )
    try:
        passes = lower(network, roomy)
    except InputError:
        roomy = replace(roomy, acc_bits=32)
        passes = lower(network, roomy)
    memory = plan_memory(passes, network.input, roomy)
    used = memory.used_rows()
    words = max(plan.column_words for plan in memory.words.values())
    engine = replace(
        shape,
        weight_depth=_power(used["weight"], _LEAST_WEIGHTS),
        plane_depth=_power(used["plane"], 512),
        byte_depth=_power(used["byte"], 512),
        param_depth=_power(used["param"], 1024),
        column_depth=_power(2 * words, _COLUMN_DEPTHS[0]),
        program_depth=_PROGRAM_DEPTHS[0],
        acc_bits=roomy.acc_bits,
    )
    return engine, passes, memory


def busy(passes: Sequence[Pass], memory: MemoryPlan, engine: EngineConfig) -> Busy:
    """What the units of an engine have to do for one image; each does one thing at a time."""
    array = fill = 0
    for item in passes:
        if not isinstance(item, ArrayPass):
            continue
        words = memory.words[item.name]
        runs = tile_runs(item.window, engine.columns)
        spacing = tile_cycles(item, engine)
        if not array:
            # The first row tile of an image is timed from its issue, not from the row tile before.
            array = min(words.row_words - spacing, 0)
        array += len(runs) * words.row_tiles * max(words.row_words, spacing)
        parts = sum(part.item is item for part in memory.weights)
        fill += parts * sum(runs) * run_operations(words, item.window, engine.slots, depthwise=item.depthwise)
    return Busy(array, fill, memory.streamed_rows * engine.row_chunks)


def shapes() -> Iterator[EngineConfig]:
    """Every shape that is looked at, with the least buffers."""
    for slot_channels in _SLOT_CHANNELS:
        for rows in _ROWS:
            for columns in _COLUMNS:
                for slots in _SLOTS:
                    for lane_rows in _LANE_ROWS:
                        if slot_channels % rows == 0 and rows % lane_rows == 0:
                            yield EngineConfig(
                                rows=rows,
                                columns=columns,
                                slots=slots,
                                slot_channels=slot_channels,
                                lane_rows=lane_rows,
                            )


def _silent(stage: str, done: int, total: int) -> None:
    pass


class _Search:
    def __init__(self, network: Network, board: Board) -> None:
        self.network = network
        self.limits = {
            "LUT": int(board.lut_share * board.resources.lut),
            "DSP": board.resources.dsp,
            "BRAM36": board.resources.bram36,
        }
        self.timed = 0
        self.refused: list[Refused] = []
        self.best: list[Candidate] = []
        self.impossible: set[str] = set()
        self.holding: list[Refused] = []  # of those refused, the ones with buffers that hold the network

    def excess(self, area: Area) -> tuple[str, int, int] | None:
        """The first resource of which there is too little, how much is needed and how much is there."""
        for name, need in (("LUT", area.lut), ("DSP", area.dsp), ("BRAM36", area.bram36)):
            if need > self.limits[name]:
                return name, need, self.limits[name]
        return None

    def fits(self, engine: EngineConfig) -> bool:
        return self.excess(estimate_area(engine)) is None

    def hopeless(self, bound: int) -> bool:
        return len(self.best) == _KEEP and bound > self.best[-1].cycles_per_image

    def time(self, engine: EngineConfig) -> Candidate | None:
        """None where the network does not fit the buffers or the board does not fit the engine."""
        if not self.fits(engine):
            return None
        try:
            made: Schedule = schedule(self.network, engine)
        except InputError as error:
            self.impossible.update(error.problems)
            return None
        self.timed += 1
        cycles = time_program(made).cycles_per_image
        return Candidate(engine, cycles, estimate_area(engine), busy(made.passes, made.memory, engine))

    def deepest(self, engine: EngineConfig) -> Candidate | None:
        """The largest weight buffer that the board holds, at most the given one; or the next, where that is as fast."""
        depth = engine.weight_depth
        found: Candidate | None = None
        while depth >= _LEAST_WEIGHTS:
            made = self.time(replace(engine, weight_depth=depth))
            if found is not None:
                return min((item for item in (found, made) if item), key=lambda item: item.order)
            found, depth = made, depth // 2
        return found

    def refine(self, engine: EngineConfig) -> Candidate | None:
        """The best depths for a shape, given the least ones: program, then column buffer, then weights with each."""
        found: Candidate | None = None
        for depths in (
            [{"program_depth": depth} for depth in _PROGRAM_DEPTHS],
            [{"column_depth": depth} for depth in _COLUMN_DEPTHS if depth > engine.column_depth],
        ):
            start = found.engine if found else engine
            start = replace(start, weight_depth=engine.weight_depth)
            for depth in depths:
                made = self.deepest(replace(start, **depth))
                if made and (found is None or made.order < found.order):
                    found = made
                elif found:
                    break
        return found

    def refuse(self, engine: EngineConfig, bound: int) -> bool:
        """Whether an engine with buffers that the network needs does not fit, which is noted."""
        if excess := self.excess(estimate_area(engine)):
            self.holding.append(Refused(engine, bound, *excess))
            self.refused.append(self.holding[-1])
        return excess is not None

    def look(self, shape: EngineConfig, bound: int) -> None:
        """Time a shape unless the board or a bound rules it out."""
        excess = self.excess(estimate_area(shape))
        if excess:
            self.refused.append(Refused(shape, bound, *excess))
            return
        if self.hopeless(bound):
            return
        try:
            engine, passes, memory = _fit(self.network, shape)
        except InputError as error:
            self.impossible.update(error.problems)
            return
        if self.hopeless(busy(passes, memory, engine).bound):
            return
        least = replace(engine, weight_depth=_LEAST_WEIGHTS)
        if self.refuse(least, bound):
            return
        made = self.refine(engine)
        if made is None:
            # The network needs more weight rows at once than fit: what it would need to hold them all.
            self.refuse(engine, bound)
            return
        self.best = sorted([*self.best, made], key=lambda item: item.order)[:_KEEP]


def explore(network: Network, board: Board, progress: Progress = _silent) -> Exploration:
    """The ten best shapes that fit, fastest first; of equally fast ones the smaller.

    Args:
        progress: called with (stage, shapes done, shapes).

    Raises:
        InputError: no shape fits, with the smallest one's needs.
    """
    looked = list(shapes())
    bounds = _tile_bounds(network, looked)
    # Ties in the order of shapes(): the search gives the same answer every time.
    order = sorted(range(len(looked)), key=lambda at: (bounds[at], at))
    search = _Search(network, board)
    for done, at in enumerate(order):
        progress("choosing the engine", done, len(order))
        search.look(looked[at], bounds[at])
    progress("choosing the engine", len(order), len(order))
    if not search.best:
        raise InputError(*_nothing_fits(search, network, board))
    best = search.best[0]
    _log.info(
        "%d shapes looked at, %d timed: engine %s, %d cycles",
        len(looked),
        search.timed,
        best.engine.name,
        best.cycles_per_image,
    )
    return Exploration(tuple(search.best), tuple(search.refused), len(looked), search.timed)


def _tile_bounds(network: Network, looked: Sequence[EngineConfig]) -> list[int]:
    """Sum of the packed tile bounds of the convolutions and linear layers, for each shape."""
    passes: tuple[Pass, ...] = ()
    problems: list[str] = []
    for shape in looked:
        if shape.columns != _COLUMNS[0] or shape.slots != _SLOTS[0]:
            continue  # what can be lowered depends on neither
        try:
            passes = lower(network, replace(shape, acc_bits=32))
            break
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if not passes:
        raise InputError(problems, f"network '{network.name}'")
    # Whether an average pool runs on the array depends on the shape.
    layers = [item for item in passes if isinstance(item, ArrayPass) and not isinstance(item.node, AvgPool)]
    return [sum(layer_bound(item, shape) for item in layers) for shape in looked]


def _nothing_fits(search: _Search, network: Network, board: Board) -> tuple[list[str] | str, str]:
    subject = f"network '{network.name}'"
    rams = [item for item in search.holding if item.resource == "BRAM36"]
    if rams:
        least = min(rams, key=lambda item: item.need)
        return (
            f"It does not fit {board.name}: of the engines whose buffers hold it, {least.engine.name} needs the least block RAM,"
            f" {least.need} BRAM36 or more, and the board has {board.resources.bram36}; use fewer bits or channels, smaller images, or"
            " the engine of a larger chip.",
            subject,
        )
    few = (
        f"No engine shape fits {board.name}: it has {board.resources.lut} LUTs, {board.resources.dsp} DSPs and"
        f" {board.resources.bram36} BRAM36; use the engine of a larger chip."
    )
    return sorted(search.impossible) or few, subject


def choose_engine(network: Network, board: Board, progress: Progress = _silent) -> Candidate:
    """The fastest engine that fits; see :func:`explore`."""
    return explore(network, board, progress).candidates[0]
