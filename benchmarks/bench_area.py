"""Size of the reference engine on the 7 series, and of its dot unit built in several ways.

    python -m benchmarks.bench_area            # the whole engine, about 10 minutes
    python -m benchmarks.bench_area --units    # only the dot unit: size and simulation speed of each way of counting bits, 2 minutes

Yosys synthesises the rendered RTL; LUTs follow the formula of hwgen/synth.py, which rejects a netlist with a cell that it
does not know. Rows go to build/bench/area.json.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench_engine import ENGINE  # of all CIFAR rows
from benchmarks.rows import write_rows
from hwgen import popcount
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from hwgen.render import render
from hwgen.synth import Resources, synthesise
from sim.verilator import build_library
from sim.xc7_models import primitives

BARS = {"lut": 42_000, "bram36": 130, "dsp": 200, "array_lut_per_mac": 1.45}
WAYS = (3, 5, 7, 9, 11)  # bit pairs of a group
SPEED_HARNESS = Path(__file__).resolve().parent / "cpp" / "popcount_speed.cpp"
COUNTERS = ("bs_pairs_xc7", "bs_counter_xc7", "bs_full_adder_xc7", "bs_adder3_xc7", "bs_popcount", "bs_popcount_xc7")
SPEED_CYCLES = 1_000_000


def row(engine: EngineConfig, found: Resources) -> dict[str, Any]:
    """One object of the result file; the array is bs_array with everything in it."""
    macs = engine.macs_per_cycle
    return {
        "engine": engine.name,
        "macs_per_cycle": macs,
        "lut": found.lut,
        "ff": found.ff,
        "bram36": found.bram36,
        "dsp": found.dsp,
        "lut_per_mac": round(found.lut / macs, 3),
        "array_lut_per_mac": round(found.units["bs_array"] / macs, 3),
        "cells": found.cells,
        "units": found.units,
    }


def whole(engine: EngineConfig) -> dict[str, Any]:
    """Synthesise an engine with everything in it."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = write_rtl(engine, load_board("pynq-z2"), Path(scratch))
        return row(engine, synthesise(sources, "bs_top", parameters={"XC7": 1}))


def simulated_speed(folder: Path, sources: list[Path], top: str) -> int:
    """Cycles a second of one population count in Verilator, on one core."""
    models = primitives(folder, ["LUT6", "LUT6_2", "CARRY4"])
    library = ctypes.CDLL(str(build_library([*sources, models], top, [SPEED_HARNESS], build_root=folder)))
    library.cycles_per_second.restype = ctypes.c_double
    rate: float = library.cycles_per_second(ctypes.c_uint64(SPEED_CYCLES))
    return round(rate)


def dot_units(engine: EngineConfig) -> list[dict[str, Any]]:
    """The dot unit: portable arithmetic as Yosys maps it, and the bit heap with groups of several sizes."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = [path for path in write_rtl(engine, load_board("pynq-z2"), Path(scratch)) if path.stem != "bs_top"]
        netlist = next(path for path in sources if path.stem == "bs_popcount_xc7")
        for pairs in (0, *WAYS):
            if pairs:
                plan = popcount.plan(engine.word_bits, pairs)
                netlist.write_text(render("rtl/bs_popcount_xc7.sv.j2", plan=plan), encoding="utf-8")
            parameters = {"D_K": engine.word_bits, "ACC_BITS": engine.acc_bits, "XC7": int(bool(pairs))}
            found = synthesise(sources, "bs_dot_unit", parameters=parameters)
            counter = [path for path in sources if path.stem in COUNTERS]
            top = "bs_popcount_xc7" if pairs else "bs_popcount"
            rows.append(
                {
                    "way": f"groups of {pairs} pairs" if pairs else "$countones as Yosys maps it",
                    "lut": found.lut,
                    "ff": found.ff,
                    "carry4": found.cells.get("CARRY4", 0),
                    "lut_per_mac": round(found.lut / engine.word_bits, 3),
                    "cycles_per_s": simulated_speed(Path(scratch), counter, top),
                }
            )
    return rows


def show(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for item in rows:
        table.add_row(*(str(value) for value in item.values()))
    console.print(table)


def main() -> int:
    """Measure, print, write; 1 where the engine misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", action="store_true", help="only compare the ways to build a dot unit")
    arguments = parser.parse_args()
    console = Console()
    if arguments.units:
        with console.status("synthesising dot units"):
            rows = dot_units(ENGINE)
        show(console, f"dot unit, {ENGINE.word_bits} bit pairs, {ENGINE.acc_bits}-bit accumulator", rows)
        write_rows("popcount", rows)
        return 0
    with console.status(f"synthesising {ENGINE.name}"):
        found = whole(ENGINE)
    show(console, "engine", [{name: value for name, value in found.items() if name not in ("cells", "units")}])
    show(console, "cells", [{"cell": name, "number": number} for name, number in found["cells"].items()])
    units = sorted(found["units"].items(), key=lambda item: -item[1])
    show(console, "one unit of each kind, with what it contains", [{"unit": name, "lut": lut} for name, lut in units])
    write_rows("area", [found])
    missed = {name: limit for name, limit in BARS.items() if found[name] > limit}
    for name, limit in missed.items():
        console.print(f"[red]{name} is {found[name]}, the bar is {limit}.")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
