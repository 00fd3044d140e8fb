"""Runs that train for seconds, in this process or in another."""

from __future__ import annotations

import os
from pathlib import Path

from model.recipe import Recipe, read_recipe

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "examples" / "recipes" / "digits.toml"
SHORT = [
    "train.float_epochs=2", "train.epochs=2", "train.integer_epochs=1", "search.epochs=3", "model.stem=8",
    "model.stages=[[8, 1, 1], [16, 1, 2]]", 'search.cost="bitops"', "train.norm_batches=2", "search.trials=4", "train.most_steps=8",
]  # fmt: skip
SHORTEST = [*SHORT, 'search.cost="cycles"', "train.float_epochs=1", "train.epochs=1", "train.most_steps=6"]

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


def shortest(*settings: str) -> Recipe:
    """The recipe of the shortest runs, with ``settings`` of the test's own."""
    return read_recipe(RECIPE, [*SHORTEST, *settings])


def child_script(folder: Path) -> Path:
    """A script in ``folder`` that trains: RECIPE FOLDER STAGE SETTING..."""
    path = folder / "child.py"
    path.write_text(CHILD)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
