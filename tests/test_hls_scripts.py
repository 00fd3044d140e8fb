"""The rendered Tcl in tclsh, against stubs that record the vendor's commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hwgen.board import load_board
from hwgen.build import Build, generate
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.vendor import run_vendor
from sim.random_network import random_network

pytestmark = pytest.mark.skipif(
    shutil.which("tclsh") is None and not os.environ.get("CI"),
    reason="no tclsh; install the package tcl",  # CI installs it
)
SHAPE = EngineConfig(weight_depth=2048, plane_depth=1024, byte_depth=1024)
BOARD = load_board("pynq-z2")
HLS = "open_project set_top add_files open_solution set_part create_clock csim_design csynth_design cosim_design export_design close_project"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return generate(random_network(1), SHAPE, BOARD, tmp_path_factory.mktemp("hls") / "b", backend="hls")


def run(
    script: Path, folder: Path, commands: str, *, fails: str = "", steps: str | None = None
) -> tuple[int, str, list[str]]:
    """Run a script; its exit code, its messages, and the commands it gave, one a line."""
    log = folder / "commands.txt"
    stubs = "\n".join(
        f"proc {name} args {{ set f [open {{{log}}} a]; puts $f [concat {name} $args]; close $f;"
        f" {'error {stub fails}' if name == fails else 'return ' + name} }}"
        for name in commands.split()
    )
    (folder / "run.tcl").write_text(f"{stubs}\nsource {{{script}}}\n")
    env = {"PATH": "/usr/bin:/bin"} | ({} if steps is None else {"BITSMITH_STEPS": steps})
    done = subprocess.run(
        ["tclsh", "run.tcl"], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []


def test_hls_script_names_files_that_exist_in_the_right_order(build: Build, tmp_path: Path) -> None:
    code, messages, commands = run(build.path / "hls" / "hls.tcl", tmp_path, HLS, steps="export csim csynth cosim")
    assert (code, messages) == (0, "")
    names = [line.split()[0] for line in commands]
    assert names[:3] == ["open_project", "set_top", "add_files"]
    assert names[-5:] == ["csim_design", "csynth_design", "cosim_design", "export_design", "close_project"]
    files = [line.split()[-1] for line in commands if line.startswith("add_files")]
    assert {name.rsplit("/", 1)[-1] for name in files} == {name for name in build.hls if name.endswith(".cpp")}
    for path in files + [line.split()[-1] for line in commands if "-argv" in line]:
        assert Path(path).exists(), path
    size = (build.path / "hls" / "data" / "memory.bin").stat().st_size
    assert all(f"-DBS_MEMORY_WORDS={size // 8}" in line for line in commands if line.startswith("add_files"))
    assert "constexpr int MEMORY_WORDS = BS_MEMORY_WORDS;" in build.hls["bs_kernel.h"]
    assert f"set_part {BOARD.part}" in commands
    assert "set_top bs_kernel" in commands and "void bs_kernel(" in build.hls["bs_kernel.cpp"]
    period = next(float(line.split()[2]) for line in commands if line.startswith("create_clock"))
    assert period == pytest.approx(1000 / BOARD.clock_mhz, abs=1e-3)


def test_hls_script_stops_at_the_first_failure(build: Build, tmp_path: Path) -> None:
    code, messages, commands = run(build.path / "hls" / "hls.tcl", tmp_path, HLS, fails="csynth_design")
    assert code == 1 and messages == "bitsmith: csynth failed: stub fails\n"
    assert commands[-1].startswith("csynth_design")


def test_hls_script_refuses_an_unknown_step(build: Build, tmp_path: Path) -> None:
    code, messages, commands = run(build.path / "hls" / "hls.tcl", tmp_path, HLS, steps="csim burn")
    assert code == 2 and "there is no step 'burn'" in messages and not commands


def test_synth_says_what_is_missing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError, match=r"no vitis-run or vitis_hls on PATH") as caught:
        run_vendor(build, lambda *_: None)
    assert any("no vivado on PATH" in problem for problem in caught.value.problems)


def test_synth_runs_the_scripts_and_tells_of_failures(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (("vitis_hls", 0), ("vivado", 3)):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "$0 $@"\nexit {code}\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(InputError, match="Vivado failed with exit code 3"):
        run_vendor(build, lambda *_: None)
    assert "-f " in (build.path / "synth" / "vitis_hls.log").read_text()
