"""The engine as Yosys elaborates it runs the random networks as Verilator's reading does, and a mutated one does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import mutate, mutate_benches
from hwgen.board import load_board
from hwgen.build import write_rtl


@pytest.fixture(autouse=True)
def no_mutant() -> Iterator[None]:
    yield
    os.environ.pop(mutate.VARIABLE, None)


def test_the_elaborated_engine_is_right_and_its_mutants_are_killed(tmp_path: Path) -> None:
    sources = write_rtl(mutate.ENGINE, load_board("pynq-z2"), tmp_path / "rtl")
    library, numbers, benches = mutate.mutated_engine(sources, tmp_path, 6, ["bs_window", "bs_clip"])
    todo = mutate.works()
    assert mutate.killed(library, 0, todo) == ""
    assert {base: len(mutants) for base, mutants in numbers.items()} == {"bs_window": 6, "bs_clip": 6}
    dead = [number for mutants in numbers.values() for number, _ in mutants if mutate.killed(library, number, todo)]
    assert len(dead) >= 9
    # The bench of the lane runs on the same netlist and sees most of them, too.
    assert not benches.fails("bs_clip", 0)
    assert sum(benches.fails("bs_clip", number) for number, _ in numbers["bs_clip"]) >= 4
    assert not benches.fails("bs_core", numbers["bs_clip"][0][0])  # which has no bench


def test_names_of_elaborated_modules() -> None:
    design = "module \\bs_top\n  cell $paramod$1\\bs_ram \\u\n  cell $paramod$2\\bs_ram \\v\nend\nmodule $paramod$1\\bs_ram\nend\nmodule $paramod$2\\bs_ram\n  wire \\a\nend\n"
    text, chosen = mutate.plain_names(design)
    assert chosen == {"bs_top": "bs_top", "bs_ram": "bs_ram__1"}
    assert "cell \\bs_ram__0 \\u\n" in text and "module \\bs_ram__1\n" in text and "$paramod" not in text


def test_parameters_of_elaborated_modules() -> None:
    design = "\nmodule \\bs_a\n  parameter \\D_N 4\n  parameter \\XC7 1'0\n  wire \\x\nend\n\nmodule \\bs_b\n  parameter \\D_N 8\nend\n"
    assert mutate_benches.parameters_of(design, "bs_a") == {"D_N": 4, "XC7": 0}
    assert mutate_benches.parameters_of(design, "bs_b") == {"D_N": 8}


def test_the_select_port_of_the_top_becomes_a_register() -> None:
    verilog = "module bs_a(mutant_select, x);\n  input [15:0] mutant_select;\n  wire [15:0] mutant_select;\nendmodule\nmodule bs_top(a, mutant_select, b);\n  input a;\n  input [15:0] mutant_select;\n  wire [15:0] mutant_select;\n  bs_a a(.mutant_select(mutant_select));\nendmodule\n"
    made = mutate.drive_select(verilog)
    assert "module bs_a(mutant_select, x);" in made and "module bs_top(a, b);" in made
    assert made.count("input [15:0] mutant_select;") == 1 and "logic [15:0] mutant_select = 16'(bs_mutant());" in made
    assert "bs_a a(.mutant_select(bs_mutants::mutant_select));" in made
    with pytest.raises(RuntimeError, match="no select"):
        mutate.drive_select("module bs_top(a);\nendmodule\n")
