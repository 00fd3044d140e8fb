"""The commands that write build folders: ``generate`` and ``assemble``."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from bitsmith import DEFAULT_BOARD, report
from bitsmith.console import bars, next_step, out, sentences, table, write_json
from bitsmith.options import BoardName, Force, Json, Quiet, Verbose
from hwgen import rationale
from hwgen.board import Board, load_board
from hwgen.build import assemble_for, read_build
from hwgen.build import generate as generate_build
from hwgen.engine import read_engine
from hwgen.explore import Exploration, explore
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
    head = f"The best of {found.shapes} shapes that fit {board.name}; {found.timed} engines timed; the first is taken"
    out.print(table(head, rationale.HEAD, rationale.rows(found)))
    for line in rationale.reasons(found, board):
        out.print(line, soft_wrap=True)
