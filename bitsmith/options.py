"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitsmith import DEFAULT_BOARD
from bitsmith.console import tell_steps

Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file; - is standard output.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=tell_steps, help="Also say what is done on the way: choices, tools, caches."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
BoardName = Annotated[str, typer.Option("--board", help="Board to build for.")]
RunBoard = Annotated[
    str | None, typer.Option("--board", help=f"Board to build for; left out: {DEFAULT_BOARD}, or the resumed run's.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output folder if it exists.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.NAME=VALUE",
        help="Override a value of the recipe; name and value are TOML, so a layer's name with dots or a pattern is in double"
        " quotes: 'search.layers.\"block1.*\".weight_bits=[2]'.",
    ),
]
EngineFile = Annotated[
    Path | None, typer.Option("--engine", help="Engine file; left out: the best for uniform W4A4 on the board.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, or auto for a GPU where there is one.")]
TargetCycles = Annotated[int | None, typer.Option(help="Budget: cycles per image on the engine.")]
TargetFps = Annotated[float | None, typer.Option(help="Budget: images per second at the board's clock.")]
TargetBitops = Annotated[float | None, typer.Option(help="Budget: 10^9 bit operations per image.")]
TargetKbytes = Annotated[float | None, typer.Option(help="Budget: 1,000 bytes of weights.")]
Joint = Annotated[bool, typer.Option("--joint", help="Choose bits and the engine's shape in turn.")]
Full = Annotated[bool, typer.Option("--full", help="Compare every code on the whole test set, not on 1,000 images.")]
BuildFolder = Annotated[Path, typer.Argument(help="Build folder.")]
