"""Run folders: a recipe, the engine it searches for, and what training makes of them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bitsmith import DEFAULT_BOARD
from bitsmith.console import resume_command
from bitsmith.pictures import draw_bits, draw_strengths
from hwgen.board import Board, load_board
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig, read_engine, write_engine
from hwgen.errors import InputError
from hwgen.explore import choose_engine
from hwgen.network import Network
from hwgen.network_file import read_network, write_network
from hwgen.output import check_output, whole_file, whole_folder
from hwgen.schedule import schedule
from model import pipeline, posttraining
from model.allocator import keep_freed_memory
from model.cost import Cycles
from model.distributed import World, join
from model.recipe import Recipe, differences, read_recipe
from model.train import STAGES, Trainer

_log = logging.getLogger(__name__)
QUANTISED = "quantised.json"  # the figures of a folder that 'bitsmith quantise' makes


@dataclass(frozen=True)
class Asked:
    """What a run is taken up with. board, engine: None is the run's."""

    recipe: Recipe
    board: str | None = None
    engine: EngineConfig | None = None


@dataclass(frozen=True)
class _Facts:
    """What run.json holds. engine: that it was started with; None: one is chosen once there are bits. given: whether it was. words: what
    the run was made with, (recipe's path, overrides). device: what it was to train on.
    """

    board: str
    recipe: Recipe
    engine: EngineConfig | None
    given: bool
    words: tuple[str, list[str]] | None = None
    device: str = "cpu"


@dataclass
class RunFolder:
    """A run on disk. board: what its engine is chosen for. cycles: None while there is no engine, since the budget counts something
    else: once there are bits, one is chosen for them. advice: how to go on with its training.
    """

    folder: Path
    board: str
    prepared: pipeline.Run
    cycles: Cycles | None
    advice: str

    @property
    def engine(self) -> EngineConfig | None:
        """The engine; a search may change its buffers, a joint one its shape."""
        return None if self.cycles is None else self.cycles.engine

    @property
    def trainer(self) -> Trainer:
        return self.prepared.trainer

    @property
    def leads(self) -> bool:
        """Whether this is the first of the processes that train together: the others write and say nothing."""
        return self.trainer.world.first

    def choose_engine(self) -> None:
        """The fastest engine for the bits that were found, where there is none yet and the board holds one."""
        bits = self.trainer.state.bits
        if not bits or self.cycles is not None:
            return
        board = load_board(self.board)
        try:
            chosen = choose_engine(self.prepared.search.network(bits), board, self.trainer.progress)
        except InputError as error:
            _log.info("no engine is chosen: %s", error)  # 'bitsmith generate' says so too
        else:
            self.cycles = Cycles(chosen.engine, board)


def _silent(*_: Any) -> None:
    pass


def board_of(folder: Path, board: str | None, *, resume: bool) -> str:
    """The board that is asked for; left out, that of the run that goes on, or the usual one."""
    if board is None and resume:
        return _facts(folder).board
    return board or DEFAULT_BOARD


