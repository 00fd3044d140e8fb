"""One engine, many networks: another network's program for the engine of a build."""

from __future__ import annotations

import json
import re
from pathlib import Path

import networks
import pytest
from typer.testing import CliRunner

import bitsmith
from benchmarks.networks import mlp, resnet8
from bitsmith.cli import app
from hwgen.board import load_board
from hwgen.build import Build, assemble_for, generate, read_build
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network_file import write_network
from sim.verify import verify

ENGINE = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=2048, plane_depth=512, byte_depth=512,
    column_depth=512,
)  # fmt: skip


@pytest.fixture(scope="module")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return generate(networks.tiny(), ENGINE, load_board("pynq-z2"), tmp_path_factory.mktemp("hardware") / "tiny")


def rtl(build: Build) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (build.path / "rtl").iterdir()}


def test_two_networks_on_one_engine_in_rtl(hardware: Build, tmp_path: Path) -> None:
    other = bitsmith.assemble(resnet8(2, 2, (8, 8, 3)), hardware.path, tmp_path / "other")
    assert rtl(other) == rtl(hardware)
    read = read_build(tmp_path / "other")
    assert read.engine.hash == ENGINE.hash and read.network.name == "resnet8" and read.board == hardware.board
    assert read.program.read_bytes() != hardware.program.read_bytes()
    for build in (hardware, read):
        figures = verify(build.path, count=2)
        assert figures["problem"] == "" or figures["problem"] is None
        assert figures["mismatches"] == 0 and figures["tensors_compared"] > 0


def test_another_network_whose_images_share_weights(hardware: Build, tmp_path: Path) -> None:
    made = bitsmith.assemble(networks.linear_end(), hardware.path, tmp_path / "other", batch=3)
    assert made.batch == 3 and read_build(made.path).batch == 3 and rtl(made) == rtl(hardware)
    with pytest.raises(InputError, match="A batch has 1 to 4 images on this engine, not 5"):
        assemble_for(networks.linear_end(), hardware, tmp_path / "five", batch=5)


def test_every_limit_that_is_exceeded_is_told(hardware: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        assemble_for(resnet8(8, 8, (60, 60, 3)), hardware, tmp_path / "other")
    said = str(caught.value)
    assert str(hardware.path) in said and "resnet8" in said
    for buffer in ("bit planes", "skip and pool codes"):
        found = re.search(rf"needs (\d+) rows of {buffer}, the engine has (\d+): (\d+) too many", said)
        assert found is not None, said
        need, has, more = map(int, found.groups())
        assert has == 512 and need - has == more
    assert not (tmp_path / "other").exists() and not list(tmp_path.iterdir())


def test_accumulators_and_buffers_are_told_together(hardware: Build, tmp_path: Path) -> None:
    narrow = generate(
        networks.tiny(), EngineConfig(**{**ENGINE.__dict__, "acc_bits": 20, "param_depth": 64}), hardware.board, tmp_path / "narrow"
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        assemble_for(mlp(8, 8, (784, 64, 10)), narrow, tmp_path / "other")
    said = str(caught.value)
    assert "-bit accumulators, the engine has 20" in said and "parameter channels, the engine has 64: " in said


def call(*arguments: object) -> tuple[int, str, str]:
    made = CliRunner().invoke(app, [str(item) for item in arguments], env={"COLUMNS": "200"})
    assert made.exception is None or isinstance(made.exception, SystemExit), made.exception
    return made.exit_code, made.stdout, made.stderr


def test_the_command(hardware: Build, tmp_path: Path) -> None:
    write_network(networks.one_layer(), tmp_path / "net")
    code, said, _ = call(
        "assemble", tmp_path / "net", "--for", hardware.path, "--out", tmp_path / "b", "--json", tmp_path / "f.json"
    )
    assert code == 0 and f"Next: bitsmith verify {tmp_path / 'b'}" in said
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["engine_hash"] == f"{ENGINE.hash:08x}" and figures["layers"][0]["name"] == "fc"
    assert read_build(tmp_path / "b").network.name == "one-layer"
    code, _, said = call("assemble", tmp_path / "net", "--for", hardware.path, "--out", tmp_path / "b")
    assert code == 2 and "--force" in said
    assert call("assemble", tmp_path / "net", "--for", hardware.path, "--out", tmp_path / "b", "--force", "-q")[0] == 0


def test_the_command_never_replaces_the_engine_it_is_for(hardware: Build) -> None:
    write_network(networks.one_layer(), hardware.path.parent / "net")
    code, _, said = call(
        "assemble", hardware.path.parent / "net", "--for", hardware.path, "--out", hardware.path, "--force"
    )
    assert code == 2 and "is read" in said
    assert read_build(hardware.path).network.name == "tiny"


def test_left_out_the_folder_lies_beside_the_build(hardware: Build) -> None:
    net = hardware.path.parent / "again"
    write_network(networks.one_layer(), net)
    assert call("assemble", net, "--for", hardware.path)[0] == 0
    assert read_build(hardware.path.parent / "one-layer").engine == ENGINE
    assert call("assemble", net, "--for", net)[0] == 2
