"""The longest paths of a mapped, flat 7-series netlist: LUT levels, and logic delay before routing.

Delays of LUTs, carry chains and multiplexers are read from Yosys' cell library (``xilinx/cells_sim.v``: the Artix-7
fabric that the xc7z020 is made of), per pin. Nets count as nothing, so this is what remains were routing free. Paths start
and end at registers, block RAMs and DSPs; ports of the design are no starts and no ends. A pin that an output of its LUT
does not depend on is no way to that output: of a ternary adder's LUT6_2, O5 leaves out the carry that only O6 takes in.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARC = re.compile(r"\((\w+)(?:\[(\d+)\])?\s*=>\s*(\w+)(?:\[(\d+)\])?\)\s*=\s*(\d+)")
_LUTS = tuple(f"LUT{size}" for size in range(1, 7))
_COMBINATIONAL = (*_LUTS, "INV", "MUXF7", "MUXF8", "CARRY4")
# Picoseconds from the clock to the outputs, and before the clock at the inputs, from the same library.
_CLOCK_TO_OUT = {"FDRE": 303, "FDSE": 303, "FDCE": 303, "FDPE": 303, "DSP48E1": 329, "RAMB18E1": 882, "RAMB36E1": 882,
                 "SRL16E": 1472, "SRLC32E": 1472, "RAM32M": 1153, "RAM64M": 1153, "RAM32X1D": 1153, "RAM64X1D": 1153}  # fmt: skip
_SETUP = {"FDRE": 109, "FDSE": 109, "FDCE": 109, "FDPE": 109, "DSP48E1": 324, "RAMB18E1": 566, "RAMB36E1": 566,
          "SRL16E": 173, "SRLC32E": 173, "RAM32M": 453, "RAM64M": 453, "RAM32X1D": 453, "RAM64X1D": 453}  # fmt: skip
# DSP48E1 inputs without a register before the multiplier.
_MULTIPLIER_SETUP = {"A": 1416, "B": 1285}


@dataclass(frozen=True)
class Longest:
    """levels: LUTs in a row on the path with the most. picoseconds: logic of the slowest path, clock and setup included.

    deepest, slowest: cells of the one and of the other path, first to last.
    """

    levels: int
    picoseconds: int
    deepest: tuple[str, ...]
    slowest: tuple[str, ...]


@dataclass(frozen=True)
class _Arc:
    """One way through a cell: bits of the netlist, and the cell's part in levels and time."""

    source: int
    target: int
    level: int
    delay: int
    cell: str


