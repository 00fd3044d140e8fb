"""The command line: help, exit codes, sentences, and a small network all the way through it."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import networks
import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from bitsmith.cli import app
from bitsmith.run import reopen
from hwgen.board import load_board
from hwgen.build import read_build
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig, read_engine, write_engine
from hwgen.errors import InputError
from hwgen.explore import choose_engine
from hwgen.network import Conv
from hwgen.network_file import read_network, write_network
from hwgen.schedule import schedule
from model.accuracy import accuracy
from model.nodes import Mode
from model.train import Trainer
from sim import golden

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(command.name for command in typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]
ENGINE = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=1024, plane_depth=512, byte_depth=512,
    column_depth=512,
)  # fmt: skip
RECIPE = """
[model]
name = "small"
stem = 8
stages = [[8, 1, 2]]

[search]
cost = "bitops"
weight_bits = [1, 3]
activation_bits = [2, 3]
epochs = 1
warm = 0

[train]
batch = 256
float_epochs = 2
epochs = 1
integer_epochs = 1
threads = 1
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def fails(code: int, *arguments: object) -> str:
    """What the command says on standard error; it must end with ``code`` and show no traceback."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return str(result.stderr)


def full_disk(*_: object, **__: object) -> None:
    """What a write says, which knows no name."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``net/``, ``engine.json`` and ``build/`` made by the command line."""
    folder = tmp_path_factory.mktemp("made")
    write_network(networks.tiny(), folder / "net")
    write_engine(ENGINE, folder / "engine.json")
    result = call("generate", folder / "net", "--out", folder / "build", "--json", folder / "generate.json")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path / "small.toml"


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


