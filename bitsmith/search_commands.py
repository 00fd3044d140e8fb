"""The commands of a run: search, training, export, evaluation, quantisation without training, comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitsmith.console import (
    EXIT_FAILED,
    NOTHING_LEFT,
    bars,
    next_step,
    out,
    percent,
    resume_command,
    sentences,
    table,
    write_json,
)
from bitsmith.options import (
    Device,
    EngineFile,
    Force,
    Full,
    Joint,
    Json,
    Overrides,
    Quiet,
    Resume,
    RunBoard,
    TargetBitops,
    TargetCycles,
    TargetFps,
    TargetKbytes,
    Verbose,
)
from bitsmith.targets import as_typed, target_overrides

_FOLDED = (
    "train.integer_epochs is 0, so the trained network is the fake-quantised one, and the folded one is made of it by rounding"
    " its scales to integers; 'bitsmith evaluate --layers' says how many codes that changes."
)
_NEAR = 0.01  # of a budget may be left without a word
_NEARNESS = {  # why more is
    "proven": "nothing is nearer",
    "dearest": "everything at its dearest costs no more",
    "neighbours": "none of those tried is nearer",
    "engine": "it was chosen for the engine before, and this one is faster at it",
}


def interrupted(folder: Path, command: str) -> str:
    """What Ctrl-C is answered with: ``command`` goes on, once there is a run to go on with."""
    return f"Interrupted; go on with: {command}" if (folder / "run.json").exists() else NOTHING_LEFT


def search(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).")],
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder to make.")],
    board: RunBoard = None,
    engine: EngineFile = None,
    overrides: Overrides = None,
    target_cycles: TargetCycles = None,
    target_fps: TargetFps = None,
    target_bitops: TargetBitops = None,
    target_kbytes: TargetKbytes = None,
    joint: Joint = False,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Search bits for a network against the engine's own cycles, retrain it, export it."""
    from bitsmith import run
    from model.distributed import is_first, join, leave

    def read() -> tuple[str, list[str]]:
        name = run.board_of(out_folder, board, resume=resume)
        return name, target_overrides(name, target_cycles, target_fps, target_bitops, target_kbytes, joint=joint)

    with sentences():
        board, wanted = join(device).lead(read)
    settings, place = [*(overrides or []), *wanted], () if device == "cpu" else ("--device", device)
    command = resume_command("search", recipe, out_folder, settings, *place)
    typed = as_typed(target_cycles, target_fps, target_bitops, target_kbytes)
    with sentences(lambda: interrupted(out_folder, command)), typed:
        quiet = quiet or not is_first()  # of the processes of torchrun
        with bars(quiet) as progress:
            made = run.start(
                recipe,
                out_folder,
                board,
                engine,
                settings,
                resume=resume,
                force=force,
                device=device,
                progress=progress,
            )
            run.train(made)
            leave()
            if not made.leads:
                return
            network = run.export(made)
            metrics = run.evaluate(made, network)
        write_json(json, metrics)
        if not quiet:
            show_metrics(metrics)
            shape = "engine.json, " if made.engine else ""
            out.print(f"Wrote {out_folder}/ (network/, {shape}metrics.json, curves.csv, checkpoint.pt).")
            if not made.engine:
                out.print(
                    f"No engine that fits {board} holds the network at these bits; what it lacks, the next command says. Of a"
                    " larger chip, name the engine (--engine FILE)."
                )
        next_step(f"bitsmith generate {out_folder}/network --board {board} --out builds/{out_folder.name}", quiet)


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).")],
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder to make, or to go on with (--resume).")],
    until: Annotated[str, typer.Option(help="Last stage to train: float, search, retrain or integer.")] = "integer",
    board: RunBoard = None,
    engine: EngineFile = None,
    overrides: Overrides = None,
    target_cycles: TargetCycles = None,
    target_fps: TargetFps = None,
    target_bitops: TargetBitops = None,
    target_kbytes: TargetKbytes = None,
    joint: Joint = False,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = None,
) -> None:
    """Train the stages of a run, or go on with them, without exporting."""
    from bitsmith import run
    from model.distributed import is_first, join, leave

    def read() -> tuple[str, list[str]]:
        run.check_stage(until)
        name = run.board_of(out_folder, board, resume=resume)
        return name, target_overrides(name, target_cycles, target_fps, target_bitops, target_kbytes, joint=joint)

    with sentences():
        board, wanted = join(device).lead(read)
    settings, place = [*(overrides or []), *wanted], () if device == "cpu" else ("--device", device)
    until_there = () if until == "integer" else ("--until", until)
    command = resume_command("train", recipe, out_folder, settings, *until_there, *place)
    typed = as_typed(target_cycles, target_fps, target_bitops, target_kbytes)
    with sentences(lambda: interrupted(out_folder, command)), typed:
        quiet = quiet or not is_first()  # of the processes of torchrun
        with bars(quiet) as progress:
            made = run.start(
                recipe,
                out_folder,
                board,
                engine,
                settings,
                resume=resume,
                force=force,
                device=device,
                progress=progress,
            )
            run.train(made, until)
        leave()
        if not made.leads:
            return
        write_json(json, {"stage": until, "history": made.trainer.state.history})
        rest = (
            f"bitsmith export {out_folder}"
            if until == "integer"
            else resume_command("train", recipe, out_folder, settings, *place)
        )
        next_step(rest, quiet)


