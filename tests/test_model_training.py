"""Training that is interrupted, shared, or goes wrong: nothing is lost, and the outcome is that of the undisturbed run."""

from __future__ import annotations

import csv
import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import RECIPE, SHORT, child_script, environment
from tensorboardX.proto.event_pb2 import Event

from hwgen.errors import InputError
from model import checkpoint, logbook, pipeline
from model.agreement import image_tensor
from model.build import build_network
from model.calibrate import quantise_after_training
from model.nodes import Context, ConvNode, Mode
from model.optimise import optimisers
from model.quantnet import QuantNet
from model.recipe import read_recipe
from model.steps import Steps
from model.train import STAGES


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """A script that trains: RECIPE FOLDER STAGE SETTING..."""
    return child_script(tmp_path)


# -------------------------------------------------------------------------------- interrupted
@pytest.mark.parametrize("when", ["float 1", "search 2", "retrain 1"])
def test_kill_9_changes_nothing(child: Path, tmp_path: Path, when: str) -> None:
    """Killed somewhere in the epoch after ``when``, then resumed: the same bits and the same weights."""
    whole = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    pipeline.train(whole)
    folder = tmp_path / "killed"
    folder.mkdir()
    command: list[str | Path] = [sys.executable, child, RECIPE, folder, "integer", *SHORT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == when:
                time.sleep(0.05)
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert when.replace(" ", ",") in (folder / "curves.csv").read_text()  # logs are as far as the checkpoint
    again = pipeline.prepare(read_recipe(RECIPE, SHORT), folder)
    pipeline.train(again, resume=True)
    assert again.trainer.state.bits == whole.trainer.state.bits
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name]), name
    for name in ("curves.csv", "strengths.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    make = tempfile.mkstemp

    def full(**options: Any) -> tuple[int, str]:
        handle, name = make(**options)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    monkeypatch.setattr("model.checkpoint.tempfile.mkstemp", full)
    with pytest.raises(OSError, match="No space left") as caught:
        pipeline.train(run)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert not list(tmp_path.glob(".checkpoint*"))
    monkeypatch.undo()
    again = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path)
    pipeline.train(again, resume=True)
    assert again.trainer.state.bits