def check_stage(stage: str) -> None:
    """Whether there is such a stage of training.

    Raises:
        InputError: there is none.
    """
    if stage not in STAGES:
        raise InputError(f"There is no stage '{stage}'; the stages are {', '.join(STAGES)}.")


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
        InputError: bad recipe, board or engine, a folder that exists while neither ``force`` nor ``resume`` is set, or one
            that is resumed with other settings than its own.
    """
    world = join(device)

    def read() -> Asked:
        recipe = read_recipe(recipe_path, overrides)
        load_board(board)
        if engine_file is not None and recipe.search.joint:
            raise InputError(
                f"'search.joint' chooses the engine's shape, and {engine_file} gives it; leave out --joint or --engine.",
                "recipe",
            )
        return Asked(recipe, board, None if engine_file is None else read_engine(engine_file))

    asked = world.lead(read)
    if resume:
        return reopen(folder, asked, progress, world)
    recipe, given = asked.recipe, asked.engine
    words = (str(recipe_path.absolute()), overrides or [])  # absolute: what goes on with the run may be typed elsewhere
    made: list[RunFolder] = []

    def make() -> None:
        for reads in (recipe_path, Path(recipe.train.float_from) if recipe.train.float_from else None):
            check_output(folder, "run.json", force=force, reads=reads)
        engine = given or _chosen(recipe, load_board(board), progress)
        facts = {
            "board": board,
            "engine": None if engine is None else asdict(engine),
            "engine_given": given is not None,
            "recipe": recipe.model_dump(mode="json"),
            "made_with": words,
            "device": device,
        }
        run = _prepare(folder, _Facts(board, recipe, engine, given is not None, words, device), progress, world)
        run.trainer.check_start()
        search = run.prepared.search
        # Does not fit at all: known now, not after hours of training.
        if run.cycles is not None and run.cycles is not search.cost:
            run.cycles.total(search.network(search.cheapest(run.prepared.net)))
        with whole_folder(folder) as part:  # not before the new run is known to be possible
            (part / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            if engine is not None:
                write_engine(engine, part / "engine.json")
        made.append(run)

    world.lead(make)
    return made[0] if made else _open(folder, None, progress, world)


def _chosen(recipe: Recipe, board: Board, progress: Any) -> EngineConfig | None:
    """The engine that a search counts the cycles of; None where it counts something else."""
    if recipe.search.cost != "cycles":
        return None
    network = pipeline.describe(recipe)  # what is wrong with the recipe is no matter of engines
    try:
        return choose_engine(network, board, progress).engine
    except InputError as error:
        raise InputError(
            [*error.problems, "This is at the bits that budgets are shares of, W4A4 but for pinned layers. To search all the same, name"
             " the engine of a larger chip (--engine FILE), or count what needs no engine (--set search.cost=bitops, or bytes): then"
             " one is chosen for the bits that are found."],
            error.subject,
        ) from None  # fmt: skip


def reopen(folder: Path, asked: Asked | None = None, progress: Any = _silent, world: World | None = None) -> RunFolder:
    """A run folder with the state of its checkpoint.

    Args:
        asked: what it is taken up with, which must be what it was made with; None: whatever that was.

    Raises:
        InputError: not a run folder, one of other settings, or a checkpoint that is damaged or of another recipe.
    """
    world = world or join("cpu")
    made: list[RunFolder] = []

    def take_up() -> None:
        run = _open(folder, asked, progress, world)
        assert run.trainer.path is not None
        if run.trainer.path.exists():  # a run that was stopped before its first checkpoint starts over
            run.trainer.resume()
        elif asked is None:
            raise InputError(f"The run has stopped before its first checkpoint; {run.advice}", str(folder))
        made.append(run)

    world.lead(take_up)
    if not made:  # not the first process: it has found nothing wrong
        take_up()
    return made[0]


def _facts(folder: Path) -> _Facts:
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        words = facts.get("made_with")  # runs of earlier versions have none
        return _Facts(
            str(facts["board"]),
            Recipe.model_validate(facts["recipe"]),
            None if facts["engine"] is None else EngineConfig(**facts["engine"]),
            bool(facts["engine_given"]),
            None if words is None else (str(words[0]), [str(item) for item in words[1]]),
            str(facts.get("device", "cpu")),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, InputError):
        if (folder / QUANTISED).exists():
            raise InputError(
                f"It was quantised by calibration alone: its figures are in {QUANTISED}, and there is no trained network to go"
                " on with.",
                str(folder),
            ) from None
        raise InputError(
            "It is not a run folder: no readable run.json; 'bitsmith search' makes one.", str(folder)
        ) from None


def _open(folder: Path, asked: Asked | None, progress: Any, world: World) -> RunFolder:
    facts = _facts(folder)
    later = read_engine(folder / "engine.json") if (folder / "engine.json").exists() else None
    problems = []
    if asked is not None:
        if changes := differences(facts.recipe, asked.recipe):
            problems.append(
                f"It belongs to another recipe: {'; '.join(changes)}. Give the run's settings, or start a new run in another"
                " folder."
            )
        if asked.board not in (None, facts.board):
            problems.append(f"It was made for board '{facts.board}', not '{asked.board}'; leave --board out.")
        if asked.engine not in (None, facts.engine, later):
            own_engine = "that of its engine.json, not the one given" if later else "chosen once there are bits"
            problems.append(f"Its engine is {own_engine}; leave --engine out.")
    if problems:
        raise InputError(problems, str(folder))
    # A search's checkpoint has what has become of its engine.
    now = facts.engine if facts.recipe.search.cost == "cycles" else later
    return _prepare(folder, replace(facts, engine=now, recipe=asked.recipe if asked else facts.recipe), progress, world)


def _prepare(folder: Path, facts: _Facts, progress: Any, world: World) -> RunFolder:
    recipe, engine = facts.recipe, facts.engine
    torch.set_num_threads(recipe.train.threads)
    keep_freed_memory()
    # A given engine stays as it is; a chosen one may grow its buffers to what the searched network needs.
    cycles = None if engine is None else Cycles(engine, None if facts.given else load_board(facts.board))
    prepared = pipeline.prepare(recipe, folder, cycles, progress, world)
    return RunFolder(folder, facts.board, prepared, cycles, _advice(folder, facts))


def _advice(folder: Path, facts: _Facts) -> str:
    if facts.words is not None:
        recipe, overrides = facts.words
        place = () if facts.device == "cpu" else ("--device", facts.device)
        return f"go on with: {resume_command('train', Path(recipe), folder, overrides, *place)}"
    return (
        f"go on with 'bitsmith train RECIPE --out {folder} --resume', RECIPE being what it was made from, and with every --set"
        " that it was made with."
    )


def train(run: RunFolder, until: str = STAGES[-1]) -> None:
    """Train up to a stage.

    Raises:
        InputError: no such stage, or training that fails.
    """
    check_stage(until)
    pipeline.train(run.prepared, until)
    if run.leads:
        run.choose_engine()
        if run.engine is not None:
            write_engine(run.engine, run.folder / "engine.json")


def export(run: RunFolder, *, full: bool = False) -> Network:
    """Write and check the integer network; full: on the whole test set.

    Raises:
        InputError: the run is not trained to its end, or the integer network differs.
    """
    pipeline.check_trained(run.prepared, run.advice)
    return pipeline.export_run(run.prepared, full=full)


def exported(run: RunFolder) -> Network:
    """The integer network that :func:`export` has written.

    Raises:
        InputError: the run is not trained to its end, or not exported.
    """
    pipeline.check_trained(run.prepared, run.advice)
    path = run.folder / "network"
    if not path.exists():
        raise InputError(f"Its integer network is not written yet; do so with: bitsmith export {run.folder}", str(path))
    return read_network(path)


def evaluate(run: RunFolder, network: Network, *, full: bool = False, layers: bool = False) -> dict[str, Any]:
    """Metrics on the test images; the final cost is that of the assembled program. layers: compare layer by layer too."""
    metrics = pipeline.evaluate(run.prepared, network, full=full)
    if layers:
        metrics["layers"] = pipeline.compare_layers(run.prepared, network)
    engine = run.engine
    metrics["cycles"] = None if engine is None else time_program(schedule(network, engine)).cycles_per_image
    metrics["engine"] = None if engine is None else engine.name
    draw_bits(metrics["bits"], run.folder / "bits.png", f"{network.name}: {metrics['method']}, {metrics['final_cost']}"
              f"{run.prepared.search.cost.unit}")  # fmt: skip
    if run.trainer.state.strengths:
        draw_strengths(run.trainer.state.strengths, run.trainer.state.history, run.folder / "strengths.png")
    with whole_file(run.folder / "metrics.json") as part:
        part.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
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
        check_output(folder, QUANTISED, force=force, reads=reads)
    made = posttraining.quantise(recipe, weight_bits, activation_bits, source, images, progress)
    with whole_folder(folder) as part:
        write_network(made.network, part / "network")
        (part / QUANTISED).write_text(json.dumps(made.metrics, indent=2) + "\n", encoding="utf-8")
    return made.metrics
