"""The command line: help, exit codes, sentences, and a small network all the way through it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import networks
import numpy as np
import pytest
import typer
from command_line import ENGINE, call, fails
from rich.progress import Progress

from bitsmith import console
from bitsmith.cli import app
from hwgen.build import read_build
from hwgen.cycles import time_program
from hwgen.engine import write_engine
from hwgen.errors import InputError
from hwgen.network_file import read_network, write_network
from sim import golden

COMMANDS = sorted(command.name for command in typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``net/``, ``engine.json`` and ``build/`` made by the command line."""
    folder = tmp_path_factory.mktemp("made")
    write_network(networks.tiny(), folder / "net")
    write_engine(ENGINE, folder / "engine.json")
    result = call("generate", folder / "net", "--out", folder / "build", "--json", folder / "generate.json")
    assert result.exit_code == 0, result.output
    return folder


# -------------------------------------------------------------------------------- help
def test_the_commands() -> None:
    assert set(COMMANDS) >= {
        "assemble",
        "board",
        "bundle",
        "demo",
        "deploy",
        "estimate",
        "evaluate",
        "export",
        "generate",
        "inspect",
        "search",
        "train",
        "verify",
    }


def test_the_version() -> None:
    assert call("--version").stdout == f"bitsmith {version('bitsmith')}\n"