# -------------------------------------------------------------------------------- rates
def test_rates_fall_to_nothing_over_retraining_and_the_integer_stage_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By step, not by epoch; a stage of its own begins anew."""
    settings = [*SHORT, "train.epochs=3", "train.integer_epochs=1", "train.quantised_rate=1", "train.clip_rate=0.5"]
    run = pipeline.prepare(read_recipe(RECIPE, settings))
    seen: list[tuple[str, float, float]] = []

    def step(self: Steps, *_: Any, **__: Any) -> float:
        stage = STAGES[run.trainer.state.stage]
        seen.append((stage, *(self.optimisers[at].param_groups[0]["lr"] for at in (0, 1))))
        return 0.0

    monkeypatch.setattr(Steps, "weights", step)
    pipeline.train(run)
    for stages, epochs in (({"search"}, 3), ({"retrain", "integer"}, 4)):
        rates = [row[1:] for row in seen if row[0] in stages]
        shares = [0.5 * (1 + math.cos(math.pi * at / len(rates))) for at in range(len(rates))]
        assert len(rates) == 8 * epochs
        assert [rate for rate, _ in rates] == pytest.approx(shares)
        assert [rate for _, rate in rates] == pytest.approx([0.5 * share for share in shares])


# -------------------------------------------------------------------------------- settings
def test_optimisers_have_the_recipes_settings() -> None:
    own = [
        "train.betas=[0.8, 0.97]",
        "search.strength_betas=[0.3, 0.9]",
        "train.momentum=0.7",
        "train.gradient_norm=1e-9",
        "train.decay=0",
    ]
    for weights in ("adamw", "sgd"):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, *own, f"train.optimiser={weights}", "train.most_steps=1"]))
        made = optimisers(run.net, "search", run.recipe.train, run.recipe.search)
        assert [item.defaults.get("betas") for item in made[1:]] == [(0.8, 0.97), (0.3, 0.9)]
        assert made[0].defaults["betas" if weights == "adamw" else "momentum"] == (
            (0.8, 0.97) if weights == "adamw" else 0.7
        )
    before = run.net.weighted()[0].weight.detach().clone()
    run.trainer.run("float")  # SGD by a gradient that is as long as it may be
    after = run.net.weighted()[0].weight.detach()
    assert float((after - before).abs().max()) < 1e-6


def test_calibration_has_the_recipes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = []
    for quantile in (0.5, 0.999):
        seen: list[int] = []
        own = [f"train.calibration_quantile={quantile}", "train.calibration_images=7", "train.most_steps=1"]
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, *own]))
        monkeypatch.setattr(
            "model.calibrate.image_tensor", lambda images, seen=seen: seen.append(len(images)) or image_tensor(images)
        )
        run.trainer.run("float")
        assert seen == [7]
        clips.append(float(run.net.clips()[0].detach()))
    assert clips[0] < clips[1]


# -------------------------------------------------------------------------------- float networks of other runs
def test_the_float_network_of_another_run(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    first = pipeline.prepare(read_recipe(RECIPE, SHORT), source)
    pipeline.train(first, "float")
    taken = [*SHORT, f"train.float_from={source}", "search.method=uniform", "train.epochs=0", "train.integer_epochs=0"]
    run = pipeline.prepare(read_recipe(RECIPE, [*taken, "search.weight_bits=[2]", "seed=5"]))
    pipeline.train(run, "float")
    for name, value in first.net.state_dict().items():
        if not name.endswith("strengths"):
            assert torch.equal(value, run.net.state_dict()[name]), name
    with pytest.raises(InputError, match="network of another shape"):
        pipeline.train(pipeline.prepare(read_recipe(RECIPE, [*taken, "model.stem=12"])), "float")
    with pytest.raises(InputError, match="No such file"):
        pipeline.train(pipeline.prepare(read_recipe(RECIPE, [*taken, "train.float_from=nowhere"])), "float")
    state = checkpoint.load(source / "checkpoint.pt")
    state["float"]["nodes.0.weight"][0] = float("nan")
    checkpoint.save(source / "checkpoint.pt", state, "another")
    with pytest.raises(InputError, match=r"float network has diverged: 'nodes\.0\.weight' holds nan"):
        pipeline.prepare(read_recipe(RECIPE, taken)).trainer.check_start()


# -------------------------------------------------------------------------------- retraining
def running_var(net: QuantNet) -> torch.Tensor:
    node = net.weighted()[1]
    assert isinstance(node, ConvNode) and node.norm is not None and node.norm.running_var is not None
    return node.norm.running_var


def test_batch_norm_is_estimated_anew() -> None:
    """After the choice of bits the statistics are those of the quantised network, not of the mixture."""
    kept = {}
    for batches in (0, 4):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, f"train.norm_batches={batches}", "train.epochs=0",
                                                    "train.integer_epochs=0", "search.method=uniform",
                                                    "search.uniform=[1, 2]"]))  # fmt: skip
        pipeline.train(run, "float")
        before = running_var(run.net).clone()
        pipeline.train(run)
        kept[batches] = torch.equal(before, running_var(run.net))
    assert kept == {0: True, 4: False}


def test_retraining_from_float_weights_starts_at_clips_of_the_least_error() -> None:
    recipe = read_recipe(
        RECIPE,
        [*SHORT, 'search.method="uniform"', "search.uniform=[2,2]", 'search.weight_quantiser="lsq"', "train.start=float",
         "train.epochs=0"],
    )  # fmt: skip
    run = pipeline.prepare(recipe)
    pipeline.train(run, "retrain")
    wanted = build_network(recipe, run.data)
    wanted.load_state_dict(run.trainer.float_state)
    before = [clip.item() for clip in wanted.clips()]
    pick = np.linspace(0, len(run.data.train) - 1, 512).astype(np.int64)
    quantise_after_training(wanted, run.data.train.images[pick], run.trainer.state.bits)
    clips = [clip.item() for clip in wanted.clips()]
    assert [clip.item() for clip in run.net.clips()] == pytest.approx(
        clips, rel=1e-5
    )  # another memory layout, other sums
    assert sum(clip < 0.95 * old for clip, old in zip(clips, before, strict=True)) > len(clips) / 2  # two bits want less


def test_distillation_follows_the_float_network() -> None:
    """At full weight and no labels the retrained logits come nearer to the float network's."""
    gaps = []
    for settings in (["train.epochs=0"], ["train.epochs=4", "train.distil=1.0"]):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "train.float_epochs=4", "train.integer_epochs=0",
                                                    "search.method=uniform", "search.uniform=[3, 3]", *settings]))  # fmt: skip
        pipeline.train(run)
        teacher = build_network(run.recipe, run.data)
        teacher.load_state_dict(run.trainer.float_state)
        images = image_tensor(run.data.train.images[:256])
        with torch.no_grad():
            target = torch.softmax(teacher.eval()(images, Context(Mode.FLOAT)), 1)
            ours = torch.softmax(run.net.eval()(images, Context(Mode.QUANTISED)), 1)
        gaps.append(float((target - ours).abs().sum(1).mean()))
    assert gaps[1] < 0.7 * gaps[0]


