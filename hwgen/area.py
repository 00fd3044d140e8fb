"""The fitted area model: size of an engine without synthesis.

LUTs and FFs are linear in a few counts of the shape; the coefficients in ``hwgen/data/area.json`` were fitted to
synthesised shapes by ``benchmarks/fit_area.py``. Block RAM follows from the memories' widths and depths, DSPs from the
lanes and address generators.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from hwgen.engine import EngineConfig
from hwgen.isa import SUM_BITS, SUM_GROUPS

_DSP_PER_LANE = 4  # bs_lane: two for acc*mul, one for skip, one for the second rounding
_DSP_ADDRESSES = 11  # products in fill, pool, their windows, and image planes
# Widths that one half block (RAMB18E1) holds at each depth.
_HALF_WIDTH = {512: 36, 1024: 18, 2048: 9, 4096: 4, 8192: 2, 16384: 1}
_ENABLE_BITS = 9  # one write enable of a block for so many bits


@dataclass(frozen=True)
class Area:
    """Estimated LUTs, FFs, BRAM36 and DSPs."""

    lut: int
    ff: int
    bram36: int
    dsp: int


def features(engine: EngineConfig) -> dict[str, float]:
    """The counts that LUTs and FFs are linear in."""
    units = engine.rows * engine.columns
    return {
        "one": 1.0,
        "dot_bits": units * engine.word_bits,
        "units": units,
        "lanes": engine.lanes,
        "column_bits": engine.columns * engine.word_bits,
        "plane_bits": engine.columns * engine.slot_channels,
        "byte_bits": engine.lanes * 8,
    }


@cache
def _coefficients() -> dict[str, dict[str, float]]:
    text = files("hwgen.data").joinpath("area.json").read_text(encoding="utf-8")
    data: dict[str, dict[str, float]] = json.loads(text)["coefficients"]
    return data


def ram_halves(width: int, depth: int, chunks: int = 1) -> int:
    """RAMB18E1 of a memory, RAMB36E1 count two; chunks: parts of a row with a write enable of their own."""
    half = _HALF_WIDTH[next(limit for limit in sorted(_HALF_WIDTH) if depth <= limit)]
    if chunks == 1:
        return -(-width // half)
    lane = min(half, _ENABLE_BITS)
    return -(-chunks * -(-width // chunks // lane) // (half // lane))


def bram36(engine: EngineConfig) -> int:
    """Block RAMs of an engine: plane (twice), column, count, weight, byte, parameter, sum, program and FIFO memories."""
    halves = 2 * engine.columns * ram_halves(engine.slot_channels, engine.plane_depth, engine.rows_per_group)
    halves += engine.columns * ram_halves(engine.word_bits, engine.column_depth)
    halves += ram_halves(16 * engine.columns, engine.column_depth, engine.columns)
    halves += engine.row_chunks * ram_halves(64, engine.weight_depth)
    halves += engine.columns * ram_halves(8 * engine.lane_rows, engine.byte_depth)
    params = max(512, engine.param_depth // engine.lane_rows)
    halves += engine.lane_rows * (ram_halves(48, params) + ram_halves(18, params))
    halves += 3 * ram_halves(64, engine.program_depth)
    halves += ram_halves(SUM_BITS * engine.lane_rows, SUM_GROUPS)
    halves += 2 * ram_halves(65, 512)
    halves += ram_halves(32 * engine.lane_rows + 1, engine.logit_depth)
    return -(-halves // 2)


def dsp(engine: EngineConfig) -> int:
    """DSPs of an engine: the lanes', those of addresses, and one of fetch unless a weight row is a power of two words."""
    shifts = engine.row_chunks & (engine.row_chunks - 1) == 0
    return _DSP_PER_LANE * engine.lanes + _DSP_ADDRESSES + (not shifts)


def estimate_area(engine: EngineConfig) -> Area:
    """Size of an engine on the 7 series."""
    counts = features(engine)
    fitted = {
        name: round(sum(weights[key] * value for key, value in counts.items()))
        for name, weights in _coefficients().items()
    }
    return Area(fitted["lut"], fitted["ff"], bram36(engine), dsp(engine))
