"""One verification run: which images on which build, where everything lies in memory, and what came out.

:mod:`sim.verify` writes a job into a folder; the simulation, in another process, reads it there and leaves its result
beside it: ``sim/tb_system.py`` under cocotb, ``sim/compiled_job.py`` on the compiled path.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from hwgen.build import Build, read_build
from hwgen.network_file import write_arrays
from hwgen.schedule import Schedule
from sim.compiled import MemoryTiming
from sim.monitor import Tally

STATUS_BUSY, STATUS_DONE, STATUS_ERROR = 1, 2, 4
START_WITH_INTERRUPT = 5
STOP = 2
IDLE_CYCLES_AFTER = 64  # after the interrupt: a write that comes too late is still seen
_WATCHDOG = 1 << 16
_PAGE = 4096
_COUNTERS = (
    "images_done",
    "cycles",
    "fetch_cycles",
    "fill_cycles",
    "issue_cycles",
    "write_back_cycles",
    "read_beats",
    "write_beats",
)


@dataclass(frozen=True)
class Job:
    """What to run.

    Args:
        build: the build folder.
        seed: of the memory's latencies, pauses and first contents.
        latency: least and most cycles of a memory access. stall: chance per cycle that a memory channel pauses.
        beats_per_cycle: 8-byte beats that all ports move per cycle; None: no limit.
        outstanding: bursts that memory accepts per port and direction.
        limit: cycles after which the engine counts as stuck.
        first_image: number of the first image in messages.
        library: of the compiled path. waves: file that the compiled path records. window: its first and last cycle, since
            the start; None: the whole run.
    """

    build: str
    seed: int
    latency: tuple[int, int]
    stall: float
    limit: int
    beats_per_cycle: float | None = None
    outstanding: int = MemoryTiming.outstanding
    first_image: int = 0
    library: str = ""
    waves: str = ""
    window: tuple[int, int] | None = None

    def write(self, folder: Path, images: NDArray[np.uint8], golden: Mapping[str, NDArray[np.integer]]) -> None:
        """Leave the job in a folder, made if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", images)
        write_arrays(folder / "golden.npz", golden)
        self.rewrite(folder)

    def rewrite(self, folder: Path) -> None:
        """Change the settings of a job in its folder; images and golden tensors stay."""
        (folder / "job.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job of a folder."""
        facts = json.loads((folder / "job.json").read_text())
        window = facts["window"]
        return cls(**{**facts, "latency": tuple(facts["latency"]), "window": None if window is None else tuple(window)})


@dataclass
class Result:
    """What came out.

    problem: empty, or why the run did not end well. first_issue: (cycle, layer) of each band's first word. predictions:
    arg-max of the logits in memory, the lowest index of equal ones. first_wrong: cycle of the first wrong write of a buffer
    since the start; ended: cycle in which the run ended; None where unknown. The rest as in :class:`sim.monitor.Tally`.
    """

    problem: str
    tensors: int
    wrong: int
    mismatches: list[str]
    compared: dict[str, int]
    wrong_by_tensor: dict[str, int]
    first_issue: list[tuple[int, int]]
    counters: dict[str, int]
    predictions: list[int] = field(default_factory=list)
    first_wrong: int | None = None
    ended: int | None = None

    @classmethod
    def of(
        cls,
        problem: str,
        tally: Tally,
        first_issue: list[tuple[int, int]],
        counters: dict[str, int],
        predictions: list[int],
        ended: int | None = None,
    ) -> Result:
        return cls(
            problem, tally.tensors, tally.wrong, [str(item) for item in tally.mismatches], dict(tally.compared),
            dict(tally.wrong_by_tensor), first_issue, counters, [] if problem else predictions,
            min((item.cycle for item in tally.mismatches if item.cycle is not None), default=None), ended,
        )  # fmt: skip

    def write(self, folder: Path) -> None:
        (folder / "result.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Result:
        return cls(**json.loads((folder / "result.json").read_text()))

    @classmethod
    def joined(cls, parts: list[Result], most: int = 20) -> Result:
        """One result of several runs over consecutive images; the first issues are those of the first run."""
        compared: Counter[str] = Counter()
        wrong: Counter[str] = Counter()
        counters: Counter[str] = Counter()
        for part in parts:
            compared.update(part.compared)
            wrong.update(part.wrong_by_tensor)
            counters.update(part.counters)
        return cls(
            " ".join(dict.fromkeys(part.problem for part in parts if part.problem)),
            sum(part.tensors for part in parts),
            sum(part.wrong for part in parts),
            [line for part in parts for line in part.mismatches][:most],
            dict(compared),
            dict(wrong),
            parts[0].first_issue,
            dict(counters),
            [guess for part in parts for guess in part.predictions],
        )


class Layout:
    """The memory map of a run: program, images, logits, and garbage between them.

    Args:
        program: as assembled. images: uint8 (N, H, W, C). seed: of the garbage. planar: they lie in memory as (C, H, W).
    """

    def __init__(
        self, plan: Schedule, program: bytes, images: NDArray[np.uint8], seed: int, *, planar: bool = False
    ) -> None:
        self.plan, self.program, self.images, self.seed, self.planar = plan, program, images, seed, planar
        self.image_stride = _up(plan.image_bytes, 8)
        self.output_stride = _up(plan.logits_rows * 4, 8)
        self.image_addr = _up(len(program), _PAGE)
        self.output_addr = self.image_addr + _up(self.image_stride * len(images), _PAGE)
        self.memory_bytes = self.output_addr + self.output_stride * len(images) + _PAGE

    def fill(self, memory: NDArray[np.uint8]) -> None:
        """Put program and images into memory; the rest of the run's room becomes garbage."""
        size = min(self.memory_bytes, len(memory))
        memory[:size] = np.random.default_rng(self.seed).integers(0, 256, size, np.uint8)
        memory[: len(self.program)] = np.frombuffer(self.program, np.uint8)
        for index, image in enumerate(self.images):
            start = self.image_addr + index * self.image_stride
            memory[start : start + image.size] = (image.transpose(2, 0, 1) if self.planar else image).ravel()

    def registers(self) -> list[tuple[str, int]]:
        """What to write, in this order; the last one starts the run."""
        return [
            ("watchdog", _WATCHDOG),
            ("program_addr", 0),
            ("image_addr", self.image_addr),
            ("image_stride", self.image_stride),
            ("output_addr", self.output_addr),
            ("output_stride", self.output_stride),
            ("image_count", len(self.images)),
            ("image_planar", int(self.planar)),
            ("control", START_WITH_INTERRUPT),
        ]

    @property
    def counters(self) -> tuple[str, ...]:
        """Registers to read after a run."""
        return _COUNTERS

    @property
    def last_layers(self) -> int:
        """What the layer register holds above fetch's byte after a run: the layers of the last instructions."""
        execute, write_back = (stream[-1]["layer"] for stream in self.plan.program.streams[1:])
        return write_back << 16 | execute << 8 | execute

    def logits(self, memory: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
        """Each image's logits as they lie in memory, classes rounded up to whole row tiles."""
        starts = [self.output_addr + index * self.output_stride for index in range(len(self.images))]
        return [memory[start : start + self.plan.logits_rows * 4].view("<i4") for start in starts]

    def predictions(self, memory: NDArray[np.uint8]) -> list[int]:
        classes = self.plan.passes[-1].code.shape[2]
        return [int(row[:classes].argmax()) for row in self.logits(memory)]


class Setting(Layout):
    """A job's build, images and golden tensors, and where they lie in memory."""

    def __init__(self, folder: Path) -> None:
        self.job = Job.read(folder)
        self.build: Build = read_build(Path(self.job.build))
        golden = np.load(folder / "golden.npz", allow_pickle=False)
        self.golden = {name: golden[name] for name in golden.files}
        super().__init__(
            self.build.schedule, self.build.program.read_bytes(), np.load(folder / "images.npy"), self.job.seed
        )


def stuck(cycles: int, images: int) -> str:
    """The sentence for a run over its limit."""
    return f"The engine has not finished after {cycles} cycles; {images} images are done."


def stopped(code: int, info: int) -> str:
    """The sentence for a run that ended with an error."""
    error = isa.Error(code)
    return f"The engine stopped with error {error.name}: {isa.ERROR_MEANING[error]} (information {info:#010x})."


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
