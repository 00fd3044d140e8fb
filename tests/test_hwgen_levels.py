"""Path lengths of hand-made netlists."""

from __future__ import annotations

from typing import Any

import pytest

from hwgen.levels import longest, read_delays
from hwgen.synth import cell_library

OUTPUTS = {"Q", "O", "O5", "O6", "CO", "P"}


def netlist(**cells: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A module of cells; connections as bit or list of bits, constants as strings."""
    made = {}
    for name, (kind, connections) in cells.items():
        lists = {port: bits if isinstance(bits, list) else [bits] for port, bits in connections.items()}
        directions = {port: "output" if port in OUTPUTS else "input" for port in lists}
        made[name] = {"type": kind, "connections": lists, "port_directions": directions, "parameters": {}}
    return {"modules": {"top": {"cells": made}}}


def test_levels_and_logic_of_a_chain() -> None:
    """Register, LUT, carry chain (S[0] to O[3]: 582), LUT (I0: 642), register: 303 and 109 at the ends."""
    found = longest(
        netlist(
            start=("FDRE", {"C": 1, "D": "0", "Q": 2}),
            first=("LUT2", {"I0": "0", "I1": 2, "O": 3}),
            chain=("CARRY4", {"CI": "0", "CYINIT": "0", "S": [3, "0", "0", "0"], "DI": ["0"] * 4, "O": [4, 5, 6, 7]}),
            second=("LUT6_2", {"I0": 7, "I1": 2, "O5": 8, "O6": 9}),
            end=("FDRE", {"C": 1, "D": 9, "Q": 10}),
        ),
        "top",
        cell_library(),
    )
    assert found.levels == 2
    assert found.picoseconds == 303 + lut2_i1() + 582 + 642 + 109
    assert [cell.split()[1] for cell in found.slowest] == ["start", "first", "chain", "second", "end"]


def lut2_i1() -> int:
    """The delay of input 1 of a LUT2, from the library."""
    return next(delay for source, _, delay in read_delays(cell_library())["LUT2"] if source == ("I1", 0))


def test_ports_are_no_starts() -> None:
    found = longest(
        netlist(
            start=("FDRE", {"C": 1, "D": "0", "Q": 2}),
            one=("LUT1", {"I0": 20, "O": 21}),  # 20 is a port
            two=("LUT2", {"I0": 21, "I1": 2, "O": 22}),
            end=("FDRE", {"C": 1, "D": 22, "Q": 23}),
        ),
        "top",
        cell_library(),
    )
    assert found.levels == 1


def test_loops_and_unknown_cells_are_refused() -> None:
    loop = netlist(
        start=("FDRE", {"C": 1, "D": 4, "Q": 2}),
        one=("LUT2", {"I0": 2, "I1": 4, "O": 3}),
        two=("LUT1", {"I0": 3, "O": 4}),
    )
    with pytest.raises(ValueError, match="combinational loop"):
        longest(loop, "top", cell_library())
    with pytest.raises(ValueError, match="LUT9"):
        longest(netlist(odd=("LUT9", {"O": 3})), "top", cell_library())


@pytest.mark.parametrize(("init", "levels"), [("17e817e8", 2), ("17e80000", 3)])
def test_pins_that_an_output_leaves_out(init: str, levels: int) -> None:
    """Three bits of a ternary adder: O5 of the one before enters I4, on which only O6 depends; else a chain of three."""
    cells: dict[str, tuple[str, dict[str, Any]]] = {"start": ("FDRE", {"C": 1, "D": "0", "Q": 2})}
    for bit in range(3):
        carry = 9 + bit if bit else "0"
        cells[f"bit{bit}"] = ("LUT6_2", {"I0": 2, "I4": carry, "I5": "1", "O5": 10 + bit, "O6": 20 + bit})
        cells[f"end{bit}"] = ("FDRE", {"C": 1, "D": 20 + bit, "Q": 30 + bit})
    made = netlist(**cells)
    for bit in range(3):
        made["modules"]["top"]["cells"][f"bit{bit}"]["parameters"]["INIT"] = f"{int('96696996' + init, 16):064b}"
    assert longest(made, "top", cell_library()).levels == levels
