"""Runs one job in C simulation of the HLS kernel: ``python -m sim.hls_job FOLDER`` (see :mod:`sim.job`)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sim.compiled import Events
from sim.hls import run_kernel
from sim.job import STATUS_DONE, Result, Setting, stopped
from sim.monitor import TensorMonitor
from sim.replay import Replay


def run(folder: Path) -> Result:
    """Run the job of a folder and compare everything."""
    setting = Setting(folder)
    job = setting.job
    monitor = TensorMonitor(setting.plan, setting.golden, first_image=job.first_image)
    memory = np.empty(-(-setting.memory_bytes // 8) * 8, np.uint8)
    setting.fill(memory)
    done = run_kernel(Path(job.library), setting.build.engine, memory, dict(setting.registers()))
    problem = ""
    if not done.registers["status"] & STATUS_DONE:
        problem = stopped(done.registers["error"], done.registers["error_info"])
    replay = Replay(monitor)
    replay.feed(Events(done.planes, done.bytes, []))
    replay.finish()
    if not problem:
        for index, logits in enumerate(setting.logits(done.memory)):
            monitor.logits(index, logits)
    counters = {name: done.registers[name] for name in setting.counters}
    return Result.of(problem, monitor.finish(), [], counters, setting.predictions(done.memory))


def main() -> None:
    folder = Path(sys.argv[1])
    run(folder).write(folder)


if __name__ == "__main__":
    main()
