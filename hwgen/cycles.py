"""The cycle model: the program's timing by the recurrences of the RTL's own control.

Every constant here is a pipeline depth that can be read off the RTL (named beside it). The model walks the program once
per image, tile by tile; what the memory side adds (loading an image) is taken to hide behind the computation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen.bands import Band
from hwgen.engine import EngineConfig
from hwgen.fill import run_operations, tile_runs
from hwgen.network import AvgPool, Network, Weighted
from hwgen.passes import ArrayPass, MeanPass, Pass, PoolPass
from hwgen.plan import choose_words
from hwgen.residency import WeightPart, streamed_needs
from hwgen.schedule import Schedule, tile_cycles
from hwgen.words import tile_bound

_FILL_START = 3  # bs_fill: instruction taken (IDLE), SETUP, TILE, then the first operation
_FILLED = 14  # bs_fill: last operation of a tile to issue's count of filled tiles
_RELEASED = 2  # bs_issue: last word of a tile to its words being counted as free by bs_fill
_TAKES = 3  # bs_tokens, compared ahead: cycles from one start of bs_issue to the next at least
_READ_OUT = 6  # issue of the last word to the cycle before write-back's first beat
_STORED = 17  # last beat to the token; each plane adds one, none counts as one
_POOL_START = 2  # bs_pool: cycles that its walker takes before the first operation
_POOL_BEAT = 11  # bs_pool: last operation of a beat to its entry into the lanes
_POOL_STORED = 19  # the same to the token; each plane adds one, none counts as one
_LOAD_LATENCY = 40  # a part's rows being free to the first word of its load, with a fast memory
_LOADED = 6  # last word of a load to issue's start
_QUEUE = 9  # bs_stage_queue: cycles from one instruction to the next at least


@dataclass(frozen=True)
class LayerCycles:
    """One layer in steady state. cycles: as :func:`layer_spans` shares them; no bound (0) applies to a global average
    pool.
    """

    name: str
    cycles: int
    tile_bound: int

    @property
    def utilisation(self) -> float:
        """Share of the cycles that the bound says are needed."""
        return self.tile_bound / self.cycles if self.cycles else 0.0


@dataclass(frozen=True)
class Timing:
    """cycles_per_image: steady state, of a batch its share. first_image: start of the first instruction to the last beat of the logits."""

    cycles_per_image: int
    first_image: int
    layers: tuple[LayerCycles, ...]


class _Model:
    """One walk through the program."""

    def __init__(self, plan: Schedule) -> None:
        self.plan = plan
        self.engine = plan.engine
        self.first_issue: list[tuple[int, int]] = []  # of every band, over all images: cycle, layer
        self.image_end: list[int] = []
        self.fill_free = self.fill_taken = 0
        self.fill_tokens: list[int] = []
        self.store_tokens: list[int] = []
        self.fill_used = self.store_used = 0
        self.free_words = self.engine.column_depth
        self.released: deque[tuple[int, int]] = deque()  # tiles in the column buffer: when it is free, its words
        self.issue_done = -1
        self.issue_done_before = -1
        self.issue_loaded = -1
        self.issue_start = -_TAKES
        self.last_row_tile = -(1 << 30)
        self.work_taken = -10
        self.work_loaded = -10
        self.work_done = -10
        self.quiet = 0
        self.parts = [item for item in plan.program.fetch if item.op.name == "load_image"]
        self.part_ends: list[int] = []  # of the image's parts, over all images: when fill may read them
        self.parts_taken = self.posts_taken = 0
        self.posts: list[int] = []  # when fill has told fetch that rows of the image are free
        self.needs = streamed_needs(plan.memory.weights)
        self.loads = 0  # of streamed weights, begun
        self.load_end = 0
        self.weights_read: list[int] = []
        words = {item.name: plan.memory.words.get(item.name) for item in plan.passes}
        self.runs = {item.name: tile_runs(item.window, self.engine.columns) for item in plan.passes}
        self.operations: dict[str, int] = {}
        for item in plan.passes:
            plan_words = words[item.name]
            if isinstance(item, ArrayPass) and plan_words is not None:
                self.operations[item.name] = run_operations(
                    plan_words, item.window, self.engine.slots, depthwise=item.depthwise
                )

    def run(self, images: int) -> None:
        program = self.plan.program
        for image in range(images):
            execute = 0
            for at, band in enumerate(self.plan.bands):
                instruction = program.write_back[at]
                wait = instruction["wait_fill_first" if image == 0 else "wait_fill"]
                if isinstance(band.item, ArrayPass):
                    self._array(band, execute, at, wait, image)
                    execute += 1
                elif isinstance(band.item, MeanPass):
                    self._mean(band, wait)
                else:
                    self._pool(band, wait)
            self.image_end.append(self.work_done)

    def _load(self, part: WeightPart) -> int:
        """When the next streamed part is there: loads follow each other, each once its rows have been read."""
        image, index = divmod(self.loads, len(self.needs))
        need = image * len(self.needs) + self.needs[index]
        free = self.weights_read[need - 1] + _LOAD_LATENCY if need > 0 else 0
        self.loads += 1
        self.load_end = max(self.load_end, free) + part.rows * self.engine.row_chunks
        return self.load_end + _LOADED

    def _image_part(self, count: int) -> int:
        """When the first ``count`` parts of images are there; those of the first image before all else."""
        while len(self.part_ends) < count:
            image, at = divmod(len(self.part_ends), len(self.parts))
            load = self.parts[at]
            self.posts_taken += load["wait_fill" if image else "wait_fill_first"]
            free = self.posts[self.posts_taken - 1] if self.posts_taken else 0
            rows = -(-load["pixels"] // self.engine.columns) * -(-load["channels"] // self.engine.slot_channels)
            cycles = load["pixels"] * load["channels"] + rows * load["bits"] if self.posts_taken else 0
            self.part_ends.append(max(self.part_ends[-1] if self.part_ends else 0, free) + cycles)
        return self.part_ends[count - 1]

    def _arm(self, tokens_at: int, fence: bool) -> int:
        """When the next write-back instruction is taken."""
        taken = max(self.work_loaded + 1, self.work_taken + _QUEUE, tokens_at)
        return max(taken, self.quiet) if fence else taken

    def _array(self, band: Band, execute: int, at: int, wait_fill: int, image: int) -> None:
        item = band.item
        assert isinstance(item, ArrayPass)
        engine, program = self.engine, self.plan.program
        conv = program.execute[execute]
        words = self.plan.memory.words[item.name]
        # Fill takes the instruction.
        wait = conv["wait_write_back_first" if image == 0 else "wait_write_back"]
        self.store_used += wait
        taken = max(self.fill_free, self.fill_taken + _QUEUE)
        if wait:
            taken = max(taken, self.store_tokens[self.store_used - 1])
        parts = conv["wait_fetch" if image else "wait_fetch_first"]
        if parts:
            self.parts_taken += parts
            taken = max(taken, self._image_part(self.parts_taken))
        taken = max(taken, self.issue_loaded + 1)
        self.fill_taken = taken
        self.issue_loaded = max(taken + 1, self.issue_done)
        # Write-back arms the matching instruction.
        self.fill_used += wait_fill
        tokens_at = self.fill_tokens[self.fill_used - 1] if wait_fill else 0
        armed = self._arm(tokens_at, bool(program.write_back[at]["fence"]))
        self.work_taken = armed
        self.work_loaded = max(armed + 1, self.work_done)
        start = max(self.issue_loaded + 1, self.issue_done + 1, self.issue_start + _TAKES, armed + 1)
        if band.starts_part and band.weights is not None and band.weights.streamed:
            start = max(start, self._load(band.weights))
        self.issue_start = start
        go = start + 1
        state = taken + _FILL_START - 1
        spacing = tile_cycles(item, engine)
        for tile in range(band.first, band.first + band.tiles):
            # Room is looked for in TILE, or in the last cycle of the tile before.
            claim = state if tile == band.first else state - 1
            while self.free_words < words.column_words:
                free_at, count = self.released.popleft()
                self.free_words += count
                if free_at > claim:
                    claim = state = free_at
            self.free_words -= words.column_words
            last_operation = claim + self.runs[item.name][tile] * self.operations[item.name]
            state = last_operation + 1
            go = max(go, last_operation + _FILLED)
            if tile == band.first:
                self.first_issue.append((go, band.layer))
            for _ in range(band.row_tiles):
                end = max(go + words.row_words - 1, self.last_row_tile + spacing)
                self.last_row_tile = end
                go = end + 1
            self.released.append((end + _RELEASED, words.column_words))
        self.fill_free = state
        self.fill_tokens.append(last_operation + _FILLED)
        if conv["post_fetch"]:
            self.posts.append(self.fill_tokens[-1])
        self.issue_done = end
        if band.ends_part and band.weights is not None and band.weights.streamed:
            self.weights_read.append(end)
        last_beat = end + _READ_OUT + engine.beats
        self.work_done = last_beat
        self.quiet = last_beat + _STORED + (item.planes.bits if item.planes is not None else 1)
        self.store_tokens.append(self.quiet)

    def _alone(self, wait_fill: int) -> None:
        """Write-back takes an instruction that makes its beats itself."""
        self.fill_used += wait_fill
        tokens_at = self.fill_tokens[self.fill_used - 1] if wait_fill else 0
        self.work_taken = self._arm(tokens_at, True)
        self.work_loaded = self.work_taken + 1

    def _mean(self, band: Band, wait_fill: int) -> None:
        self._alone(wait_fill)
        self.first_issue.append((self.work_loaded + 1, band.layer))
        bits = band.item.planes.bits if band.item.planes is not None else 0
        row_tiles = -(-band.item.code.shape[2] // self.engine.rows)
        last_beat = self.work_loaded + row_tiles * self.engine.beats + (row_tiles - 1) * bits
        self.work_done = self.work_loaded = last_beat
        self.quiet = last_beat + _STORED + max(bits, 1)
        self.store_tokens.append(self.quiet)

    def _pool(self, band: Band, wait_fill: int) -> None:
        item = band.item
        assert isinstance(item, PoolPass)
        self._alone(wait_fill)
        cycle = self.work_loaded + _POOL_START
        bits = item.planes.bits if item.planes is not None else 0
        engine = self.engine
        window = item.window
        groups = -(-item.code.shape[2] // engine.rows) * engine.beats
        first = item.zero_channels // engine.lane_rows
        copied = range(first, first + -(-item.source.shape[2] // engine.lane_rows))
        # At stride 2 a window read serves two taps.
        taps = window.kernel_h * (-(-window.kernel_w // 2) if window.stride == 2 else window.kernel_w)
        row_tile_end = -(1 << 30)
        for tile in range(band.first, band.first + band.tiles):
            runs = self.runs[item.name][tile]
            for group in range(groups):
                cycle += runs * (taps if group in copied else 1)
                if group % engine.beats == engine.beats - 1:
                    cycle = max(cycle, row_tile_end + bits + 1)
                    row_tile_end = cycle
        self.work_done = cycle + _POOL_BEAT
        self.quiet = cycle + _POOL_STORED + max(bits, 1)
        self.store_tokens.append(self.quiet)
        # Nothing is armed behind a pool before it has left.
        self.work_loaded = self.work_done


def layer_bound(item: Pass, engine: EngineConfig) -> int:
    """Packed tile bound of a pass in cycles, by the network's own bits; 0 where the array has no part in it."""
    if not isinstance(item, ArrayPass):
        return 0
    return tile_bound(
        item.source.shape[2],
        item.channels_out,
        item.window.kernel_h * item.window.kernel_w,
        item.code.shape[0] * item.code.shape[1],
        item.weight_bits,
        item.source.bits,
        engine,
        depthwise=item.depthwise,
    )


