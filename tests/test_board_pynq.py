"""The unmodified pynq 4.0.0 client and the driver, in an environment of their own, on the virtual board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import board_case
import networks
import pytest

from hwgen import isa

MISSING = (
    "pynq's own client is not installed: run 'make setup-pynq', which needs Python 3.10, 3.11 or 3.12 on PATH"
    " (its pins numpy<2 and grpcio==1.64.0 have no wheels for later ones)."
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not board_case.PYNQ_PYTHON.exists():
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("pynq")
    digits = board_case.digits()
    board_case.bundle(folder / "digits", digits)
    assert digits.samples is not None
    few = replace(digits.samples, images=digits.samples.images[:16], labels=digits.samples.labels[:16])
    board_case.bundle(folder / "few", replace(digits, samples=few))
    board_case.bundle(folder / "tiny", networks.tiny(samples=5))
    board_case.bundle(folder / "three", networks.linear_end(), batch=3)
    board_case.bundle(folder / "foreign", networks.tiny(), replace(board_case.ENGINE, param_depth=512))
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """The command ``bitsmith board``, serving the digits bundle's zip."""
    host = board_case.loopback()
    command = [sys.executable, "-m", "bitsmith", "board", "--bundle", str(place / "digits.zip"), "--host", host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "listens on" in line:
                    assert "this machine only" in line
                    break
            else:
                pytest.fail("the virtual board did not start")
            yield host
        finally:
            server.terminate()


def client(place: Path, address: str, what: str, second: str = "tiny") -> Any:
    script = Path(__file__).with_name("pynq_client.py")
    names = [str(place / name) for name in ("digits", second, "foreign")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYNQ_REMOTE_DEVICES"] = address
    done = subprocess.run(
        [str(board_case.PYNQ_PYTHON), str(script), *names, what],
        cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_overlay_registers_clock_and_buffers(place: Path, address: str) -> None:
    found = client(place, address, "plain")
    assert found["pynq"] == "4.0.0" and found["board"] == "Pynq-Z2"
    assert found["id"] == isa.DEVICE_ID and found["base"] == 0x43C00000
    assert found["registers"] == sorted(item.name for item in isa.REGISTERS)
    assert found["interrupts"] == ["irq_o"]
    assert found["clock"] == pytest.approx(142.857, abs=0.001) and found["cpu"] == 650
    assert found["round_trip"] and found["address"] % 4096 == 0


def test_real_images_networks_and_errors(place: Path, address: str) -> None:
    found = client(place, address, "classify")
    for name in (
        "first", "twice", "planar", "second", "second_planar", "after_error", "after_bus_error", "after_timeout",
        "after_interrupt", "another", "beside_another",
    ):  # fmt: skip
        assert found[name] is True, name
    assert found["interrupted"] >= 10
    assert found["correct"] >= 32
    stats = found["stats"]
    assert stats["images"] == 40 and stats["clock_mhz"] == pytest.approx(142.857, abs=0.001)
    assert 0 < stats["issue_cycles"] < stats["cycles"] and stats["dma_write_bytes"] >= 40 * 40
    assert found["error"][0] == isa.Error.PROGRAM_MAGIC
    assert "does not begin with the program header" in found["error"][1]
    assert "read was answered with SLVERR or DECERR" in found["bus_error"]
    assert "open the bundle with a new Accelerator" in found["foreign"]
    assert "of 16 are done" in found["timeout"] and "write_back" in found["timeout"]


def test_the_lines_of_the_documentation(place: Path, address: str) -> None:
    found = client(place, address, "snippet")
    assert found["right"] and found["other"] and found["type"] == "int32" and found["none"] == [0, 10]
    stages = {f"{name}_cycles" for name in ("fetch", "fill", "issue", "write_back")}
    assert stages | {"cycles", "images_per_s", "dma_read_bytes", "dma_write_bytes", "clock_mhz"} <= set(found["stats"])


def test_programs_that_take_images_together(place: Path, address: str) -> None:
    found = client(place, address, "together", second="three")
    assert found["batch"] == 6 and found["different"] == 7
    assert found["counts"] == list(range(8)) and found["other"] and found["again"]


def test_ctrl_c_while_it_is_opened(place: Path, address: str) -> None:
    found = client(place, address, "opening")
    assert found["interrupted"] >= 5 and found["right"]


def test_a_client_that_vanishes_leaves_a_board_that_works(place: Path, address: str) -> None:
    assert client(place, address, "vanish") == {}
    time.sleep(0.2)
    assert client(place, address, "plain")["round_trip"]


def test_the_notebook_runs(place: Path, address: str) -> None:
    example = board_case.ROOT / "examples" / "accelerator.ipynb"
    assert example.read_bytes() == (place / "few" / "accelerator.ipynb").read_bytes()
    found = client(place, address, "notebook", second="few")
    assert found["cells"] >= 7
    for said in (
        "on engine 4x24x4 at 142.857",
        "16 sample images",
        "accuracy",
        "images_per_s",
        "reads a NumPy array of uint8",
    ):
        assert said in found["said"], found["said"]
