"""Run folders: a recipe, the engine it searches for, and what training makes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwgen.board import load_board
from hwgen.cycles import cost_table, time_program
from hwgen.engine import EngineConfig, read_engine, write_engine
from hwgen.errors import InputError
from hwgen.explore import choose_engine
from hwgen.network import Network
from hwgen.output import check_output
from hwgen.schedule import schedule
from model import pipeline
from model.recipe import Recipe, read_recipe
from model.train import STAGES, Trainer

_THREADS = 2


@dataclass
class RunFolder:
    """A run on disk. board: what its engine was chosen for."""

    folder: Path
    board: str
    engine: EngineConfig
    prepared: pipeline.Run

    @property
    def trainer(self) -> Trainer:
        return self.prepared.trainer


def _silent(*_: Any) -> None:
    pass


def start(
    recipe_path: Path,
    folder: Path,
    board: str,
    engine_file: Path | None = None,
    overrides: list[str] | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Any = _silent,
) -> RunFolder:
    """Make a run folder, or take up one with a checkpoint.

    Raises:
        InputError: bad recipe, board or engine, or a folder that exists while neither ``force`` nor ``resume`` is set.
    """
    recipe = read_recipe(recipe_path, overrides)
    load_board(board)
    given = None if engine_file is None else read_engine(engine_file)
    if resume:
        return reopen(folder, recipe, progress)
    check_output(folder, "run.json", force=force, reads=recipe_path)
    if folder.exists():
        shutil.rmtree(folder)
    progress("choosing the engine", 0, 1)
    engine = given or choose_engine(pipeline.describe(recipe), load_board(board)).engine
    progress("choosing the engine", 1, 1)
    folder.mkdir(parents=True)
    write_engine(engine, folder / "engine.json")
    (folder / "run.json").write_text(
        json.dumps({"board": board, "recipe": recipe.model_dump(mode="json")}, indent=2) + "\n", encoding="utf-8"
    )
    return _open(folder, board, engine, recipe, progress)


def reopen(folder: Path, recipe: Recipe | None = None, progress: Any = _silent) -> RunFolder:
    """A run folder with the state of its checkpoint.

    Raises:
        InputError: not a run folder, or a checkpoint that is damaged or of another recipe.
    """
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        board, own = str(facts["board"]), Recipe.model_validate(facts["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            "It is not a run folder: no readable run.json; 'bitsmith search' makes one.", str(folder)
        ) from None
    made = _open(folder, board, read_engine(folder / "engine.json"), recipe or own, progress)
    if made.trainer.path is not None and (made.trainer.path.exists() or recipe is None):
        made.trainer.resume()  # a run that was stopped before its first checkpoint starts over
    return made


def _open(folder: Path, board: str, engine: EngineConfig, recipe: Recipe, progress: Any) -> RunFolder:
    torch.set_num_threads(_THREADS)
    prepared = pipeline.prepare(recipe, folder, lambda network: cost_table(network, engine), progress)
    return RunFolder(folder, board, engine, prepared)


def train(run: RunFolder, until: str = STAGES[-1]) -> None:
    """Train up to a stage.

    Raises:
        InputError: no such stage, or training that fails.
    """
    if until not in STAGES:
        raise InputError(f"There is no stage '{until}'; the stages are {', '.join(STAGES)}.")
    pipeline.train(run.prepared, until)


def export(run: RunFolder) -> Network:
    """Write and check the integer network."""
    return pipeline.export_run(run.prepared)


def evaluate(run: RunFolder, network: Network) -> dict[str, Any]:
    """Metrics on the test images; the final cost is that of the assembled program where cycles count."""
    final = None
    if run.prepared.recipe.search.cost == "cycles":
        final = time_program(schedule(network, run.engine)).cycles_per_image
    return pipeline.evaluate(run.prepared, network, final)
