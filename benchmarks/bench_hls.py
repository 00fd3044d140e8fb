"""Speed of the C simulation of the HLS kernel: ResNet-20 and CNV with random weights, one process on one core.

    python -m benchmarks.bench_hls --images 60

Only the kernel's own run counts, not its compilation nor the golden model; every logit is compared. Time is CPU time, so that
other programs on the machine do not count. Result: build/bench/hls.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_engine import ENGINE
from benchmarks.networks import cnv, resnet_cifar
from benchmarks.rows import write_rows
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.network import Network
from sim import golden
from sim.hls import compile_kernel, run_kernel
from sim.job import Layout
from sim.random_network import random_images

NETWORKS: Mapping[tuple[int, int], tuple[Network, ...]] = {
    (2, 2): (resnet_cifar(20, 2, 2), cnv(2, 2)),
    (1, 1): (cnv(1, 1),),
}


def _spent() -> float:
    """Seconds of CPU time that processes started from here have taken so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(network: Network, bits: tuple[int, int], count: int, folder: Path) -> dict[str, Any]:
    """Run ``count`` random images; the row of the benchmark.

    Raises:
        SystemExit: a logit is not the golden model's.
    """
    images = random_images(network, count, 1)
    build = generate(network, ENGINE, load_board("pynq-z2"), folder, backend="hls")
    kernel = compile_kernel(build.hls)
    layout = Layout(build.schedule, build.program.read_bytes(), images, 1)
    memory = np.empty(-(-layout.memory_bytes // 8) * 8, np.uint8)
    layout.fill(memory)
    start = _spent()
    done = run_kernel(kernel, build.engine, memory, dict(layout.registers()))
    seconds = _spent() - start
    expected = golden.logits(network, images)
    found = np.stack(layout.logits(done.memory))[:, : expected.shape[1]]
    if done.registers["error"] or not np.array_equal(found, expected):
        raise SystemExit(f"bench-hls: the logits of {network.name} are not the golden model's.")
    return {
        "network": network.name,
        "weight_bits": bits[0],
        "activation_bits": bits[1],
        "engine": ENGINE.name,
        "images": count,
        "images_per_s": round(count / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="images of each network (60)")
    count = parser.parse_args().images
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bitsmith-bench-") as scratch:
        for bits, networks in NETWORKS.items():
            for network in networks:
                row = measure(network, bits, count, Path(scratch) / str(len(rows)))
                print(f"{row['images_per_s']} images/s of {row['network']} W{bits[0]}A{bits[1]} on {row['engine']}")
                rows.append(row)
    print(f"Wrote {write_rows('hls', rows)}.")


if __name__ == "__main__":
    main()
