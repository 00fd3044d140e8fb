"""A finished row of the study of :mod:`benchmarks.study_cifar` in RTL: its accuracy, simulated, against the integer network's.

    python -m benchmarks.study_rtl benchmarks/study_resnet8.toml --row ebs-at-w4a4 --data /where/cifar-10-batches-bin

From the row's last weights the integer network is exported once more (and compared with the trained one), then a build for
the study's engine is generated, and test images go through the RTL, every tensor compared. Beside the builds in
``build/study/rtl`` the figures lie in ``build/bench/study_rtl.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import study_cifar
from benchmarks.rows import FOLDER, write_rows
from benchmarks.study import FLOAT, HERE, Row, Study, read_study
from bitsmith import run as runs
from bitsmith.console import bars
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.engine import read_engine
from hwgen.errors import InputError
from hwgen.network import Network
from model import choose
from model.checkpoint import load
from model.train import STAGES
from sim.verify import verify


def rebuild(row: Row, seed: int, study: Study, kept: Path, folder: Path, data: str) -> Network:
    """The integer network of a finished row, found equal to the trained one on test images.

    Args:
        kept: where the study's rows lie. folder: for the run that the weights are put into.

    Raises:
        InputError: the network differs from the trained one.
    """
    name = f"{row.name}-{seed}"
    figures = json.loads((kept / f"{name}.json").read_text(encoding="utf-8"))
    run = runs.start(
        HERE / study.recipe,
        folder,
        study.board,
        HERE / study.engine,
        study_cifar.overrides(row, seed, study, kept, data),
        force=True,
    )
    state, net = run.trainer.state, run.prepared.net
    state.bits = {layer: (pair[0], pair[1]) for layer, pair in figures["bits"].items()}
    state.stage = len(STAGES)
    net.load_state_dict(load(kept / f"{name}.pt")["net"])
    choose.fix_bits(net, state.bits)
    return runs.export(run)


def other_rows(row: str, seed: int) -> list[dict[str, Any]]:
    """What was simulated before, but for this row."""
    path = FOLDER / "study_rtl.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [item for item in rows if (item["row"], item["seed"]) != (row, seed)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, generate, simulate; 1 where anything differs, 2 where something given is unusable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the study: recipe, engine, seeds and rows (TOML)")
    parser.add_argument("--row", required=True, help="a finished row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", required=True, help="folder cifar-10-batches-bin, or the JPEG archive (.npz)")
    parser.add_argument("--images", type=int, default=1000, help="test images, evenly spaced, at most 1,000")
    options = parser.parse_args(arguments)
    try:
        return simulate(parser, options)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def simulate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """What :func:`main` does.

    Raises:
        InputError: the study, the data or the number of images is unusable, or the exported network differs from the trained one.
    """
    study = read_study(options.config)
    row = next((item for item in study.row if item.name == options.row), None)
    if row is None or row.name == FLOAT:
        names = ", ".join(item.name for item in study.row if item.name != FLOAT)
        parser.error(f"there is no quantised row '{options.row}'; there are {names}")
    name = f"{options.row}-{options.seed}"
    kept = next(
        (
            place
            for place in (options.config.with_suffix(""), FOLDER.parent / "study" / options.config.stem)
            if (place / f"{name}.json").exists()
        ),
        None,
    )
    if kept is None:
        parser.error(f"row {name} is not finished; python -m benchmarks.study_cifar {options.config} trains it")
    folder = FOLDER.parent / "study" / "rtl" / name
    network = rebuild(row, options.seed, study, kept, folder / "run", options.data)
    build = folder / "build"
    generate(network, read_engine(HERE / study.engine), load_board(study.board), build, force=True)
    with bars(False) as progress:
        found = verify(build, count=options.images, progress=progress)
    figures = json.loads((kept / f"{name}.json").read_text(encoding="utf-8"))
    made = {
        "row": options.row,
        "seed": options.seed,
        "engine": figures["engine"],
        "images": found["images"],
        "rtl_accuracy": found["accuracy"],
        "integer_accuracy": found["golden_accuracy"],
        "all_images_accuracy": figures["accuracy"],
        "tensors": found["tensors_compared"],
        "mismatches": found["mismatches"],
        "cycles_per_image": found["cycles_per_image"],
        "modelled_cycles": figures["cycles"],
        "seconds": found["seconds"],
        "processes": found["processes"],
    }
    write_rows("study_rtl", [*other_rows(options.row, options.seed), made])
    print(json.dumps(made, indent=1))
    return 1 if found["mismatches"] or found["problem"] or found["accuracy"] != found["golden_accuracy"] else 0


if __name__ == "__main__":
    sys.exit(main())
