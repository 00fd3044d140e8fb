"""Renders the tables of docs/results.md from what the benchmarks left in ``build/bench``, and draws docs/study.png.

    python -m benchmarks.results     # every section whose benchmark has been run here

A table stands between ``<!-- rendered: NAME -->`` and ``<!-- end -->``; sections without new figures stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.bench_search import growth
from benchmarks.rows import FOLDER
from benchmarks.study_costs import by_columns
from bitsmith.pictures import draw_comparison

DOC = Path(__file__).resolve().parent.parent / "docs" / "results.md"
PICTURE = DOC.with_name("study.png")
_BLOCK = re.compile(r"(<!-- rendered: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)
Rows = Sequence[Mapping[str, Any]]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def engine(rows: Rows) -> str:
    """Whole networks: cycles, bound, ratio, frames per second."""
    head = ["network", "bits", "first, last layer", "batch", "DDR latency", "cycles per image", "first image", "bound", "ratio",
            "ratio with memory", "array busy", "FPS"]  # fmt: skip
    made = [
        (
            row["network"],
            f"W{row['weight_bits']}A{row['activation_bits']}",
            ", ".join("W{}A{}".format(*row[name]) for name in ("first_bits", "last_bits")),
            row["batch"],
            row["ddr_latency"] or "model",
            f"{row['cycles_per_image']:,.0f}",
            f"{row['first_image_cycles']:,}",
            f"{row['tile_bound']:,}",
            f"{row['ratio']:.3f}",
            f"{row['cycles_per_image'] / row['memory_bound']:.3f}",
            f"{100 * row['utilisation']:.0f} %",
            f"{row['fps']:,.0f}",
        )
        for row in rows
    ]
    parts = []
    for engine_name in dict.fromkeys(row["engine"] for row in rows):
        mine = [line for line, row in zip(made, rows, strict=True) if row["engine"] == engine_name]
        parts.append(f"Engine {engine_name}, {rows[0]['clock_mhz']} MHz.\n\n" + table(head, mine))
    return "\n".join(parts)


def layers(rows: Rows) -> str:
    """Layers of ResNet-20 W2A2, the worst latency."""
    chosen = [row for row in rows if (row["network"], row["weight_bits"], row["activation_bits"]) == ("resnet20", 2, 2)]
    if not chosen:
        return ""
    return table(
        ["layer", "bits", "channels", "cycles", "bound", "ratio"],
        [
            (
                layer["name"],
                f"W{layer['weight_bits']}A{layer['activation_bits']}" if layer["ratio"] else "",
                f"{layer['channels_in']} > {layer['channels_out']}" if layer["ratio"] else "",
                f"{layer['cycles']:,.0f}",
                f"{layer['tile_bound']:,}" if layer["ratio"] else "",
                f"{layer['ratio']:.2f}" if layer["ratio"] else "",
            )
            for layer in chosen[-1]["layers"]
        ],
    )


def simulation(rows: Rows) -> str:
    """Speed of the RTL simulation."""
    head = ["network", "path", "cycles/s", "images/s", "build, s"]
    return table(
        head,
        [
            (row["network"], row["path"], f"{row['cycles_per_s']:,.0f}", row["images_per_s"], row["build_s"])
            for row in rows
        ],
    )


def hls(rows: Rows) -> str:
    """Speed of the HLS kernel's C simulation."""
    head = ["network", "bits", "engine", "images/s"]
    return table(
        head,
        [
            (row["network"], f"W{row['weight_bits']}A{row['activation_bits']}", row["engine"], row["images_per_s"])
            for row in rows
        ],
    )


def area(rows: Rows) -> str:
    """Size of the whole engine, and the cells it is counted from."""
    names = ("engine", "macs_per_cycle", "lut", "ff", "bram36", "dsp", "lut_per_mac", "array_lut_per_mac")
    head = ["engine", "binary MAC a cycle", "LUT", "FF", "BRAM36", "DSP", "LUT per MAC", "of the array alone"]
    found = table(
        head, [[f"{row[name]:,}" if isinstance(row[name], int) else row[name] for name in names] for row in rows]
    )
    cells = ", ".join(f"{number:,} {name}" for name, number in rows[0]["cells"].items())
    return f"{found}\nCells: {cells}.\n"


def timing(rows: Rows) -> str:
    """Longest paths of the mapped netlist and, where it was routed, the frequency on an ECP5."""
    names = [name for name in rows[0] if name not in ("xc7_deepest", "xc7_slowest")]
    return table(["figure", "value"], [(name, rows[0][name]) for name in names])


