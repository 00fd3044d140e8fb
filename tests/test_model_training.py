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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from model.steps import NoNumberError, Steps
from model.train import STAGES, Trainer

State = dict[str, torch.Tensor]
ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "examples" / "recipes" / "digits.toml"
SHORT = [
    "train.float_epochs=2", "train.epochs=2", "train.integer_epochs=1", "search.epochs=3", "model.stem=8",
    "model.stages=[[8, 1, 1], [16, 1, 2]]", 'search.cost="bitops"', "train.norm_batches=2", "search.trials=4", "train.most_steps=8",
]  # fmt: skip

CHILD = """
import os, sys, torch
from pathlib import Path
from model import distributed, pipeline
from model.recipe import read_recipe
torch.set_num_threads(1)
torch.set_default_dtype(getattr(torch, os.environ.get("DTYPE", "float32")))
world = distributed.join("cpu")
recipe, folder = read_recipe(Path(sys.argv[1]), sys.argv[4:]), Path(sys.argv[2])
run = pipeline.prepare(recipe, folder, progress=lambda stage, done, *_: print(stage, done, flush=True), world=world)
pipeline.train(run, sys.argv[3])
if not world.first:
    torch.save(run.net.state_dict(), folder / "second.pt")
distributed.leave()
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def usual_type() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """A script that trains: RECIPE FOLDER STAGE SETTING..."""
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


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


# -------------------------------------------------------------------------------- several processes
# Gentle rates, SGD, and a search that mixes softly: sums of gradients have another order in two processes, and a rounding that flips on
# the last bit of a weight is a step of its own, which Adam's first steps, the signs of the gradients, make a large one.
STEPS = [
    *SHORT, "train.float_epochs=1", "search.epochs=1", "search.warm=0", "search.method=ebs-sto", "train.optimiser=sgd",
    "train.rate=0.02", "train.quantised_rate=0.0001", "train.clip_rate=0.0001", "train.batch=128", "search.strength_rate=0.01",
    "search.temperature=[5, 5]",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a float network."""
    folder = tmp_path_factory.mktemp("trained")
    settings = [*SHORT, "train.float_epochs=6", "train.most_steps=30"]
    pipeline.train(pipeline.prepare(read_recipe(RECIPE, settings), folder), "float")
    return folder


def torchrun(child: Path, folder: Path, stage: str, settings: list[str]) -> tuple[State, State]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    done = subprocess.run(
        [*command, child, RECIPE, folder, stage, *settings],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return checkpoint.load(folder / "checkpoint.pt")["net"], torch.load(folder / "second.pt", weights_only=True)


def near(ours: State, theirs: State, part: str = "") -> float:
    """Relative difference of all tensors whose name holds ``part``, as one vector."""
    names = [name for name, value in theirs.items() if value.is_floating_point() and part in name]
    mine, other = (torch.cat([state[name].flatten() for name in names]) for state in (ours, theirs))
    return float((mine - other).norm() / other.norm())


@pytest.mark.parametrize(
    ("stage", "dtype", "limit"),
    [("float", "float32", 1e-6), ("search", "float32", 1e-4), ("search", "float64", 1e-12)],
)
def test_two_processes_are_one(
    child: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usual_type: None,
    stage: str,
    dtype: str,
    limit: float,
) -> None:
    """With the same global batch, after five steps: weights, batch norm, clips and, with Gumbel noise, strengths."""
    monkeypatch.setenv("DTYPE", dtype)
    torch.set_default_dtype(getattr(torch, dtype))
    settings = [*STEPS, "train.most_steps=5", *([f"train.float_from={trained}"] if stage == "search" else [])]
    alone = pipeline.prepare(read_recipe(RECIPE, settings))
    pipeline.train(alone, stage)
    first, second = torchrun(child, tmp_path / "pair", stage, settings)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    parts = ["weight", "bias", "running", "clip", *(["strengths"] if stage == "search" else [])]
    assert {part: near(first, alone.net.state_dict(), part) for part in parts} == dict.fromkeys(
        parts, pytest.approx(0, abs=limit)
    )
    if stage == "search":
        moved = [value for name, value in first.items() if name.endswith("choice.strengths")]
        assert any(float(value.abs().max()) > 0.005 for value in moved)


def test_a_batch_that_processes_cannot_share(tmp_path: Path) -> None:
    from model.distributed import World

    with pytest.raises(InputError, match=r"'train\.batch': 63 images cannot be shared by 2 processes"):
        pipeline.prepare(read_recipe(RECIPE, [*SHORT, "train.batch=63"]), world=World(0, 2))


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


# -------------------------------------------------------------------------------- numbers that are none
def test_a_gradient_that_is_no_number_stops_before_the_step(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    run.net.weighted()[1].weight.register_hook(lambda grad: grad * float("nan"))  # type: ignore[no-untyped-call]
    before = run.net.weighted()[0].weight.detach().clone()
    with pytest.raises(InputError, match=r"in the gradient of layer 'block1\.conv1'"):
        pipeline.train(run)
    assert torch.equal(before, run.net.weighted()[0].weight) and (tmp_path / "checkpoint.pt").read_bytes() == good


def test_a_held_out_loss_that_is_no_number_stops_before_the_strengths_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.warm=0"]), tmp_path)
    pipeline.train(run, "float")
    before = [item.detach().clone() for item in run.net.strengths()]
    monkeypatch.setattr(run.search, "pressure", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(InputError, match="no longer a number, in the loss itself"):
        pipeline.train(run)
    assert all(torch.equal(a, b) for a, b in zip(before, run.net.strengths(), strict=True))


def test_a_search_that_diverges_says_so_in_a_sentence(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "train.quantised_rate=1e30"]), tmp_path)
    pipeline.train(run, "float")
    with pytest.raises(InputError, match=r"the last good checkpoint is kept\. Start again in another folder") as caught:
        pipeline.train(run)
    assert f"train.float_from={tmp_path} and a lower train.quantised_rate" in str(caught.value)
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "train.rate=1e30"]))
    with pytest.raises(InputError, match="Start again in another folder and a lower") as caught:
        pipeline.train(run)
    assert "checkpoint" not in str(caught.value)


