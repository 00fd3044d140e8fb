"""Resource figures: Yosys ``synth_xilinx`` on the rendered RTL, counted for the 7 series.

Synthesis runs in a process of its own, keeps the hierarchy at unit boundaries (each kind of unit is mapped once), and is
cached by the content of the sources. LUTs are counted by a formula that knows every cell which takes LUTs; a netlist
with one that it does not know is rejected.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_SCRIPT = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for command in sys.stdin.read().splitlines():
    ys.run_pass(command, design)
"""
# LUTs per cell. Yosys' "estimated LCs" count LUT1 to LUT6 (and muxes) but none of these.
_MEMORY_LUTS = {
    "LUT6_2": 1,
    "SRL16E": 1,
    "SRLC32E": 1,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32X1S": 1,
    "RAM64X1S": 1,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1S": 2,
    "RAM128X1D": 4,
    "RAM256X1S": 4,
}
_LOGIC = {"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "CARRY4", "MUXF7", "MUXF8", "INV"}
_REGISTERS = {"FDRE", "FDSE", "FDCE", "FDPE"}
_BLOCKS = {"RAMB36E1", "RAMB18E1", "DSP48E1"}
_FREE = {"BUFG", "GND", "VCC"}
_TAIL_LINES = 20
_MOST_PARTS = 8  # partial counts of bs_popcount; divides every word
KEEP = (
    "bs_array",
    "bs_dot_unit",
    "bs_fetch",
    "bs_fill",
    "bs_issue",
    "bs_lane",
    "bs_packer",
    "bs_sums",
    "bs_pool",
    "bs_ram",
    "bs_shell",
    "bs_walker",
    "bs_window",
    "bs_write_back",
)


@dataclass(frozen=True)
class Resources:
    """What a design takes. cells: every cell of the netlist with its count. units: LUTs of the largest
    unit of each kind, with everything in it."""

    lut: int
    ff: int
    bram36: int
    dsp: int
    cells: dict[str, int]
    units: dict[str, int]


def count(cells: Mapping[str, int], logic_cells: int) -> tuple[int, int, int, int]:
    """LUT, FF, BRAM36 and DSP of a cell table whose "estimated LCs" are ``logic_cells``.

    LUT = LCs + LUT6_2 + SRL16E + SRLC32E + 4*(RAM32M + RAM64M) + what each other distributed memory takes.

    Raises:
        ValueError: a cell that the formula does not know.
    """
    known = _LOGIC | _REGISTERS | _BLOCKS | _FREE | set(_MEMORY_LUTS)
    unknown = sorted(set(cells) - known)
    if unknown:
        raise ValueError(f"the LUT formula does not know the cells {', '.join(unknown)}")
    lut = logic_cells + sum(cells.get(name, 0) * luts for name, luts in _MEMORY_LUTS.items())
    bram = cells.get("RAMB36E1", 0) + -(-cells.get("RAMB18E1", 0) // 2)
    return lut, sum(cells.get(name, 0) for name in _REGISTERS), bram, cells.get("DSP48E1", 0)


def _unit_name(module: str) -> str:
    """``$paramod$hash\\bs_ram`` or ``$paramod\\bs_lane\\ACC=..`` -> the module's own name."""
    return next((part for part in module.split("\\") if part.startswith("bs_")), module)


def _parse(report: Mapping[str, Any]) -> Resources:
    """Figures of a ``stat -tech xilinx -json`` report: the whole design, and each kind of unit."""
    modules = {name.lstrip("\\"): module for name, module in report["modules"].items()}
    counted = {name.lstrip("\\"): int(number) for name, number in report["design"]["num_cells_by_type"].items()}
    cells = {name: number for name, number in counted.items() if name not in modules}
    lut, ff, bram, dsp = count(cells, int(report["design"]["estimated_num_lc"]))

    @cache
    def beside(name: str) -> int:
        """LUTs of a unit, with everything in it, that Yosys' estimate leaves out."""
        own = {cell.lstrip("\\"): int(number) for cell, number in modules[name]["num_cells_by_type"].items()}
        return sum(
            number * (beside(cell) if cell in modules else _MEMORY_LUTS.get(cell, 0)) for cell, number in own.items()
        )

    units: dict[str, int] = {}
    for name, module in modules.items():
        unit = _unit_name(name)
        # The estimate of a module has that of the modules in it.
        units[unit] = max(units.get(unit, 0), int(module["estimated_num_lc"]) + beside(name))
    return Resources(lut, ff, bram, dsp, dict(sorted(cells.items())), dict(sorted(units.items())))


def synthesise(
    sources: Sequence[Path],
    top: str,
    *,
    parameters: Mapping[str, int] | None = None,
    keep: Sequence[str] = KEEP,
    cache_dir: Path | None = None,
) -> Resources:
    """Synthesise for the 7 series, or take the figures from the cache.

    Args:
        sources: SystemVerilog files, packages first.
        keep: modules whose boundaries stay.
        cache_dir: folder; ``$BITSMITH_CACHE/synth`` or the user's cache folder if None.

    Raises:
        RuntimeError: Yosys failed; the message holds the end of its output.
        ValueError: a cell that the LUT formula does not know.
    """
    folder = cache_dir or _default_cache()
    settings = json.dumps([version("pyosys"), top, sorted((parameters or {}).items()), list(keep), 5])
    digest = hashlib.sha256(settings.encode())
    for source in sources:
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    entry = folder / f"{top}-{digest.hexdigest()[:20]}.json"
    if entry.exists():
        _log.info("size of %s from %s", top, entry)
        return Resources(**json.loads(entry.read_text(encoding="utf-8")))
    _log.info("Yosys maps %s; figures go to %s", top, entry)
    with tempfile.TemporaryDirectory(prefix="bitsmith-synth-") as scratch:
        report = Path(scratch) / "stat.json"
        commands = [*map_commands(sources, top, parameters or {}, keep), f"tee -q -o {report} stat -tech xilinx -json"]
        run_yosys(commands, top)
        data = json.loads(report.read_text(encoding="utf-8"))
    result = _parse(data)
    folder.mkdir(parents=True, exist_ok=True)
    partial = entry.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(result)), encoding="utf-8")
    partial.replace(entry)
    return result