def search(rows: Rows) -> str:
    """Time and memory of a step by method and candidates, and how both grow with the candidates."""
    about = rows[0]
    head = ["method", "candidates", "ms a step", "of uniform", "saved for backward, MB", "peak, MB"]
    found = table(
        head,
        [
            (
                row["method"],
                ", ".join(map(str, row["candidates"])),
                f"{row['step_ms']:,.0f}",
                f"{row['step_ratio']:.2f}",
                f"{row['saved_bytes'] / 1e6:,.1f}",
                f"{row['peak_bytes'] / 1e6:,.1f}",
            )
            for row in rows
        ],
    )
    names = {"step_ms": "time", "saved_bytes": "bytes saved", "peak_bytes": "peak"}
    labels = {"ebs": "EBS", "dnas": "the supernet"}
    grown = "; ".join(
        f"{labels[method]} " + ", ".join(f"{names[key]} x {times:.2f}" for key, times in found.items())
        for method, found in growth(rows).items()
    )
    return (
        f"{about['network']}, batch {about['batch']}, {about['device']}, {about['threads']} thread, torch {about['torch']}. From 2 to"
        f" 5 candidates: {grown}.\n\n{found}"
    )


def study(rows: Rows) -> str:
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


def by_row(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """The seeds of each row."""
    named: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        named.setdefault(row["row"], []).append(row)
    return named


def study_seeds(rows: Rows) -> str:
    """Rows of three seeds and more: mean accuracy, and the difference to the row of the same seed whose cost is the budget."""
    by_seed = {(row["row"], row["seed"]): row for row in rows}

    def told(values: Sequence[float], sign: str = "") -> str:
        return f"{100 * mean(values):{sign}.2f} ± {100 * stdev(values) / sqrt(len(values)):.2f}"

    made = []
    for name, mine in by_row(rows).items():
        if len(mine) < 3:
            continue
        other = mine[0].get("cycles_of") or mine[0].get("bitops_of")
        pairs = [(row, by_seed[other, row["seed"]]) for row in mine] if other else []
        made.append(
            (
                name,
                len(mine),
                told([row["accuracy"] for row in mine]),
                other or "",
                told([row["accuracy"] - base["accuracy"] for row, base in pairs], "+") if pairs else "",
                f"{100 * mean([row['cycles'] / base['cycles'] - 1 for row, base in pairs]):+.1f} %" if pairs else "",
            )
        )
    return table(["row", "seeds", "accuracy, %", "against", "difference, points", "cycles"], made) if made else ""


def study_costs(rows: Rows) -> str:
    """Cycles of the layers of the study's network by bits."""
    tables = [
        table(
            list(block[0]), [[value if name == "layer" else f"{value:,}" for name, value in row.items()] for row in block]
        )
        for block in by_columns(rows)
    ]
    return f"Engine {rows[0]['engine']}.\n\n" + "\n".join(tables)


def study_trials(rows: Rows) -> str:
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


def draw_study(rows: Rows, path: Path) -> None:
    """Accuracy against cycles of the study's quantised rows; of several seeds the mean."""
    level = mean(row["accuracy"] for row in rows if row["method"] == "float")
    draw_comparison(
        [
            {
                "name": name if len(mine) == 1 else f"{name} (mean of {len(mine)})",
                "method": mine[0]["method"],
                "accuracy": mean(row["accuracy"] for row in mine),
                "cost": mean(row["cycles"] for row in mine),
                "float": level,
            }
            for name, mine in by_row(rows).items()
            if "cycles" in mine[0]
        ],
        "cycles",
        path,
    )


def study_rtl(rows: Rows) -> str:
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


SECTIONS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "engine": ("engine", engine),
    "layers": ("engine", layers),
    "sim": ("sim", simulation),
    "hls": ("hls", hls),
    "area": ("area", area),
    "timing": ("timing", timing),
    "search": ("search", search),
    "study": ("study", study),
    "study-seeds": ("study", study_seeds),
    "study-trials": ("study", study_trials),
    "study-costs": ("study_costs", study_costs),
    "study-rtl": ("study_rtl", study_rtl),
}


def render(text: str, folder: Path = FOLDER) -> str:
    """The document with the tables of every benchmark that has left figures in ``folder``."""

    def block(match: re.Match[str]) -> str:
        source, maker = SECTIONS[match[2]]
        path = folder / f"{source}.json"
        if not path.exists():
            return match[0]
        made = maker(json.loads(path.read_text(encoding="utf-8")))
        return f"{match[1]}{made}{match[3]}" if made else match[0]

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    DOC.write_text(render(DOC.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"Written: {DOC}")
    if (figures := FOLDER / "study.json").exists():
        draw_study(json.loads(figures.read_text(encoding="utf-8")), PICTURE)
        print(f"Written: {PICTURE}")
