"""Renders the tables of docs/results.md from what the benchmarks left in ``build/bench``, and draws docs/study.png.

    python -m benchmarks.results     # every section whose benchmark has been run here

A table stands between ``<!-- rendered: NAME -->`` and ``<!-- end -->``; sections without new figures stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import study_tables
from benchmarks.bench_search import growth
from benchmarks.rows import FOLDER, Rows, table

DOC = Path(__file__).resolve().parent.parent / "docs" / "results.md"
PICTURE = DOC.with_name("study.png")
_BLOCK = re.compile(r"(<!-- rendered: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


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


SECTIONS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "engine": ("engine", engine),
    "layers": ("engine", layers),
    "sim": ("sim", simulation),
    "hls": ("hls", hls),
    "area": ("area", area),
    "timing": ("timing", timing),
    "search": ("search", search),
    "study": ("study", study_tables.accuracies),
    "study-seeds": ("study", study_tables.seeds),
    "study-bits": ("study", study_tables.bits),
    "study-trials": ("study", study_tables.trials),
    "study-costs": ("study_costs", study_tables.costs),
    "study-rtl": ("study_rtl", study_tables.rtl),
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
        study_tables.draw(json.loads(figures.read_text(encoding="utf-8")), PICTURE)
        print(f"Written: {PICTURE}")
