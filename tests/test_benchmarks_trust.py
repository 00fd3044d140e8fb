"""The benchmarks that measure the tests: coverage is merged right, mutants of Python are what they say and are noticed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import coverage, mutate, mutate_proofs, mutate_python, survivors
from hwgen import isa
from hwgen.synth import run_yosys


def point(file: str, line: int, page: str, count: int, **more: str) -> str:
    keys = {"f": file, "l": str(line), "page": page, **more}
    return "C '" + "".join(f"\1{key}\2{value}" for key, value in keys.items()) + f"' {count}\n"


def test_simulations_are_merged_by_file_and_line(tmp_path: Path) -> None:
    one, two = tmp_path / "one.dat", tmp_path / "two.dat"
    head = "# SystemC::Coverage-3\n"
    one.write_text(
        head + point("/a/bs_x.sv", 3, "v_line/bs_x", 0, S="3-4,7") + point("/a/bs_x.sv", 9, "v_branch/bs_x", 0, S="9")
        + point("/a/bs_x.sv", 2, "v_toggle/bs_x", 0, o="q:0->1")
    )  # fmt: skip
    two.write_text(
        head + point("/b/bs_x.sv", 3, "v_line/bs_x__1", 5, S="3-4,7") + point("/b/tb.sv", 1, "v_line/tb", 0, S="1")
    )
    merged = coverage.Merged()
    merged.add(one)
    merged.add(two)
    lines, toggles = merged.shares({"bs_x.sv"})
    assert (lines.reached, lines.all, lines.gaps) == (3, 4, ["bs_x.sv:9"])
    assert (toggles.reached, toggles.all, toggles.gaps) == (0, 1, ["bs_x.sv:2 q:0->1"])


def test_branches_are_counted_by_package() -> None:
    facts = {"summary": {"num_branches": 4, "covered_branches": 3}, "missing_branches": [[7, -1]]}
    hwgen, sim = coverage.python_shares({"files": {"hwgen/a.py": facts}})
    assert (hwgen.share, hwgen.gaps, sim.share) == (0.75, ["hwgen/a.py:7 to its end"], 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a < b", "a <= b"), ("a + b", "a - b"), ("f(3)", "f(4)"), ("a and b", "a or b"), ("a is None", "a is not None")],
)
def test_one_place_is_mutated(text: str, expected: str) -> None:
    tree, told = mutate_python.mutated(f"x: list[int] = {text}\n", 0)
    assert ast.unparse(tree) == f"x: list[int] = {expected}" and told.startswith("1: ")


def test_messages_and_annotations_are_left_alone() -> None:
    source = "def f(a: 'x + 1' = None) -> 1 + 1:\n    raise ValueError(f'{a + 1}')\n"
    assert mutate_python.places(ast.parse(source)) == []


def test_a_mutant_is_what_is_imported_and_no_file_changes() -> None:
    before = mutate_python._path("sim.bitplanes").read_text()
    number = len(mutate_python.places(ast.parse(before))) - 1
    script = (
        "import sys; from benchmarks.mutate_python import *\n"
        f"sys.meta_path.insert(0, MutantFinder('sim.bitplanes', {number}))\n"
        "import sim.bitplanes, sim.golden; print(type(sim.bitplanes.__loader__).__name__, sim.bitplanes.__file__)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=mutate_python.ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("_Loader ") and mutate_python._path("sim.bitplanes").read_text() == before


def test_dead_bits_are_proved_and_live_ones_are_not(tmp_path: Path) -> None:
    source, design = tmp_path / "m.sv", tmp_path / "m.il"
    source.write_text(
        "module low(input clk, input [7:0] a_i, output logic [3:0] q_o);\n"
        "  always_ff @(posedge clk) q_o <= a_i[3:0];\nendmodule\n"
        "module m(input clk, input [7:0] a_i, b_i, output logic [3:0] q_o, output logic [7:0] count_o);\n"
        "  wire [7:0] sum; assign sum = a_i + b_i; low u_low(.clk, .a_i(sum), .q_o);\n"
        "  always_ff @(posedge clk) count_o <= count_o - 8'd1;\nendmodule\n"
    )
    run_yosys([f"read_verilog -sv {source}", "hierarchy -top m", "proc", f"write_rtlil {design}"], "m")
    top = design.read_text().partition(r"module \m")[2]
    adder, counter, register = (re.findall(rf"cell \${kind} (\S+)", top)[0] for kind in ("add", "sub", "dff"))

    def proved(cell: str, port: str, bit: int) -> bool:
        return mutate_proofs.proved_equal(
            design, f"mutate -mode inv -module m -cell {cell} -port {port} -portbit {bit} -ctrl s 16 7"
        )

    # Four bits of the sum are read by nobody, in the module below.
    assert proved(adder, "Y", 6) and proved("u_low", "a_i", 6)
    assert not proved(adder, "Y", 2) and not proved("u_low", "a_i", 2)
    # The highest bit of a counter, which only a long simulation would show, and a clock.
    assert not proved(counter, "A", 7) and not proved(register, "CLK", 0)


@pytest.mark.parametrize("known", survivors.KNOWN, ids=lambda known: f"{known.file}-{known.change}")
def test_survivors_with_a_reason_are_places_in_the_sources(known: survivors.Known) -> None:
    path = survivors.ROOT / known.file
    lines = [survivors.source_line(path, 1 + at) for at in range(len(path.read_text().splitlines()))]
    assert lines.count(known.line) == 1 and known.reason
    assert survivors.find(known.file, known.line, "something else becomes another") is (
        known if known.change == ".*" else None
    )


def test_networks_of_the_mutants_use_every_field_of_every_instruction() -> None:
    used = {
        (item.op.name, name)
        for work in mutate.works()
        for stream in work.plan.program.streams
        for item in stream
        for name, value in item.values.items()
        if value
    }
    never = {(op.name, field.name) for op in isa.OPCODES for field, _ in op.layout()} - used
    assert never == {
        # The planner loads parameters once, before everything, and the image for layer 0; pools have the buffers to themselves.
        ("load_image", "layer"), ("load_params", "layer"), ("load_params", "wait_issue"), ("load_params", "wait_issue_first"),
        ("load_params", "post_issue"), ("load_params", "base"), ("pool", "in_base"), ("pool", "plane_base"), ("pool", "byte_requant"),
    }  # fmt: skip
