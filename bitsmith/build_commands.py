"""The commands of a build folder: ``generate``, ``assemble``, ``verify``, ``estimate`` and ``inspect``."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from bitsmith import DEFAULT_BOARD, report
from bitsmith.console import EXIT_FAILED, bars, next_step, out, percent, sentences, table, write_json
from bitsmith.options import BoardName, BuildFolder, Force, Json, Quiet, Verbose
from hwgen import rationale
from hwgen.board import Board, load_board
from hwgen.build import assemble_for, read_build
from hwgen.build import generate as generate_build
from hwgen.engine import read_engine
from hwgen.errors import InputError
from hwgen.explore import Exploration, explore
from hwgen.inspect import describe as describe_path
from hwgen.network_file import read_network
from hwgen.output import check_output

Network = Annotated[Path, typer.Argument(help="Network folder.")]


def generate(
    network: Network,
    out_folder: Annotated[Path, typer.Option("--out", help="Build folder to make.")],
    board: BoardName = DEFAULT_BOARD,
    engine: Annotated[
        str, typer.Option(help="Engine file; 'run': that of the network's run; 'auto': the best for this network.")
    ] = "run",
    backend: Annotated[str, typer.Option(help="'rtl': SystemVerilog; 'hls': a Vitis HLS project.")] = "rtl",
    batch: Annotated[int, typer.Option(min=1, help="Images that share the weights of the last layers.")] = 1,
    force: Force = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Plan, schedule and assemble a network and render its engine, as RTL or as HLS C++."""
    with sentences():
        target = load_board(board)
        check_output(out_folder, "build.json", force=force, reads=network)
        what = read_network(network)
        beside = network.resolve().parent / "engine.json"
        notes, found = {}, None
        if engine == "auto" or (engine == "run" and not beside.is_file()):
            with bars(quiet) as progress:
                found = explore(what, target, progress)
            shape = found.candidates[0].engine
            notes = {
                "shapes.txt": rationale.as_text(found, target),
                "shapes.json": dumps(rationale.as_json(found, target), indent=2) + "\n",
            }
            if not quiet:
                show_shapes(found, target)
        else:
            shape = read_engine(beside if engine == "run" else Path(engine))
        build = generate_build(what, shape, target, out_folder, force=force, notes=notes, backend=backend, batch=batch)
        rows = report.layer_rows(build)
        figures: dict[str, Any] = {"build": str(out_folder), "engine": shape.name, "layers": rows}
        if found is not None:
            figures["shapes"] = rationale.as_json(found, target)
        write_json(json, figures)
        if not quiet:
            out.print(report.layer_table(rows))
            flows = ["rtl/", "vivado/", "zynq/"] if backend == "rtl" else ["hls/", "vivado/"]
            names = [*flows, "program.bin", "program.txt", "memory.txt", "network/", *notes]
            out.print(f"Wrote {out_folder}/ ({', '.join(names)}) for engine {shape.name}.", soft_wrap=True)
        next_step(f"bitsmith verify {out_folder}", quiet)


def assemble(
    network: Network,
    build: Annotated[Path, typer.Option("--for", help="Build folder whose engine is to run the network.")],
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Build folder to make; left out: beside the other, by the network's name."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that share the weights of the last layers.")] = 1,
    force: Force = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Make another network's program for the engine of a build, so that one bitstream serves both."""
    with sentences():
        what = read_network(network)
        hardware = read_build(build)
        folder = out_folder or build.resolve().parent / what.name
        check_output(folder, "build.json", force=force, reads=network)
        made = assemble_for(what, hardware, folder, force=force, batch=batch)
        rows = report.layer_rows(made)
        write_json(
            json,
            {
                "build": str(folder),
                "for": str(build),
                "engine": made.engine.name,
                "engine_hash": f"{made.engine.hash:08x}",
                "parameters": asdict(made.engine),
                "layers": rows,
            },
        )
        if not quiet:
            out.print(report.layer_table(rows))
            out.print(
                f"Wrote {folder}/ for the engine of {build}: {made.engine.name}, {made.engine.hash:08x}.", soft_wrap=True
            )
        next_step(f"bitsmith verify {folder}", quiet)


def show_shapes(found: Exploration, board: Board) -> None:
    """The best engines and why the first was taken."""
    head = f"The best that fit {board.name}, of {found.shapes} shapes; {found.timed} engines timed; the first is taken"
    out.print(table(head, rationale.HEAD, rationale.rows(found)))
    for line in rationale.reasons(found, board):
        out.print(line, soft_wrap=True)


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
