"""Choosing the engine's shape: the fastest one for a network that fits the board.

Every candidate is planned and timed by the cycle model; its size comes from the fitted area model, so that no synthesis
is needed. Depths of the buffers are grown to what the network needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hwgen.area import Area, estimate_area
from hwgen.board import Board
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.lower import lower
from hwgen.network import Network
from hwgen.plan import plan_memory
from hwgen.schedule import schedule

_ROWS = (4, 8, 16)
_COLUMNS = (4, 8, 16, 32)
_SLOTS = (3, 6, 9, 12)
_LANE_ROWS = (1, 2, 4)
_PROGRAM_DEPTH = 1024


@dataclass(frozen=True)
class Candidate:
    """One shape, its modelled cycles per image and its estimated size."""

    engine: EngineConfig
    cycles_per_image: int
    area: Area


def _power(value: int, least: int) -> int:
    return max(least, 1 << (max(value, 1) - 1).bit_length())


def fit_depths(network: Network, shape: EngineConfig) -> EngineConfig:
    """The shape with buffers just deep enough for the network (powers of two), and block RAM filled.

    Raises:
        InputError: the network cannot run on this shape at any depth.
    """
    roomy = replace(
        shape,
        weight_depth=1 << 14,
        plane_depth=1 << 14,
        byte_depth=1 << 14,
        param_depth=1 << 13,
        column_depth=1 << 10,
        acc_bits=32,
    )
    memory = plan_memory(lower(network, roomy), network.input, roomy)
    used = memory.used_rows()
    words = max(plan.column_words for plan in memory.words.values())
    return replace(
        shape,
        weight_depth=_power(used["weight"], 512),
        plane_depth=_power(used["plane"], 512),
        byte_depth=_power(used["byte"], 512),
        param_depth=_power(used["param"], 1024),
        column_depth=_power(2 * words, 512),
        program_depth=_PROGRAM_DEPTH,
    )


def shapes() -> Iterator[EngineConfig]:
    """Every shape that is looked at."""
    for rows in _ROWS:
        for columns in _COLUMNS:
            for slots in _SLOTS:
                for lane_rows in _LANE_ROWS:
                    if rows % lane_rows == 0:
                        yield EngineConfig(rows=rows, columns=columns, slots=slots, lane_rows=lane_rows)


def explore(network: Network, board: Board) -> list[Candidate]:
    """All shapes that fit, fastest first; of equally fast ones the smaller.

    Raises:
        InputError: no shape fits, with the smallest one's needs.
    """
    limits = board.resources
    found: list[Candidate] = []
    smallest: Area | None = None
    refusals: set[str] = set()
    for shape in shapes():
        area = estimate_area(shape)
        if area.lut > board.lut_share * limits.lut or area.dsp > limits.dsp:
            continue
        try:
            engine = fit_depths(network, shape)
        except InputError as error:
            refusals.update(error.problems)
            continue
        area = estimate_area(engine)
        if smallest is None or area.bram36 < smallest.bram36:
            smallest = area
        if area.bram36 > limits.bram36 or area.lut > board.lut_share * limits.lut:
            continue
        cycles = time_program(schedule(network, engine)).cycles_per_image
        found.append(Candidate(engine, cycles, area))
    if not found:
        if smallest is None:
            few = (
                f"No engine shape fits {board.name}: it has {limits.lut} LUTs and {limits.dsp} DSPs; use a larger board."
            )
            raise InputError(sorted(refusals) or few, f"network '{network.name}'")
        raise InputError(
            f"It does not fit {board.name}: the smallest engine that holds it needs {smallest.bram36} BRAM36, the board has"
            f" {limits.bram36}; use fewer bits or channels, or a larger board.",
            f"network '{network.name}'",
        )
    return sorted(found, key=lambda item: (item.cycles_per_image, item.area.lut, item.area.bram36))


def choose_engine(network: Network, board: Board) -> Candidate:
    """The fastest shape that fits; see :func:`explore`."""
    return explore(network, board)[0]
