"""Bundles: what is in them, the same bytes every time, and what is said about damaged ones."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import board_case
import networks
import pytest
from typer.testing import CliRunner, Result

from bitsmith.board_commands import golden_samples
from bitsmith.cli import app
from hwgen import driver, isa
from hwgen.address_map import clock_divisors
from hwgen.bitfile import BitFile, firmware, virtual_bit, virtual_design
from hwgen.bundle import Samples, read_bundle, write_bundle
from hwgen.driver.bitsmith_driver import registers
from hwgen.errors import InputError
from hwgen.hwh import add_pynq_clock
from sim import golden


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    board_case.bundle(folder)
    return folder


def test_folder_and_zip_hold_the_same(made: Path) -> None:
    with zipfile.ZipFile(made.with_name("tiny.zip")) as packed:
        inside = {name: packed.read(name) for name in packed.namelist()}
    outside = {f"tiny/{path.relative_to(made)}": path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert inside == outside
    folder, packed_bundle = read_bundle(made), read_bundle(made.with_name("tiny.zip"))
    assert folder.manifest == packed_bundle.manifest and folder.program == packed_bundle.program


def test_the_bytes_depend_on_nothing_else(made: Path, tmp_path: Path) -> None:
    board_case.bundle(tmp_path / "tiny")
    assert (tmp_path / "tiny.zip").read_bytes() == made.with_name("tiny.zip").read_bytes()


def test_samples_are_golden(made: Path) -> None:
    images, labels, logits = read_bundle(made).samples()
    network = networks.tiny(samples=5)
    assert network.samples is not None
    assert (images == network.samples.images).all() and labels is not None
    assert (logits == golden.run(network, images)[network.output].reshape(len(images), -1)).all()


def test_one_bit_file_serves_every_network_of_an_engine(made: Path, tmp_path: Path) -> None:
    board_case.bundle(tmp_path / "other", networks.tiny(seed=2))
    first, second = read_bundle(made).manifest, read_bundle(tmp_path / "other").manifest
    assert first["bit"] == second["bit"] and first["files"]["program.bin"] != second["files"]["program.bin"]


def test_the_driver_needs_nothing_of_bitsmith(made: Path) -> None:
    allowed = {"numpy", "pynq", "__future__"} | sys.stdlib_module_names
    for path in (made / "bitsmith_driver").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_rendered_registers_are_the_instruction_sets() -> None:
    space: dict[str, object] = {}
    exec(driver.render_registers(), space)
    for name in ("DEVICE_ID", "DEVICE_VERSION", "OFFSET", "ERROR_MEANING", "STAGE"):
        assert space[name] == getattr(registers, name), name


def test_the_handoff_names_registers_addresses_clock_and_interrupt(made: Path) -> None:
    root = ElementTree.parse(next(made.glob("*.hwh"))).getroot()
    module = next(item for item in root.iter("MODULE") if item.get("INSTANCE") == "bitsmith")
    offsets = {
        item.get("NAME"): int(item.find("PROPERTY[@NAME='ADDRESS_OFFSET']").get("VALUE"), 16)  # type: ignore[union-attr, arg-type]
        for item in module.iter("REGISTER")
    }
    assert offsets == {item.name: item.offset for item in isa.REGISTERS}
    values = {item.get("NAME"): item.get("VALUE") for item in root.iter("PARAMETER")}
    assert (values["PCW_FCLK0_PERIPHERAL_DIVISOR0"], values["PCW_FCLK0_PERIPHERAL_DIVISOR1"]) == ("7", "1")
    assert any(item.get("NAME") == "irq_o" and item.get("SIGIS") == "INTERRUPT" for item in module.iter("PORT"))


@pytest.mark.parametrize(("clock", "pair"), [(142.857, (7, 1)), (166.667, (6, 1)), (200.0, (5, 1)), (100.0, (10, 1))])
def test_clock_divisors(clock: float, pair: tuple[int, int]) -> None:
    assert clock_divisors(clock) == pair


def test_no_fpga_configures_from_a_virtual_bit_file(made: Path) -> None:
    data = next(made.glob("*.bit")).read_bytes()
    read = BitFile.decode(data)
    assert read.encode() == data and read.part == "7z020clg400"
    assert b"no FPGA configures from it" in read.payload and len(read.payload) % 4 == 0
    for word in ("aa995566", "665599aa", "5599aa66"):
        assert bytes.fromhex(word) not in data
    assert virtual_design(firmware(data)) == read_bundle(made).manifest["design"]
    with pytest.raises(InputError, match="not the firmware of a virtual board"):
        virtual_design(b"\xff" * 64)


@pytest.mark.parametrize("data", [b"", b"\0\x09", virtual_bit("a" * 64, 1, "xc7z020clg400-1")[:-4], b"PK" * 400])
def test_damaged_bit_files_are_told(data: bytes) -> None:
    with pytest.raises(InputError, match=r"not a BIT file|promises"):
        BitFile.decode(data)


def test_every_change_is_noticed(made: Path, tmp_path: Path) -> None:
    for name in json.loads((made / "manifest.json").read_text())["files"]:
        copy = tmp_path / "copy"
        shutil.copytree(made, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} was changed"):
            read_bundle(copy)
        (copy / name).unlink()
        with pytest.raises(InputError, match=f"{name} is missing"):
            read_bundle(copy)
        shutil.rmtree(copy)


def test_what_is_no_bundle_is_told(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such bundle"):
        read_bundle(tmp_path / "nowhere")
    (tmp_path / "file.zip").write_bytes(b"PK\5\6")
    for path in (tmp_path, tmp_path / "file.zip"):
        with pytest.raises(InputError, match="it is not a bundle"):
            read_bundle(path)
    for facts, sentence in (
        ({"format": "x"}, "does not say"),
        ({"format": "bitsmith-bundle", "version": 9}, "version is 9"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(facts))
        with pytest.raises(InputError, match=sentence):
            read_bundle(tmp_path)


@pytest.mark.parametrize("value", [0, -3, "two", None])
def test_a_spoilt_manifest_is_told(made: Path, tmp_path: Path, value: object) -> None:
    shutil.copytree(made, tmp_path / "copy")
    facts = json.loads((made / "manifest.json").read_text()) | {"image_batch": value}
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="lacks or spoils image_batch"):
        read_bundle(tmp_path / "copy")


def test_a_real_bundle_takes_vivados_files(tmp_path: Path) -> None:
    made = board_case.build(tmp_path / "build")
    samples = golden_samples(made)
    with pytest.raises(
        InputError, match=r"run 'bitsmith synth .*' where the vendor tools are installed, or add --virtual"
    ):
        write_bundle(made, samples, tmp_path / "out", virtual=False)
    bit = tmp_path / "design.bit"
    bit.write_bytes(BitFile("top;Version=2023.2", "7z020clg400", "2026/11/23", "10:00:00", bytes(64)).encode())
    module = '<MODULE MODTYPE="processing_system7"><PARAMETERS>{}</PARAMETERS></MODULE>'
    clock = '<PARAMETER NAME="PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ" VALUE="142.857132"/>'
    bit.with_suffix(".hwh").write_text("\ufeff<EDKSYSTEM>" + module.format(clock) + "</EDKSYSTEM>")
    write_bundle(made, samples, tmp_path / "out", virtual=False, bit=bit)
    read = read_bundle(tmp_path / "out")
    assert not read.virtual and read.read(read.manifest["bit"]) == bit.read_bytes()
    assert b"REF_CTRL__ACT_FREQMHZ" in read.read(read.manifest["hwh"])
    assert not (tmp_path / "out" / "rtl").exists()
    bit.write_bytes(b"no")
    with pytest.raises(InputError, match="not a BIT file"):
        write_bundle(made, samples, tmp_path / "other", virtual=False, bit=bit)
    for text, sentence in (
        ("<a", "cannot be parsed"),
        ("<a/>", "no Zynq-7000"),
        (module.format(""), "no frequency for FCLK0"),
    ):
        with pytest.raises(InputError, match=sentence):
            add_pynq_clock(text)


def test_nothing_is_left_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = board_case.build(tmp_path / "build")
    monkeypatch.setattr("hwgen.bundle._zip", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_bundle(made, golden_samples(made), tmp_path / "out", virtual=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build"]


def test_networks_without_samples_get_random_ones(tmp_path: Path) -> None:
    made = board_case.build(tmp_path / "build")
    bare = made.network.__class__(**{**made.network.__dict__, "samples": None})
    samples = golden_samples(made.__class__(made.path, made.board, made.engine, bare))
    assert isinstance(samples, Samples) and samples.labels is None and len(samples.images) == 16
    write_bundle(made, samples, tmp_path / "out", virtual=True)
    assert read_bundle(tmp_path / "out").samples()[1] is None


def test_command(tmp_path: Path) -> None:
    made = board_case.build(tmp_path / "build")
    result = call("bundle", made.path, "--virtual", "--json", tmp_path / "facts.json")
    assert result.exit_code == 0, result.output
    assert "Next: bitsmith deploy" in result.output and (tmp_path / "build-bundle.zip").is_file()
    assert json.loads((tmp_path / "facts.json").read_text())["virtual"] is True
    again = call("bundle", made.path, "--virtual")
    assert again.exit_code == 2 and "add --force" in again.output
    assert call("bundle", made.path, "--virtual", "--force").exit_code == 0
    both = call("bundle", made.path, "--virtual", "--bit", "x.bit", "--force")
    assert both.exit_code == 2 and "exclude each other" in both.output


def test_the_driver_is_a_package_of_its_own(made: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import bitsmith_driver as d, sys; print(d.Bundle('.').engine_hash, 'hwgen' in sys.modules)"],
        cwd=made, env={"PYTHONPATH": str(made)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout.split() == [str(board_case.ENGINE.hash), "False"], run.stderr
