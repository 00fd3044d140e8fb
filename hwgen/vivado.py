"""Vivado: the project that builds a bit file from the RTL of an engine, and its reports read back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwgen.address_map import ENGINE, INTERRUPTS
from hwgen.board import Board
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.render import render
from hwgen.zynq import AXIL, MASTERS, READ_IN, READ_OUT, WRITE_IN, WRITE_OUT

FOLDER = "vivado"
_CONTROL_INPUTS = {
    "awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arprot", "arvalid", "rready",
}  # fmt: skip
_WINDOW_BITS = ENGINE.size.bit_length() - 1  # Vivado takes the size of the window from the width of the address
_ROWS = {"lut": "Slice LUTs", "ff": "Slice Registers", "bram36": "Block RAM Tile", "dsp": "DSPs"}


@dataclass(frozen=True)
class _Port:
    """A port of the wrapper: ranges as written on the engine's side (inner) and on the wrapper's (outer)."""

    name: str
    direction: str
    inner: str
    outer: str


@dataclass(frozen=True)
class Core:
    """What stands for the engine in the block design. ip: name of an IP of the library bitsmith:hls; empty: the wrapper ``bs_ip`` of the RTL.

    The others are its pins: master is followed by the index of a memory port.
    """

    ip: str
    clock: str
    reset: str
    interrupt: str
    control: str
    master: str


RTL_CORE = Core("", "clk", "resetn", "irq_o", "s_axil", "m_axi_")
HLS_CORE = Core("bs_kernel", "ap_clk", "ap_rst_n", "interrupt", "s_axi_control", "m_axi_m_axi_")


@dataclass(frozen=True)
class Measured:
    """What Vivado measured. slack_ns: of the worst path, from ``start`` to ``end``; negative: it misses the clock.

    check: what the slack is of, "setup" or "hold".
    """

    vivado: str
    clock_mhz: float
    check: str
    slack_ns: float
    start: str
    end: str
    lut: int
    ff: int
    bram36: float
    dsp: int


def _range(width: int) -> str:
    return "" if width == 1 else f"[{width - 1}:0] "


def _ports(outputs: dict[str, tuple[int, int]], inputs: dict[str, tuple[int, int]]) -> list[_Port]:
    made = [(name, "output", widths) for name, widths in outputs.items()]
    made += [(name, "input ", widths) for name, widths in inputs.items()]
    # The primitive has two bits of AxSIZE, Vivado's interfaces three.
    return [
        _Port(name, direction, _range(ours), _range(ours if name.endswith("size") else theirs))
        for name, direction, (ours, theirs) in made
    ]


def render_project(engine: EngineConfig, board: Board, rtl: Sequence[str], version: str) -> dict[str, str]:
    """The files of the Vivado folder by name: the script and the wrapper around the engine.

    Args:
        rtl: names of the sources in compile order; they lie in ``../rtl``.
    """
    masters = [
        {
            "index": index,
            "ports": _ports(READ_OUT | (WRITE_OUT if writes else {}), READ_IN | (WRITE_IN if writes else {})),
        }
        for index, writes in enumerate(MASTERS)
    ]
    control = [
        _Port(
            name,
            "input " if name in _CONTROL_INPUTS else "output",
            _range(width),
            _range(_WINDOW_BITS if name.endswith("addr") else width),
        )
        for name, width in {**AXIL, "awprot": 3, "arprot": 3}.items()
    ]
    script = render_script(engine, board, RTL_CORE, rtl, version)
    return {"build.tcl": script, "bs_ip.v": render("vivado/bs_ip.v.j2", masters=masters, control=control)}


def render_script(engine: EngineConfig, board: Board, core: Core, rtl: Sequence[str], version: str) -> str:
    """The script that builds the bit file of a block design around ``core``; rtl: as for :func:`render_project`."""
    return render(
        "vivado/build.tcl.j2",
        engine=engine, board=board, masters=len(MASTERS), window=ENGINE, interrupts=INTERRUPTS, rtl=rtl, core=core,
        version=version,
    )  # fmt: skip


def check_timing(measured: Measured) -> None:
    """Raise unless the clock is met.

    Raises:
        InputError: with the worst path.
    """
    if measured.slack_ns < 0:
        what = {"setup": "choose a slower clock or a smaller engine", "hold": "Vivado's routing has to be run again"}
        raise InputError(
            f"The design misses its clock of {measured.clock_mhz} MHz by {-measured.slack_ns:.3f} ns ({measured.check}), on the"
            f" path from {measured.start} to {measured.end}: {what[measured.check]}."
        )


def read_reports(build: Path) -> Measured | None:
    """What Vivado measured of the build folder ``build``; None where it did not run to its end.

    Raises:
        InputError: reports that cannot be read.
    """
    folder = build / FOLDER / "reports"
    try:
        summary = (folder / "summary.txt").read_text(encoding="utf-8")
        table = (folder / "utilization.txt").read_text(encoding="utf-8")
    except OSError:
        return None
    except UnicodeDecodeError:
        raise InputError("summary.txt and utilization.txt are not text.", str(folder)) from None
    facts = dict(line.split(" ", 1) for line in summary.splitlines() if " " in line)
    numbers = re.compile(r"[-+]?\d+(\.\d+)?")
    paths = {check: facts.get(check, "").split() for check in ("setup", "hold")}
    used = {key: re.search(rf"^\|\s*{row}\*?\s*\|\s*([\d.]+)\s*\|", table, re.MULTILINE) for key, row in _ROWS.items()}
    problems = [f"utilization.txt has no row '{_ROWS[key]}'." for key, found in used.items() if found is None]
    problems += [
        f"summary.txt has no line '{check}' with a slack and two pins."
        for check, words in paths.items()
        if len(words) != 3 or not numbers.fullmatch(words[0])
    ]
    if not numbers.fullmatch(facts.get("clock_mhz", "")):
        problems.append("summary.txt has no line 'clock_mhz' with a number.")
    if problems:
        raise InputError(problems, str(folder))
    value = {key: float(found[1]) for key, found in used.items() if found is not None}
    check, (slack, start, end) = min(paths.items(), key=lambda item: float(item[1][0]))
    return Measured(
        facts.get("vivado", "?"), float(facts["clock_mhz"]), check, float(slack), start, end,
        int(value["lut"]), int(value["ff"]), value["bram36"], int(value["dsp"]),
    )  # fmt: skip