def test_codes_in_bfloat16_train_as_in_float32() -> None:
    """Products are exact; only sums are rounded, so a few steps stay near."""
    losses = []
    for autocast in ("false", "true"):
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, f"train.autocast={autocast}", "search.method=uniform"]))
        pipeline.train(run, "retrain")
        losses.append(run.trainer.state.history[-1]["loss"])
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)


# -------------------------------------------------------------------------------- logs
def read_events(path: Path) -> list[Event]:
    """Events of a file by its own framing: length, its checksum, data, its checksum."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        found.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return found


def test_logs_hold_curves_and_strengths(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path)
    pipeline.train(run)
    with (tmp_path / "strengths.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["epoch"] for row in rows} == {"1", "2", "3"}
    sums: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row["epoch"], row["operand"])
        sums[key] = sums.get(key, 0.0) + float(row["probability"])
    assert all(total == pytest.approx(1.0, abs=1e-4) for total in sums.values())
    assert {operand for _, operand in sums} >= {"stem.weight", "block1.conv1.input", "classifier.input"}
    with (tmp_path / "curves.csv").open() as stream:
        curves = list(csv.DictReader(stream))
    assert [row["stage"] for row in curves] == ["float"] * 2 + ["search"] * 3 + ["retrain"] * 2 + ["integer"]
    assert all(0 < float(row["entropy"]) < 2.33 for row in curves if row["stage"] == "search")
    for name in ("mixed_accuracy", "arg_max_accuracy", "chosen_accuracy"):  # before and after discretisation
        assert [row[name] for row in curves] == [""] * 4 + [str(run.trainer.state.chosen[name])] + [""] * 3
    events = read_events(tmp_path / "tensorboard" / logbook.EVENTS)
    assert events[0].file_version == "brain.Event:2" and [event.step for event in events[1:]] == list(range(1, 9))
    scalars = {value.tag: value.simple_value for value in events[5].summary.value}
    assert scalars["search/loss"] == pytest.approx(float(curves[4]["loss"]))
    assert (
        f"{scalars['strengths/stem.weight/2']:.4f}"
        == f"{float(next(r for r in rows if (r['epoch'], r['operand'], r['bits']) == ('3', 'stem.weight', '2'))['probability']):.4f}"
    )
