"""Search and training on the command line: sentences, stops and resumptions, several processes."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import ENGINE, call, fails

from bitsmith.run import reopen
from hwgen.board import load_board
from hwgen.cycles import time_program
from hwgen.engine import read_engine, write_engine
from hwgen.explore import choose_engine
from hwgen.network import Conv
from hwgen.network_file import read_network, write_network
from hwgen.schedule import schedule
from model.accuracy import accuracy
from model.nodes import Mode
from model.train import Trainer

ROOT = Path(__file__).parent.parent
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


def full_disk(*_: object, **__: object) -> None:
    """What a write says, which knows no name."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path / "small.toml"


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


def test_a_rule_for_no_layer_is_told_without_advice_on_engines(recipe: Path) -> None:
    out = recipe.parent / "run"
    said = fails(
        2, "search", recipe, "--out", out, "--set", 'search.cost="cycles"', "--set", "search.layers.stm.weight_bits=[2]"
    )
    assert "'stm' matches no layer; the layers are stem, " in said and "engine" not in said and not out.exists()


def test_an_unknown_stage(recipe: Path) -> None:
    out = recipe.parent / "run"
    said = fails(2, "train", recipe, "--out", out, "--until", "lunch")
    assert "no stage 'lunch'; the stages are float, search, retrain, integer" in said and not out.exists()


def test_an_existing_run_needs_force(recipe: Path) -> None:
    run = recipe.parent / "run"
    run.mkdir()
    (run / "precious").write_text("keep")
    for arguments in (["search", recipe, "--out", run], ["train", recipe, "--out", run], ["demo", "--out", run]):
        assert "--force" in fails(2, *arguments)
    assert (run / "precious").read_text() == "keep"


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
    assert sum(row["cost"] for row in metrics["bits"]) == metrics["final_table_cost"]
    table = call("evaluate", run).stdout.splitlines()
    head, stem = (next(line.split() for line in table if line.startswith(name)) for name in ("layer", "stem"))
    share = f"{100 * metrics['bits'][0]['cost'] / metrics['final_table_cost']:.0f}"
    assert head == ["layer", "weights", "activations", "bitops", "share"]
    assert stem == ["stem", "8", "4", f"{metrics['bits'][0]['cost']:,}", share, "%"]
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


def test_an_engine_that_is_given_and_chosen_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    write_engine(ENGINE, tmp_path / "engine.json")
    told = fails(
        2, "search", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--joint", "--target-cycles", 900, "--engine",
        tmp_path / "engine.json",
    )  # fmt: skip
    assert "gives it; leave out --joint or --engine" in told and not (tmp_path / "run").exists()


def test_a_budget_is_told_by_the_option_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = ["search", tmp_path / "recipe.toml", "--out", tmp_path / "run"]
    told = fails(2, *words, "--target-fps", 1000, "--joint", "--set", 'search.method="uniform"')
    assert "--target-fps: uniform bits cost what they cost" in told and "--joint" in told and "search.target" not in told
    told = fails(2, *words, "--target-bitops", 1e-6)
    assert told.lstrip().startswith("--target-bitops:") and "search.target" not in told
    assert not (tmp_path / "run").exists()
