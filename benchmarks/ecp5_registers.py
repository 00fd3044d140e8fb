"""Move registers into the multipliers of a mapped ECP5 netlist, as the vendor's tools do and Yosys does not.

A multiplier has a register behind its product. Where every bit of the product goes to a register and nowhere else, all of
them with one clock and one enable and without reset, those registers are the multiplier's own. Block RAMs have one as well,
but theirs ties what it holds to a place far from its readers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

_Cells = dict[str, dict[str, Any]]


def _readers(cells: _Cells, ports: dict[str, dict[str, Any]]) -> dict[Any, list[tuple[str, str]]]:
    """Cell and port of everything that reads a bit; a port of the design has no cell."""
    found: dict[Any, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for bit in bits:
                    found[bit].append((name, port))
    for name, port_of_design in ports.items():
        for bit in port_of_design["bits"]:
            found[bit].append(("", name))
    return found


def _control(register: dict[str, Any]) -> tuple[Any, Any] | None:
    """Clock and enable, a bit each; None where a reset does something or the enable is inverted."""
    joined, mux = register["connections"], register["parameters"].get("CEMUX", "1").strip()
    if joined.get("LSR", ["0"]) != ["0"] or mux not in ("1", "CE"):
        return None
    return joined["CLK"][0], joined["CE"][0] if mux == "CE" else "1"


def move(netlist: dict[str, Any], top: str) -> tuple[int, int]:
    """Change ``netlist``, in Yosys' JSON, in place.

    Returns:
        How many ``MULT18X18D`` took registers, and how many ``TRELLIS_FF`` they took.
    """
    cells: _Cells = netlist["modules"][top]["cells"]
    readers = _readers(cells, netlist["modules"][top]["ports"])
    units = moved = 0
    for cell in [item for item in cells.values() if item["type"] == "MULT18X18D"]:
        outputs = [
            (port, bits[0])
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "output" and bits and readers[bits[0]]
        ]
        taken = [readers[bit] for _, bit in outputs]
        registers = [cells[reads[0][0]] for reads in taken if len(reads) == 1 and reads[0][1] == "DI"]
        controls = {_control(item) for item in registers}
        if not outputs or len(registers) < len(outputs) or len(controls) > 1 or None in controls:
            continue
        clock, enable = next(item for item in controls if item is not None)
        for (port, _), reads in zip(outputs, taken, strict=True):
            cell["connections"][port] = cells.pop(reads[0][0])["connections"]["Q"]
        cell["parameters"] |= {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0"}
        for port, bit in {"CLK0": clock, "CE0": enable, "RST0": "0"}.items():
            cell["connections"][port] = [bit]
            cell["port_directions"][port] = "input"
        units += 1
        moved += len(registers)
    return units, moved
