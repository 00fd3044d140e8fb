"""Run folders: a recipe, the engine it searches for, and what training makes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bitsmith.pictures import draw_bits, draw_strengths
from hwgen.board import load_board
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig, read_engine, write_engine
from hwgen.errors import InputError
from hwgen.explore import choose_engine
from hwgen.network import Network
from hwgen.network_file import write_network
from hwgen.output import check_output
from hwgen.schedule import schedule
from model import pipeline, posttraining
from model.cost import Cycles
from model.distributed import World, join
from model.recipe import Recipe, differences, read_recipe
from model.train import STAGES, Trainer

_THREADS = 2


@dataclass
class RunFolder:
    """A run on disk. board: what its engine was chosen for."""

    folder: Path
    board: str
    prepared: pipeline.Run
    cycles: Cycles

    @property
    def engine(self) -> EngineConfig:
        """The engine; a search may grow its buffers, a joint one change its shape."""
        return self.cycles.engine

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
    device: str = "cpu",
    progress: Any = _silent,
) -> RunFolder:
    """Make a run folder, or take up one with a checkpoint.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        InputError: bad recipe, board or engine, or a folder that exists while neither ``force`` nor ``resume`` is set.
    """
    recipe = read_recipe(recipe_path, overrides)
    load_board(board)
    given = None if engine_file is None else read_engine(engine_file)
    world = join(device)
    if resume:
        return reopen(folder, recipe, progress, world)

    made: list[RunFolder] = []

    def make() -> None:
        for reads in (recipe_path, Path(recipe.train.float_from) if recipe.train.float_from else None):
            check_output(folder, "run.json", force=force, reads=reads)
        progress("choosing the engine", 0, 1)
        engine = given or choose_engine(pipeline.describe(recipe), load_board(board)).engine
        progress("choosing the engine", 1, 1)
        facts = {
            "board": board,
            "engine": asdict(engine),
            "engine_given": given is not None,
            "recipe": recipe.model_dump(mode="json"),
        }
        run = _prepare(folder, board, engine, given is not None, recipe, progress, world)
        run.trainer.check_start()
        if folder.exists():  # not before the new run is known to be possible
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        write_engine(engine, folder / "engine.json")
        made.append(run)

    world.lead(make)
    return made[0] if made else _open(folder, None, progress, world)


def reopen(folder: Path, recipe: Recipe | None = None, progress: Any = _silent, world: World | None = None) -> RunFolder:
    """A run folder with the state of its checkpoint.

    Raises:
        InputError: not a run folder, or a checkpoint that is damaged or of another recipe.
    """
    made = _open(folder, recipe, progress, world or join("cpu"))
    if made.trainer.path is not None and (made.trainer.path.exists() or recipe is None):
        made.trainer.resume()  # a run that was stopped before its first checkpoint starts over
    return made


def _open(folder: Path, recipe: Recipe | None, progress: Any, world: World) -> RunFolder:
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        board, own = str(facts["board"]), Recipe.model_validate(facts["recipe"])
        engine, given = EngineConfig(**facts["engine"]), bool(facts["engine_given"])
    except (OSError, ValueError, KeyError, TypeError, InputError):
        raise InputError(
            "It is not a run folder: no readable run.json; 'bitsmith search' makes one.", str(folder)
        ) from None
    if recipe is not None and (changes := differences(own, recipe)):
        raise InputError(
            f"It belongs to another recipe: {'; '.join(changes)}. Give the run's settings, or start a new run in another folder.",
            str(folder),
        )
    return _prepare(folder, board, engine, given, recipe or own, progress, world)


def _prepare(
    folder: Path, board: str, engine: EngineConfig, given: bool, recipe: Recipe, progress: Any, world: World
) -> RunFolder:
    torch.set_num_threads(_THREADS)
    # A given engine stays as it is; a chosen one may grow its buffers to what the searched network needs.
    cycles = Cycles(engine, None if given else load_board(board))
    return RunFolder(folder, board, pipeline.prepare(recipe, folder, cycles, progress, world), cycles)


def train(run: RunFolder, until: str = STAGES[-1]) -> None:
    """Train up to a stage.

    Raises:
        InputError: no such stage, or training that fails.
    """
    if until not in STAGES:
        raise InputError(f"There is no stage '{until}'; the stages are {', '.join(STAGES)}.")
    pipeline.train(run.prepared, until)
    if run.trainer.world.first:
        write_engine(run.engine, run.folder / "engine.json")


def export(run: RunFolder, *, full: bool = False) -> Network:
    """Write and check the integer network; full: on the whole test set."""
    return pipeline.export_run(run.prepared, full=full)


def evaluate(run: RunFolder, network: Network, *, full: bool = False, layers: bool = False) -> dict[str, Any]:
    """Metrics on the test images; the final cost is that of the assembled program. layers: compare layer by layer too."""
    metrics = pipeline.evaluate(run.prepared, network, full=full)
    if layers:
        metrics["layers"] = pipeline.compare_layers(run.prepared, network)
    metrics["cycles"] = time_program(schedule(network, run.engine)).cycles_per_image
    metrics["engine"] = run.engine.name
    draw_bits(metrics["bits"], run.folder / "bits.png", f"{network.name}: {metrics['method']}, {metrics['final_cost']}"
              f"{run.prepared.search.cost.unit}")  # fmt: skip
    if run.trainer.state.strengths:
        draw_strengths(run.trainer.state.strengths, run.trainer.state.history, run.folder / "strengths.png")
    (run.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def quantise(
    recipe_path: Path,
    folder: Path,
    weight_bits: int,
    activation_bits: int,
    source: Path | None = None,
    images: int = posttraining.IMAGES,
    overrides: list[str] | None = None,
    *,
    force: bool = False,
    progress: Any = _silent,
) -> dict[str, Any]:
    """Quantise a float network by calibration alone; writes ``network/`` and quantised.json, returns the metrics.

    Raises:
        InputError: bad recipe, no float network, or a folder that exists while ``force`` is not set.
    """
    recipe = read_recipe(recipe_path, overrides)
    for reads in (recipe_path, source):
        check_output(folder, "quantised.json", force=force, reads=reads)
    made = posttraining.quantise(recipe, weight_bits, activation_bits, source, images, progress)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_network(made.network, folder / "network")
    (folder / "quantised.json").write_text(json.dumps(made.metrics, indent=2) + "\n", encoding="utf-8")
    return made.metrics
