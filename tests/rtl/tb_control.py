"""cocotb tests of bs_control: runs and their ends, cycle by cycle against a model of what the module promises."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge
from shell_bench import reset

from hwgen.isa import Error, Stage
from sim.axi_memory import reader, writer

ONES = (1 << 32) - 1
PAUSE = 4  # cycles of a reset of the stages, and of the launch
EVENTS = ("start_i", "stop_i", "read_error_i", "write_error_i", "load_error_i", "fetch_error_i", "load_done_i")


@dataclass(frozen=True)
class Inputs:
    """Of one cycle; buses as in the ports, the lowest element in the lowest bits."""

    rst: int = 0
    start_i: int = 0
    stop_i: int = 0
    irq_enable_i: int = 0
    watchdog_i: int = 0
    image_count_i: int = 1
    active_i: int = 0
    layer_i: int = 0
    read_beats_i: int = 0
    write_beat_i: int = 0
    progress_i: int = 1
    load_done_i: int = 0
    queues_finished_i: int = 0
    stages_idle_i: int = 0
    images_done_i: int = 0
    masters_idle_i: int = 0
    load_error_i: int = 0
    load_error_code_i: int = 0
    load_error_info_i: int = 0
    fetch_error_i: int = 0
    fetch_error_info_i: int = 0
    read_error_i: int = 0
    write_error_i: int = 0

    def layer(self, stage: int) -> int:
        return self.layer_i >> 8 * stage & 0xFF


@dataclass
class Model:
    """Registers after each edge. phase: where a run is; age: edges since the phase began."""

    phase: str = "idle"
    age: int = 0
    failed: int = 0
    quiet: int = 0
    pending: tuple[int, int] | None = None  # code and info of an error that is shown an edge later
    out: dict[str, int] = field(default_factory=dict)
    # What was true before each of the last edges, the latest last: phase, inputs, quiet cycles.
    past: deque[tuple[str, Inputs, int]] = field(default_factory=lambda: deque(maxlen=4))

    def __post_init__(self) -> None:
        names = (
            "load_o",
            "load_start_o",
            "queues_start_o",
            "done_o",
            "error_o",
            "error_code_o",
            "error_info_o",
            "core_rst_o",
        )
        counters = ("images_done_o", "cycles_o", "active_cycles_o", "read_beats_o", "write_beats_o")
        self.out = dict.fromkeys((*names, *counters), 0)

    @property
    def running(self) -> bool:
        return self.phase in ("clear", "load", "launch", "run")

    def _before(self, edges: int) -> tuple[str, Inputs, int]:
        return self.past[-edges]

    def _complete(self) -> bool:
        """Nothing is left to start or to finish, all images are in memory and the masters are idle, each seen when it was."""
        (phase_1, _, _), (phase_2, now, _), (_, before, _) = self._before(1), self._before(2), self._before(3)
        return (
            phase_1 == phase_2 == "run"
            and before.queues_finished_i == 7
            and bool(before.stages_idle_i)
            and now.images_done_i >= now.image_count_i
            and bool(now.masters_idle_i)
        )

    def _stopped(self) -> bool:
        phase, given, _ = self._before(2)
        return phase == "stop" and bool(given.masters_idle_i)

    def _fault(self, given: Inputs) -> tuple[int, int] | None:
        """Code and info of what ends a run now."""
        if given.read_error_i:
            return Error.AXI_READ, Stage.FETCH << 24 | given.layer(0) << 16
        if given.write_error_i:
            return Error.AXI_WRITE, Stage.WRITE_BACK << 24 | given.layer(3) << 16
        if given.load_error_i:
            return given.load_error_code_i, given.load_error_info_i
        if given.fetch_error_i:
            return Error.ADDRESS, given.fetch_error_info_i
        if given.start_i:
            return Error.BUSY, 0
        phase, earlier, quiet = self._before(1)
        if phase in ("clear", "load", "launch", "run") and 0 < earlier.watchdog_i <= quiet:
            if not given.queues_finished_i & 1 or self.phase == "load":
                return Error.WATCHDOG, Stage.FETCH << 24 | given.layer(0) << 16
            if not given.queues_finished_i & 2:
                return Error.WATCHDOG, Stage.EXECUTE << 24 | given.layer(2) << 16
            return Error.WATCHDOG, Stage.WRITE_BACK << 24 | given.layer(3) << 16
        return None

    def edge(self, given: Inputs) -> None:
        """What a rising edge does with these inputs."""
        out, running, began = dict(self.out), self.running, self.phase
        fault = self._fault(given) if running else None
        out |= {"load_start_o": 0, "queues_start_o": 0}
        out["core_rst_o"] = int(given.rst or (self.phase in ("clear", "clean") and self.age < PAUSE - 1))
        self._count(out, given, running)
        phase = self._next(out, given)
        if fault:
            phase, self.failed = "stop", 1
            out |= {"load_o": 0, "load_start_o": 0, "queues_start_o": 0, "done_o": 0}
        if self.pending:
            out["error_code_o"], out["error_info_o"] = self.pending
        self.pending = fault if not given.stop_i and not given.rst else None
        nothing = dict.fromkeys(
            ("load_o", "load_start_o", "queues_start_o", "done_o", "error_o", "error_code_o", "error_info_o"), 0
        )
        if given.stop_i and (running or began == "idle"):
            phase, self.failed = "stop", 0
            out |= nothing
        if given.rst:
            phase, self.failed = "idle", 0
            out |= nothing
        self.past.append((began, given, self.quiet))
        self.quiet = 0 if given.progress_i or not running else self.quiet + 1
        self.age = self.age + 1 if phase == began else 0
        self.phase, self.out = phase, out

    def _next(self, out: dict[str, int], given: Inputs) -> str:
        """The phase behind this one, were there no error, stop or reset; what it starts."""
        match self.phase:
            case "idle" if given.start_i:
                out |= {"done_o": 0, "error_o": 0, "error_code_o": 0, "error_info_o": 0}
                self.failed = 0
                return "clear"
            case "clear" if self.age == PAUSE - 1:
                out |= {"load_o": 1, "load_start_o": 1}
                return "load"
            case "load" if given.load_done_i:
                out |= {"load_o": 0, "queues_start_o": 1}
                return "launch"
            case "launch" if self.age == PAUSE - 1:
                return "run"
            case "run" if self._complete():
                out["done_o"] = 1
                return "idle"
            case "stop" if self._stopped():
                return "clean"
            case "clean" if self.age == PAUSE - 1:
                out["error_o"] = self.failed
                return "idle"
        return self.phase

    def _count(self, out: dict[str, int], given: Inputs, running: bool) -> None:
        """Cleared before a run, kept behind it; a stage's work counts an edge later."""
        if given.rst or self.phase == "clear":
            out |= dict.fromkeys(("images_done_o", "cycles_o", "active_cycles_o", "read_beats_o", "write_beats_o"), 0)
        elif running:
            active = self._before(1)[1].active_i
            out["cycles_o"] += 1
            out["read_beats_o"] += given.read_beats_i.bit_count()
            out["write_beats_o"] += given.write_beat_i
            out["active_cycles_o"] += sum((active >> stage & 1) << 32 * stage for stage in range(4))
            out["images_done_o"] = given.images_done_i


