"""Training that processes share: two are one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from short_runs import RECIPE, SHORT, child_script, environment

from hwgen.errors import InputError
from model import checkpoint, pipeline
from model.recipe import read_recipe

State = dict[str, torch.Tensor]


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
    return child_script(tmp_path)


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