def read_delays(library: Path) -> dict[str, list[tuple[tuple[str, int], tuple[str, int], int]]]:
    """Per cell: (input port, index), (output port, index), picoseconds."""
    text = library.read_text(encoding="utf-8")
    found: dict[str, list[tuple[tuple[str, int], tuple[str, int], int]]] = {}
    for name in _COMBINATIONAL:
        body = re.search(rf"^module {name}\s*\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
        arcs = _ARC.findall(body[0]) if body else []
        found[name] = [((a, int(i or 0)), (b, int(j or 0)), int(ps)) for a, i, b, j, ps in arcs]
    found["LUT6_2"] = [
        (source, (output, 0), delay)
        for source, _, delay in found["LUT6"]
        for output in ("O5", "O6")
        if (source[0], output) != ("I5", "O5")
    ]
    return found


def _setup(cell: Mapping[str, Any], port: str) -> int:
    if port in _MULTIPLIER_SETUP and int(cell["parameters"].get(f"{port}REG", "1"), 2) == 0:
        return _MULTIPLIER_SETUP[port]
    return _SETUP[cell["type"]]


def _depends(cell: Mapping[str, Any], pin: str, output: str) -> bool:
    """Whether a LUT's output depends on an input, by its truth table; other cells have only real ways."""
    init = cell["parameters"].get("INIT")
    if init is None or not cell["type"].startswith("LUT"):
        return True
    at, size = int(pin[1:]), 5 if output == "O5" else int(cell["type"][3])
    table = int(init, 2)
    return any((table >> row ^ table >> (row | 1 << at)) & 1 for row in range(1 << size) if not row >> at & 1)


def longest(netlist: Mapping[str, Any], top: str, library: Path) -> Longest:
    """The longest paths of module ``top`` of a Yosys JSON netlist.

    Raises:
        ValueError: a cell that is not known, or a combinational loop.
    """
    delays = read_delays(library)
    cells: Mapping[str, Any] = netlist["modules"][top]["cells"]
    arrival: dict[int, tuple[int, str, int | None]] = {}  # bit: time, cell, bit before
    arcs: dict[int, list[_Arc]] = {}
    waiting: dict[int, int] = {}
    ends: list[tuple[int, int, str]] = []
    for name, cell in cells.items():
        kind = cell["type"]
        if kind in delays:
            for (source, i), (target, j), delay in delays[kind]:
                start = cell["connections"].get(source, [])[i : i + 1]
                end = cell["connections"].get(target, [])[j : j + 1]
                real = start and end and isinstance(start[0], int) and isinstance(end[0], int)
                if real and _depends(cell, source, target):
                    level = int(kind.startswith("LUT"))
                    arcs.setdefault(start[0], []).append(_Arc(start[0], end[0], level, delay, f"{kind} {name}"))
                    waiting[end[0]] = waiting.get(end[0], 0) + 1
        elif kind in _CLOCK_TO_OUT:
            for port, bits in cell["connections"].items():
                for bit in bits:
                    if not isinstance(bit, int):
                        continue
                    if cell["port_directions"][port] == "output":
                        if port != "PCOUT":
                            arrival[bit] = (_CLOCK_TO_OUT[kind], f"{kind} {name}", None)
                    elif port not in ("C", "CLK", "PCIN") and "CLK" not in port:
                        ends.append((bit, _setup(cell, port), f"{kind} {name}"))
        elif kind not in ("BUFG", "GND", "VCC", "$scopeinfo"):
            raise ValueError(f"the delays of the cell {kind} are not known")
    depth: dict[int, tuple[int, str, int | None]] = {bit: (0, cell, None) for bit, (_, cell, _) in arrival.items()}
    ready = deque(bit for bit in {*arrival, *arcs} if not waiting.get(bit))
    while ready:
        bit = ready.popleft()
        for arc in arcs.get(bit, ()):
            if bit in arrival:
                time, levels = arrival[bit][0] + arc.delay, depth[bit][0] + arc.level
                if arc.target not in arrival or time > arrival[arc.target][0]:
                    arrival[arc.target] = (time, arc.cell, bit)
                if arc.target not in depth or levels > depth[arc.target][0]:
                    depth[arc.target] = (levels, arc.cell, bit)
            waiting[arc.target] -= 1
            if not waiting[arc.target]:
                ready.append(arc.target)
    if any(waiting.values()):
        raise ValueError("the netlist holds a combinational loop")
    reached = [(bit, setup, cell) for bit, setup, cell in ends if bit in arrival]
    picoseconds, slow_end, slow_cell = max((arrival[bit][0] + setup, bit, cell) for bit, setup, cell in reached)
    most, deep_end, deep_cell = max((depth[bit][0], bit, cell) for bit, _, cell in reached)
    return Longest(most, picoseconds, _path(depth, deep_end, deep_cell), _path(arrival, slow_end, slow_cell))


def _path(steps: Mapping[int, tuple[int, str, int | None]], end: int, last: str) -> tuple[str, ...]:
    """Cells from the first one to ``last``, which reads bit ``end``; steps: how far a bit is, its cell, the bit before."""
    path, bit = [last], end
    while True:
        _, cell, before = steps[bit]
        path.append(cell)
        if before is None:
            return tuple(reversed(path))
        bit = before
