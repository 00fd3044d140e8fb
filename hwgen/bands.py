"""Bands: stretches of position tiles of a pass, and in which order they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.passes import ArrayPass, Pass
from hwgen.plan import MemoryPlan
from hwgen.residency import WeightPart

MAX_BANDS = 6  # of a part of a pass


@dataclass(frozen=True)
class Band:
    """Position tiles [first, first + tiles) of a pass, its row tiles [first_row_tile, first_row_tile + row_tiles).

    weights: the part of the weight buffer that an array pass reads. starts_part, ends_part: no other band reads it
    before or after. copy: image of the batch.
    """

    item: Pass
    layer: int
    first: int
    tiles: int
    first_row_tile: int
    row_tiles: int
    weights: WeightPart | None = None
    starts_part: bool = False
    ends_part: bool = False
    copy: int = 0


def make_bands(passes: Sequence[Pass], memory: MemoryPlan, engine: EngineConfig) -> tuple[Band, ...]:
    """Every band of a program, in the order of the write-back stage.

    Raises:
        InputError: more instructions than the engine's program memory holds.
    """
    limit = engine.program_depth // 8
    weights = memory.weights
    strips = memory.strips
    together = strips.passes if strips is not None else 0
    for most in range(MAX_BANDS, 0, -1):
        bands = []
        for stretch in strips.order if strips is not None else ():
            if stretch.index >= 0:
                item = passes[stretch.index]
                part = next((part for part in weights if part.item is item), None)
                row_tiles = -(-item.code.shape[2] // engine.rows)
                bands.append(Band(item, stretch.index, stretch.first, stretch.tiles, 0, row_tiles, part))
        front = max(memory.batch.turn, 0)
        for copy in range(memory.batch.size):
            for layer, item in enumerate(passes[:front]):
                bands += _pass_bands(item, layer, most, (copy,), memory, engine)
        for layer, item in enumerate(passes[max(front, together) :], max(front, together)):
            turns = layer == memory.batch.turn or (isinstance(item, ArrayPass) and item.logits)
            bands += _pass_bands(item, layer, most, range(memory.batch.size if turns else 1), memory, engine)
        if len(bands) <= limit:
            return tuple(bands)
    raise InputError(
        f"The network has {len(passes)} passes, the engine's program memory holds {limit} instructions per stage;"
        f" use an engine with a larger program_depth.",
        f"engine {engine.name}",
    )


def _pass_bands(
    item: Pass, layer: int, most: int, copies: Sequence[int], memory: MemoryPlan, engine: EngineConfig
) -> list[Band]:
    """Bands of a pass, at most ``most`` for each part of its weights; all copies of a part follow each other."""
    tiles = item.window.tiles(engine.columns)
    size = -(-tiles // most)
    if item.subsample:
        # A band begins with a kept row, and with a whole row of the byte buffer.
        pair = 2 * item.window.out_width // engine.columns
        size = -(-size // (pair * 2)) * pair * 2
    if item.window.pooled:
        size = -(-size // 4) * 4
    starts = range(0, tiles, size)
    parts = [part for part in memory.weights if part.item is item]
    if not parts:
        row_tiles = -(-item.code.shape[2] // engine.rows)
        return [
            Band(item, layer, first, min(size, tiles - first), 0, row_tiles, copy=copy)
            for copy in copies
            for first in starts
        ]
    return [
        Band(
            item,
            layer,
            first,
            min(size, tiles - first),
            part.first,
            part.row_tiles,
            part,
            starts_part=first == 0 and copy == copies[0],
            ends_part=first + size >= tiles and copy == copies[-1],
            copy=copy,
        )
        for part in parts
        for copy in copies
        for first in starts
    ]
