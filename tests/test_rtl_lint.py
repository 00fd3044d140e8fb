"""Every RTL source lints alone without a warning, refuses what it cannot be, and silences nothing wholesale."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from hwgen.engine import EngineConfig
from hwgen.render import render_package, render_popcount, render_sources
from sim.verilator import find_verilator
from sim.xc7_models import primitives

RTL = Path(__file__).resolve().parents[1] / "hls_templates" / "rtl"
MODULES = sorted(path.stem for path in RTL.glob("*.sv"))

# One odd shape: odd numbers of slots, the widest group for its rows, one channel per beat.
ODD = {"D_M": 4, "D_N": 4, "SLOTS": 3, "G": 8, "D_K": 24, "PARTS": 3, "LANE_ROWS": 1, "ROWS_G": 2}


def declared(module: str) -> set[str]:
    """Names of the parameters in the header of ``module``."""
    text = (RTL / f"{module}.sv").read_text(encoding="utf-8")
    header = text[text.index(f"module {module}") :].split(");", 1)[0]
    return set(re.findall(r"^\s*parameter\s+(?:int|logic[^=]*?)\s*(\w+)\s*=", header, re.MULTILINE))


def lint(tmp_path: Path, top: str, parameters: Mapping[str, int]) -> str:
    """What ``verilator --lint-only -Wall`` prints about ``top``; empty where it has nothing to say."""
    package = tmp_path / "bs_pkg.sv"
    package.write_text(render_package(), encoding="utf-8")
    models = [primitives(tmp_path, ["LUT6", "LUT6_2", "CARRY4"])] if top.endswith("_xc7") else []
    return run_lint(top, [package, *models, RTL / f"{top}.sv"], RTL, parameters)


def run_lint(top: str, sources: list[Path], folder: Path, parameters: Mapping[str, int]) -> str:
    verilator = find_verilator()
    command = [
        str(verilator.executable), "--lint-only", "-Wall", "--top-module", top, "-y", str(folder),
        *(f"-G{name}={value}" for name, value in parameters.items()), *(str(path) for path in sources),
    ]  # fmt: skip
    ended = subprocess.run(command, env=verilator.environment(), capture_output=True, text=True, check=False, timeout=120)
    message = ended.stdout + ended.stderr
    if ended.returncode and not message:
        message = f"verilator ends with code {ended.returncode}"
    # Verilator closes with a line of statistics.
    return "\n".join(line for line in message.splitlines() if not line.startswith("- "))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("shape", ["default", "odd"])
def test_module_lints_alone(tmp_path: Path, module: str, shape: str) -> None:
    parameters = {} if shape == "default" else {name: ODD[name] for name in sorted(declared(module) & set(ODD))}
    assert lint(tmp_path, module, parameters) == ""


@pytest.mark.parametrize("width", [24, 144])
def test_rendered_popcount_lints(tmp_path: Path, width: int) -> None:
    source = tmp_path / "bs_popcount_xc7.sv"
    source.write_text(render_popcount(width), encoding="utf-8")
    models = primitives(tmp_path, ["LUT6", "LUT6_2", "CARRY4"])
    assert run_lint("bs_popcount_xc7", [models, source], RTL, {}) == ""


@pytest.mark.parametrize("shape", ["default", "odd"])
def test_rendered_top_lints(tmp_path: Path, shape: str) -> None:
    engine = EngineConfig() if shape == "default" else EngineConfig(
        rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1
    )  # fmt: skip
    for name, text in render_sources(engine, "pynq-z2", "0.0.0").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    sources = [tmp_path / "bs_pkg.sv", tmp_path / "bs_top.sv"]
    assert run_lint("bs_top", sources, tmp_path, {}) == ""


@pytest.mark.parametrize(
    ("module", "parameters", "message"),
    [
        ("bs_ram", {"WIDTH": 10, "CHUNKS": 3}, "multiple of CHUNKS"),
        ("bs_ram", {"DEPTH": 1}, "DEPTH at least 2"),
        ("bs_popcount", {"D_K": 40, "PARTS": 3}, "PARTS must divide D_K"),
        ("bs_array", {"D_M": 8, "LANE_ROWS": 3}, "LANE_ROWS must divide D_M"),
        ("bs_array", {"D_K": 40, "PARTS": 3}, "PARTS must divide D_K"),
        ("bs_pool", {"D_M": 8, "LANE_ROWS": 3}, "LANE_ROWS must divide D_M"),
        ("bs_fill", {"SLOTS": 4}, "SLOTS must be a multiple of three"),
        ("bs_core", {"D_M": 8, "LANE_ROWS": 3}, "LANE_ROWS must divide D_M"),
        ("bs_core", {"SLOTS": 4}, "SLOTS must be a multiple of three"),
    ],
)
def test_impossible_parameters(tmp_path: Path, module: str, parameters: dict[str, int], message: str) -> None:
    """Elaboration stops with the sentence that says why."""
    said = lint(tmp_path, module, parameters)
    assert "%Error" in said
    assert message in said


def test_nothing_is_silenced() -> None:
    """The only lint_off is the named one in the package, and it is switched on again."""
    found = {
        path.name: re.findall(r"lint_(?:off|on)[^*\n]*|verilator_config|verilator +tracing_off", path.read_text("utf-8"))
        for path in sorted(RTL.iterdir())
        if path.suffix in {".sv", ".j2", ".svh", ".vlt"}
    }
    assert {name: [item.strip() for item in items] for name, items in found.items() if items} == {
        "bs_pkg.sv.j2": ["lint_off UNUSEDPARAM", "lint_on UNUSEDPARAM"]
    }
