"""The command line: every command with its example."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from bitsmith import board_commands, build_commands, search_commands
from bitsmith.console import EXIT_FAILED, out, sentences
from bitsmith.options import Force, Json, Quiet, Verbose
from bitsmith.synth import synth

app = typer.Typer(
    name="bitsmith",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="From a PyTorch network to a verified mixed-precision FPGA accelerator.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        out.print(f"bitsmith {version('bitsmith')}")
        raise typer.Exit


@app.callback()
def every_command(
    tell: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version, and end.")
    ] = False,
) -> None:
    """From a PyTorch network to a verified mixed-precision FPGA accelerator."""


app.command(epilog="Example:  bitsmith search examples/recipes/digits.toml --out runs/digits")(search_commands.search)
app.command(epilog="Example:  bitsmith train examples/recipes/digits.toml --out runs/digits --until search")(
    search_commands.train
)
app.command(epilog="Example:  bitsmith export runs/digits")(search_commands.export)
app.command(epilog="Example:  bitsmith evaluate runs/digits")(search_commands.evaluate)
app.command(
    epilog="Example:  bitsmith quantise examples/recipes/digits.toml --from runs/digits --weight-bits 4 --activation-bits 4 --out runs/w4a4"
)(search_commands.quantise)
app.command(epilog="Example:  bitsmith compare runs/* --png comparison.png")(search_commands.compare)
app.command(epilog="Example:  bitsmith generate runs/digits/network --board pynq-z2 --engine auto --out builds/digits")(
    build_commands.generate
)
app.command(epilog="Example:  bitsmith assemble runs/other/network --for builds/digits --out builds/other")(
    build_commands.assemble
)
app.command(epilog="Example:  bitsmith verify builds/digits --images 100 --junit report.xml")(build_commands.verify)
app.command(epilog="Example:  bitsmith estimate builds/digits --json estimate.json")(build_commands.estimate)
app.command(epilog="Example:  bitsmith inspect builds/digits")(build_commands.inspect)
app.command(epilog="Example:  bitsmith synth builds/digits")(synth)
app.command(epilog="Example:  bitsmith bundle builds/digits --virtual")(board_commands.bundle)
app.command(epilog="Example:  bitsmith board --bundle builds/digits-bundle")(board_commands.board)
app.command(epilog="Example:  bitsmith deploy builds/digits-bundle.zip --board virtual")(board_commands.deploy)


@app.command(epilog="Example:  bitsmith demo --out build/demo")
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("build/demo"),
    images: Annotated[int | None, typer.Option(help="Test images to simulate; left out: all 360.")] = None,
    force: Force = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """The whole path on real digits: search, generate, verify, estimate, summary."""
    from bitsmith.demo import run_demo

    with sentences():
        if not run_demo(out_folder, images, json, force=force, quiet=quiet):
            raise typer.Exit(EXIT_FAILED)


def main() -> None:
    """Entry point."""
    app()