LAST = [*SHORT, "train.most_steps=1", "search.epochs=1", "search.warm=0"]  # what is checked is the last step of an epoch


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.quantised_rate=1e30", r"In layer 'stem' a weight has become 1e\+30; .* a lower train\.quantised_rate"),
        ("train.quantised_rate=1e9", r"The loss has become \S+, first in layer '\S+'; .* a lower train\.quantised_rate"),
        ("train.clip_rate=1e30", r"In layer 'stem' a clip has become 1e\+30; .* a lower train\.clip_rate"),
        ("search.strength_rate=1e30", r"In layer 'stem' a strength has become .*; .* a lower search\.strength_rate"),
    ],
)
def test_what_the_last_step_leaves_is_not_saved(setting: str, said: str, tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*LAST, setting]), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=said) as caught:
        pipeline.train(run)
    assert f"the last good checkpoint is kept. Start again in another folder with train.float_from={tmp_path}" in str(
        caught.value
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ("1e30", "In layer 'stem' a weight has become 1e+30. Start again"),
        ("1e10", "The loss is no longer a number, first in layer '"),
        ("10", "The loss has become "),
    ],
)
def test_a_float_network_that_the_last_step_spoils_is_not_searched(rate: str, said: str, tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*LAST, "train.float_epochs=1", f"train.rate={rate}"]), tmp_path)
    with pytest.raises(InputError) as caught:
        pipeline.train(run)
    assert said in str(caught.value) and "a lower train.rate." in str(caught.value)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_statistics_that_lag_behind_end_no_training() -> None:
    """What batch norm has learnt may be far off while a stage goes on: training does not use it. It stays as it is."""
    run = pipeline.prepare(read_recipe(RECIPE, SHORT))
    norms = [item for item in run.net.modules() if isinstance(item, torch.nn.BatchNorm2d)]
    means = []
    for norm in norms:
        assert norm.running_mean is not None
        means.append(norm.running_mean.fill_(-1e9))
    images = image_tensor(run.data.train.images[:64])
    batch = (images, torch.from_numpy(run.data.train.labels[:64]), Context(Mode.FLOAT))
    run.trainer.steps.check_loss(*batch, learnt=False)
    assert all(bool((mean == -1e9).all()) for mean in means) and all(norm.momentum for norm in norms)
    with pytest.raises(NoNumberError, match="The loss has become"):
        run.trainer.steps.check_loss(*batch, learnt=True)


def test_looking_for_numbers_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(Trainer, "_check", lambda *_, **__: None)
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.method=ebs-sto"]))
        pipeline.train(run)
        states.append(run.net.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) or name.endswith("num_batches_tracked"), name


def test_logits_of_which_no_loss_can_be_made_name_their_layer() -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT))
    bias = run.net.weighted()[-1].bias
    assert bias is not None
    bias.data[:2] = torch.tensor([3e38, -3e38])  # numbers, but their difference is none
    images = image_tensor(run.data.train.images[:64])
    with pytest.raises(NoNumberError, match="no longer a number, first in layer 'classifier'"):
        run.trainer.steps.weights(images, torch.from_numpy(run.data.train.labels[:64]), Context(Mode.FLOAT), teacher=None)


def test_strengths_that_are_no_numbers_name_their_operand(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.warm=0"]), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    choice = run.net.weighted()[1].choice
    choice.strengths.requires_grad_(True)
    choice.strengths.register_hook(lambda grad: grad * float("nan"))  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=r"first those of 'block1\.conv1\.weight'; .* a lower search\.strength_rate"):
        pipeline.train(run)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


@pytest.mark.parametrize("part", ["weight", "quantiser.clip"])
def test_the_integer_stage_diverges_in_a_sentence_too(part: str) -> None:
    """Its integers are made of the numbers of each step, which may be none."""
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.method=uniform", "train.norm_batches=0"]))
    pipeline.train(run, "retrain")
    for node in run.net.weighted()[1:3]:  # a skip connection joins behind the second
        node.get_parameter(part).data.fill_(float("nan"))
    with pytest.raises(InputError, match="The loss is no longer a number, first in layer 'block1"):
        pipeline.train(run)


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
