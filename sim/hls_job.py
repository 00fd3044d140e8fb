"""Runs one job in C simulation of the HLS kernel: ``python -m sim.hls_job FOLDER`` (see :mod:`sim.job`)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sim.compiled import Events
from sim.hls import run_kernel
from sim.job import STATUS_DONE, Layout, Result, Setting, stopped
from sim.monitor import TensorMonitor
from sim.replay import Replay


def simulate(program: Path, layout: Layout, monitor: TensorMonitor) -> Result:
    """One whole run of a compiled kernel: fill the memory, run, compare everything.

    Args:
        program: as :func:`sim.hls.compile_kernel` gives it.
    """
    memory = np.empty(-(-layout.memory_bytes // 8) * 8, np.uint8)
    layout.fill(memory)
    done = run_kernel(program, layout.plan.engine, memory, dict(layout.registers()))
    problem = ""
    if not done.registers["status"] & STATUS_DONE:
        problem = stopped(done.registers["error"], done.registers["error_info"])
    replay = Replay(monitor)
    replay.feed(Events(done.planes, done.bytes, []))
    replay.finish()
    if not problem:
        for index, logits in enumerate(layout.logits(done.memory)):
            monitor.logits(index, logits)
    counters = {name: done.registers[name] for name in layout.counters}
    return Result.of(problem, monitor.finish(), [], counters, layout.predictions(done.memory))


def run(folder: Path) -> Result:
    """Run the job of a folder and compare everything."""
    setting = Setting(folder)
    monitor = TensorMonitor(setting.plan, setting.golden, first_image=setting.job.first_image)
    return simulate(Path(setting.job.library), setting, monitor)


def main() -> None:
    folder = Path(sys.argv[1])
    run(folder).write(folder)


if __name__ == "__main__":
    main()
