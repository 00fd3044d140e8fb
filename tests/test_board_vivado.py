"""The Vivado script, run in tclsh against recording stubs; reports read back; and the chip that needs no Vivado."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import board_case
import pytest
from rtl.shell_bench import simulate
from typer.testing import CliRunner, Result

from bitsmith import report
from bitsmith.cli import app
from hwgen import vivado
from hwgen.board import load_board
from hwgen.build import Build, generate
from hwgen.errors import InputError
from hwgen.vendor import run_vendor
from hwgen.zynq import ps7_ports
from sim.verilator import find_verilator

KNOWN = {"CARRY4", "FDRE", "FDSE", "INV", "LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "MUXF7", "MUXF8"}
ZYNQ = board_case.ROOT / "hls_templates" / "zynq"
STUBS = Path(__file__).with_name("vivado_stubs.tcl")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def made(tmp_path: Path) -> Build:
    return board_case.build(tmp_path / "build")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``vivado`` on PATH that sources the stubs; the file with the commands it was given."""
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        assert not os.environ.get("CI"), "CI installs tcl"
        pytest.skip("there is no tclsh: install the package tcl")
    folder = tmp_path / "bin"
    folder.mkdir()
    # Like vivado -source: the script's own errors end it with 1.
    (folder / "run.tcl").write_text(
        f'source {STUBS}\nif {{[catch {{source [lindex $argv end]}} why]}} {{ puts "ERROR: $why"; exit 1 }}\n'
    )
    (folder / "vivado").write_text(f'#!/bin/sh\nexec {tclsh} {folder}/run.tcl "$@"\n')
    (folder / "vivado").chmod(0o755)
    record = tmp_path / "record"
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    for name, value in (("RECORD", str(record)), ("SLACK", "0.321"), ("HOLD", "0.5"), ("FAIL", "")):
        monkeypatch.setenv(name, value)
    return record


@pytest.mark.parametrize("board", ["pynq-z1", "pynq-z2"])
def test_the_script_builds_the_design(tmp_path: Path, stand_in: Path, board: str) -> None:
    made = generate(board_case.digits(), board_case.ENGINE, load_board(board), tmp_path / "b")
    run_vendor(made, lambda *_: None)
    assert vivado.read_reports(made.path) == vivado.Measured(
        "2024.1",
        142.857,
        "setup",
        0.321,
        "bitsmith/u_top/u_core/a_reg/C",
        "bitsmith/u_top/u_core/b_reg/D",
        31234,
        28000,
        61.5,
        64,
    )
    text = stand_in.read_text()
    assert "create_project -force bitsmith project -part xc7z020clg400-1" in text
    for name in (path.name for path in made.rtl):
        assert f"add_files -norecurse ../rtl/{name}" in text
    for ip in ("processing_system7", "proc_sys_reset", "smartconnect", "axi_intc"):
        assert f"-vlnv xilinx.com:ip:{ip}:1.10 " in text  # the newest this Vivado has, not 1.9
    assert "create_bd_cell -type module -reference bs_ip bitsmith" in text
    for index in range(2):
        assert f"CONFIG.PCW_USE_S_AXI_HP{index} 1" in text
        assert f"connect_bd_intf_net interface:bitsmith/m_axi_{index} interface:ps/S_AXI_HP{index}" in text
        assert f"connect_bd_net pin:ps/FCLK_CLK0 pin:ps/S_AXI_HP{index}_ACLK" in text
    assert "connect_bd_net pin:bitsmith/irq_o pin:axi_intc_0/intr" in text
    assert "connect_bd_net pin:axi_intc_0/irq pin:ps/IRQ_F2P" in text
    assert "assign_bd_address -offset 0x43C00000 -range 64K" in text
    assert "CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ 142.857" in text
    assert (made.path / "vivado" / "bitsmith.bit").is_file() and (made.path / "vivado" / "bitsmith.hwh").is_file()
    order = [line.split()[0] for line in text.splitlines()]
    assert order.index("validate_bd_design") < order.index("launch_runs") < order.index("wait_on_run")


@pytest.fixture
def vitis(stand_in: Path) -> Path:
    """A ``vitis_hls`` on PATH that exports an empty IP."""
    tool = stand_in.parent / "bin" / "vitis_hls"
    tool.write_text("#!/bin/sh\nmkdir -p bitsmith_hls/solution/impl/ip\n")
    tool.chmod(0o755)
    return tool


