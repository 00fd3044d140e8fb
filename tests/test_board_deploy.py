"""``bitsmith deploy``: on the virtual board, and over ssh to a machine that stands in for a board."""

from __future__ import annotations

import json
import socket
import sys
import zipfile
from pathlib import Path
from typing import Any

import board_case
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bitsmith import deploy as deployment
from bitsmith.board_commands import golden_samples
from bitsmith.cli import app
from hwgen.bundle import Samples, write_bundle
from hwgen.errors import InputError
from sim.board.client import Remote

# What `import pynq` gives on the machine at the other end: nothing, so that running there is an error with a reason.
_SSH = """#!{python}
import json, subprocess, sys
json.dump(sys.argv[1:], open({log!r}, "w"))
text = sys.stdin.read()
sys.exit(subprocess.run([{python!r}, "-c", {prelude!r} + text], cwd={home!r}).returncode)
"""
_SCP = """#!{python}
import json, shutil, sys
json.dump(sys.argv[1:], open({scp_log!r}, "w"))
assert sys.argv[1:3] == ["-q", "--"], sys.argv
shutil.copy(sys.argv[3], {home!r} + "/" + sys.argv[4].rpartition(":")[2])
"""
# A board whose engine answers with the golden logits.
_FAKE_CHECK = """
import sys, types
package = types.ModuleType("bitsmith_driver"); package.__path__ = []
check = types.ModuleType("bitsmith_driver.check"); errors = types.ModuleType("bitsmith_driver.errors")
errors.AcceleratorError = type("AcceleratorError", (Exception,), {})
def run(bundle, images=None):
    if images == 3: raise errors.AcceleratorError("the engine is on fire")
    return {"images": images or 5, "wrong_images": 0, "accuracy": 0.5, "latency_ms": {"p50": 1, "p90": 2, "p99": 3},
            "images_per_s": 10.0, "engine_images_per_s": 100.0, "clock_mhz": 142.857, "cycles": 100, "fetch_cycles": 1,
            "fill_cycles": 2, "issue_cycles": 3, "write_back_cycles": 4, "dma_read_bytes": 5, "dma_write_bytes": 6,
            "path": str(bundle)}
check.check = run
sys.modules |= {"bitsmith_driver": package, "bitsmith_driver.check": check, "bitsmith_driver.errors": errors}
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return board_case.bundle(tmp_path_factory.mktemp("deploy") / "digits", board_case.digits())


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that the fake ssh and scp on PATH reach."""
    home, tools = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    facts = {
        "python": sys.executable,
        "home": str(home),
        "log": str(tmp_path / "ssh.json"),
        "scp_log": str(tmp_path / "scp.json"),
        "prelude": _FAKE_CHECK,
    }
    for name, text in (("ssh", _SSH), ("scp", _SCP)):
        (tools / name).write_text(text.format(**facts))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(deployment, "_connect", lambda _: None)
    return home


def real(folder: Path) -> Path:
    """A bundle that claims to be for a real board."""
    made = board_case.bundle(folder / "tiny")
    facts = json.loads((folder / "tiny" / "manifest.json").read_text()) | {"virtual": False}
    (folder / "tiny" / "manifest.json").write_text(json.dumps(facts))
    with zipfile.ZipFile(made, "w") as packed:
        for path in (folder / "tiny").rglob("*"):
            packed.write(path, f"tiny/{path.relative_to(folder / 'tiny')}")
    return made