def test_a_log_gets_lines_of_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr("bitsmith.console.time", SimpleNamespace(monotonic=lambda: next(clock)))
    told = console.Bars(Progress(console=console.err, auto_refresh=False, get_time=lambda: 0.0))
    for done in range(1, 5):
        told("search", done, 4, f"loss {done}.5")
    assert capsys.readouterr().err.splitlines() == ["search 2/4 loss 2.5", "search 4/4 loss 4.5"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Example:  bitsmith {command} " in result.output
    shared = ("--verbose", "--quiet") if command == "board" else ("--verbose", "--quiet", "--json")
    assert all(option in result.output for option in shared)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_parse(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of each example are options and arguments that the command has."""
    inner: Any = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    words = inner.epilog.removeprefix("Example:").split()
    assert words[:2] == ["bitsmith", command]
    monkeypatch.chdir(tmp_path)
    with inner.make_context(command, words[2:]) as context:
        assert not context.args
        values = context.params.values()
        given = [str(item) for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    assert all(word in given for word in words[2:] if not word.startswith("-"))


def test_no_command_lists_them() -> None:
    output = call().output
    assert all(command in output for command in COMMANDS)


# -------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("command", ["verify", "estimate", "inspect", "export", "evaluate"])
def test_a_missing_folder_is_a_sentence(command: str, tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    said = fails(2, command, path)
    assert str(path) in said and said.rstrip().endswith(".")
    assert list(tmp_path.iterdir()) == []


def test_generate_without_a_network(tmp_path: Path) -> None:
    said = fails(2, "generate", tmp_path / "nowhere", "--out", tmp_path / "build")
    assert "Cannot read it: No such file or directory." in said
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_and_boards(made: Path) -> None:
    assert call("verify", made / "build", "--imagess", "3").exit_code == 2
    assert call("cook").exit_code == 2
    said = fails(2, "generate", made / "net", "--out", made / "other", "--board", "zc999")
    assert "no board 'zc999'" in said and "pynq-z2" in said
    assert not (made / "other").exists()


def test_an_existing_build_needs_force(made: Path) -> None:
    before = (made / "build" / "build.json").stat().st_mtime_ns
    said = fails(2, "generate", made / "net", "--out", made / "build")
    assert str(made / "build") in said and "--force" in said
    assert (made / "build" / "build.json").stat().st_mtime_ns == before


def test_force_replaces_a_build(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "build", tmp_path / "build")
    (tmp_path / "build" / "leftover").write_text("old")
    arguments = ["generate", made / "net", "--out", tmp_path / "build", "--force", "--quiet"]
    result = call(*arguments)
    assert result.exit_code == 0 and result.output == ""
    assert not (tmp_path / "build" / "leftover").exists()
    assert (tmp_path / "build" / "program.bin").read_bytes() == (made / "build" / "program.bin").read_bytes()


def test_force_never_removes_the_network_it_reads(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "net", tmp_path / "run" / "net")
    write_engine(ENGINE, tmp_path / "run" / "engine.json")
    for out in (tmp_path / "run" / "net", tmp_path / "run"):
        fails(2, "generate", tmp_path / "run" / "net", "--out", out, "--force")
        assert sorted(item.name for item in (tmp_path / "run").iterdir()) == ["engine.json", "net"]
        assert read_network(tmp_path / "run" / "net").name == "tiny"


def test_a_folder_below_a_file(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    told = fails(2, "generate", made / "net", "--out", tmp_path / "file" / "a" / "build")
    assert "file is a file, so that nothing can be made below it" in " ".join(told.split())


def test_force_over_a_file(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    assert str(tmp_path / "file") in fails(2, "generate", made / "net", "--out", tmp_path / "file", "--force")
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "net", "--out", "{file}/build"],
        ["inspect", "net", "--json", "{file}/figures.json"],
        ["inspect", "net", "--json", "{folder}"],
        ["verify", "build", "--images", "1", "--junit", "{file}/report.xml"],
        ["verify", "build", "--images", "1", "--waves", "{file}"],
    ],
    ids=" ".join,
)
def test_places_that_cannot_be_written_are_sentences(made: Path, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("keep")
    names = {"file": tmp_path / "file", "folder": tmp_path}
    filled = [made / word if word in ("net", "build") else word.format(**names) for word in arguments[1:]]
    assert str(tmp_path) in fails(2, arguments[0], *filled)
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize(
    ("images", "part"),
    [
        ("0", "at least 1"),
        ("4", "holds 3 samples"),
        ("minus", "neither a number nor a file"),
        ("-1", "neither a number nor a file"),
    ],
)
def test_impossible_image_counts(made: Path, images: str, part: str) -> None:
    assert part in fails(2, "verify", made / "build", f"--images={images}")


def test_bad_image_files(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    for array in (np.zeros((2, 6, 6, 1), np.uint8), np.zeros((2, 6, 6, 3)), np.zeros((0, 6, 6, 3), np.uint8)):
        np.save(path, array)
        assert str(path) in fails(2, "verify", made / "build", "--images", path)
    path.write_bytes(b"no array")
    assert "not a readable .npy" in fails(2, "verify", made / "build", "--images", path)


# -------------------------------------------------------------------------------- from network to RTL
def test_generate_takes_the_engine_beside_the_network(made: Path) -> None:
    figures = json.loads((made / "generate.json").read_text())
    assert figures["engine"] == ENGINE.name
    assert [row["name"] for row in figures["layers"]] == ["stem", "inner", "join", "mean", "fc"]
    assert read_build(made / "build").engine == ENGINE


def test_generate_says_what_to_type_next(made: Path, tmp_path: Path) -> None:
    result = call("generate", made / "net", "--out", tmp_path / "build", "--engine", made / "engine.json")
    assert result.exit_code == 0
    assert f"Next: bitsmith verify {tmp_path / 'build'}" in result.stdout


def test_generate_chooses_an_engine(made: Path, tmp_path: Path) -> None:
    result = call("generate", made / "net", "--out", tmp_path / "build", "--engine", "auto")
    assert result.exit_code == 0, result.output
    assert "The best that fit pynq-z2, of " in result.stdout and "behind" in result.stdout
    build = read_build(tmp_path / "build")
    shapes = json.loads((build.path / "shapes.json").read_text())
    assert shapes["candidates"][0]["engine"] == asdict(build.engine)
    assert all(line in (build.path / "shapes.txt").read_text() for line in shapes["reasons"])
    assert build.engine != ENGINE and build.engine.name in result.stdout


def test_verbose_says_what_is_done_on_the_way(made: Path, tmp_path: Path) -> None:
    arguments = ("generate", made / "net", "--out", tmp_path / "build", "--engine", "auto", "--force")
    for more, told in (("-v", True), ("-q", False), ("--verbose", True)):
        result = call(*arguments, more)
        assert result.exit_code == 0, result.output
        assert ("shapes looked at" in result.stderr) == told


@pytest.mark.parametrize("what", ["net", "build", "engine.json", "build/program.bin", "."])
def test_inspect(made: Path, what: str, tmp_path: Path) -> None:
    shutil.copytree(made / "net", tmp_path / "run" / "network")
    path = tmp_path / "run" if what == "." else made / what
    result = call("inspect", path, "--json", tmp_path / "inspect.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "inspect.json").read_text())["description"].strip() == result.stdout.strip()
    expected = {
        "net": ["Network 'tiny'", "stem", "shortcuta"],
        "build": ["Network 'tiny'", f"Engine {ENGINE.name}", "Memory map", "load_image", "conv_out"],
        "engine.json": [f"Engine {ENGINE.name}", "PLANE_DEPTH"],
        "build/program.bin": [f"Program for engine {ENGINE.hash:08x}", "load_weights", "pool"],
        ".": ["Network 'tiny'"],
    }
    assert all(part in result.stdout for part in expected[what])


def test_inspect_of_a_damaged_program(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "program.bin"
    path.write_bytes((made / "build" / "program.bin").read_bytes()[:200])
    assert "truncated or edited" in fails(2, "inspect", path)


def test_estimate_fast(made: Path) -> None:
    result = call("estimate", made / "build", "--fast", "--quiet", "--json", "-")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["source"] == "model" and figures["engine"] == ENGINE.name
    assert figures["engine_hash"] == f"{ENGINE.hash:08x}"
    cycles = time_program(read_build(made / "build").schedule).cycles_per_image
    assert figures["cycles_per_image"] == cycles == sum(layer["cycles"] for layer in figures["layers"])
    assert figures["fps"] == pytest.approx(figures["clock_mhz"] * 1e6 / cycles)
    assert all(figures[name] > 0 for name in ("lut", "ff", "bram36", "dsp"))
    shown = call("estimate", made / "build", "--fast").stdout
    assert f"{cycles} cycles per image" in shown and "fitted model" in shown


def test_verify(made: Path, tmp_path: Path) -> None:
    result = call("verify", made / "build", "--json", tmp_path / "v.json", "--junit", tmp_path / "v.xml")
    assert result.exit_code == 0, result.output
    assert "0 mismatches" in result.stdout
    figures = json.loads((tmp_path / "v.json").read_text())
    assert figures["images"] == 3 and figures["mismatches"] == 0 and figures["problem"] == ""
    network = read_network(made / "net")
    assert network.samples is not None
    assert figures["predictions"] == golden.classify(network, network.samples.images).tolist()
    assert figures["accuracy"] == figures["golden_accuracy"]
    suite = ElementTree.parse(tmp_path / "v.xml").getroot()
    assert suite.get("failures") == "0"
    assert {"run", "stem.out", "logits"} & {case.get("name") for case in suite} >= {"run", "logits"}


def test_verify_of_given_images(made: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (2, 6, 6, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    result = call("verify", made / "build", "--images", tmp_path / "images.npy", "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.output
    assert "no labels, no accuracy" in result.stdout
    figures = json.loads((tmp_path / "v.json").read_text())
    assert figures["accuracy"] is None
    assert figures["predictions"] == golden.classify(read_network(made / "net"), images).tolist()


def test_a_wrong_code_makes_verify_fail(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = golden.run

    def wrong(*arguments: Any) -> Any:
        tensors = right(*arguments)
        tensors["logits"][1, 0, 0, 3] ^= 1
        return tensors

    monkeypatch.setattr(golden, "run", wrong)
    result = call("verify", made / "build", "--json", tmp_path / "v.json", "--junit", tmp_path / "v.xml")
    assert result.exit_code == 1, result.output
    assert "1 mismatches" in result.stdout and "'logits'" in result.stdout
    assert json.loads((tmp_path / "v.json").read_text())["mismatches"] == 1
    assert ElementTree.parse(tmp_path / "v.xml").getroot().get("failures") == "1"


def test_an_edited_weight_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "build", tmp_path / "build")
    file = tmp_path / "build" / "program.bin"
    image = bytearray(file.read_bytes())
    image[-len(read_build(made / "build").schedule.program.data)] ^= 1
    file.write_bytes(bytes(image))
    with pytest.raises(InputError, match=r"program\.bin was changed"):
        read_build(tmp_path / "build")
    for command in ("verify", "estimate", "inspect"):
        assert "program.bin was changed" in fails(2, command, tmp_path / "build")
