"""The demo: the whole path on real digits, and one summary of it."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.resources import files
from pathlib import Path
from typing import Any

from bitsmith import report, run
from bitsmith.build_commands import show_verify
from bitsmith.console import bars, next_step, out, percent, table, write_json
from hwgen.board import Board, load_board
from hwgen.build import generate, write_rtl
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.output import check_output
from sim.verify import verify

_BOARD = "pynq-z2"
_CYCLE_TOLERANCE, _CYCLE_SHARE = 8, 0.02


def _recipe() -> Path:
    path = Path(str(files("bitsmith"))).parent / "examples" / "recipes" / "digits.toml"
    if not path.is_file():
        raise InputError(
            "The demo needs the repository: examples/recipes/digits.toml is not beside the installed package."
        )
    return path


def cycles_agree(modelled: list[dict[str, Any]], simulated: dict[str, float]) -> bool:
    """Whether every layer is within max(2 %, 8 cycles) of the model, and the sum within 2 %."""
    layers = all(
        abs(row["cycles"] - simulated[row["name"]]) <= max(_CYCLE_TOLERANCE, _CYCLE_SHARE * simulated[row["name"]])
        for row in modelled
    )
    total = sum(simulated.values())
    return layers and abs(sum(row["cycles"] for row in modelled) - total) <= _CYCLE_SHARE * total


def _size_ahead(engine: EngineConfig, board: Board) -> None:
    """Leave the engine's size in the cache of synthesis."""
    with tempfile.TemporaryDirectory(prefix="bitsmith-demo-") as scratch:
        report.size(write_rtl(engine, board, Path(scratch)))


def run_demo(folder: Path, images: int | None, json: Path | None = None, *, force: bool, quiet: bool) -> bool:
    """Run everything into ``folder``, ``images`` test images (None: all) through the RTL; whether every check held.

    Args:
        json: another file for the summary, or "-".

    Raises:
        InputError: the folder exists and ``force`` is not set.
    """
    check_output(folder, "run", force=force)
    if folder.exists():
        shutil.rmtree(folder)
    board = load_board(_BOARD)
    with bars(quiet) as progress, ThreadPoolExecutor(1) as ahead:
        made = run.start(_recipe(), folder / "run", _BOARD, progress=progress)
        # Synthesis takes longer than all the rest, and the engine is known, unless its buffers must grow.
        assert made.engine is not None, "the recipe counts cycles"
        engine = made.engine
        sized = ahead.submit(_size_ahead, engine, board)
        run.train(made)
        network = run.export(made)
        search = run.evaluate(made, network)
        build = generate(network, made.engine, board, folder / "accelerator")
        checked = verify(build.path, count=images, progress=progress)
        progress("synthesis", 0, 1)
        if build.engine == engine:
            wait([sized])
        figures = report.estimate(build)
        progress("synthesis", 1, 1)
    summary = {"search": search, "estimate": figures, "verify": checked}
    for path in (folder / "summary.json", json):
        write_json(path, summary)
    rows = report.layer_rows(build)
    simulated = {layer["name"]: layer["cycles"] for layer in checked["layers"]}
    report.draw_layers(rows, folder / "layers.png", f"{network.name} on {build.engine.name}, {board.title}")
    agree = cycles_agree(rows, simulated)
    good = (
        not checked["mismatches"]
        and not checked["problem"]
        and agree
        and checked["accuracy"] == checked["golden_accuracy"]
    )
    if not quiet:
        _show(search, figures, checked, rows, simulated, agree, folder)
    return bool(good)


def _show(
    search: dict[str, Any],
    figures: dict[str, Any],
    checked: dict[str, Any],
    rows: list[dict[str, Any]],
    simulated: dict[str, float],
    agree: bool,
    folder: Path,
) -> None:
    out.print(report.layer_table(rows, simulated))
    out.print()
    out.print(
        table(
            f"Accuracy on {'the same ' if checked['images'] == search['images'] else ''}{search['images']} test images",
            ["network", "accuracy"],
            [
                ["float", percent(search["float_accuracy"])],
                ["quantised", percent(search["quantised_accuracy"])],
                ["integer (golden model)", percent(search["integer_accuracy"])],
                [f"RTL, simulated ({checked['images']})", percent(checked["accuracy"])],
            ],
        )
    )
    out.print()
    out.print(report.resource_table(figures))
    out.print()
    show_verify(checked)
    out.print(
        f"Modelled and simulated cycles agree (within {100 * _CYCLE_SHARE:.0f} %, or {_CYCLE_TOLERANCE} a layer):"
        f" {'yes' if agree else 'NO'}."
        f" {figures['fps']:.0f} images/s at the board's {figures['clock_mhz']} MHz by the modelled cycles (not a real board)."
    )
    out.print(f"Wrote {folder}/: summary.json, layers.png, run/ (search), accelerator/ (RTL and program).")
    next_step(f"bitsmith inspect {folder / 'accelerator'}", False)
