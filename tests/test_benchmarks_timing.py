"""Registers that move into the multipliers of an ECP5 netlist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ecp5_registers import move
from hwgen.synth import run_yosys

MULTIPLIER = """
module top(input clk, input go, input [17:0] a, b, output reg [35:0] product{ports});
  wire [35:0] both = a * b;
  always @(posedge clk) {enable} product <= both;
  {more}
endmodule
"""


def mapped(folder: Path, source: str) -> dict[str, Any]:
    (folder / "top.v").write_text(source, encoding="utf-8")
    commands = [f"read_verilog -sv {folder}/top.v", f"synth_ecp5 -top top -abc9 -json {folder}/top.json"]
    run_yosys(commands, "top")
    netlist: dict[str, Any] = json.loads((folder / "top.json").read_text(encoding="utf-8"))
    return netlist


def kinds(netlist: dict[str, Any]) -> list[str]:
    return [cell["type"] for cell in netlist["modules"]["top"]["cells"].values()]


@pytest.mark.parametrize("enable", ["", "if (go)"])
def test_a_multiplier_takes_the_registers_of_its_product(tmp_path: Path, enable: str) -> None:
    netlist = mapped(tmp_path, MULTIPLIER.format(ports="", enable=enable, more=""))
    product = netlist["modules"]["top"]["ports"]["product"]["bits"]
    assert move(netlist, "top") == (1, 36)
    assert "TRELLIS_FF" not in kinds(netlist)
    (unit,) = (cell for cell in netlist["modules"]["top"]["cells"].values() if cell["type"] == "MULT18X18D")
    assert unit["parameters"]["REG_OUTPUT_CLK"] == "CLK0"
    assert unit["connections"]["CLK0"] == netlist["modules"]["top"]["ports"]["clk"]["bits"]
    assert unit["connections"]["CE0"] == (netlist["modules"]["top"]["ports"]["go"]["bits"] if enable else ["1"])
    assert [unit["connections"][f"P{bit}"] for bit in range(36)] == [[bit] for bit in product]


@pytest.mark.parametrize(
    ("ports", "enable", "more"),
    [
        ("", "if (go) product <= '0; else", ""),
        (", output other", "", "assign other = both[20];"),
        (", output reg other", "", "always @(posedge clk) other <= !both[20];"),
    ],
    ids=["reset", "read before the register", "another register"],
)
def test_a_multiplier_whose_registers_others_need_keeps_out(tmp_path: Path, ports: str, enable: str, more: str) -> None:
    netlist = mapped(tmp_path, MULTIPLIER.format(ports=ports, enable=enable, more=more))
    before = sorted(kinds(netlist))
    assert move(netlist, "top") == (0, 0)
    assert sorted(kinds(netlist)) == before