def test_the_script_takes_the_hls_kernel(tmp_path: Path, stand_in: Path, vitis: Path) -> None:
    made = generate(board_case.digits(), board_case.ENGINE, load_board("pynq-z2"), tmp_path / "b", backend="hls")
    run_vendor(made, lambda *_: None)
    measured = vivado.read_reports(made.path)
    assert measured is not None and measured.slack_ns == 0.321
    text = stand_in.read_text()
    assert "create_bd_cell -type ip -vlnv bitsmith:hls:bs_kernel:1.10 bitsmith" in text
    assert (
        "set_property ip_repo_paths ../synth/bitsmith_hls/solution/impl/ip" in text
        and "add_files -norecurse ../rtl" not in text
    )
    kernel = made.hls["bs_kernel.cpp"]
    for index in range(2):
        # Vitis names a port after the bundle of the kernel's pragma.
        assert f"bundle=m_axi_{index}" in kernel
        assert f"connect_bd_intf_net interface:bitsmith/m_axi_m_axi_{index} interface:memory_{index}/S00_AXI" in text
        assert f"connect_bd_intf_net interface:memory_{index}/M00_AXI interface:ps/S_AXI_HP{index}" in text
        assert f"connect_bd_net pin:reset/peripheral_aresetn pin:memory_{index}/aresetn" in text
        assert f"connect_bd_net pin:ps/FCLK_CLK0 pin:memory_{index}/aclk" in text
    assert "bundle=control" in kernel and "interface:control/M00_AXI interface:bitsmith/s_axi_control" in text
    assert "connect_bd_net pin:bitsmith/interrupt pin:axi_intc_0/intr" in text
    assert "connect_bd_net pin:ps/FCLK_CLK0 pin:bitsmith/ap_clk" in text
    assert (made.path / "vivado" / "bitsmith.bit").is_file() and (made.path / "vivado" / "bitsmith.hwh").is_file()


def test_the_hls_script_needs_what_vitis_exports(tmp_path: Path, stand_in: Path, vitis: Path) -> None:
    made = generate(board_case.digits(), board_case.ENGINE, load_board("pynq-z2"), tmp_path / "b", backend="hls")
    vitis.write_text("#!/bin/sh\n")
    with pytest.raises(
        InputError, match=r"solution/impl/ip is missing: run hls\.tcl with the steps csynth and export first"
    ):
        run_vendor(made, lambda *_: None)


def test_the_script_is_tied_to_no_version_and_no_board_file(made: Build) -> None:
    script = (made.path / "vivado" / "build.tcl").read_text()
    assert not re.search(r"xilinx\.com:ip:\w+:\d", script)
    assert "board_part" not in script and "apply_bd_automation" not in script


def test_without_vivado_one_sentence_says_how_to_go_on(made: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    result = call("synth", made.path)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "Vivado is missing: no vivado on PATH; source its settings64.sh" in said
    assert f"'bitsmith bundle {made.path} --virtual' and 'bitsmith synth {made.path} --open' need none" in said
    assert not (made.path / "synth").exists()


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [("missing_ip", "this Vivado has no IP processing_system7"), ("unfinished", "did not finish: place_design ERROR")],
)
def test_what_vivado_says_is_told(
    made: Build, stand_in: Path, monkeypatch: pytest.MonkeyPatch, fail: str, sentence: str
) -> None:
    monkeypatch.setenv("FAIL", fail)
    with pytest.raises(InputError, match=f"(?s)Vivado failed with exit code 1; its log is .*{sentence}"):
        run_vendor(made, lambda *_: None)
    assert sentence in (made.path / "synth" / "vivado.log").read_text()
    assert vivado.read_reports(made.path) is None and not (made.path / "vivado" / "bitsmith.bit").exists()


@pytest.mark.parametrize(("variable", "check"), [("SLACK", "setup"), ("HOLD", "hold")])
def test_negative_slack_names_the_worst_path(
    made: Build, stand_in: Path, monkeypatch: pytest.MonkeyPatch, variable: str, check: str
) -> None:
    monkeypatch.setenv(variable, "-0.25")
    for command in (("synth", made.path), ("estimate", made.path, "--fast"), ("bundle", made.path)):
        result = call(*command)
        said = " ".join(result.output.split())
        assert result.exit_code == 2
        assert (
            f"misses its clock of 142.857 MHz by 0.250 ns ({check}), on the path from bitsmith/u_top/u_core/a_reg/C"
            in said
        )


def test_measured_stands_beside_estimated(made: Build, stand_in: Path, tmp_path: Path) -> None:
    assert report.estimate(made, fast=True)["measured"] is None
    result = call("synth", made.path, "--json", tmp_path / "s.json", "--verbose")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "s.json").read_text())["measured"]["bram36"] == 61.5
    assert "a line of the tool" in result.output
    shown = call("estimate", made.path, "--fast")
    assert "31234" in shown.output and "Vivado 2024.1" in shown.output and "slack 0.321 ns" in shown.output


