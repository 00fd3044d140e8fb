"""``bitsmith synth``: the vendor tools on a build, if they are there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from bitsmith.console import bars, next_step, out, sentences, write_json
from bitsmith.options import BuildFolder, Json, Quiet, Verbose
from hwgen import vivado
from hwgen.build import read_build
from hwgen.errors import InputError
from hwgen.vendor import run_vendor
from hwgen.zynq import NETLIST, synthesise_chip


def synth(
    build: BuildFolder,
    open_flow: Annotated[
        bool, typer.Option("--open", help="Without vendor tools: Yosys maps the complete chip, for open place and route.")
    ] = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run the vendor tools of a build's backend: the bit file, its timing and its use of the chip."""
    with sentences():
        read = read_build(build)
        if open_flow:
            if read.backend != "rtl":
                raise InputError(
                    f"--open: the open flow maps RTL, and the build's backend is {read.backend}; generate it with --backend rtl.",
                    str(build),
                )
            with bars(quiet) as progress:
                progress("Yosys", 0, 1)
                cells = synthesise_chip(build)
                progress("Yosys", 1, 1)
            write_json(json, {"build": str(build), "netlist": str(build / NETLIST), "cells": cells})
            if not quiet:
                out.print(f"Wrote {build / NETLIST}: {sum(cells.values())} cells, the top is bs_zynq.")
            return
        with bars(quiet) as progress:
            done = run_vendor(read, progress, (lambda line: out.print(line, markup=False)) if verbose else None)
        measured = vivado.read_reports(build)
        facts = {"build": str(build), "commands": done, "measured": None if measured is None else asdict(measured)}
        write_json(json, facts)
        if not quiet:
            out.print(f"Ran {len(done)} command{'s'[: len(done) > 1]}; their output is in {build / 'synth'}/.")
        if measured is None:
            raise InputError("Vivado ended well but left no reports.", str(build / vivado.FOLDER / "reports"))
        vivado.check_timing(measured)
        if not quiet:
            out.print(
                f"Wrote {build / vivado.FOLDER}/bitsmith.bit and .hwh: {measured.lut} LUT, {measured.ff} FF,"
                f" {measured.bram36:g} BRAM36, {measured.dsp} DSP, slack {measured.slack_ns:.3f} ns at"
                f" {measured.clock_mhz} MHz."
            )
        next_step(f"bitsmith bundle {build}", quiet)