def test_virtual(packed: Path, tmp_path: Path) -> None:
    result = call("deploy", packed, "--board", "virtual", "--images", 25, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["images"] == 25 and figures["wrong_images"] == 0 and figures["accuracy"] > 0.8
    assert figures["board"] == "Pynq-Z2" and figures["clock_mhz"] == pytest.approx(1000 / 7)
    for text in ("0 with wrong logits", "Accuracy", "p99", "issue", "a simulation's speed"):
        assert text in result.output, text


def test_a_wrong_logit_is_exit_1(tmp_path: Path) -> None:
    made = board_case.build(tmp_path / "build", board_case.digits())
    good = golden_samples(made)
    logits = good.logits[:3].copy()
    logits[1, 2] += 1
    bad = Samples(good.images[:3], None, logits)
    result = call("deploy", write_bundle(made, bad, tmp_path / "bad", virtual=True), "--board", "virtual")
    assert result.exit_code == 1 and "1 with wrong logits" in result.output
    assert not np.array_equal(logits, good.logits[:3])


@pytest.mark.parametrize(
    "address", ["-oProxyCommand=x", "a b", "host;reboot", "$(id)", "us er@host", "@host", "", "pynq:2222", "::1;id"]
)
def test_what_is_no_address_is_told(packed: Path, address: str) -> None:
    with pytest.raises(InputError, match="give an address such as"):
        deployment.deploy(packed, address, None)


def test_virtual_bundles_stay_off_real_boards(packed: Path) -> None:
    with pytest.raises(InputError, match="for the virtual board only"):
        deployment.deploy(packed, "192.168.2.99", None)


def test_more_images_than_there_are(packed: Path) -> None:
    with pytest.raises(InputError, match="9999 images were asked for; the bundle holds 360"):
        deployment.deploy(packed, "virtual", 9999)


def test_ssh(tmp_path: Path, board: Path) -> None:
    figures = deployment.deploy(real(tmp_path), "xilinx@pynq.local", 5)
    assert figures["way"] == "ssh" and figures["images"] == 5
    (sent,) = board.iterdir()
    assert sent.read_bytes() == (tmp_path / "tiny.zip").read_bytes() and sent.name.startswith("bitsmith-")
    arguments = json.loads((tmp_path / "ssh.json").read_text())
    assert arguments[:2] == ["--", "xilinx@pynq.local"] and arguments[2] == deployment._REMOTE_COMMAND


def test_ssh_takes_the_folder_too(tmp_path: Path, board: Path) -> None:
    real(tmp_path)
    assert deployment.deploy(tmp_path / "tiny", "pynq", None)["images"] == 5
    (tmp_path / "tiny.zip").unlink()
    with pytest.raises(InputError, match=r"tiny\.zip is missing"):
        deployment.deploy(tmp_path / "tiny", "pynq", None)


def test_the_boards_errors_are_told(tmp_path: Path, board: Path) -> None:
    result = call("deploy", real(tmp_path), "--board", "pynq", "--images", 3)
    assert result.exit_code == 2 and "pynq: the engine is on fire" in result.output


def test_failing_tools_are_told(tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = real(tmp_path)
    scp = tmp_path / "bin" / "scp"
    scp.write_text("#!/bin/sh\necho 'Host key verification failed.' >&2\nexit 255\n")
    with pytest.raises(InputError, match=r"copying to pynq failed: Host key verification failed\."):
        deployment.deploy(made, "pynq", None)
    scp.unlink()
    with pytest.raises(InputError, match="there is no scp: install the package openssh-client"):
        deployment.deploy(made, "pynq", None)


def test_ssh_takes_ipv6(tmp_path: Path, board: Path) -> None:
    assert deployment.deploy(real(tmp_path), "xilinx@fe80::2", 5)["way"] == "ssh"
    assert json.loads((tmp_path / "ssh.json").read_text())[1] == "xilinx@fe80::2"
    assert json.loads((tmp_path / "scp.json").read_text())[-1].startswith("xilinx@[fe80::2]:bitsmith-")


def test_another_program_on_the_port_is_no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(deployment, "PORT", silent.getsockname()[1])
        monkeypatch.setattr(deployment, "Remote", lambda host: Remote(host, silent.getsockname()[1]))
        monkeypatch.setattr("sim.board.client._CONNECT_S", 0.5)
        assert deployment._connect("127.0.0.1") is None
    assert deployment._connect("127.0.0.1") is None


def test_a_mismatch_over_ssh_is_exit_1(tmp_path: Path, board: Path) -> None:
    tool = tmp_path / "bin" / "ssh"
    tool.write_text(tool.read_text().replace('"wrong_images": 0', '"wrong_images": 2'))
    result = call("deploy", real(tmp_path), "--board", "pynq")
    assert result.exit_code == 1 and "2 with wrong logits" in result.output and "p99" in result.output


def test_a_board_that_speaks_the_protocol_is_found(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sim.board.virtual import open_board

    seen: list[Any] = []
    host = board_case.loopback()
    with open_board(packed, host=host) as server:
        seen.append(deployment.deploy(packed, host, 2))
        assert server.chip.configured
    assert seen[0]["way"] == "remote protocol" and seen[0]["wrong_images"] == 0