def _read(sources: Sequence[Path], top: str, parameters: Mapping[str, int]) -> list[str]:
    values = " ".join(f"-chparam {name} {value}" for name, value in parameters.items())
    return [
        "read_verilog -sv " + " ".join(map(str, sources)),
        f"hierarchy -check -top {top} {values}",
    ]


def map_commands(sources: Sequence[Path], top: str, parameters: Mapping[str, int], keep: Sequence[str]) -> list[str]:
    """Commands that map a design to the 7 series; the library comes first, as sources instantiate its cells."""
    return [
        "read_verilog -lib -specify +/xilinx/cells_sim.v",
        *_read(sources, top, parameters),
        *(f"setattr -mod -set keep_hierarchy 1 *{name} *{name}\\*" for name in keep),
        "synth_xilinx -family xc7 -abc9 -noiopad",
    ]


def run_yosys(commands: Sequence[str], top: str, folder: Path | None = None, seconds: float | None = None) -> None:
    """Run commands in a process of their own, in ``folder`` or here.

    Raises:
        RuntimeError: Yosys failed; the message holds the end of its output.
        subprocess.TimeoutExpired: it took more than ``seconds``.
    """
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input="\n".join(commands),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    if run.returncode != 0:
        tail = "\n".join((run.stdout + run.stderr).splitlines()[-_TAIL_LINES:])
        raise RuntimeError(f"Yosys failed on {top}:\n{tail}")


def xc7_netlist(sources: Sequence[Path], top: str, out: Path, *, parameters: Mapping[str, int] | None = None) -> None:
    """Write the mapped 7-series netlist as Yosys JSON, flat; raises as :func:`synthesise`."""
    flat = ["setattr -mod -unset keep_hierarchy *", "flatten", "opt_clean"]
    run_yosys([*map_commands(sources, top, parameters or {}, KEEP), *flat, f"write_json {out}"], top)


def ecp5_netlist(sources: Sequence[Path], top: str, out: Path) -> None:
    """Write the mapped, flat ECP5 netlist as Yosys JSON for nextpnr; raises as :func:`synthesise`.

    Dot units count in as many parts as they can: fewer, which simulate faster, are longer paths.
    """
    run_yosys([*_read(sources, top, {"PARTS": _MOST_PARTS}), f"synth_ecp5 -top {top} -abc9 -json {out}"], top)


def cell_library() -> Path:
    """Yosys' models of the 7-series cells, with their delays."""
    return Path(str(files("pyosys"))) / "share" / "xilinx" / "cells_sim.v"


def _default_cache() -> Path:
    root = os.environ.get("BITSMITH_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "bitsmith") / "synth"
