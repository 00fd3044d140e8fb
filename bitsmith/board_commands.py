"""The commands that bring a build to a board, real or virtual."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bitsmith.console import EXIT_FAILED, bars, next_step, out, sentences, table, write_json
from bitsmith.options import BuildFolder, Force, Json, Quiet, Verbose
from hwgen.build import Build, read_build
from hwgen.bundle import Samples, read_bundle, write_bundle
from hwgen.errors import InputError

_SAMPLE_BYTES = 16 << 20
_RANDOM_SAMPLES = 16
_LOOPBACK = ("127.", "localhost", "::1")

BundlePath = Annotated[Path, typer.Argument(help="Bundle: folder or zip.")]


def golden_samples(build: Build) -> Samples:
    """The network's sample images (at most 16 MiB of them; seeded random ones where it has none) with golden logits."""
    from sim import golden
    from sim.verify import choose_images

    network = build.network
    known = network.samples
    size = int(np.prod(network.tensors[network.input].shape))
    most = max(1, _SAMPLE_BYTES // size)
    images, labels = choose_images(network, min(len(known.images), most) if known else _RANDOM_SAMPLES, seed=1)
    logits = np.asarray(golden.run(network, images)[network.output]).reshape(len(images), -1)
    return Samples(images, labels, logits.astype(np.int32))


def bundle(
    build: BuildFolder,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Bundle folder to make; left out: BUILD-bundle.")
    ] = None,
    virtual: Annotated[bool, typer.Option("--virtual", help="For the virtual board, without a bit file.")] = False,
    bit: Annotated[
        Path | None, typer.Option(help="Bit file, its .hwh beside it; left out: what 'bitsmith synth' made.")
    ] = None,
    force: Force = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Pack what a board needs: bit file, program, driver, samples with golden logits, notebook; a folder and a zip."""
    with sentences():
        if virtual and bit is not None:
            raise InputError("--virtual and --bit exclude each other: a virtual board takes no bit file of Vivado.")
        read = read_build(build)
        target = out_folder or build.with_name(build.name + "-bundle")
        with bars(quiet) as progress:
            progress("golden model", 0, 1)
            samples = golden_samples(read)
            progress("golden model", 1, 1)
            packed = write_bundle(read, samples, target, virtual=virtual, bit=bit, force=force)
        facts = read_bundle(packed).manifest
        write_json(json, {"bundle": str(target), "zip": str(packed), **facts})
        if not quiet:
            size = packed.stat().st_size
            out.print(f"Wrote {target}/ and {packed} ({size} bytes): {facts['bit']}, {len(samples.images)} samples.")
        next_step(f"bitsmith deploy {packed} --board {'virtual' if virtual else 'ADDRESS'}", quiet)


def board(
    bundle_path: Annotated[Path, typer.Option("--bundle", help="Bundle (--virtual) whose RTL to simulate.")],
    port: Annotated[int, typer.Option(help="Port; pynq's client always uses 7967.", min=0, max=65535)] = 7967,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is reached from this machine only.")] = (
        "127.0.0.1"
    ),
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Serve a virtual board: PYNQ's remote protocol with the bundle's RTL, simulated, behind it."""
    from sim.board.virtual import open_board

    with sentences(lambda: "Interrupted before the board was ready."):
        with bars(quiet) as progress:
            progress("compiling the RTL", 0, 1)
            server = open_board(bundle_path, host=host, port=port)
            progress("compiling the RTL", 1, 1)
        with server:
            if not quiet:
                reach = "this machine only" if host.startswith(_LOOPBACK) else "everyone who reaches this address"
                out.print(f"The virtual board listens on {host}:{server.port}, for {reach}. Ctrl-C ends it.")
                if not host.startswith(_LOOPBACK):
                    out.print("The protocol has no passwords: whoever connects can use the board.", style="yellow")
                out.print(
                    f"Use it with PYNQ_REMOTE_DEVICES={host} python, or bitsmith deploy {bundle_path} --board {host}"
                )
            try:
                server.wait()
            except KeyboardInterrupt:
                if not quiet:
                    out.print("The virtual board has ended.")


def deploy(
    bundle_path: BundlePath,
    board_address: Annotated[
        str, typer.Option("--board", metavar="ADDRESS|virtual", help="A board's address, or 'virtual'.")
    ],
    images: Annotated[int | None, typer.Option(help="Sample images to run; left out: all.", min=1)] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a bundle's sample images on a board and compare every logit with the golden model."""
    from bitsmith.deploy import deploy as run

    with sentences():
        with bars(quiet) as progress:
            figures = run(bundle_path, board_address, images, progress)
        write_json(json, figures)
        if not quiet:
            show(figures, simulated=read_bundle(bundle_path).virtual)
        if figures["wrong_images"]:
            raise typer.Exit(EXIT_FAILED)


def show(figures: dict[str, Any], *, simulated: bool) -> None:
    """The outcome of a deployment."""
    stages = ("fetch", "fill", "issue", "write_back")
    out.print(
        table(
            f"Cycles of {figures['images']} images",
            ["stage", "busy", "share"],
            [
                [
                    stage.replace("_", "-"),
                    figures[f"{stage}_cycles"],
                    f"{figures[f'{stage}_cycles'] / figures['cycles']:.0%}",
                ]
                for stage in stages
            ]
            + [["all", figures["cycles"], "100%"]],
        )
    )
    wrong, count = figures["wrong_images"], figures["images"]
    colour = "red" if wrong else "green"
    out.print(f"[{colour}]{count} images on {figures['board']} ({figures['way']}): {wrong} with wrong logits.[/{colour}]")
    if figures["accuracy"] is not None:
        out.print(f"Accuracy {100 * figures['accuracy']:.2f} %.")
    latency = figures["latency_ms"]
    out.print(
        f"{figures['images_per_s']:.0f} images/s as seen from here, latency {latency['p50']:.2f} ms (p50),"
        f" {latency['p90']:.2f} (p90), {latency['p99']:.2f} (p99)" + ("; a simulation's speed." if simulated else ".")
    )
    out.print(
        f"{figures['engine_images_per_s']:.0f} images/s by the engine's cycles at {figures['clock_mhz']:.3f} MHz,"
        f" {figures['dma_read_bytes']} bytes read, {figures['dma_write_bytes']} written."
    )
