"""Finished runs side by side: a table and a picture of accuracy against cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitsmith.pictures import draw_comparison
from hwgen.errors import InputError

_KEYS = ("method", "integer_accuracy", "float_accuracy", "final_cost", "cost", "budget")


def read_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What the runs' metrics say: name, method, accuracy (of the integer network), float, cost, budget, cycles, engine.

    Raises:
        InputError: folders without readable metrics, or runs that count different costs; all at once.
    """
    problems, rows = [], []
    for folder in folders:
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            missing = [key for key in _KEYS if key not in metrics]
        except (OSError, ValueError, TypeError):
            problems.append(
                f"{folder}: no readable metrics.json; finish the run with 'bitsmith export' and 'bitsmith evaluate'."
            )
            continue
        if missing:
            problems.append(f"{folder}: its metrics lack {', '.join(missing)}; run 'bitsmith evaluate {folder}' again.")
            continue
        rows.append(
            {
                "name": folder.name,
                "method": metrics["method"],
                "accuracy": metrics["integer_accuracy"],
                "float": metrics["float_accuracy"],
                "unit": metrics["cost"],
                "cost": metrics["final_cost"],
                "budget": metrics["budget"],
                "cycles": metrics.get("cycles"),
                "engine": metrics.get("engine"),
            }
        )
    if len({row["unit"] for row in rows}) > 1:
        if all(row["cycles"] for row in rows):  # every run's program was timed, whatever its search counted
            rows = [row | {"unit": "cycles", "cost": row["cycles"]} for row in rows]
        else:
            problems.append("The runs count different costs and were not all timed; compare runs of one cost.")
    if problems:
        raise InputError(problems)
    return sorted(rows, key=lambda row: row["cost"])


def compare(folders: Sequence[Path], picture: Path | None) -> list[dict[str, Any]]:
    """The rows of :func:`read_runs`, and their picture where ``picture`` names a file."""
    rows = read_runs(folders)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw_comparison(rows, rows[0]["unit"], picture)
    return rows
