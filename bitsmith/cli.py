"""The command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from bitsmith import board_commands, builds, report
from bitsmith.console import EXIT_FAILED, NOTHING_LEFT, bars, next_step, out, sentences, table, write_json
from bitsmith.options import (
    BuildFolder,
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
    app,
)
from bitsmith.synth import synth
from bitsmith.targets import target_overrides
from hwgen.build import read_build
from hwgen.errors import InputError
from hwgen.inspect import describe as describe_path
from hwgen.network_file import read_network

__all__ = ["app", "main"]


def percent(value: float | None) -> str:
    """An accuracy for people."""
    return "-" if value is None else f"{100 * value:.2f} %"


def resume_command(command: str, recipe: Path, folder: Path, overrides: list[str], *more: str) -> str:
    """What goes on with a run: the same settings, or its checkpoint is another recipe's."""
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["bitsmith", command, str(recipe), "--out", str(folder), "--resume", *settings, *more])


def interrupted(folder: Path, command: str) -> str:
    """What Ctrl-C is answered with: ``command`` goes on, once there is a run to go on with."""
    return f"Interrupted; go on with: {command}" if (folder / "run.json").exists() else NOTHING_LEFT


@app.command(epilog="Example:  bitsmith search examples/recipes/digits.toml --out runs/digits")
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
    from model.distributed import is_first, leave

    with sentences():
        board = run.board_of(out_folder, board, resume=resume)
        wanted = target_overrides(board, target_cycles, target_fps, target_bitops, target_kbytes, joint=joint)
    settings, place = [*(overrides or []), *wanted], () if device == "cpu" else ("--device", device)
    command = resume_command("search", recipe, out_folder, settings, *place)
    with sentences(lambda: interrupted(out_folder, command)):
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
            out.print(f"Wrote {out_folder}/ (network/, engine.json, metrics.json, curves.csv, checkpoint.pt).")
        next_step(f"bitsmith generate {out_folder}/network --board {board} --out builds/{out_folder.name}", quiet)


@app.command(epilog="Example:  bitsmith train examples/recipes/digits.toml --out runs/digits --until search")
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
    from model.distributed import is_first, leave

    with sentences():
        run.check_stage(until)
        board = run.board_of(out_folder, board, resume=resume)
        wanted = target_overrides(board, target_cycles, target_fps, target_bitops, target_kbytes, joint=joint)
    settings, place = [*(overrides or []), *wanted], () if device == "cpu" else ("--device", device)
    until_there = () if until == "integer" else ("--until", until)
    command = resume_command("train", recipe, out_folder, settings, *until_there, *place)
    with sentences(lambda: interrupted(out_folder, command)):
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


