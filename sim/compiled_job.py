"""Runs one job on the compiled path: ``python -m sim.compiled_job FOLDER`` (see :mod:`sim.job`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sim.compiled import CompiledEngine, MemoryTiming, SimulationError
from sim.job import IDLE_CYCLES_AFTER, STATUS_ERROR, Layout, Result, Setting, stopped, stuck
from sim.monitor import TensorMonitor
from sim.replay import Replay

_CHUNK_CYCLES = 50_000  # between two of them events are compared, and progress is told


def simulate(
    engine: CompiledEngine,
    layout: Layout,
    monitor: TensorMonitor,
    limit: int,
    progress: Callable[[int], None] = lambda _done: None,
) -> Result:
    """One whole run on an engine that is idle: fill the memory, start, compare everything.

    Args:
        limit: cycles after which the engine counts as stuck. progress: called with the images that are done.
    """
    replay = Replay(monitor)
    first_issue: list[tuple[int, int]] = []
    problem = ""
    counters: dict[str, int] = {}
    watched = engine.cycles
    layout.fill(engine.memory)

    def compare() -> None:
        events = engine.take_events()
        first_issue.extend(events.first_issue)
        replay.feed(events)
        progress(engine.logits_seen)

    try:
        for name, value in layout.registers():
            engine.write_register(name, value)
        engine.watch()
        start = watched = engine.cycles
        while not engine.run(min(_CHUNK_CYCLES, limit - (engine.cycles - start))):
            compare()
            if engine.cycles - start >= limit:
                problem = stuck(limit, engine.logits_seen)
                break
        if not problem and engine.read_register("status") & STATUS_ERROR:
            problem = stopped(engine.read_register("error"), engine.read_register("error_info"))
        if not problem:
            engine.step(IDLE_CYCLES_AFTER)
    except SimulationError as error:
        problem = f"The simulation ended early: {error}."
    ended = engine.cycles - watched
    compare()
    replay.finish()
    if not problem:
        for index, logits in enumerate(layout.logits(engine.memory)):
            monitor.logits(index, logits)
    try:
        counters = {name: engine.read_register(name) for name in layout.counters}
        layers = engine.read_register("layer") >> 8
        if not problem and layers != layout.last_layers:
            problem = f"The layer register ends with {layers:#08x} above fetch's byte, not {layout.last_layers:#08x}."
    except SimulationError as error:
        problem = problem or f"The simulation ended early: {error}."
    return Result.of(problem, monitor.finish(), first_issue, counters, layout.predictions(engine.memory), ended)


def run(folder: Path) -> Result:
    """Run the job of a folder, compare everything, tell progress in its file ``progress``."""
    setting = Setting(folder)
    job = setting.job
    monitor = TensorMonitor(setting.plan, setting.golden, first_image=job.first_image)
    timing = MemoryTiming(job.latency, job.stall, job.outstanding, job.beats_per_cycle, job.seed)
    waves = Path(job.waves) if job.waves else None

    def tell(done: int) -> None:
        (folder / "progress").write_text(str(done))

    with CompiledEngine(Path(job.library), setting.memory_bytes, timing, waves=waves, window=job.window) as engine:
        return simulate(engine, setting, monitor, job.limit, tell)


def main() -> None:
    folder = Path(sys.argv[1])
    run(folder).write(folder)


if __name__ == "__main__":
    main()
