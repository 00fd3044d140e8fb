"""Cycles of networks of the literature on one engine, in RTL simulation with the DDR model.

    make bench-engine                              # every row, about ten minutes on two cores
    python -m benchmarks.bench_engine resnet20     # rows of one network
    python -m benchmarks.bench_engine --quick      # model only: no simulation, seconds

Weights and images are random. Every simulated tensor is compared with the golden model; a mismatch ends the benchmark.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.networks import NETWORKS
from benchmarks.rows import write_rows
from hwgen.board import load_board
from hwgen.build import Build, generate
from hwgen.cycles import layer_bound, time_program
from hwgen.engine import EngineConfig
from hwgen.passes import ArrayPass
from hwgen.schedule import Schedule, tile_cycles
from sim.compiled import MemoryTiming
from sim.random_network import random_images
from sim.verify import verify

# The engine of all CIFAR rows, and of the area benchmark.
ENGINE = EngineConfig(weight_depth=1024, plane_depth=1024, byte_depth=1024, param_depth=4096, program_depth=2048)
# The same array with the memories that 224x224 images need: more block RAM than the xc7z020 has.
LARGE = replace(ENGINE, weight_depth=4096, plane_depth=4096, byte_depth=8192, param_depth=8192, program_depth=4096)
CLOCK_MHZ = 142.857  # of those that a PYNQ-Z2's PLL makes, the one that no timing figure speaks against
DDR_BYTES_PER_S = 1.6e9
LATENCIES = (30, 120)  # cycles
IMAGES = 9  # the first loads the weights, the others are the steady state
LARGE_IMAGES = 3


@dataclass(frozen=True)
class Case:
    """One row: a network at weight and activation bits."""

    network: str
    weight_bits: int
    activation_bits: int
    batch: int = 1

    @property
    def large(self) -> bool:
        return self.network == "resnet18"

    @property
    def engine(self) -> EngineConfig:
        return LARGE if self.large else ENGINE


CASES = [
    *(Case("resnet20", bits, bits) for bits in (1, 2, 3, 4, 8)),
    Case("resnet20", 2, 4),
    Case("resnet32", 2, 2),
    Case("resnet32", 4, 4),
    Case("resnet56", 2, 2),
    Case("resnet8", 2, 2),
    Case("resnet8", 8, 8),
    Case("cnv", 1, 1),
    Case("cnv", 1, 1, batch=8),
    Case("cnv", 2, 2),
    Case("cnv", 2, 2, batch=8),
    Case("mlp", 1, 1),
    Case("mlp", 2, 2),
    Case("mobilenet", 2, 2),
    Case("mobilenet", 4, 4),
    Case("resnet18", 2, 2),
]


def array_cycles(plan: Schedule) -> float:
    """Cycles per image in which the array takes a word."""
    return sum(
        plan.memory.words[item.name].row_words
        * plan.memory.words[item.name].row_tiles
        * item.window.tiles(plan.engine.columns)
        * plan.memory.batch.copies(index)
        / plan.batch
        for index, item in enumerate(plan.passes)
        if isinstance(item, ArrayPass)
    )


def layers(plan: Schedule, cycles: dict[str, float]) -> list[dict[str, Any]]:
    """Name, cycles, bound and what limits each array pass."""
    rows = []
    bounds = {layer.name: layer.tile_bound for layer in time_program(plan).layers}
    for item in plan.passes:
        if not isinstance(item, ArrayPass):
            if item.name in cycles:
                rows.append({"name": item.name, "cycles": cycles[item.name], "tile_bound": 0, "ratio": None})
            continue
        words = plan.memory.words[item.name]
        rows.append(
            {
                "name": item.name,
                "weight_bits": item.weight_bits,
                "activation_bits": item.source.bits,
                "channels_in": item.source.shape[2],
                "channels_out": item.channels_out,
                "cycles": cycles[item.name],
                "tile_bound": bounds[item.name],
                "ratio": round(cycles[item.name] / bounds[item.name], 3),
                "read_out_bound": words.row_words < tile_cycles(item, plan.engine),
                "weights": "streamed"
                if any(part.item is item and part.streamed for part in plan.memory.weights)
                else "resident",
            }
        )
    return rows


def memory_bound(plan: Schedule) -> int:
    """Packed bound in cycles with a memory of 8 bytes a cycle that moves each weight, map and skip once, layer by layer."""
    total = 0.0
    for item in plan.lowered:
        if isinstance(item, ArrayPass):
            maps = {made.name: made for made in (item.source, item.planes or item.bytes, item.skip) if made is not None}
            moved = item.codes.size * item.weight_bits + sum(np.prod(made.shape) * made.bits for made in maps.values())
            total += max(layer_bound(item, plan.engine), moved / 64)
    return round(total)


def bits_of(plan: Schedule, index: int) -> list[int]:
    """Weight and activation bits of an array pass."""
    made = [item for item in plan.passes if isinstance(item, ArrayPass)][index]
    return [made.weight_bits, made.source.bits]


def row(case: Case, build: Build, latency: int, images: int, outstanding: int) -> dict[str, Any]:
    """Simulate one case; ``images`` of 0 takes the model's cycles. outstanding: bursts that a port of memory accepts."""
    plan = build.schedule
    timing = time_program(plan)
    cycles, first = float(timing.cycles_per_image), timing.first_image
    by_layer: dict[str, float] = {layer.name: layer.cycles for layer in timing.layers}
    if images:
        pictures = random_images(plan.network, images if case.batch == 1 else 4 * case.batch, 1)
        memory = {"latency": (latency, latency), "stall": 0.0, "outstanding": outstanding}
        beats = DDR_BYTES_PER_S / (CLOCK_MHZ * 1e6) / 8
        result = verify(build.path, images=pictures, processes=1, beats_per_cycle=beats, **memory)  # type: ignore[arg-type]
        alone = verify(build.path, images=pictures[:1], beats_per_cycle=beats, **memory)  # type: ignore[arg-type]
        for outcome in (result, alone):
            if outcome["problem"] or outcome["mismatches"]:
                raise SystemExit(f"{case}: {outcome['problem']} {outcome['first_mismatches'][:3]}")
        cycles, first = result["cycles_per_image"], alone["counters"]["cycles"]
        by_layer = {layer["name"]: layer["cycles"] for layer in result["layers"]}
    bound = sum(layer.tile_bound for layer in timing.layers)
    return {
        "network": case.network,
        "weight_bits": case.weight_bits,
        "activation_bits": case.activation_bits,
        "batch": case.batch,
        "first_bits": bits_of(plan, 0),
        "last_bits": bits_of(plan, -1),
        "engine": f"{plan.engine.hash:08x} {plan.engine.name}, {plan.engine.lanes} lanes",
        "cycles_per_image": cycles,
        "first_image_cycles": first,
        "tile_bound": bound,
        "memory_bound": memory_bound(plan),
        "ratio": round(cycles / bound, 3),
        "utilisation": round(array_cycles(plan) / cycles, 3),
        "clock_mhz": CLOCK_MHZ,
        "fps": round(CLOCK_MHZ * 1e6 / cycles, 1),
        "ddr_latency": latency if images else None,
        "layers": layers(plan, by_layer),
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The rows as a table, and the layers with the highest ratio."""
    table = Table(title=f"{rows[0]['engine'].split(' ', 1)[1]} at {CLOCK_MHZ} MHz")
    for head in (
        "network",
        "bits",
        "batch",
        "DDR latency",
        "cycles",
        "first image",
        "bound",
        "ratio",
        "array busy",
        "FPS",
    ):
        table.add_column(head, justify="left" if head == "network" else "right")
    for item in rows:
        table.add_row(
            item["network"],
            f"W{item['weight_bits']}A{item['activation_bits']}",
            str(item["batch"]),
            "model" if item["ddr_latency"] is None else str(item["ddr_latency"]),
            f"{item['cycles_per_image']:,.0f}",
            f"{item['first_image_cycles']:,}",
            f"{item['tile_bound']:,}",
            f"{item['ratio']:.3f}",
            f"{100 * item['utilisation']:.0f} %",
            f"{item['fps']:,.0f}",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network", help=f"of {', '.join(NETWORKS)}; none: all rows")
    parser.add_argument("--images", type=int, default=IMAGES, help="images to simulate")
    parser.add_argument(
        "--outstanding",
        type=int,
        default=MemoryTiming.outstanding,
        help="bursts that a port of memory accepts (%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="the cycle model's figures, without simulation")
    options = parser.parse_args()
    if options.outstanding < 1:
        parser.error(f"--outstanding is {options.outstanding}; a port takes at least one burst")
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    console = Console(stderr=True)
    board = load_board("pynq-z2")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for index, case in enumerate(case for case in CASES if not options.networks or case.network in options.networks):
            network = NETWORKS[case.network](case.weight_bits, case.activation_bits)
            build = generate(network, case.engine, board, Path(scratch) / str(index), batch=case.batch)
            for latency in LATENCIES[:1] if options.quick else LATENCIES:
                images = LARGE_IMAGES if case.large else options.images
                rows.append(row(case, build, latency, 0 if options.quick else images, options.outstanding))
                console.print(
                    f"{case.network} W{case.weight_bits}A{case.activation_bits}: {rows[-1]['cycles_per_image']:,}"
                )
    print_rows(rows)
    print(f"Written: {write_rows('engine-quick' if options.quick else 'engine', rows)}")


if __name__ == "__main__":
    main()