@app.command(epilog="Example:  bitsmith export runs/digits")
def export(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    full: Full = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the integer network of a trained run, and check it against the trained one."""
    from bitsmith import run

    with sentences():
        with bars(quiet) as progress:
            made = run.reopen(folder, progress=progress)
            network = run.export(made, full=full)
        write_json(json, {"network": str(folder / "network"), "nodes": len(network.nodes)})
        if not quiet:
            out.print(
                f"Wrote {folder / 'network'}: {len(network.nodes)} nodes, every code equal to the trained network's."
            )
        next_step(f"bitsmith evaluate {folder}", quiet)


@app.command(epilog="Example:  bitsmith evaluate runs/digits")
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
        metrics = run.evaluate(made, read_network(folder / "network"), full=full, layers=layers)
        write_json(json, metrics)
        if not quiet:
            show_metrics(metrics)
            if layers:
                show_layers(metrics["layers"])
        next_step(f"bitsmith generate {folder}/network --board {made.board} --out builds/{folder.name}", quiet)
        if metrics["first_difference"] is not None:
            raise typer.Exit(EXIT_FAILED)


@app.command(
    epilog="Example:  bitsmith quantise examples/recipes/digits.toml --from runs/digits --weight-bits 4 --activation-bits 4 --out runs/w4a4"
)
def quantise(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    weight_bits: Annotated[int, typer.Option(min=1, max=8, help="Bits of the weights; pinned layers keep theirs.")] = 4,
    activation_bits: Annotated[int, typer.Option(min=1, max=8, help="Bits of the activations.")] = 4,
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
    """Quantise a float network by calibration alone, without training, for a first look."""
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
            show_accuracy(metrics)
            out.print(f"Wrote {out_folder}/ (network/, quantised.json); nothing was trained.")
        next_step(f"bitsmith generate {out_folder}/network --out builds/{out_folder.name}", quiet)


@app.command(epilog="Example:  bitsmith compare runs/* --png comparison.png")
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


@app.command(epilog="Example:  bitsmith verify builds/digits --images 100 --junit report.xml")
def verify(
    build: BuildFolder,
    images: Annotated[
        str | None, typer.Option(help="How many sample images, or an .npy file of uint8 (N, H, W, C).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random images, memory latencies and memory garbage.")] = 1,
    simulator: Annotated[
        str | None,
        typer.Option(help="Of the RTL 'compiled' (all in C++, the default) or 'cocotb' (Python in every cycle)."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="rtl or hls; left out: the build's own.")] = None,
    waves: Annotated[Path | None, typer.Option(help="Folder for a waveform of the whole run (dump.vcd).")] = None,
    failing_waves: Annotated[
        Path | None,
        typer.Option(help="Folder for a waveform of the cycles around a failure, if there is one (failure.fst)."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="File for a JUnit report, one case per tensor.")] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Simulate the engine, the whole network through its memory, and compare every tensor with the golden model."""
    with sentences():
        made = read_build(build).backend
        if backend not in (None, made):
            raise InputError(
                f"--backend {backend}: the build's backend is {made}; generate it again with --backend {backend}.",
                str(build),
            )
        figures = run_verify(build, images, seed, simulator, waves, failing_waves, junit, quiet)
        write_json(json, figures)
        if not quiet:
            show_verify(figures)
            if waves is not None:
                out.print(f"Waveform: {waves / 'dump.vcd'} (GTKWave, Surfer).")
            if figures["failing_waves"]:
                out.print(
                    f"Failing window: {figures['failing_waves']} (failure.gtkw for GTKWave, failure.sucl for Surfer)."
                )
        if figures["mismatches"] or figures["problem"]:
            raise typer.Exit(EXIT_FAILED)
        next_step(f"bitsmith {'estimate' if made == 'rtl' else 'synth'} {build}", quiet)


@app.command(epilog="Example:  bitsmith estimate builds/digits --json estimate.json")
def estimate(
    build: BuildFolder,
    fast: Annotated[bool, typer.Option(help="Resources by the fitted model, without synthesis.")] = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Cycles by the model and resources by Yosys."""
    with sentences():
        read = read_build(build)
        with bars(quiet) as progress:
            progress("synthesis", 0, 1)
            figures = report.estimate(read, fast=fast)
            progress("synthesis", 1, 1)
        write_json(json, figures)
        if not quiet:
            out.print(report.layer_table(report.layer_rows(read)))
            out.print(report.resource_table(figures))
            if verbose and figures["cells"]:
                out.print(table("Cells", ["cell", "count"], sorted(figures["cells"].items())))
            out.print(
                f"{figures['cycles_per_image']} cycles per image, {figures['fps']:.0f} images/s at {figures['clock_mhz']} MHz."
            )
            if read.backend == "hls":
                out.print("These are the RTL engine's; cycles and size of the HLS kernel come from 'bitsmith synth'.")
        next_step(f"bitsmith inspect {build}", quiet)


@app.command(epilog="Example:  bitsmith inspect builds/digits")
def inspect(
    path: Annotated[Path, typer.Argument(help="Network, run or build folder, engine file or program.")],
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """What a network file, a build, an engine file or a program is."""
    with sentences():
        text = describe_path(path)
        write_json(json, {"path": str(path), "description": text})
        if not quiet:
            out.print(text, markup=False, soft_wrap=True)


app.command(epilog="Example:  bitsmith generate runs/digits/network --board pynq-z2 --engine auto --out builds/digits")(
    builds.generate
)
app.command(epilog="Example:  bitsmith assemble runs/other/network --for builds/digits --out builds/other")(
    builds.assemble
)
app.command(epilog="Example:  bitsmith synth builds/digits")(synth)
app.command(epilog="Example:  bitsmith bundle builds/digits --virtual")(board_commands.bundle)
app.command(epilog="Example:  bitsmith board --bundle builds/digits-bundle")(board_commands.board)
app.command(epilog="Example:  bitsmith deploy builds/digits-bundle.zip --board virtual")(board_commands.deploy)


@app.command(epilog="Example:  bitsmith demo --out build/demo")
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("build/demo"),
    images: Annotated[int | None, typer.Option(help="Test images to simulate; left out: all 360.")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """The whole path on real digits: search, generate, verify, estimate, summary."""
    from bitsmith.demo import run_demo

    with sentences():
        if not run_demo(out_folder, images, force=force, quiet=quiet):
            raise typer.Exit(EXIT_FAILED)


def run_verify(
    build: Path,
    images: str | None,
    seed: int,
    simulator: str | None,
    waves: Path | None,
    failing_waves: Path | None,
    junit: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """Parse ``--images`` and verify with a progress bar."""
    from sim.verify import read_images
    from sim.verify import verify as simulate

    count: int | None = None
    array = None
    if images is not None:
        if images.isdigit():
            count = int(images)
        elif Path(images).exists():
            array = read_images(Path(images), read_build(build).network)
        else:
            raise InputError(f"--images {images}: it is neither a number nor a file.")
    with bars(quiet) as progress:
        return simulate(
            build,
            images=array,
            count=count,
            seed=seed,
            simulator=simulator,
            waves=waves,
            failing_waves=failing_waves,
            junit=junit,
            progress=progress,
        )


def show_metrics(metrics: dict[str, Any]) -> None:
    """The outcome of a search."""
    rows = [[item["layer"], item["weight"], item["activation"]] for item in metrics["bits"]]
    out.print(table("Bits", ["layer", "weights", "activations"], rows))
    show_accuracy(metrics)
    budget = "" if metrics["method"] == "uniform" else f" of {metrics['budget']}"  # uniform bits have none
    out.print(
        f"Logits equal between trained and integer network: {percent(metrics['logit_agreement'])}. Cost of the program"
        f" {metrics['final_cost']}{budget} {metrics['cost']}; by the table {metrics['final_table_cost']}"
        f" ({metrics['table_difference']:+d})."
    )
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


def show_verify(figures: dict[str, Any]) -> None:
    """The outcome of a verification."""
    if figures["problem"]:
        out.print(f"[red]{figures['problem']}[/red]")
    for line in figures["first_mismatches"]:
        out.print(line, markup=False)
    colour = "red" if figures["mismatches"] or figures["problem"] else "green"
    out.print(
        f"[{colour}]{figures['images']} images, {figures['tensors_compared']} tensors compared,"
        f" {figures['mismatches']} mismatches.[/{colour}]"
    )
    known = figures["accuracy"] is not None
    hls = figures["simulator"] == "hls"
    spent = "C simulation of the HLS kernel" if hls else f"{figures['cycles_per_image']:.0f} cycles per image"
    where = "HLS" if hls else "RTL"
    out.print(
        spent + (f", accuracy in {where} {percent(figures['accuracy'])}." if known else "; no labels, no accuracy.")
    )


def main() -> None:
    """Entry point."""
    app()