@pytest.mark.parametrize("command", ["search", "train"])
def test_training_without_a_recipe(command: str, tmp_path: Path) -> None:
    assert "Cannot read it" in fails(2, command, tmp_path / "none.toml", "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["search", "train"])
def test_bad_overrides_are_all_reported(command: str, recipe: Path) -> None:
    out = recipe.parent / "run"
    said = fails(
        2, command, recipe, "--out", out, "--set", "train.batch=1", "--set", "model.depth=3", "--set", "search.budget=-1"
    )
    assert all(name in said for name in ("'train.batch'", "'model.depth'", "'search.budget'"))
    assert not out.exists()


def test_an_unknown_stage(recipe: Path) -> None:
    out = recipe.parent / "run"
    said = fails(2, "train", recipe, "--out", out, "--until", "lunch")
    assert "no stage 'lunch'; the stages are float, search, retrain, integer" in said and not out.exists()


def test_unknown_options_and_boards(made: Path) -> None:
    assert call("verify", made / "build", "--imagess", "3").exit_code == 2
    assert call("cook").exit_code == 2
    said = fails(2, "generate", made / "net", "--out", made / "other", "--board", "zc999")
    assert "no board 'zc999'" in said and "pynq-z2" in said
    assert not (made / "other").exists()


def test_an_existing_output_needs_force(made: Path, recipe: Path) -> None:
    before = (made / "build" / "build.json").stat().st_mtime_ns
    said = fails(2, "generate", made / "net", "--out", made / "build")
    assert str(made / "build") in said and "--force" in said
    assert (made / "build" / "build.json").stat().st_mtime_ns == before
    run = recipe.parent / "run"
    run.mkdir()
    (run / "precious").write_text("keep")
    for arguments in (["search", recipe, "--out", run], ["train", recipe, "--out", run], ["demo", "--out", run]):
        assert "--force" in fails(2, *arguments)
    assert (run / "precious").read_text() == "keep"


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
    assert "shapes that fit pynq-z2" in result.stdout and "behind" in result.stdout
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


# -------------------------------------------------------------------------------- training
def test_ctrl_c_leaves_a_run_that_goes_on(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stopped in its second float epoch says how to go on, and ends as the run that was never stopped."""
    write_engine(ENGINE, recipe.parent / "engine.json")
    run, whole = recipe.parent / "run", recipe.parent / "whole"
    options = ["--engine", recipe.parent / "engine.json", "--quiet", "--set", "train.decay=0.0004"]
    epoch = Trainer._epoch

    def interrupted(self: Trainer, stage: str, number: int, total: int) -> dict[str, float]:
        if (stage, number) == ("float", 1):
            raise KeyboardInterrupt
        return epoch(self, stage, number, total)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", interrupted)
        said = fails(130, "train", recipe, "--out", run, *options)
    assert f"bitsmith train {recipe} --out {run} --resume --set train.decay=0.0004" in said
    logs = {"curves.csv", "strengths.csv", "tensorboard"}
    assert {path.name for path in run.iterdir()} == {"checkpoint.pt", "engine.json", "run.json"} | logs
    on = f"stopped in stage 'float'; go on with: bitsmith train {recipe} --out {run} --resume --set train.decay=0.0004\n"
    for command in ("export", "evaluate"):
        assert on in fails(2, command, run)
    for arguments in (["train", recipe, "--out", run, "--resume"], ["train", recipe, "--out", whole]):
        result = call(*arguments, *options)
        assert result.exit_code == 0, result.output
    assert (run / "curves.csv").read_bytes() == (whole / "curves.csv").read_bytes()
    assert f"not written yet; do so with: bitsmith export {run}" in fails(2, "evaluate", run)
    with monkeypatch.context() as patch:
        patch.setattr("zipfile.ZipFile.writestr", full_disk)
        assert f"{run / 'network'}: No space left on device." in fails(2, "export", run)
        assert not (run / "network").exists()
    for folder in (run, whole):
        result = call("export", folder)
        assert result.exit_code == 0, result.output
        assert f"Next: bitsmith evaluate {folder}" in result.stdout
    for name in ("network.json", "tensors.npz", "samples.npz"):
        assert (run / "network" / name).read_bytes() == (whole / "network" / name).read_bytes(), name
    result = call("evaluate", run, "--json", "-", "--quiet")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    assert metrics["logit_agreement"] == 1 and metrics["final_table_cost"] <= metrics["budget"]
    assert {row["weight"] for row in metrics["bits"]} <= {1, 3, 8}
    changed = recipe.read_text().replace("float_epochs = 2", "float_epochs = 3")
    recipe.write_text(changed)
    said = fails(2, "train", recipe, "--out", run, "--resume", *options)
    assert "belongs to another recipe: train.float_epochs was 2 and is 3." in said
    recipe.write_text(recipe.read_text().replace("float_epochs = 3", "float_epochs = 2"))
    write_engine(replace(ENGINE, columns=8), run.parent / "other.json")
    other = ["--engine", run.parent / "other.json", "--board", "pynq-z1", *options[2:]]
    said = fails(2, "train", recipe, "--out", run, "--resume", *other)
    assert "made for board 'pynq-z2', not 'pynq-z1'" in said and "not the one given; leave --engine out" in said
    network = read_network(run / "network")
    spoilt = [
        replace(node, bias=node.bias + (9 << node.shift))
        if isinstance(node, Conv) and node.name == "block1.conv1"
        else node
        for node in network.nodes
    ]
    write_network(replace(network, nodes=tuple(spoilt)), run / "network")
    result = call("evaluate", run)
    assert result.exit_code == 1 and "they differ first in block1.conv1.out" in " ".join(result.output.split())
    (run / "checkpoint.pt").write_bytes((run / "checkpoint.pt").read_bytes()[:1000])
    assert "damaged, cut short" in fails(2, "export", run)


def test_without_the_integer_stage_the_trained_network_is_the_quantised_one(recipe: Path) -> None:
    """Its accuracy is not that of the folded integers; and a budget that nothing can use up is told."""
    write_engine(ENGINE, recipe.parent / "engine.json")
    out = recipe.parent / "run"
    settings = ["--set", "train.integer_epochs=0", "--set", "search.budget=9", "--engine", recipe.parent / "engine.json"]
    result = call("search", recipe, "--out", out, *settings)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "Logits equal between folded and integer network: 100.00 %." in said
    assert "train.integer_epochs is 0, so the trained network is the fake-quantised one" in said
    assert re.search(
        r"Cost of the program \d+ of \d+ bitops; .* \d\d\.\d\d % of the budget is left: nothing is nearer\.", said
    )
    metrics = json.loads((out / "metrics.json").read_text())
    made = reopen(out)
    test = made.prepared.data.test
    assert metrics["trained_as"] == "quantised"
    assert metrics["quantised_accuracy"] == accuracy(made.prepared.net, test, Mode.QUANTISED)
    assert metrics["integer_accuracy"] == accuracy(made.prepared.net, test, Mode.INTEGER)
    assert "every code equal to the folded network's" in call("export", out).stdout


def test_a_run_that_says_little_of_itself_is_told_what_is_missing(recipe: Path) -> None:
    """Runs of earlier versions do not say what they were made with; one without a checkpoint has nothing to export. What a run was to
    train on belongs to the command that goes on with it."""
    write_engine(ENGINE, recipe.parent / "engine.json")
    out = recipe.parent / "run"
    assert (
        call("train", recipe, "--out", out, "--until", "float", "--engine", recipe.parent / "engine.json").exit_code == 0
    )
    facts = json.loads((out / "run.json").read_text())
    assert facts["device"] == "cpu" and "--device" not in fails(2, "evaluate", out)
    (out / "run.json").write_text(json.dumps({**facts, "device": "cuda"}))
    assert f"--out {out} --resume" in (said := fails(2, "evaluate", out)) and said.rstrip(". \n").endswith(
        "--device cuda"
    )
    del facts["made_with"], facts["device"]
    (out / "run.json").write_text(json.dumps(facts))
    said = fails(2, "evaluate", out)
    assert f"stopped in stage 'search'; go on with 'bitsmith train RECIPE --out {out} --resume', RECIPE being" in said
    (out / "checkpoint.pt").unlink()
    assert "stopped before its first checkpoint; go on with" in fails(2, "export", out)


def test_what_cannot_be_trained_is_known_before_training(recipe: Path) -> None:
    """Also that the engine cannot hold the network, where the budget counts something else than its cycles."""
    out = recipe.parent / "run"
    write_engine(replace(ENGINE, weight_depth=16), recipe.parent / "small.json")
    said = fails(2, "train", recipe, "--out", out, "--engine", recipe.parent / "small.json")
    assert "engine" in said and not out.exists()


def test_a_search_whose_strengths_would_not_be_trained_is_not_begun(recipe: Path) -> None:
    out = recipe.parent / "run"
    said = fails(2, "search", recipe, "--out", out, "--set", "search.warm=0.2")
    assert "of 1 epochs, 'search.warm' = 0.2 trains the weights alone in 1 (rounded up)" in said and not out.exists()


def test_the_command_that_is_printed_next_goes_on(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the run's settings; and what the engine has grown to is what every later command times."""
    chosen = SimpleNamespace(engine=replace(ENGINE, weight_depth=512))
    monkeypatch.setattr("bitsmith.run.choose_engine", lambda *_: chosen)
    out = recipe.parent / "run"
    narrow = [
        "--set",
        'search.method="uniform"',
        "--set",
        "search.uniform=[8,8]",
        "--set",
        "search.cost=cycles",
        "--set",
        "model.stages=[[8,1,1],[16,1,2],[32,1,2]]",
    ]
    result = call("train", recipe, "--out", out, "--until", "float", "--set", "seed=7", *narrow)
    assert result.exit_code == 0, result.output
    command = next(line for line in result.stdout.splitlines() if line.startswith("Next: "))
    words = shlex.split(command.removeprefix("Next: bitsmith "))
    assert call(*words, "--quiet").exit_code == 0
    assert call("export", out).exit_code == 0
    figures = [json.loads(call("evaluate", out, "--json", "-", "--quiet").stdout)["cycles"]]
    engine = read_engine(out / "engine.json")
    assert asdict(engine) != json.loads((out / "run.json").read_text())["engine"]  # it has grown
    figures.append(time_program(schedule(read_network(out / "network"), engine)).cycles_per_image)
    assert figures[0] == figures[1]


def test_bits_that_count_something_else_get_an_engine_of_their_own(recipe: Path) -> None:
    """Once they are found, not before; later commands take it up."""
    out = recipe.parent / "run"
    assert call("train", recipe, "--out", out, "--until", "float").exit_code == 0
    assert not (out / "engine.json").exists() and json.loads((out / "run.json").read_text())["engine"] is None
    write_engine(ENGINE, recipe.parent / "other.json")
    resumed = ["train", recipe, "--out", out, "--resume"]
    said = fails(2, *resumed, "--engine", recipe.parent / "other.json")
    assert "Its engine is chosen once there are bits; leave --engine out." in said
    assert call(*resumed).exit_code == 0
    assert call("export", out).exit_code == 0
    network, engine = read_network(out / "network"), read_engine(out / "engine.json")
    assert engine == choose_engine(network, load_board("pynq-z2")).engine
    figures = json.loads(call("evaluate", out, "--json", "-", "--quiet").stdout)
    assert figures["engine"] == engine.name
    assert figures["cycles"] == time_program(schedule(network, engine)).cycles_per_image


def test_what_no_engine_holds_is_searched_all_the_same(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless cycles are counted, which is said at once, with what can be counted instead."""
    board = load_board("pynq-z2")
    small = board.model_copy(update={"resources": board.resources.model_copy(update={"bram36": 20})})
    monkeypatch.setattr("bitsmith.run.load_board", lambda _: small)
    out = recipe.parent / "run"
    said = fails(2, "search", recipe, "--out", out, "--set", "search.cost=cycles")
    assert "No engine shape fits pynq-z2" in said and "20 BRAM36" in said
    assert "(--engine FILE)" in said and "--set search.cost=bitops" in said and not out.exists()
    result = call("search", recipe, "--out", out)
    assert result.exit_code == 0, result.output
    assert "No engine that fits pynq-z2 holds the network at these bits" in " ".join(result.output.split())
    assert "engine.json" not in result.output and not (out / "engine.json").exists()
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["engine"] is None and figures["cycles"] is None and figures["final_cost"] <= figures["budget"]


def test_torchrun_trains_once_and_speaks_once(recipe: Path) -> None:
    write_engine(ENGINE, recipe.parent / "engine.json")
    out = recipe.parent / "run"
    command: list[str | Path] = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "localhost:0", "-m", "bitsmith", "search", recipe, "--out", out,
               "--engine", recipe.parent / "engine.json"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Next: bitsmith generate") == 1 and done.stdout.count(f"Wrote {out}/") == 1
    assert (out / "metrics.json").exists() and (out / "network").is_dir()
    assert call("export", out).exit_code == 0
    for wrong, said in {
        "--force --set train.batch=255": "'train.batch': 255 images cannot be shared by 2 processes",
        "--force --set seed=-1": "'seed': input should be greater than or equal to 0",
        "--resume --set train.decay=0.1": "It belongs to another recipe: train.decay was 0.0005 and is 0.1.",
    }.items():
        done = subprocess.run([*command, *wrong.split()], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1, wrong  # torchrun's own, whatever its processes end with
        assert done.stderr.count(said) == 1 and "exitcode  : 2" in done.stderr, done.stderr[-3000:]


def test_force_keeps_the_old_run_until_the_new_one_is_possible(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_engine(ENGINE, recipe.parent / "engine.json")
    run = recipe.parent / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "precious").write_text("keep")
    (recipe.parent / "float").write_bytes(b"no checkpoint")
    options = ["--out", run, "--force", "--engine", recipe.parent / "engine.json", "--quiet"]
    for wrong, said in {
        "search.target=1": "costs at most 1 bit operations",
        'search.layers={"blok*" = {weight_bits = [2]}}': "matches no layer",
        f'train.float_from="{recipe.parent / "float"}"': "or not a checkpoint of bitsmith",
        f'train.float_from="{run / "precious"}"': "which is read",
    }.items():
        assert said in fails(2, "train", recipe, *options, "--set", wrong)
        assert (run / "precious").read_text() == "keep"
    monkeypatch.setattr("bitsmith.run.write_engine", full_disk)
    assert f"{run}: No space left on device." in fails(2, "train", recipe, *options)
    assert (run / "precious").read_text() == "keep"
