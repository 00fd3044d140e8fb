"""Finished runs side by side: a table and a picture of accuracy against cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitsmith.pictures import draw_comparison
from hwgen.errors import InputError

_KEYS = ("method", "integer_accuracy", "float_accuracy")
_OTHER_COSTS = {"cycles": "cycles", "bit_operations": "bitops"}  # what runs of different budgets may share


def read_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What the folders' metrics say: name, method, accuracy (of the integer network), float, cost, budget, cycles, engine.

    The cost is that of the runs' budgets where they have one in common, else cycles, else bit operations.

    Raises:
        InputError: folders without readable metrics, or with no cost in common; all at once.
    """
    problems, rows = [], []
    for folder in folders:
        try:
            metrics = _metrics(folder)
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
                "unit": metrics.get("cost"),
                "cost": metrics.get("final_cost"),
                "budget": metrics.get("budget"),
                **{name: metrics.get(name) for name in (*_OTHER_COSTS, "engine")},
            }
        )
    if len({row["unit"] for row in rows}) > 1 or any(row["cost"] is None for row in rows):
        shared = [name for name in _OTHER_COSTS if all(row[name] for row in rows)]
        if shared:
            rows = [row | {"unit": _OTHER_COSTS[shared[0]], "cost": row[shared[0]]} for row in rows]
        else:
            lacking = ", ".join(row["name"] for row in rows if not row["bit_operations"])
            problems.append(
                "The runs count different costs and have none in common; make the figures of"
                f" {lacking} again with 'bitsmith evaluate' or 'bitsmith quantise'."
            )
    if problems:
        raise InputError(problems)
    return sorted(rows, key=lambda row: row["cost"])


def _metrics(folder: Path) -> dict[str, Any]:
    """Of a trained run, or of a folder that was quantised by calibration."""
    name = next((name for name in ("metrics.json", "quantised.json") if (folder / name).exists()), "metrics.json")
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def compare(folders: Sequence[Path], picture: Path | None) -> list[dict[str, Any]]:
    """The rows of :func:`read_runs`, and their picture where ``picture`` names a file."""
    rows = read_runs(folders)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw_comparison(rows, rows[0]["unit"], picture)
    return rows
