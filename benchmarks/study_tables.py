"""The tables and the picture of the studies on CIFAR-10 in docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.rows import Rows, table
from benchmarks.study_costs import by_columns
from bitsmith.pictures import draw_comparison


def accuracies(rows: Rows) -> str:
    """Accuracy on CIFAR-10 by row; cycles on one engine."""

    def every(name: str) -> str:
        return " or ".join(map(str, sorted({row[name] for row in rows})))

    head = [
        "row",
        "seed",
        "epochs: float, search, retraining",
        "steps an epoch",
        "cycles",
        "bit operations",
        "accuracy",
        "training, s",
    ]
    engines = sorted({row["engine"] for row in rows if "engine" in row})
    text = f"{every('network')}, {every('data')}, {rows[0]['images']:,} test images, {every('hardware')}, threads: {every('threads')},"
    text += f" torch {every('torch')}; {every('batch')} images a step; engine {', '.join(engines)}"
    return f"{text}.\n\n" + table(
        head,
        [
            (
                row["row"],
                row["seed"],
                "{float}, {search}, {0}".format(row["epochs"]["retrain"] + row["epochs"]["integer"], **row["epochs"]),
                f"{row['steps_per_epoch']:,}",
                f"{row['cycles']:,}" if "cycles" in row else "",
                f"{row['bit_operations']:,}" if "bit_operations" in row else "",
                f"{100 * row['accuracy']:.2f} %",
                f"{row['train_seconds']:,}",
            )
            for row in rows
        ],
    )


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean."""
    return stdev(values) / sqrt(len(values))


def by_row(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """The seeds of each row."""
    named: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        named.setdefault(row["row"], []).append(row)
    return named


_SAME = 0.01  # what cycles may differ by and count as equal


def seeds(rows: Rows) -> str:
    """Rows of three seeds and more: mean accuracy; of searched rows also the differences, seed by seed, to the row whose cost is the
    budget and to uniform rows of the same cycles."""
    named = {name: mine for name, mine in by_row(rows).items() if len(mine) >= 3}

    def told(values: Sequence[float], sign: str = "") -> str:
        return f"{100 * mean(values):{sign}.2f} ± {100 * _error(values):.2f}"

    def paired(name: str, other: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        theirs = {row["seed"]: row for row in named[other]}
        return [(row, theirs[row["seed"]]) for row in named[name] if row["seed"] in theirs]

    def others(name: str) -> list[str]:
        """What a searched row is compared with."""
        mine = named[name][0]
        budget = mine.get("cycles_of") or mine.get("bitops_of")
        if not budget:
            return []
        near = [
            other
            for other, theirs in named.items()
            if theirs[0].get("method") == "uniform" and abs(theirs[0]["cycles"] / mine["cycles"] - 1) <= _SAME
        ]
        return [other for other in dict.fromkeys([budget, *near]) if other in named]

    made = []
    for name, mine in named.items():
        facts = [name, str(len(mine)), told([row["accuracy"] for row in mine])]
        made += [
            [
                *facts,
                other,
                told([row["accuracy"] - base["accuracy"] for row, base in pairs], "+"),
                f"{100 * mean([row['cycles'] / base['cycles'] - 1 for row, base in pairs]):+.1f} %",
            ]
            for other in others(name)
            if len(pairs := paired(name, other)) >= 3
        ] or [[*facts, "", "", ""]]
    return table(["row", "seeds", "accuracy, %", "against", "difference, points", "cycles"], made) if made else ""


def costs(rows: Rows) -> str:
    """Cycles of the layers of the study's network by bits."""
    tables = [
        table(
            list(block[0]), [[value if name == "layer" else f"{value:,}" for name, value in row.items()] for row in block]
        )
        for block in by_columns(rows)
    ]
    return f"Engine {rows[0]['engine']}.\n\n" + "\n".join(tables)


def bits(rows: Rows) -> str:
    """Weight and activation bits of each layer in the rows whose layers differ."""
    chosen = [row for row in rows if "bits" in row and row["method"] != "uniform"]
    if not chosen:
        return ""
    return table(
        ["row", "seed", *chosen[0]["bits"]],
        [(row["row"], row["seed"], *("W{}A{}".format(*pair) for pair in row["bits"].values())) for row in chosen],
    )


def trials(rows: Rows) -> str:
    """What the trials of the study's searches found on held-out images, before retraining."""
    head = [
        "row",
        "seed",
        "mixed accuracy",
        "at the chosen bits",
        "loss: likeliest",
        "uniform",
        "chosen",
        "assignments tried",
    ]

    def loss(row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:.4f}" if name in row else ""

    return table(
        head,
        [
            (
                row["row"],
                row["seed"],
                f"{100 * row['mixed_accuracy']:.2f} %",
                f"{100 * row['chosen_accuracy']:.2f} %",
                *(loss(row, name) for name in ("likeliest_loss", "uniform_loss", "chosen_loss")),
                row["tried"],
            )
            for row in rows
            if "tried" in row
        ],
    )


def draw(rows: Rows, path: Path) -> None:
    """Accuracy against cycles of the study's quantised rows; of several seeds the mean and its standard error."""
    level = mean(row["accuracy"] for row in rows if row["method"] == "float")
    draw_comparison(
        [
            {
                "name": name if len(mine) == 1 else f"{name} (mean of {len(mine)})",
                "method": mine[0]["method"],
                "accuracy": mean(row["accuracy"] for row in mine),
                "error": _error([row["accuracy"] for row in mine]) if len(mine) > 2 else 0,
                "cost": mean(row["cycles"] for row in mine),
                "float": level,
            }
            for name, mine in by_row(rows).items()
            if "cycles" in mine[0]
        ],
        "cycles",
        path,
    )


def rtl(rows: Rows) -> str:
    """A row of the study in RTL: accuracy simulated and of the integer network."""
    head = [
        "row",
        "seed",
        "engine",
        "test images",
        "accuracy in RTL",
        "integer network",
        "tensors",
        "mismatches",
        "cycles per image",
        "model",
    ]
    return table(
        head,
        [
            (
                row["row"],
                row["seed"],
                row["engine"],
                f"{row['images']:,}",
                f"{100 * row['rtl_accuracy']:.2f} %",
                f"{100 * row['integer_accuracy']:.2f} %",
                f"{row['tensors']:,}",
                row["mismatches"],
                f"{row['cycles_per_image']:,.0f}",
                f"{row['modelled_cycles']:,}",
            )
            for row in rows
        ],
    )
