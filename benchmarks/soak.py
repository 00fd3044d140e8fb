"""Random networks on random engines, RTL and HLS against the golden model: ``make soak N=2000``.

Each shape's engine runs groups of networks back to back, without a reset between them, behind random memory, and the HLS kernel
of the shape runs them too. The figures go to build/bench/soak.json after every group. A failure is repeated in new simulations, shrunk, left as a network file with its
images, and told with the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import Progress

from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig, write_engine
from hwgen.errors import InputError
from hwgen.network import Network
from hwgen.network_file import write_network
from hwgen.render_hls import render_hls_sources
from sim.compiled import compile_engine
from sim.hls import compile_kernel
from sim.hls_job import simulate as simulate_hls
from sim.job import Result
from sim.monitor import TensorMonitor
from sim.random_engine import random_engines
from sim.random_network import random_images, random_network
from sim.shrink import shrink
from sim.soak import DISTURBANCES, DoesNotFitError, Station, Work, prepare, spoil_clashes

GROUP = 5
"""Networks that one engine runs back to back."""
BOARD = "pynq-z2"


@dataclass(frozen=True)
class Hardware:
    """An engine shape as compiled RTL and as compiled HLS kernel."""

    engine: EngineConfig
    rtl: Path
    hls: Path


@dataclass
class Figures:
    """What build/bench/soak.json holds. tensors: compared, in RTL and in HLS. unfit: networks that an engine of this shape cannot hold; they are not counted."""

    networks: int = 0
    images: int = 0
    tensors: int = 0
    mismatches: int = 0
    disturbed: int = 0
    unfit: int = 0
    seconds: float = 0.0
    shapes: set[str] = field(default_factory=set)
    bit_pairs: set[tuple[int, int]] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        facts = vars(self) | {
            "shapes": len(self.shapes),
            "bit_pairs": len(self.bit_pairs),
            "seconds": round(self.seconds, 1),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def work_of(seed: int, engine: EngineConfig) -> Work:
    """The network, images and disturbance of a seed on an engine.

    Raises:
        InputError, DoesNotFitError: they do not go together.
    """
    rng = random.Random(seed)
    network = random_network(seed)
    images = random_images(network, rng.randint(1, 4), seed)
    return prepare(network, images, engine, seed, rng.choice(["", *DISTURBANCES]))


def groups(engine: EngineConfig, first: int, figures: Figures) -> Iterator[list[Work]]:
    """Groups of works that fit, of the seeds from ``first`` on."""
    group: list[Work] = []
    for seed in range(first, first + 1_000_000):
        try:
            group.append(work_of(seed, engine))
        except (InputError, DoesNotFitError):
            figures.unfit += 1
            continue
        if len(group) == GROUP:
            yield group
            group = []


def failed(result: Result) -> bool:
    return bool(result.problem or result.wrong)


def run_group(hardware: Hardware, group: list[Work]) -> Iterator[tuple[Work, Result]]:
    """Each work with the results of both backends, one after another on one RTL engine."""
    with Station(hardware.rtl, group[0].seed) as station:
        for work in group:
            result = station.run(work)
            hls = simulate_hls(hardware.hls, work.layout(), TensorMonitor(work.plan, work.tensors))
            result.tensors += hls.tensors
            result.wrong += hls.wrong
            if failed(hls):
                result.problem = f"{result.problem} The HLS kernel fails. {hls.problem}".strip()
                result.mismatches += hls.mismatches
            yield work, result


def fails(hardware: Hardware, group: list[Work]) -> bool:
    return any(failed(result) for _, result in run_group(hardware, group))


def explain(hardware: Hardware, name: str, group: list[Work], folder: Path) -> str:
    """Shrink the failure of the last of a group, leave it in ``folder``, and say how to see it again."""
    for count in range(1, len(group) + 1):
        if fails(hardware, group[-count:]):
            group = group[-count:]
            break
    seeds = ",".join(str(work.seed) for work in group)
    result = [result for _, result in run_group(hardware, group)][-1]
    told = [result.problem, *result.mismatches[:3]]

    def candidate(network: Network, images: np.ndarray) -> bool:
        try:
            return fails(hardware, [prepare(network, images, hardware.engine, group[0].seed)])
        except (InputError, DoesNotFitError):
            return False

    if len(group) == 1:
        network, images = shrink(group[0].network, group[0].images, candidate)
        write_network(network, folder / "network")
        write_engine(hardware.engine, folder / "engine.json")
        np.save(folder / "images.npy", images)
        told.append(
            f"Shrunk to {len(network.nodes)} nodes and {len(images)} images: {folder}/network, images.npy, engine.json."
        )
    told.append(f"Repeat it: python -m benchmarks.soak --shape {name} --seeds {seeds}")
    return "\n".join(item for item in told if item)


def make_hardware(engine: EngineConfig, scratch: Path) -> Hardware:
    """Render and compile both backends."""
    rtl = compile_engine(spoil_clashes(write_rtl(engine, load_board(BOARD), scratch)), quick=True)
    return Hardware(engine, rtl, compile_kernel(render_hls_sources(engine, BOARD, "soak")))


def soak(
    engines: dict[str, EngineConfig], networks: int, first_seed: int, out: Path, *, seeds: list[int] | None = None
) -> Figures:
    """Run ``networks`` networks spread over the engines; seeds: these alone, as one group.

    Writes ``out``/soak.json; failures lie in ``out``/soak-failures.
    """
    figures = Figures()
    start = time.perf_counter()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitsmith-soak-")))
        bar = stack.enter_context(Progress(transient=True))
        task = bar.add_task("networks", total=networks)
        streams: dict[str, Iterator[list[Work]]] = {
            name: iter([[work_of(seed, engine) for seed in seeds]])
            if seeds
            else groups(engine, first_seed + 100_000 * at, figures)
            for at, (name, engine) in enumerate(engines.items())
        }
        made: dict[str, Hardware] = {}
        while figures.networks < networks and streams:
            for name in list(streams):
                group = next(streams[name], None)
                if group is None:
                    del streams[name]
                    continue
                if name not in made:
                    made[name] = make_hardware(engines[name], scratch / name)
                for at, (work, result) in enumerate(run_group(made[name], group)):
                    figures.networks += 1
                    figures.images += len(work.images)
                    figures.tensors += result.tensors
                    figures.mismatches += result.wrong + bool(result.problem)
                    figures.disturbed += bool(work.disturbance)
                    figures.bit_pairs |= work.bit_pairs()
                    bar.advance(task)
                    if failed(result):
                        folder = out / "soak-failures" / f"{name}-{work.seed}"
                        figures.failures.append(explain(made[name], name, group[: at + 1], folder))
                        print(figures.failures[-1], file=sys.stderr)
                        break  # what comes after a failure says nothing
                figures.shapes.add(name)
                figures.seconds = time.perf_counter() - start
                figures.write(out / "soak.json")
                if figures.networks >= networks:
                    break
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=2000, help="networks to run (2000)")
    parser.add_argument("--shapes", type=int, default=32, help="engine shapes to run them on (32)")
    parser.add_argument(
        "--first-seed", type=int, default=1_000_000, help="where the seeds begin: other seeds, other networks"
    )
    parser.add_argument("--shape", help="this shape only, by its name")
    parser.add_argument("--seeds", help="these networks only, one after another: 17,18 (with --shape)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    given = parser.parse_args()
    engines = random_engines(given.shapes)
    if given.shape is not None:
        if given.shape not in engines:
            parser.error(f"there is no shape {given.shape}; there are {', '.join(engines)}")
        engines = {given.shape: engines[given.shape]}
    seeds = [int(seed) for seed in given.seeds.split(",")] if given.seeds else None
    if seeds and given.shape is None:
        parser.error("--seeds needs --shape")
    figures = soak(engines, len(seeds) if seeds else given.networks, given.first_seed, given.out, seeds=seeds)
    print(
        f"{figures.networks} networks on {len(figures.shapes)} shapes, {len(figures.bit_pairs)} of 64 bit pairs:"
        f" {figures.tensors} tensors, {figures.mismatches} mismatches, {figures.seconds:.0f} s."
    )
    return 1 if figures.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