class TB:
    """Drives the module and compares every output between any two edges."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.rng = dut, random.Random(seed)
        self.model = Model()
        self.given = Inputs(rst=1)

    async def begin(self) -> None:
        for name, value in vars(self.given).items():
            getattr(self.dut, name).value = value
        await reset(self.dut)
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        await FallingEdge(self.dut.clk)
        self.read = {name: reader(getattr(self.dut, name)) for name in (*self.model.out, "busy_o", "abort_o", "irq_o")}
        self.write: dict[str, Callable[[int], None]] = {
            name: writer(getattr(self.dut, name)) for name in vars(self.given)
        }
        for _ in range(4):
            self.model.edge(self.given)

    async def cycle(self, **changes: int) -> None:
        """One cycle with some inputs changed, events for this cycle alone."""
        given = replace(self.given, **(dict.fromkeys(EVENTS, 0) | {"rst": 0} | changes))
        for name, value in vars(given).items():
            if value != getattr(self.given, name):
                self.write[name](value)
        self.given = given
        self.model.edge(given)
        await FallingEdge(self.dut.clk)
        model = self.model
        wanted = model.out | {
            "busy_o": int(model.phase != "idle"),
            "abort_o": int(model.phase in ("stop", "clean")),
            "irq_o": int(given.irq_enable_i and (model.out["done_o"] or model.out["error_o"])),
        }
        found = {name: read() for name, read in self.read.items()}
        assert found == wanted, {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}

    def noise(self) -> dict[str, int]:
        """What the stages and masters do, at random, and words that only matter with an event."""
        rng = self.rng
        return {
            "active_i": rng.getrandbits(4),
            "layer_i": rng.getrandbits(32),
            "read_beats_i": rng.getrandbits(2),
            "write_beat_i": rng.getrandbits(1),
            "load_error_code_i": rng.getrandbits(8),
            "load_error_info_i": rng.getrandbits(32),
            "fetch_error_info_i": rng.getrandbits(32),
        }

    async def start(self, **settings: int) -> None:
        """Begin a run; everything is unfinished."""
        nothing = {"queues_finished_i": 0, "stages_idle_i": 0, "images_done_i": 0, "masters_idle_i": 0}
        await self.cycle(start_i=1, **nothing, **settings)

    async def until(self, phase: str, limit: int = 60, **inputs: int) -> None:
        for _ in range(limit):
            if self.model.phase == phase:
                return
            await self.cycle(**self.noise(), **inputs)
        raise AssertionError(f"no {phase} within {limit} cycles")

    async def finish(self, images: int) -> None:
        """Everything comes to an end, one thing after another in any order, each once also for too short a time."""
        rng = self.rng
        last = {"queues_finished_i": 7, "stages_idle_i": 1, "images_done_i": images, "masters_idle_i": 1}
        for missing in rng.sample(sorted(last), 4):
            short = last | {missing: rng.choice([3, 5, 6]) if missing == "queues_finished_i" else max(images - 1, 0)}
            if missing in ("stages_idle_i", "masters_idle_i"):
                short[missing] = 0
            for _ in range(rng.randint(1, 6)):
                await self.cycle(**self.noise(), **short)
            if self.model.phase != "run":
                break
        await self.until("idle", **last)
        for _ in range(rng.randint(1, 5)):
            await self.cycle(**self.noise())


@cocotb.test()
async def runs_end_as_they_should(dut: Any) -> None:
    """Runs of random lengths with done, each counter, and numbers of images whose bits all matter."""
    tb = TB(dut, 1)
    await tb.begin()
    for turn in range(70):
        images = tb.rng.choice([1, 2, 1 << tb.rng.randrange(32), tb.rng.randrange(1, 1 << 32)])
        await tb.start(
            image_count_i=images, irq_enable_i=turn & 1, watchdog_i=tb.rng.choice([0, 1 << tb.rng.randrange(12, 32)])
        )
        await tb.until("load")
        for _ in range(tb.rng.randint(0, 12)):
            await tb.cycle(**tb.noise(), images_done_i=tb.rng.getrandbits(32), progress_i=tb.rng.getrandbits(1))
        await tb.cycle(load_done_i=1, images_done_i=0)
        await tb.until("run")
        for _ in range(tb.rng.choice([0, 3, 50, 300])):
            await tb.cycle(**tb.noise(), images_done_i=tb.rng.randrange(images), progress_i=tb.rng.getrandbits(1))
        await tb.finish(images)
        await tb.cycle(irq_enable_i=1 - (turn & 1))


@cocotb.test()
async def everything_that_ends_a_run(dut: Any) -> None:
    """Errors, a second start, stop and reset in every phase; the masters take their time, then the next run is right."""
    tb = TB(dut, 2)
    await tb.begin()
    causes = ("read_error_i", "write_error_i", "load_error_i", "fetch_error_i", "start_i", "stop_i", "rst")
    for turn in range(420):
        phase = ("clear", "load", "launch", "run", "stop", "clean", "idle")[turn % 7]
        await tb.start(image_count_i=tb.rng.randint(1, 3), irq_enable_i=1, watchdog_i=0)
        if phase in ("load", "launch", "run"):
            await tb.until("load")
        if phase in ("launch", "run"):
            await tb.cycle(load_done_i=1)
            await tb.until(phase)
        if phase in ("stop", "clean", "idle"):
            await tb.cycle(stop_i=1)
            if phase != "stop":
                await tb.until(phase, masters_idle_i=1)
        for _ in range(tb.rng.randint(0, 3)):
            if tb.model.phase == phase:
                await tb.cycle(**tb.noise())
        # One cause, or some at once: the first of them in the list of errors is told.
        chosen = tb.rng.sample(causes, tb.rng.choice([1, 1, 1, 2, 3]))
        await tb.cycle(**tb.noise(), **dict.fromkeys(chosen, 1))
        for _ in range(tb.rng.randint(0, 6)):
            await tb.cycle(**tb.noise(), masters_idle_i=0)
        if tb.model.running:
            await tb.cycle(stop_i=1)
        if tb.model.phase == "stop":
            await tb.cycle(**tb.noise(), masters_idle_i=1, **{tb.rng.choice(causes[:4]): 1})
        await tb.until("idle", masters_idle_i=1)
        await tb.cycle(**tb.noise())


@cocotb.test()
async def the_watchdog(dut: Any) -> None:
    """It bites after so many cycles without progress, in each phase, and names the stage that waits."""
    tb = TB(dut, 3)
    await tb.begin()
    limits = [
        1,
        2,
        3,
        5,
        17,
        64,
        129,
        300,
        515,
        *(1 << bit for bit in range(2, 11)),
        *(tb.rng.randint(4, 900) for _ in range(8)),
    ]
    for turn, limit in enumerate(limits * 2):
        await tb.start(image_count_i=9, watchdog_i=limit, progress_i=1, irq_enable_i=1)
        await tb.until("load")
        if turn % 3:
            await tb.cycle(load_done_i=1)
            await tb.until("run")
        finished = tb.rng.getrandbits(3)
        for _ in range(tb.rng.choice([0, limit // 2, max(limit - 2, 0)])):
            await tb.cycle(**tb.noise(), progress_i=0, queues_finished_i=finished)
        if limit > 3:
            await tb.cycle(**tb.noise(), progress_i=1)
        await tb.until("stop", limit=limit + 4, progress_i=0)
        await tb.until("idle", masters_idle_i=1)
    await tb.start(image_count_i=1, watchdog_i=0, progress_i=0)
    for _ in range(200):
        await tb.cycle(**tb.noise())
    assert tb.model.running
