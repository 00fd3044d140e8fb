"""Where benchmarks leave their figures: ``build/bench/NAME.json``, a list of objects; and tables of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"
Rows = Sequence[Mapping[str, Any]]


def write_rows(name: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the rows of one benchmark; the path, relative to the working directory where it lies below it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"
