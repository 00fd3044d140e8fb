"""Network after network on one engine that is never cleaned: what the soak and the tests of random networks run.

A station is a compiled engine with its memory. Registers and buffers come up with random values; each network finds them as
the one before left them; runs are interrupted on purpose before they are repeated. Everything follows from seeds.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig
from hwgen.network import Network, Weighted
from hwgen.network_file import read_network, write_network
from hwgen.program import assemble
from hwgen.schedule import Schedule, schedule
from sim import golden
from sim.compiled import CompiledEngine, MemoryTiming
from sim.compiled_job import simulate
from sim.job import START_WITH_INTERRUPT, STATUS_BUSY, STATUS_ERROR, STOP, Layout, Result
from sim.monitor import TensorMonitor

DISTURBANCES = ("reset", "stop", "start", "read error", "write error")
_MEMORY_BYTES = 1 << 24
_PATIENCE = 20
_RESPONSES = (2, 3)  # SLVERR, DECERR


class DoesNotFitError(Exception):
    """The program, its images and its logits are larger than a station's memory."""


@dataclass(frozen=True)
class Work:
    """One network that has gone through its file, its images uint8 (N, H, W, C), and what they must give.

    disturbance: one of DISTURBANCES that comes first, or empty. Odd seeds put the images into memory as (C, H, W), where
    the program can read them so.
    """

    network: Network
    images: NDArray[np.uint8]
    plan: Schedule
    program: bytes
    tensors: dict[str, NDArray[np.integer]] = field(repr=False)
    seed: int = 1
    disturbance: str = ""

    def layout(self, kind: type[Layout] = Layout) -> Layout:
        """Where everything lies in memory."""
        return kind(
            self.plan, self.program, self.images, self.seed, planar=bool(self.seed % 2) and not self.plan.channels_last
        )

    def bit_pairs(self) -> set[tuple[int, int]]:
        """(weight bits, activation bits) of the network's multiplications."""
        nodes = [node for node in self.network.nodes if isinstance(node, Weighted)]
        return {(node.weight_bits, self.network.tensors[node.inputs[0]].bits) for node in nodes}


def prepare(
    network: Network,
    images: NDArray[np.uint8],
    engine: EngineConfig,
    seed: int = 1,
    disturbance: str = "",
    *,
    batch: int = 1,
) -> Work:
    """Write and read the network file, plan, assemble, and ask the golden model.

    Args:
        batch: images that run together; it divides their number.

    Raises:
        InputError: the engine cannot run or hold the network.
        DoesNotFitError: a station's memory cannot.
    """
    with tempfile.TemporaryDirectory(prefix="bitsmith-soak-") as scratch:
        write_network(network, Path(scratch) / "network")
        back = read_network(Path(scratch) / "network")
    plan = schedule(back, engine, batch)
    work = Work(back, images, plan, assemble(plan.program), dict(golden.run(network, images)), seed, disturbance)
    if work.layout().memory_bytes > _MEMORY_BYTES:
        raise DoesNotFitError(network.name)
    return work


def spoil_clashes(sources: Sequence[Path]) -> list[Path]:
    """Make a memory give wrong bits where a row is read while it is written, which ``bs_ram`` leaves open.

    Args:
        sources: of a rendered engine; ``bs_ram.sv`` is rewritten in place.

    Returns:
        The same sources.
    """
    source = next(path for path in sources if path.name == "bs_ram.sv")
    text, reads = source.read_text(encoding="utf-8"), "<= mem[raddr_i];"
    if text.count(reads) != 1:
        raise RuntimeError(f"{source.name} does not read its memory in one place")
    spoilt = text.replace(reads, "<= mem[raddr_i] ^ {WIDTH{we_i != '0 && waddr_i == raddr_i}};")
    source.write_text(spoilt, encoding="utf-8")
    return list(sources)


def words_read(work: Work) -> list[int]:
    """Byte addresses of the program's words that a run reads: not those between its parts."""
    program = work.plan.program
    instructions = sum(len(stream) for stream in program.streams)
    found = list(range(0, 8 * (isa.HEADER_WORDS + instructions * isa.WORDS + 1), 8))
    for item in program.fetch:
        if item.op.name == "load_weights":
            size = item.values["rows"] * work.plan.engine.row_chunks * 8
        elif item.op.name == "load_params":
            size = item.values["channels"] * 16
        else:
            continue
        found += range(item.values["offset"], item.values["offset"] + size, 8)
    return found


