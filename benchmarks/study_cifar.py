"""Accuracy on CIFAR-10 at equal cycles: EBS, uniform bits and random bits under one pipeline, row by row.

    python -m benchmarks.study_cifar benchmarks/study_resnet8.toml --data /where/cifar-10-batches-bin
    python -m benchmarks.study_cifar benchmarks/study_resnet20.toml --data ... --device cuda      # the full study: a GPU

A row is one run of ``bitsmith search`` and ``export``. Started again, the study skips finished rows and goes on with
the interrupted one from its checkpoint. Every quantised row starts from the float row of its seed and is retrained on the whole
training set for the same epochs; a searched row spends the epochs of its search beside. Its budget is a row's cycles or bit operations,
or a ``share`` of them. Nothing is chosen by the test set: it is
read when a row has ended. Rows lie in ``build/study/NAME/`` as ROW-SEED.json with the row's last weights (ROW-SEED.pt), all rows so
far in ``build/bench/study.json``, from which ``python -m benchmarks.results`` renders the table. Rows copied from there to
``benchmarks/NAME/`` are not trained again, on whatever machine the study goes on.

Settings are chosen without the test set: a part of the training set stands in for it, in rows of their own folder.

    python -m benchmarks.study_cifar benchmarks/study_resnet8.toml --data ... --out build/study/trial \
        --rows float uniform-w2a2 --trial tuning_share=0.2 train.quantised_rate=0.008
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import FOLDER, write_rows
from benchmarks.study import FLOAT, HERE, Row, Study, read_study
from bitsmith import run as runs
from hwgen.cycles import time_program
from hwgen.engine import read_engine
from hwgen.errors import InputError
from hwgen.network import Network
from hwgen.output import whole_file
from hwgen.schedule import schedule
from model.accuracy import accuracy
from model.checkpoint import save
from model.cost import BitOperations
from model.data import load_data
from model.nodes import Mode

EQUAL = {"cycles_of": ("cycles", "cycles"), "bitops_of": ("bitops", "bit_operations")}  # what a row equals: cost, figure


def overrides(row: Row, seed: int, study: Study, folder: Path, data: str) -> list[str]:
    """What a row sets in the study's recipe.

    Args:
        folder: where the study's rows lie; the float row and the row of equal cost are there, finished.

    Raises:
        InputError: they are not.
    """
    for needed in [name for name in (FLOAT, row.equals) if name and row.name != FLOAT]:
        if not (folder / f"{needed}-{seed}.json").exists():
            raise InputError(
                f"Row '{row.name}' needs '{needed}' with seed {seed}, which is not finished; name it in --rows too, or"
                " leave --rows out.",
                str(folder),
            )
    made = [f'data_path="{data}"', f"seed={seed + 1000 * row.draw}", *study.given(row)]
    if row.name == FLOAT:
        return [*made, 'search.method="uniform"']
    made += [f'search.method="{row.method}"', f'train.float_from="{folder / f"{FLOAT}-{seed}.pt"}"']
    if row.uniform:
        made.append(f"search.uniform={row.uniform}")
    if row.equals:
        cost, figure = EQUAL["cycles_of" if row.cycles_of else "bitops_of"]
        equal = json.loads((folder / f"{row.equals}-{seed}.json").read_text(encoding="utf-8"))
        made += [f'search.cost="{cost}"', f"search.target={int(row.share * equal[figure])}"]
    return made


def data_kind(data: str) -> str:
    """What the images are: their JPEG archive has lost a little of them, so that accuracies of the two do not compare."""
    return "JPEG archive" if Path(data).suffix == ".npz" else "original"


def belongs(found: Mapping[str, Any], row: Row, study: Study, data: str) -> bool:
    """Whether a finished row is one of this study: of its settings, its engine and the same data."""
    engine = read_engine(HERE / study.engine).name
    made = (found["settings"], found["data"], found.get("engine", engine))
    return made == (study.settings(row), data_kind(data), engine)


def take_kept(kept: Path, folder: Path, study: Study, data: str) -> list[str]:
    """Copy finished rows that were kept, with their weights, into ``folder``; the names of those taken."""
    taken = []
    for row, seed in study.jobs():
        figures = kept / f"{row.name}-{seed}.json"
        if (folder / figures.name).exists() or not figures.exists():
            continue
        if belongs(json.loads(figures.read_text(encoding="utf-8")), row, study, data):
            shutil.copy(figures.with_suffix(".pt"), folder)
            shutil.copy(figures, folder)
            taken.append(figures.stem)
    return taken


def finish(row: Row, run: runs.RunFolder, network: Network | None) -> dict[str, Any]:
    """The figures of a trained row; ``network``: of any row but the float one, found equal to the trained one by its export."""
    state, train = run.trainer.state, run.prepared.recipe.train
    spent = {
        name: sum(1 for entry in state.history if entry["stage"] == name)
        for name in ("float", "search", "retrain", "integer")
    }
    made: dict[str, Any] = {
        "row": row.name,
        "method": row.method or FLOAT,
        "seed": run.prepared.recipe.seed,
        "epochs": spent,
        "steps_per_epoch": train.most_steps or len(run.prepared.data.train) // train.batch,
        "batch": train.batch,
        "train_seconds": round(sum(float(entry["seconds"]) for entry in state.history)),
        "images": len(run.prepared.data.test),
    }
    made["accuracy"] = accuracy(run.prepared.net, run.prepared.data.test, Mode.FLOAT if network is None else Mode.INTEGER)
    if network is None:
        return made
    kept = ("expected_cost", "mixed_accuracy", "chosen_accuracy", "nearness", "likeliest_loss", "uniform_loss", "chosen_loss",
            "tried", "final_losses")  # fmt: skip
    assert run.engine is not None, "a study names its engine"
    return made | {
        "cycles": time_program(schedule(network, run.engine)).cycles_per_image,
        "bit_operations": BitOperations().total(network),
        **row.model_dump(include={*EQUAL, "share"}, exclude_unset=True),
        "engine": run.engine.name,
        "bits": {name: list(pair) for name, pair in state.bits.items()},
        **{name: state.chosen[name] for name in kept if name in state.chosen},
    }


def work(row: Row, seed: int, study: Study, folder: Path, options: argparse.Namespace) -> None:
    """Train a row, or go on with it, and write its figures."""
    place = folder / f"{row.name}-{seed}"
    began = time.monotonic()
    run = runs.start(
        HERE / study.recipe,
        place,
        study.board,
        HERE / study.engine,
        overrides(row, seed, study, folder, options.data),
        resume=(place / "run.json").exists(),
        device=options.device,
        progress=lambda stage, done, total, note="": print(f"{place.name}: {stage} {done}/{total} {note}", flush=True),
    )
    torch.set_num_threads(options.threads)
    network = None
    if row.name == FLOAT:
        runs.train(run, FLOAT)
    else:
        runs.train(run)
        network = runs.export(run)
    about = {
        "study": options.config.stem,
        "settings": study.settings(row),
        "network": run.prepared.net.name,
        "data": data_kind(options.data),
        "hardware": f"{torch.cuda.get_device_name()}" if options.device == "cuda" else f"{platform.machine()} CPU",
        "threads": options.threads,
        "torch": torch.__version__,
        "wall_seconds": round(time.monotonic() - began),  # of the last start alone, where the row was interrupted
    }
    weights = {"float": run.trainer.float_state} if network is None else {"net": run.prepared.net.state_dict()}
    save(folder / f"{place.name}.pt", weights, run.prepared.recipe.digest)
    with whole_file(folder / f"{place.name}.json") as part:
        part.write_text(json.dumps(about | finish(row, run, network), indent=1) + "\n", encoding="utf-8")


def collect(folder: Path, study: Study) -> list[dict[str, Any]]:
    """The finished rows in the study's order, all seeds of a row together."""
    paths = [folder / f"{row.name}-{seed}.json" for row in study.row for seed in study.seeds_of(row)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def check_finished(folder: Path, study: Study, data: str) -> None:
    """Whether the finished rows in ``folder`` are this study's.

    Raises:
        InputError: rows of other settings, another engine or other data; all at once.
    """
    known = {row.name: row for row in study.row}
    if other := [row["row"] for row in collect(folder, study) if not belongs(row, known[row["row"]], study, data)]:
        raise InputError(
            f"{folder} has rows of other settings, another engine or other data: {', '.join(other)}. Remove their files, or give"
            " another folder with --out."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not finished; 2 where something given is unusable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the study: recipe, engine, seeds and rows (TOML)")
    parser.add_argument("--data", required=True, help="cifar-10-batches-bin or an archive of JPEG files (.npz)")
    parser.add_argument("--out", type=Path, help="where rows go; left out: build/study/NAME")
    parser.add_argument("--rows", nargs="+", help="these rows only")
    parser.add_argument(
        "--trial", nargs="+", metavar="SECTION.NAME=VALUE", help="settings to try, for every row; needs --out"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(arguments)
    if options.trial and options.out is None:
        parser.error("--trial needs --out: a folder of its own, so that its rows are not taken for the study's")
    try:
        train(read_study(options.config).trying(options.trial or []), options)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def train(study: Study, options: argparse.Namespace) -> None:
    """Work through the rows; the order is all rows of the first seed, then of the next.

    Raises:
        InputError: the data or a row's settings are unusable.
    """
    load_data("cifar10", options.data)  # say what is missing before anything is made
    folder = (options.out or FOLDER.parent / "study" / options.config.stem).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if taken := take_kept(HERE / options.config.stem, folder, study, options.data):
        print(f"Kept from earlier: {', '.join(taken)}.", flush=True)
    check_finished(folder, study, options.data)
    if (finished := collect(folder, study)) and not options.trial:
        write_rows("study", finished)
    for row, seed in study.jobs():
        figures = folder / f"{row.name}-{seed}.json"
        if figures.exists() or (options.rows and row.name not in options.rows):
            continue
        work(row, seed, study, folder, options)
        if not options.trial:
            write_rows("study", collect(folder, study))
        found = json.loads(figures.read_text(encoding="utf-8"))
        print(f"{row.name}, seed {seed}: {100 * found['accuracy']:.2f} %", flush=True)


if __name__ == "__main__":
    sys.exit(main())
