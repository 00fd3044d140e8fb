"""Whole-network verification: the RTL of a build against the integer golden model, tensor by tensor."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hwgen.build import Build, read_build
from hwgen.cycles import layer_spans, time_program
from hwgen.errors import InputError
from hwgen.network import Network
from hwgen.passes import ArrayPass, MeanPass
from hwgen.schedule import Schedule
from sim import failure, golden, verilator
from sim.compiled import PUBLIC, MemoryTiming, compile_engine
from sim.hls import compile_kernel
from sim.job import Job, Result

SIMULATORS = ("compiled", "cocotb", "hls")
_ROOT = Path(__file__).resolve().parent.parent
_LOG_TAIL = 4000
_POLL_S = 0.2
_IMAGES_PER_PROCESS = 4  # a process has to load the program and weights before its first image
Progress = Callable[[str, int, int], None]


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


def choose_images(network: Network, count: int | None, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Images (N, H, W, C) and labels: the network's samples, else seeded random codes and no labels.

    Raises:
        InputError: more images asked for than there are samples, or fewer than one.
    """
    if count is not None and count < 1:
        raise InputError(f"{count} images cannot be verified; ask for at least 1.")
    samples = network.samples
    if samples is not None:
        available = len(samples.images)
        if count is not None and count > available:
            raise InputError(f"{count} images were asked for, the network file holds {available} samples; ask for fewer.")
        chosen = available if count is None else count
        return samples.images[:chosen], samples.labels[:chosen]
    source = network.tensors[network.input]
    rng = np.random.default_rng(seed)
    return rng.integers(0, source.hi + 1, (count or 8, *source.shape), np.uint8), None


def read_images(path: Path, network: Network) -> NDArray[np.uint8]:
    """Images from an .npy file, uint8 (N, H, W, C) within the input tensor's range.

    Raises:
        InputError: unreadable, of another type or shape, or out of range.
    """
    source = network.tensors[network.input]
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError("It is not a readable .npy file of images.", str(path)) from None
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:] != source.shape
    ):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else "several arrays"
        raise InputError(
            f"It holds {found}; the network reads uint8 (N, {', '.join(map(str, source.shape))}).", str(path)
        )
    if len(images) == 0 or images.max() > source.hi:
        raise InputError(f"It must hold at least one image, and codes up to {source.hi} only.", str(path))
    return images


def steady_cycles(plan: Schedule, first_issue: list[tuple[int, int]]) -> tuple[float, list[dict[str, Any]]]:
    """Cycles per image and per layer, from the cycles in which each band's first word was issued (sums: first read).

    The mean over all images but the first two and the last, or over what there is of them.
    """
    array = [index for index, item in enumerate(plan.passes) if isinstance(item, ArrayPass | MeanPass)]
    spans = layer_spans(plan, first_issue)
    if not len(spans):
        return float("nan"), [{"name": plan.passes[layer].name, "cycles": float("nan")} for layer in array]
    steady = np.mean(spans[2:] if len(spans) > 2 else spans[-1:], axis=0) / plan.batch
    layers = [
        {"name": plan.passes[layer].name, "cycles": float(value)} for layer, value in zip(array, steady, strict=True)
    ]
    return float(steady.sum()), layers