def _random_timing(seed: int) -> MemoryTiming:
    rng = random.Random(seed)
    least = rng.randint(1, 30)
    return MemoryTiming(
        latency=(least, least + rng.choice([0, 10, 90])),
        stall=rng.choice([0.0, 0.1, 0.3, 0.5]),
        outstanding=rng.choice([1, 2, 8, 16]),
        beats_per_cycle=rng.choice([None, None, 4 / 3, 0.5]),
        seed=seed,
    )


class Station:
    """A running engine. Use it as a context manager.

    Args:
        library: of the compiled engine. seed: of the memory's latencies and pauses, and of what registers and buffers hold
            at power-up. timing: of the memory; None: drawn from the seed, fast or slow, with few or many bursts.
        layout: where a run's memory and registers come from. patience: how many times as long as it should a run may take
            before it counts as stuck.
    """

    def __init__(
        self,
        library: Path,
        seed: int,
        timing: MemoryTiming | None = None,
        layout: type[Layout] = Layout,
        patience: int = _PATIENCE,
    ) -> None:
        self._layout, self.patience = layout, patience
        self.engine = CompiledEngine(library, _MEMORY_BYTES, timing or _random_timing(seed))

    def __enter__(self) -> Station:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()

    def run(self, work: Work) -> Result:
        """The disturbance, then a whole run with everything compared. A wrong answer to a disturbance is a problem, too."""
        layout = work.layout(self._layout)
        wrong = self._disturb(work, layout) if work.disturbance else ""
        monitor = TensorMonitor(work.plan, work.tensors)
        per_image = time_program(work.plan).cycles_per_image + 4 * work.plan.image_bytes
        limit = self.patience * (10_000 + len(work.images) * per_image + len(work.program))
        result = simulate(self.engine, layout, monitor, limit)
        if wrong:
            result.problem = f"{wrong} {result.problem}".strip()
        return result

    def _disturb(self, work: Work, layout: Layout) -> str:
        """A run that ends badly; empty, or what it did that is not documented."""
        engine, kind = self.engine, work.disturbance
        rng = random.Random(work.seed)
        layout.fill(engine.memory)
        if kind == "read error":
            place = rng.choice([0, layout.image_addr, rng.choice(words_read(work))])
            engine.fail(place, place + 8, rng.choice(_RESPONSES))
        elif kind == "write error":
            engine.fail(layout.output_addr, layout.output_addr + 8, rng.choice(_RESPONSES))
        for name, value in layout.registers():
            engine.write_register(name, value)
        if kind in ("read error", "write error"):
            expected = isa.Error.AXI_READ if kind == "read error" else isa.Error.AXI_WRITE
            ended = engine.run(self.patience * (10_000 + 5 * len(work.program)))
            engine.heal()
            return self._expect(kind, expected) if ended else f"After a {kind} the engine has not ended."
        engine.step(rng.randint(0, 2000))
        if kind == "reset":
            engine.reset()
            return self._expect(kind, isa.Error.NONE)
        if kind == "stop":
            engine.write_register("control", STOP)
            for _ in range(100 * self.patience):
                if not engine.read_register("status") & STATUS_BUSY:
                    return ""
                engine.step(100)
            return "After a stop the engine stays busy."
        if engine.read_register("status") & STATUS_BUSY:
            engine.write_register("control", START_WITH_INTERRUPT)
            # The run may have come to its end between the two accesses.
            engine.run(10_000 * self.patience)
            if engine.read_register("status") & STATUS_ERROR:
                return self._expect(kind, isa.Error.BUSY)
        return ""

    def _expect(self, kind: str, error: isa.Error) -> str:
        found = isa.Error(self.engine.read_register("error"))
        busy = self.engine.read_register("status") & STATUS_BUSY
        if found is error and not busy:
            return ""
        return f"After a {kind} the error is {found.name}{' and the engine is busy' if busy else ''}, not {error.name}."