def export(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    full: Full = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the integer network of a trained run, and check it against the trained one."""
    from bitsmith import run
    from model.nodes import Mode

    with sentences():
        with bars(quiet) as progress:
            made = run.reopen(folder, progress=progress)
            network = run.export(made, full=full)
        write_json(json, {"network": str(folder / "network"), "nodes": len(network.nodes)})
        if not quiet:
            which = "trained" if made.prepared.mode is Mode.INTEGER else "folded"
            out.print(
                f"Wrote {folder / 'network'}: {len(network.nodes)} nodes, every code equal to the {which} network's."
            )
            if which == "folded":
                out.print(_FOLDED)
        next_step(f"bitsmith evaluate {folder}", quiet)


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    layers: Annotated[bool, typer.Option(help="Compare the three networks layer by layer too.")] = False,
    full: Full = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy of the float, the quantised and the integer network on the test images."""
    from bitsmith import run

    with sentences():
        made = run.reopen(folder)
        metrics = run.evaluate(made, run.exported(made), full=full, layers=layers)
        write_json(json, metrics)
        if not quiet:
            show_metrics(metrics)
            if layers:
                show_layers(metrics["layers"])
        next_step(f"bitsmith generate {folder}/network --board {made.board} --out builds/{folder.name}", quiet)
        if metrics["first_difference"] is not None:
            raise typer.Exit(EXIT_FAILED)


def quantise(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    weight_bits: Annotated[
        int,
        typer.Option(
            min=1,
            max=8,
            help="Bits of the weights; pinned layers keep theirs, those of search.layers get the nearest they allow.",
        ),
    ] = 4,
    activation_bits: Annotated[
        int,
        typer.Option(min=1, max=8, help="Bits of the activations; those of search.layers get the nearest they allow."),
    ] = 4,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Run folder with the float network; left out: the recipe's model.weights."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images that clips are fitted on.")] = 512,
    overrides: Overrides = None,
    force: Force = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Quantise a float network by calibration alone, without training, for a first look. Weights are quantised with a learned
    step's clip (lsq), whatever search.weight_quantiser is: DoReFa's tanh bends weights that were trained without it."""
    from bitsmith import run

    with sentences():
        with bars(quiet) as progress:
            metrics = run.quantise(
                recipe,
                out_folder,
                weight_bits,
                activation_bits,
                source,
                images,
                overrides,
                force=force,
                progress=progress,
            )
        write_json(json, metrics)
        if not quiet:
            show_bits(metrics)
            show_accuracy(metrics)
            out.print(
                f"Wrote {out_folder}/ (network/, quantised.json); nothing was trained, and weights are quantised by"
                f" '{metrics['weight_quantiser']}', whatever the recipe's search.weight_quantiser."
            )
        next_step(f"bitsmith generate {out_folder}/network --out builds/{out_folder.name}", quiet)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    png: Annotated[Path | None, typer.Option(help="File for a picture of accuracy against cost.")] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Finished runs side by side: accuracy against cost."""
    from bitsmith import compare as comparing

    with sentences():
        rows = comparing.compare(folders, png)
        write_json(json, rows)
        if not quiet:
            unit = rows[0]["unit"]
            body = [
                [
                    row["name"],
                    row["method"],
                    percent(row["accuracy"]),
                    percent(row["float"]),
                    row["cost"],
                    row["engine"] or "-",
                ]
                for row in rows
            ]
            out.print(table("Runs", ["run", "method", "integer", "float", unit, "engine"], body))
        next_step(f"bitsmith generate {folders[0]}/network --out builds/{folders[0].name}", quiet)


def show_bits(metrics: dict[str, Any]) -> None:
    """The bits of each layer, and its part of the cost where they were searched: pinned layers have one too."""
    rows = [[item["layer"], item["weight"], item["activation"]] for item in metrics["bits"]]
    head = ["layer", "weights", "activations"]
    if total := sum(item.get("cost", 0) for item in metrics["bits"]):
        head += [str(metrics["cost"]), "share"]
        for row, item in zip(rows, metrics["bits"], strict=True):
            row += [f"{item['cost']:,}", f"{100 * item['cost'] / total:.0f} %"]
    out.print(table("Bits", head, rows))


def show_metrics(metrics: dict[str, Any]) -> None:
    """The outcome of a search."""
    show_bits(metrics)
    show_accuracy(metrics)
    folded = metrics["trained_as"] == "quantised"
    budget = "" if metrics["method"] == "uniform" else f" of {metrics['budget']}"  # uniform bits have none
    out.print(
        f"Logits equal between {'folded' if folded else 'trained'} and integer network: {percent(metrics['logit_agreement'])}."
        f" Cost of the program {metrics['final_cost']}{budget} {metrics['cost']}; by the table {metrics['final_table_cost']}"
        f" ({metrics['table_difference']:+d})."
    )
    left = 1 - metrics["final_cost"] / metrics["budget"]
    if left > _NEAR and metrics.get("nearness") in _NEARNESS:
        out.print(f"{percent(left)} of the budget is left: {_NEARNESS[metrics['nearness']]}.")
    if folded:
        out.print(_FOLDED)
    if metrics["first_difference"] is not None:
        tensor, share = metrics["first_difference"]
        out.print(
            f"The integer network is not the trained one: they differ first in {tensor}, in {percent(share)} of its codes."
        )


def show_accuracy(metrics: dict[str, Any]) -> None:
    """Accuracy of the float, the quantised and the integer network."""
    out.print(
        table(
            f"Accuracy on {metrics['images']} test images",
            ["network", "accuracy"],
            [
                ["float", percent(metrics["float_accuracy"])],
                ["quantised", percent(metrics["quantised_accuracy"])],
                ["integer (golden)", percent(metrics["integer_accuracy"])],
            ],
        )
    )


def show_layers(rows: list[dict[str, Any]]) -> None:
    """Float, fake-quantised and integer network by layer."""
    shown = [
        [row["layer"], row["bits"], f"{row['quantisation_db']:.1f}", percent(row["changed"]), row["most"]] for row in rows
    ]
    out.print(
        table(
            "Layer by layer: what quantisation changes (signal to noise), what folding into integers changes",
            ["layer", "bits", "float / quantised dB", "codes changed", "by at most"],
            shown,
        )
    )
