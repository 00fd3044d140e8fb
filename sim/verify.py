"""Whole-network verification: the RTL of a build against the integer golden model, tensor by tensor."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hwgen.build import Build, read_build
from hwgen.cycles import time_program
from hwgen.errors import InputError
from hwgen.lower import ArrayPass
from hwgen.network import Network
from hwgen.network_file import write_arrays
from hwgen.schedule import Schedule
from sim import golden, verilator

PUBLIC = (
    "bs_core.u_write_back",
    "bs_write_back.plane_*_o",
    "bs_write_back.byte_*_o",
    "bs_write_back.logits_*_o",
    "bs_issue.first_word_o",
    "bs_issue.layer_o",
)
_POLL_S = 0.2
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
    """Cycles per image and per array layer, from the cycles in which each band's first word was issued.

    A layer lasts from its first issue to the first issue of the next layer (of the next image's first layer); the mean
    over all images but the first two and the last, or over what there is of them.
    """
    array = [index for index, item in enumerate(plan.passes) if isinstance(item, ArrayPass)]
    images: list[dict[int, int]] = []
    previous = -1
    for cycle, layer in first_issue:
        if (layer == array[0] and previous != array[0]) or not images:
            images.append({})
        images[-1].setdefault(layer, cycle)
        previous = layer
    if len(array) == 1:
        bands = sum(band.layer == array[0] for band in plan.bands)
        images = [{array[0]: cycle} for cycle, _ in first_issue[::bands]]
    spans = []
    for now, after in pairwise(images):
        starts = [now[layer] for layer in array] + [after[array[0]]]
        spans.append(np.diff(starts))
    if not spans:
        return float("nan"), [{"name": plan.passes[layer].name, "cycles": float("nan")} for layer in array]
    steady = np.mean(spans[2:] or spans[-1:], axis=0)
    layers = [
        {"name": plan.passes[layer].name, "cycles": float(value)} for layer, value in zip(array, steady, strict=True)
    ]
    return float(steady.sum()), layers


def _write_junit(path: Path, build: Build, result: dict[str, Any]) -> None:
    """One test case per tensor, and one for the run itself."""
    suite = ElementTree.Element("testsuite", name=f"bitsmith verify {build.network.name}")
    run = ElementTree.SubElement(suite, "testcase", classname=build.network.name, name="run")
    if result["problem"]:
        ElementTree.SubElement(run, "failure", message=result["problem"])
    failures = int(bool(result["problem"]))
    for tensor, compared in sorted(result["compared"].items()):
        case = ElementTree.SubElement(suite, "testcase", classname=build.network.name, name=tensor)
        wrong = result["wrong_by_tensor"].get(tensor, 0)
        if wrong:
            failures += 1
            text = [item for item in result["mismatches"] if f"tensor '{tensor}'" in item]
            ElementTree.SubElement(case, "failure", message=f"{wrong} wrong values in {compared} maps").text = "\n".join(
                text
            )
    suite.set("tests", str(len(result["compared"]) + 1))
    suite.set("failures", str(failures))
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def verify(
    path: Path,
    *,
    images: NDArray[np.uint8] | None = None,
    count: int | None = None,
    seed: int = 1,
    latency: tuple[int, int] = (20, 60),
    stall: float = 0.1,
    waves: Path | None = None,
    junit: Path | None = None,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Simulate a build's RTL, the whole network through AXI, and compare every tensor of every image.

    Args:
        path: the build folder.
        images: uint8 (N, H, W, C); None: ``count`` of the network's samples (all), else random ones.
        seed: of random images, memory latencies and the garbage that memory holds at first.
        latency: least and most cycles of a memory access. stall: chance per cycle that a memory channel pauses.
        waves: folder for a waveform. junit: file for a JUnit report.
        progress: called with a stage, steps done and steps in all.

    Returns:
        images, mismatches, tensors_compared, cycles_per_image, layers[{name, cycles}], accuracy (None without labels),
        golden_accuracy, predictions, problem (empty if the run ended well), first_mismatches, counters.

    Raises:
        InputError: the build or the images are unusable, or no simulator is installed.
    """
    build = read_build(path)
    labels = None
    if images is None:
        images, labels = choose_images(build.network, count, seed)
    progress("golden model", 0, 1)
    tensors = golden.run(build.network, images)
    progress("golden model", 1, 1)
    progress("compiling the RTL", 0, 1)
    model = verilator.build(build.rtl, "bs_top", public=PUBLIC, trace=waves is not None)
    progress("compiling the RTL", 1, 1)
    with tempfile.TemporaryDirectory(prefix="bitsmith-verify-") as scratch:
        folder = Path(scratch)
        np.save(folder / "images.npy", images)
        write_arrays(folder / "golden.npz", tensors)
        limit = 100_000 + 8 * len(images) * (
            time_program(build.schedule).cycles_per_image + 4 * build.schedule.image_bytes
        )
        limit += 64 * len(build.program.read_bytes())
        job = {"build": str(path.resolve()), "seed": seed, "latency": list(latency), "stall": stall, "limit": limit}
        (folder / "job.json").write_text(json.dumps(job))
        result = _simulate(model, folder, seed, waves, len(images), progress)
    cycles, layers = steady_cycles(build.schedule, result["first_issue"])
    predictions = result["predictions"]
    best = np.asarray(tensors[build.network.output]).reshape(len(images), -1).argmax(axis=1)
    known = labels is not None
    if junit is not None:
        _write_junit(junit, build, result)
    return {
        "images": len(images),
        "mismatches": result["wrong"],
        "tensors_compared": result["tensors"],
        "cycles_per_image": cycles,
        "layers": layers,
        "accuracy": float(np.mean(np.asarray(predictions) == labels)) if known and predictions else None,
        "golden_accuracy": float(np.mean(best == labels)) if known else None,
        "predictions": predictions,
        "problem": result["problem"],
        "first_mismatches": result["mismatches"],
        "counters": result["counters"],
    }


def _simulate(
    model: verilator.SimBuild, folder: Path, seed: int, waves: Path | None, images: int, progress: Progress
) -> dict[str, Any]:
    done = threading.Event()

    def poll() -> None:
        while not done.wait(_POLL_S):
            try:
                progress("simulating", int((folder / "progress").read_text()), images)
            except (OSError, ValueError):
                continue

    poller = threading.Thread(target=poll, daemon=True)
    progress("simulating", 0, images)
    poller.start()
    try:
        outcome = model.test(
            "sim.tb_system",
            folder if waves is None else waves,
            env={"BITSMITH_JOB": str(folder)},
            seed=seed,
            waves=waves is not None,
            python_path=[Path(__file__).resolve().parent.parent],
        )
    finally:
        done.set()
        poller.join()
    if not (folder / "result.json").exists():
        raise RuntimeError(f"the simulation ended without a result:\n{outcome.tail()}")
    progress("simulating", images, images)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result
