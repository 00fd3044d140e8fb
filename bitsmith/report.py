"""Figures of a build: modelled cycles, resources, frames per second; and their table and picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from bitsmith.console import table
from hwgen.area import estimate_area
from hwgen.build import Build
from hwgen.cycles import time_program
from hwgen.errors import InputError
from hwgen.passes import ArrayPass, MeanPass
from hwgen.synth import Resources, synthesise
from hwgen.vivado import check_timing, read_reports


def layer_rows(build: Build) -> list[dict[str, Any]]:
    """Per layer: name, shape, weight (0: it has none) and activation bits, modelled cycles, tile bound, utilisation."""
    timing = time_program(build.schedule)
    timed = [item for item in build.schedule.passes if isinstance(item, ArrayPass | MeanPass)]
    rows = []
    for item, layer in zip(timed, timing.layers, strict=True):
        height, width, channels = item.code.shape
        kernel = item.source.shape[:2] if isinstance(item, MeanPass) else (item.window.kernel_h, item.window.kernel_w)
        rows.append(
            {
                "name": item.name,
                "shape": f"{item.source.shape[2]}x{kernel[0]}x{kernel[1]} > {channels}x{height}x{width}",
                "weight": item.weight_bits if isinstance(item, ArrayPass) else 0,
                "activation": item.source.bits,
                "cycles": layer.cycles,
                "tile_bound": layer.tile_bound,
                "utilisation": round(layer.utilisation, 4),
            }
        )
    return rows


def size(rtl: Sequence[Path], cache: Path | None = None) -> Resources:
    """What Yosys makes of an engine's sources; the second time, of the same ones, from the cache."""
    return synthesise(rtl, "bs_top", parameters={"XC7": 1}, cache_dir=cache)


def estimate(build: Build, *, fast: bool = False, cache: Path | None = None) -> dict[str, Any]:
    """Cycles by the model and resources by Yosys (``fast``: by the fitted model), with the keys that others rely on."""
    timing = time_program(build.schedule)
    limits = build.board.resources
    result: dict[str, Any] = {"engine": build.engine.name, "engine_hash": f"{build.engine.hash:08x}"}
    if fast:
        area = estimate_area(build.engine)
        result |= {"lut": area.lut, "ff": area.ff, "bram36": area.bram36, "dsp": area.dsp, "cells": {}, "source": "model"}
    elif build.backend != "rtl":
        raise InputError(
            f"Yosys sizes RTL, and the build's backend is {build.backend}: --fast tells the size of the RTL engine of the same"
            " shape, 'bitsmith synth' what the vendor's tools make of the kernel.",
            str(build.path),
        )
    else:
        found = size(build.rtl, cache)
        result |= {
            "lut": found.lut,
            "ff": found.ff,
            "bram36": found.bram36,
            "dsp": found.dsp,
            "cells": found.cells,
            "units": found.units,
            "source": "yosys",
        }
    measured = read_reports(build.path)
    if measured is not None:
        check_timing(measured)
    clock = build.board.clock_mhz
    result |= {
        "measured": None if measured is None else asdict(measured),
        "board": {"name": build.board.name, **limits.model_dump()},
        "cycles_per_image": timing.cycles_per_image,
        "first_image_cycles": timing.first_image,
        "clock_mhz": clock,
        "fps": clock * 1e6 / timing.cycles_per_image,
        "layers": [
            {key: row[key] for key in ("name", "cycles", "tile_bound", "utilisation")} for row in layer_rows(build)
        ],
    }
    return result


def resource_table(figures: dict[str, Any]) -> Table:
    """LUT, FF, BRAM36 and DSP against the board's."""
    board = figures["board"]
    rows = [
        [name.upper(), figures[name], board[name], f"{100 * figures[name] / board[name]:.0f} %"]
        for name in ("lut", "ff", "bram36", "dsp")
    ]
    how = "Yosys synth_xilinx" if figures["source"] == "yosys" else "fitted model"
    head = ["", "used", "board", "share"]
    measured = figures.get("measured")
    if measured is not None:
        head.append("Vivado")
        rows = [[*row, f"{measured[name]:g}"] for row, name in zip(rows, ("lut", "ff", "bram36", "dsp"), strict=True)]
        how += f"; Vivado {measured['vivado']} with the processing system, slack {measured['slack_ns']:.3f} ns"
    return table(f"Engine {figures['engine']} on {board['name']} ({how})", head, rows)


def layer_table(rows: Sequence[dict[str, Any]], simulated: dict[str, float] | None = None) -> Table:
    """Per layer: shape, bits, modelled and, where there are any, simulated cycles."""
    head = ["layer", "in > out (C x H x W)", "W bits", "A bits", "cycles", "simulated", "bound"]
    body = []
    for row in rows:
        measured = "-" if simulated is None or row["name"] not in simulated else f"{simulated[row['name']]:.0f}"
        body.append(
            [
                row["name"],
                row["shape"],
                row["weight"] or "-",
                row["activation"],
                row["cycles"],
                measured,
                row["tile_bound"],
            ]
        )
    total = [
        "total",
        "",
        "",
        "",
        sum(row["cycles"] for row in rows),
        "-" if simulated is None else f"{sum(simulated.values()):.0f}",
        sum(row["tile_bound"] for row in rows),
    ]
    return table("Layers", head, [*body, total])


def draw_layers(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """A picture: weight and activation bits, and cycles, of every layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [row["name"] for row in rows]
    place = range(len(rows))
    figure, (bits, cycles) = pyplot.subplots(
        2, 1, sharex=True, figsize=(max(6.0, 0.75 * len(rows) + 2), 5.2), layout="constrained"
    )
    bits.bar([at - 0.2 for at in place], [row["weight"] for row in rows], 0.4, label="weights", color="#31688e")
    bits.bar([at + 0.2 for at in place], [row["activation"] for row in rows], 0.4, label="activations", color="#fd9a44")
    bits.set_ylabel("bits")
    bits.set_yticks(range(0, 9, 2))
    bits.legend(loc="upper right", ncols=2, frameon=False)
    bits.set_ylim(0, max(max(row["weight"], row["activation"]) for row in rows) + 1.5)
    cycles.bar(place, [row["cycles"] for row in rows], 0.8, color="#b0c4de", label="cycles")
    cycles.bar(place, [row["tile_bound"] for row in rows], 0.8, color="#31688e", label="tile bound")
    cycles.set_ylabel("cycles per image")
    cycles.legend(loc="upper right", ncols=2, frameon=False)
    cycles.set_xticks(list(place), names, rotation=35, ha="right")
    figure.suptitle(title, fontsize=11)
    for axis in (bits, cycles):
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