def test_unreadable_reports_are_told(made: Build, stand_in: Path) -> None:
    run_vendor(made, lambda *_: None)
    reports = made.path / "vivado" / "reports"
    (reports / "utilization.txt").write_text("nothing")
    (reports / "summary.txt").write_text("setup many a b")
    with pytest.raises(InputError) as caught:
        vivado.read_reports(made.path)
    assert len(caught.value.problems) == 7
    shutil.rmtree(reports)
    assert vivado.read_reports(made.path) is None


def lint(top: str, *files: Path, quiet: tuple[str, ...] = ()) -> str:
    verilator = find_verilator()
    command = [str(verilator.executable), "--lint-only", "-Wall", *quiet, "--top-module", top, *map(str, files)]
    ended = subprocess.run(command, env=verilator.environment(), capture_output=True, text=True, check=False)
    return "\n".join(line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith("- "))


def test_the_wrapper_lints(made: Build) -> None:
    wrapper = made.path / "vivado" / "bs_ip.v"
    text = wrapper.read_text()
    assert ".XC7(1'b1)" in text
    # The primitives have tests of their own; their portable twins lint in a fraction of the time.
    (made.path / "bs_ip.v").write_text(text.replace(".XC7(1'b1)", ".XC7(1'b0)"))
    # The engine has 8 bits of burst length, of which AXI3 takes 4.
    assert lint("bs_ip", *made.rtl, made.path / "bs_ip.v", quiet=("-Wno-UNUSEDSIGNAL",)) == ""
    declared = set(re.findall(r"(?:input|output)\s+wire\s+(?:\[\d+:0\] )?(\w+)", text))
    top = (made.path / "rtl" / "bs_top.sv").read_text()
    ports = set(re.findall(r"^\s+(?:input|output)\s+logic\s+(?:\[\d+:0\]\s+)?(\w+)", top, re.MULTILINE))
    assert declared - {"resetn"} == ports - {"rst"}


def test_the_bridge_lints_alone(made: Build) -> None:
    assert lint("bs_axi3_bridge", made.path / "zynq" / "bs_axi3_bridge.sv") == ""


def test_the_bridge_passes_bursts_through(tmp_path: Path) -> None:
    simulate(tmp_path, "bs_axi3_bridge", ["bs_axi3_bridge"], "tb_axi3_bridge", rtl=ZYNQ)


def test_every_port_of_the_processing_system_is_tied(made: Build) -> None:
    text = (made.path / "zynq" / "bs_zynq.sv").read_text()
    instance = text[text.index("PS7 u_ps") : text.index("bs_axi3_bridge #(")]
    connections = dict(re.findall(r"\.(\w+)\(([^)]*)\)", instance))
    ports = ps7_ports()
    assert set(connections) == set(ports)
    assert all(connections[name] for name, (direction, _) in ports.items() if direction != "output")
    assert connections["SAXIHP0WID"] == "hp0_wid" and connections["MAXIGP0BID"] == "gp_bid"
    assert connections["MAXIGP0RID"] == "gp_rid" and connections["IRQF2P"] == "{19'd0, irq}"


def test_yosys_takes_the_complete_chip(made: Build) -> None:
    """Everything is read, elaborated and checked; the chip around the engine is mapped. The engine's mapping takes minutes."""
    folder = made.path / "zynq"
    commands = [line for line in (folder / "synth.ys").read_text().splitlines() if not line.startswith("#")]
    elaborated = next(index for index, line in enumerate(commands) if line.startswith("hierarchy")) + 1
    commands.insert(elaborated, "blackbox *bs_top*")
    (folder / "synth.ys").write_text("\n".join(commands))
    result = call("synth", made.path, "--open", "--json", made.path / "found.json")
    assert result.exit_code == 0, result.output
    assert json.loads((made.path / "found.json").read_text())["cells"]["PS7"] == 1
    modules = json.loads((folder / "bs_zynq.json").read_text())["modules"]
    cells = Counter(cell["type"] for cell in modules["bs_zynq"]["cells"].values())
    engines = [name for name in cells if "bs_top" in name]
    assert [cells[name] for name in ("PS7", "BUFG", *engines)] == [1, 1, 1]
    assert set(cells) - set(engines) - {"PS7", "BUFG", "$scopeinfo"} <= KNOWN, cells
    assert 100 < cells["FDRE"] < 300  # the bridge's registers


def test_the_ports_are_those_that_yosys_knows() -> None:
    import pyosys

    text = (Path(pyosys.__file__).parent / "share" / "xilinx" / "cells_xtra.v").read_text()
    body = text[text.index("module PS7(") :]
    body = body[: body.index("endmodule")]
    known: dict[str, Any] = {
        name: (direction, int(top) + 1 if top else 1)
        for direction, top, name in re.findall(
            r"^\s*(input|output|inout)\s+(?:\[(\d+):0\]\s*)?(\w+);", body, re.MULTILINE
        )
    }
    assert ps7_ports() == known
