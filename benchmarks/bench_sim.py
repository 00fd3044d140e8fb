"""Speed of both paths of the RTL simulation: ResNet-20 W2A2 with random weights on 8x144x16 with 32 lanes.

    python -m benchmarks.bench_sim --images 1000

Every tensor of every image is compared while the clock runs; "compiled" uses one process, "compiled, N processes" one per
core. ``build_s`` is a compilation that the cache does not help. Rows go to build/bench/sim.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.bench_engine import CLOCK_MHZ, DDR_BYTES_PER_S, ENGINE
from benchmarks.networks import resnet_cifar
from benchmarks.rows import write_rows
from hwgen.board import load_board
from hwgen.build import Build, generate
from sim import verilator
from sim.compiled import PUBLIC, compile_engine
from sim.verify import verify

DDR_LATENCY = (30, 30)
COCOTB_IMAGES = 2


def build_seconds(build: Build) -> dict[str, float]:
    """Seconds that each path compiles, from nothing."""
    seconds = {}
    start = time.perf_counter()
    compile_engine(build.rtl)
    seconds["compiled"] = time.perf_counter() - start
    start = time.perf_counter()
    verilator.build(build.rtl, "bs_top", public=PUBLIC)
    seconds["cocotb"] = time.perf_counter() - start
    return seconds


def measure(build: Build, images: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """A row per path."""
    compiling = progress.add_task("compiling both paths", total=None)
    seconds = build_seconds(build)
    progress.update(compiling, total=1, completed=1)
    cores = os.cpu_count() or 1
    shape = build.network.tensors[build.network.input].shape
    codes = np.random.default_rng(1).integers(0, 256, (images, *shape), np.uint8)
    runs = [
        ("compiled", "compiled", 1, max(images // 10, 1)),
        (f"compiled, {cores} processes", "compiled", cores, images),
        ("cocotb", "cocotb", 1, min(COCOTB_IMAGES, images)),
    ]
    for path, simulator, processes, count in runs:
        task = progress.add_task(path, total=count)

        def tell(stage: str, done: int, _total: int, task: Any = task) -> None:
            if stage == "simulating":
                progress.update(task, completed=done)

        result = verify(
            build.path, images=codes[:count], simulator=simulator, processes=processes, latency=DDR_LATENCY, stall=0.0,
            beats_per_cycle=DDR_BYTES_PER_S / (CLOCK_MHZ * 1e6) / 8, progress=tell,
        )  # fmt: skip
        if result["problem"] or result["mismatches"]:
            raise SystemExit(f"{path}: {result['problem']} {result['first_mismatches'][:1]}")
        yield {
            "engine": f"{build.engine.hash:08x} {build.engine.name}",
            "network": build.network.name,
            "path": path,
            "cycles_per_s": round(result["counters"]["cycles"] / result["seconds"]),
            "images_per_s": round(count / result["seconds"], 3),
            "build_s": round(seconds[simulator], 1),
            "images": count,
            "macs_per_cycle": build.engine.macs_per_cycle,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=1000, help="of the compiled path on all cores; one core has a tenth"
    )
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error("--images must be at least 1")
    rows = []
    with tempfile.TemporaryDirectory(prefix="bitsmith-bench-") as scratch, Progress() as progress:
        os.environ["BITSMITH_CACHE"] = scratch  # an empty one: the builds are measured, and then used
        build = generate(resnet_cifar(20, 2, 2), ENGINE, load_board("pynq-z2"), Path(scratch) / "build")
        rows = list(measure(build, arguments.images, progress))
    write_rows("sim", rows)
    table = Table(title=f"RTL simulation, {rows[0]['network']} on {rows[0]['engine']}, every tensor compared")
    for name in ("path", "images", "cycles/s", "images/s", "build s"):
        table.add_column(name, justify="left" if name == "path" else "right")
    for row in rows:
        figures = (row["images"], row["cycles_per_s"], row["images_per_s"], row["build_s"])
        table.add_row(row["path"], *(f"{figure:,}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