def layer_spans(plan: Schedule, first_issue: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Cycles of every layer that has some, for all batches but the last: int64 (batches - 1, layers).

    A layer's share lasts from the first issue of each of its bands to the first issue of the band after it.

    Args:
        first_issue: (cycle, layer) of the first word of every band, in order, over all images; of a global average pool
            the first sum that is read.
    """
    array = [index for index, item in enumerate(plan.passes) if isinstance(item, ArrayPass | MeanPass)]
    bands = sum(isinstance(band.item, ArrayPass | MeanPass) for band in plan.bands)
    images = max(len(first_issue) - 1, 0) // bands
    spans = np.zeros((images, len(array)), np.int64)
    for at in range(images * bands):
        cycle, layer = first_issue[at]
        spans[at // bands, array.index(layer)] += first_issue[at + 1][0] - cycle
    return spans


def time_program(plan: Schedule, images: int = 4) -> Timing:
    """Model a program over ``images`` images (at least 3) and report the last whole one."""
    model = _Model(plan)
    model.run(images)
    array = [item for item in plan.lowered if isinstance(item, ArrayPass | MeanPass)]
    steady = layer_spans(plan, model.first_issue)[-1]
    layers = tuple(
        LayerCycles(item.name, round(cycles / plan.batch), layer_bound(item, plan.engine))
        for item, cycles in zip(array, steady, strict=True)
    )
    return Timing(round(steady.sum() / plan.batch), model.image_end[0], layers)


def isolated_cycles(item: ArrayPass, engine: EngineConfig, weight_bits: int, activation_bits: int) -> int:
    """Cycles of one array pass on its own at other bits: fill and array overlap tile by tile.

    What the search optimises: the differences between bits count, not the bubbles between layers, which the final
    program's own timing reports.
    """
    from dataclasses import replace

    extra = item.weight_planes - item.weight_bits
    changed = replace(
        item,
        weight_planes=weight_bits + extra,
        weight_bits=weight_bits,
        source=replace(item.source, bits=activation_bits),
    )
    words = choose_words(changed, engine)
    operations = run_operations(words, item.window, engine.slots, depthwise=item.depthwise)
    array = words.row_tiles * max(words.row_words, tile_cycles(item, engine))
    fills = [runs * operations for runs in tile_runs(item.window, engine.columns)]
    return fills[0] + sum(max(array, fill) for fill in fills[1:]) + array


def cost_table(network: Network, engine: EngineConfig) -> dict[str, NDArray[np.int64]]:
    """Cycles by node name, weight bits and activation bits: int64 (8, 8), indexed [M - 1][K - 1].

    Array nodes only (convolutions, linear layers, logits); the bits that the network itself has do not matter.
    """
    from hwgen.lower import lower

    table = {}
    for item in lower(network, engine):
        if not isinstance(item, ArrayPass) or isinstance(item.node, AvgPool):
            continue
        node = item.node
        assert isinstance(node, Weighted)
        table[item.name] = np.array(
            [[isolated_cycles(item, engine, m, k) for k in range(1, 9)] for m in range(1, 9)], np.int64
        )
    return table
