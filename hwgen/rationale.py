"""Why an engine was chosen: what bounds it, what kept larger ones out, and what the others lack; for people and machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hwgen.board import Board
from hwgen.explore import Candidate, Exploration, Refused

_BOUND_SHARE = 0.85  # of the cycles that a unit must be busy to be called the bound
_UNITS = {"array": "the array", "fill": "fill", "weights": "the loading of streamed weights"}
HEAD = ("engine", "lanes", "cycles", "bound by", "weights", "LUT", "BRAM36", "DSP", "behind the first")


def bound_by(item: Candidate) -> str:
    """The unit that is busy most of the time, or "gaps" where none is."""
    shares = {name: value / item.cycles_per_image for name, value in asdict(item.busy).items()}
    name = max(shares, key=lambda key: shares[key])
    return name if shares[name] >= _BOUND_SHARE else "gaps"


def lacks(item: Candidate, winner: Candidate) -> str:
    """Why ``item`` is behind ``winner``, in a few words."""
    more = item.cycles_per_image - winner.cycles_per_image
    if not more:
        for name, mine, best in (
            ("LUT", item.area.lut, winner.area.lut),
            ("BRAM36", item.area.bram36, winner.area.bram36),
        ):
            if mine > best:
                return f"as fast, {mine - best} {name} more"
        return "as fast and as large; later in the order of shapes"
    busy = asdict(item.busy)
    name = max(busy, key=lambda key: busy[key])
    extra = busy[name] - asdict(winner.busy)[name]
    if extra <= 0 or item.busy.bound <= winner.busy.bound:
        return f"{more} cycles more, lost between layers"
    return f"{more} cycles more: {_UNITS[name]} takes {extra} more"


def reasons(found: Exploration, board: Board) -> list[str]:
    """Sentences: what bounds the first engine, what keeps faster shapes out, what the second lacks."""
    winner = found.candidates[0]
    cycles = winner.cycles_per_image
    shares = {name: f"{100 * value / cycles:.0f} %" for name, value in asdict(winner.busy).items()}
    unit = bound_by(winner)
    busy = f"array {shares['array']}, fill {shares['fill']}, weights {shares['weights']} of the cycles busy"
    made = [
        f"Its {cycles} cycles are lost in gaps between layers and tiles: {busy}."
        if unit == "gaps"
        else f"It is bound by {_UNITS[unit]}: {busy}."
    ]
    made += [_kept_out(name, found.refused, cycles, board) for name in ("LUT", "DSP", "BRAM36")]
    if not any(item.bound < cycles for item in found.refused):
        made.append(f"No shape with a smaller bound than its {cycles} cycles is kept out by the size of {board.name}.")
    if winner.busy.weights:
        made.append("Its weight buffer holds part of the network: the rest is streamed for every image.")
    if len(found.candidates) > 1:
        second = found.candidates[1]
        made.append(f"The second, {title(second)}, is behind: {lacks(second, winner)}.")
    return [line for line in made if line]


def title(item: Candidate) -> str:
    """Shape, slot channels and lanes in a few words."""
    engine = item.engine
    return f"{engine.name} (slots of {engine.slot_channels}, {engine.lanes} lanes)"


def _kept_out(resource: str, refused: Sequence[Refused], cycles: int, board: Board) -> str:
    better = [item for item in refused if item.resource == resource and item.bound < cycles]
    if not better:
        return ""
    nearest = min(better, key=lambda item: (item.need, item.bound, item.engine.hash))
    share = f" ({100 * board.lut_share:.0f} % of the board's)" if resource == "LUT" else ""
    return (
        f"{resource} keeps {len(better)} shapes with a smaller tile bound out; the nearest, {nearest.engine.name} with"
        f" {nearest.engine.lanes} lanes (bound {nearest.bound}), needs {nearest.need} of {nearest.limit} {resource}{share}."
    )


def rows(found: Exploration) -> list[list[str]]:
    """The table under :data:`HEAD`, best first."""
    winner = found.candidates[0]
    return [
        [
            f"{item.engine.name} G{item.engine.slot_channels}",
            str(item.engine.lanes),
            str(item.cycles_per_image),
            bound_by(item),
            f"{item.engine.weight_depth} rows" + (", streamed" if item.busy.weights else ""),
            str(item.area.lut),
            str(item.area.bram36),
            str(item.area.dsp),
            "-" if item is winner else lacks(item, winner),
        ]
        for item in found.candidates
    ]


def as_json(found: Exploration, board: Board) -> dict[str, Any]:
    """Everything, for machines."""
    winner = found.candidates[0]
    return {
        "board": board.name,
        "shapes": found.shapes,
        "timed": found.timed,
        "refused": {name: sum(item.resource == name for item in found.refused) for name in ("LUT", "DSP", "BRAM36")},
        "reasons": reasons(found, board),
        "candidates": [
            {
                "engine": asdict(item.engine),
                "cycles_per_image": item.cycles_per_image,
                "bound_by": bound_by(item),
                "busy": asdict(item.busy),
                "area": asdict(item.area),
                "behind": None if item is winner else lacks(item, winner),
            }
            for item in found.candidates
        ],
    }


def as_text(found: Exploration, board: Board) -> str:
    """The table and the reasons as plain text."""
    body = [list(HEAD), *rows(found)]
    widths = [max(len(row[at]) for row in body) for at in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in body]
    head = f"{found.shapes} shapes for {board.name}, {found.timed} engines timed by the cycle model. The first is taken."
    return "\n".join([head, "", *lines, "", *reasons(found, board)]) + "\n"