def _write_junit(path: Path, build: Build, result: Result) -> None:
    """One test case per tensor, and one for the run itself."""
    suite = ElementTree.Element("testsuite", name=f"bitsmith verify {build.network.name}")
    run = ElementTree.SubElement(suite, "testcase", classname=build.network.name, name="run")
    if result.problem:
        ElementTree.SubElement(run, "failure", message=result.problem)
    failures = int(bool(result.problem))
    for tensor, compared in sorted(result.compared.items()):
        case = ElementTree.SubElement(suite, "testcase", classname=build.network.name, name=tensor)
        wrong = result.wrong_by_tensor.get(tensor, 0)
        if wrong:
            failures += 1
            text = [item for item in result.mismatches if f"tensor '{tensor}'" in item]
            ElementTree.SubElement(case, "failure", message=f"{wrong} wrong values in {compared} maps").text = "\n".join(
                text
            )
    suite.set("tests", str(len(result.compared) + 1))
    suite.set("failures", str(failures))
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def verify(
    path: Path,
    *,
    images: NDArray[np.uint8] | None = None,
    count: int | None = None,
    seed: int = 1,
    simulator: str | None = None,
    processes: int | None = None,
    latency: tuple[int, int] = (20, 60),
    stall: float = 0.1,
    beats_per_cycle: float | None = None,
    outstanding: int = MemoryTiming.outstanding,
    waves: Path | None = None,
    failing_waves: Path | None = None,
    junit: Path | None = None,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Simulate a build's RTL, the whole network through AXI, and compare every tensor of every image.

    Args:
        path: the build folder.
        images: uint8 (N, H, W, C); None: ``count`` of the network's samples (all), else random ones.
        seed: of random images, memory latencies and the garbage that memory holds at first.
        simulator: of the RTL "compiled" (no Python in a cycle) or "cocotb", which see the same cycles; "hls": C
            simulation of the HLS kernel, which has no cycles. None: what the build's backend has.
        processes: of the compiled path, among which the images are divided; None: one per processor core, if each has
            some images to do. Waves are recorded by one process.
        latency: least and most cycles of a memory access. stall: chance per cycle that a memory channel pauses.
        beats_per_cycle: 8-byte beats that all memory ports together move per cycle; None: no limit.
        outstanding: bursts that memory accepts per port and direction before it stops taking addresses.
        waves: folder for a waveform of the whole run. failing_waves: folder for one of the cycles around a failure, written
            only if there is one (see :mod:`sim.failure`). junit: file for a JUnit report.
        progress: called with a stage, steps done and steps in all.

    Returns:
        images, mismatches, tensors_compared, cycles_per_image, layers[{name, cycles}], accuracy (None without labels),
        golden_accuracy, predictions, problem (empty if the run ended well), first_mismatches, counters (summed over the
        processes), simulator, processes, seconds (of simulation), failing_waves (the file, or why there is none; empty).

    Raises:
        InputError: the build, the images or the simulator's name are unusable, or no simulator is installed.
    """
    if simulator not in (None, *SIMULATORS):
        raise InputError(f"There is no simulator '{simulator}'; there are {', '.join(SIMULATORS)}.")
    build = read_build(path)
    simulator = simulator or ("hls" if build.backend == "hls" else "compiled")
    if (simulator == "hls") != (build.backend == "hls"):
        raise InputError(
            f"The build's backend is {build.backend}, which simulator '{simulator}' does not run;"
            f" generate the build with --backend {'hls' if simulator == 'hls' else 'rtl'}.",
            str(path),
        )
    if simulator == "hls" and waves is not None:
        raise InputError("C simulation of an HLS build has no waveform; leave --waves out.", str(path))
    if failing_waves is not None and simulator != "compiled":
        raise InputError(f"Simulator '{simulator}' records no failing window; use 'compiled'.", str(path))
    labels = None
    if images is None:
        images, labels = choose_images(build.network, count, seed)
    # The engine runs whole batches: the last image fills up the last one.
    wanted, batch = len(images), build.batch
    images = np.concatenate([images, np.repeat(images[-1:], -wanted % batch, axis=0)])
    progress("golden model", 0, 1)
    tensors = golden.run(build.network, images)
    progress("golden model", 1, 1)
    parts = 1
    if simulator in ("compiled", "hls") and waves is None:
        parts = processes or min(os.cpu_count() or 1, len(images) // _IMAGES_PER_PROCESS)
        parts = max(min(parts, len(images) // batch), 1)
    progress("compiling the engine", 0, 1)
    run: Callable[[Path], str]
    library = ""
    if simulator == "compiled":
        library = str(compile_engine(build.rtl, trace="vcd" if waves is not None else ""))
        run = partial(_run_process, "sim.compiled_job")
    elif simulator == "hls":
        library = str(compile_kernel(build.hls))
        run = partial(_run_process, "sim.hls_job")
    else:
        model = verilator.build(build.rtl, "bs_top", public=PUBLIC, trace=waves is not None)
        run = partial(_run_cocotb, model, seed, waves)
    progress("compiling the engine", 1, 1)
    if waves is not None:
        waves.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bitsmith-verify-") as scratch:
        folders = []
        for index, batches in enumerate(np.array_split(np.arange(len(images)).reshape(-1, batch), parts)):
            chosen = batches.ravel()
            job = Job(
                build=str(path.resolve()),
                seed=seed + index,
                latency=latency,
                stall=stall,
                beats_per_cycle=beats_per_cycle,
                outstanding=outstanding,
                limit=_limit(build, len(chosen)),
                first_image=int(chosen[0]),
                library=library,
                waves="" if waves is None else str((waves / "dump.vcd").resolve()),
            )
            folders.append(Path(scratch) / str(index))
            job.write(folders[-1], images[chosen], {name: codes[chosen] for name, codes in tensors.items()})
        start = time.perf_counter()
        result = _simulate(run, folders, len(images), progress)
        seconds = time.perf_counter() - start
        recorded = "" if failing_waves is None else _record(build, folders, failing_waves)
    cycles, layers = steady_cycles(build.schedule, result.first_issue)
    best = np.asarray(tensors[build.network.output]).reshape(len(images), -1).argmax(axis=1)[:wanted]
    predictions = result.predictions[:wanted]
    known = labels is not None
    if junit is not None:
        _write_junit(junit, build, result)
    return {
        "images": wanted,
        "mismatches": result.wrong,
        "tensors_compared": result.tensors,
        "cycles_per_image": cycles,
        "layers": layers,
        "accuracy": float(np.mean(np.asarray(predictions) == labels)) if known and not result.problem else None,
        "golden_accuracy": float(np.mean(best == labels)) if known else None,
        "predictions": predictions,
        "problem": result.problem,
        "first_mismatches": result.mismatches,
        "counters": result.counters,
        "simulator": simulator,
        "processes": parts,
        "seconds": round(seconds, 3),
        "failing_waves": recorded,
    }


def _record(build: Build, folders: list[Path], out: Path) -> str:
    """The waveform of the first job that failed; empty where none did, a sentence where it cannot be made."""
    for folder in folders:
        result = Result.read(folder)
        if failure.window(result) is not None:
            try:
                return str(failure.record(build, folder, result, out, partial(_run_process, "sim.compiled_job")))
            except verilator.BuildError as error:
                return f"The failing window is not recorded. {error}"
    return ""


def _limit(build: Build, images: int) -> int:
    """Cycles in which a run over some images certainly ends."""
    per_image = time_program(build.schedule).cycles_per_image + 4 * build.schedule.image_bytes
    return 100_000 + 8 * images * per_image + 64 * len(build.program.read_bytes())


def _run_cocotb(model: verilator.SimBuild, seed: int, waves: Path | None, folder: Path) -> str:
    """Run a job; the end of the log."""
    outcome = model.test(
        "sim.tb_system",
        folder if waves is None else waves,
        env={"BITSMITH_JOB": str(folder)},
        seed=seed,
        waves=waves is not None,
        python_path=[_ROOT],
    )
    return outcome.tail()


def _run_process(module: str, folder: Path) -> str:
    """Run a job in a process of its own: a crash of the model ends only that one."""
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])}
    command = [sys.executable, "-m", module, str(folder)]
    ended = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return f"exit code {ended.returncode}\n{ended.stdout[-_LOG_TAIL:]}"


def _simulate(run: Callable[[Path], str], folders: list[Path], images: int, progress: Progress) -> Result:
    """Run all jobs at the same time and join their results."""
    progress("simulating", 0, images)
    with ThreadPoolExecutor(len(folders)) as pool:
        running = [pool.submit(run, folder) for folder in folders]
        while wait(running, _POLL_S).not_done:
            progress("simulating", sum(_done(folder) for folder in folders), images)
    for folder, one in zip(folders, running, strict=True):
        if not (folder / "result.json").exists():
            raise RuntimeError(f"the simulation ended without a result:\n{one.result()}")
    progress("simulating", images, images)
    return Result.joined([Result.read(folder) for folder in folders])


def _done(folder: Path) -> int:
    """Images that a running job has told to be done."""
    try:
        return int((folder / "progress").read_text())
    except (OSError, ValueError):
        return 0
