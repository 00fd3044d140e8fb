"""Run by tests/test_board_pynq.py in the environment of pynq 4.0.0: its own client, and the driver of the bundle.

Arguments: bundle, other network on the same engine, bundle of another engine, what to do. Prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

INTERRUPTS = 20
faulthandler.dump_traceback_later(120, exit=True)  # a call that hangs shows where
first, second, foreign, what = sys.argv[1:]
sys.path.insert(0, first)
warnings.simplefilter("ignore")

from bitsmith_driver import Accelerator, BundleError, DeviceError, DeviceTimeoutError  # noqa: E402


def plain() -> dict[str, object]:
    """pynq alone: overlay, registers by name, clock, buffers both ways."""
    import pynq

    overlay = pynq.Overlay(str(next(Path(first).glob("*.bit"))))
    buffer = pynq.allocate((1000, 3), np.int16)
    content = np.random.default_rng(1).integers(-30000, 30000, buffer.shape).astype(np.int16)
    buffer[:] = content
    buffer.sync_to_device()
    buffer[:] = 0
    buffer.sync_from_device()
    ip = overlay.ip_dict["bitsmith"]
    return {
        "id": int(overlay.bitsmith.register_map.id),
        "base": ip["phys_addr"],
        "registers": sorted(ip["registers"]),
        "interrupts": list(ip["interrupts"]),
        "clock": pynq.Clocks.fclk0_mhz,
        "cpu": pynq.Clocks.cpu_mhz,
        "board": overlay.device.name,
        "round_trip": bool((np.asarray(buffer) == content).all()),
        "address": int(buffer.device_address),
        "pynq": pynq.__version__,
    }


def classify() -> dict[str, object]:
    """Real images twice, planar, in several batches; a second network; errors; and every time it works again."""
    answer: dict[str, Any] = {}
    with Accelerator(first, batch=16) as acc:
        images, labels, golden = acc.bundle.samples()
        images, labels, golden = images[:40], labels[:40], golden[:40]
        answer["first"] = bool((acc.predict(images) == golden).all())
        answer["stats"] = acc.stats
        answer["twice"] = bool((acc.predict(images) == golden).all())
        planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        answer["planar"] = bool((acc.predict(planar) == golden).all())
        answer["correct"] = int((golden.argmax(axis=1) == labels).sum())
        acc.load(second)
        others, _, other_golden = acc.bundle.samples()
        answer["second"] = bool((acc.predict(others) == other_golden).all())
        turned = np.ascontiguousarray(others.transpose(0, 3, 1, 2))
        answer["second_planar"] = bool((acc.predict(turned) == other_golden).all())
        try:
            acc.load(foreign)
        except BundleError as error:
            answer["foreign"] = str(error)
        acc.load(first)

        acc._program.array[:64] = 0  # a broken program in memory
        acc._program.push(acc._program.array.size)
        try:
            acc.predict(images)
        except DeviceError as error:
            answer["error"] = [error.code, str(error)]
        acc.load(first)
        answer["after_error"] = bool((acc.predict(images) == golden).all())

        where, acc._inputs[0].address = acc._inputs[0].address, 0x3000_0000  # where there is no memory
        try:
            acc.predict(images)
        except DeviceError as error:
            answer["bus_error"] = str(error)
        acc._inputs[0].address = where
        answer["after_bus_error"] = bool((acc.predict(images) == golden).all())

        acc.timeout_s = 0.0
        try:
            acc.predict(images)
        except DeviceTimeoutError as error:
            answer["timeout"] = str(error)
        acc.timeout_s = 60.0
        answer["after_timeout"] = bool((acc.predict(images) == golden).all())

        signal.signal(signal.SIGALRM, signal.default_int_handler)
        answer["interrupted"] = 0
        answer["after_interrupt"] = True
        for attempt in range(INTERRUPTS):
            # Ctrl-C wherever a run has got to: in a call to the board, between two, while it waits.
            signal.setitimer(signal.ITIMER_REAL, 0.01 + 0.007 * attempt)
            try:
                acc.predict(np.concatenate([images] * 5))
            except KeyboardInterrupt:
                answer["interrupted"] += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            answer["after_interrupt"] &= bool((acc.predict(images[:2]) == golden[:2]).all())

        with Accelerator(first) as other:  # two at a time on one engine
            answer["another"] = bool((other.predict(images[:5]) == golden[:5]).all())
        answer["beside_another"] = bool((acc.predict(images[:5]) == golden[:5]).all())
    return answer


def snippet() -> dict[str, object]:
    """The lines of the issue and of docs/deploy.md, on the zip."""
    acc = Accelerator(first + ".zip")
    images, _, golden = acc.bundle.samples()
    logits = acc.predict(images[:5])
    answer: dict[str, object] = {
        "right": bool((logits == golden[:5]).all()),
        "type": str(logits.dtype),
        "stats": acc.stats,
    }
    answer["none"] = list(acc.predict(images[:0]).shape)
    acc.load(second + ".zip")
    images, _, golden = acc.bundle.samples()
    answer["other"] = bool((acc.predict(images) == golden).all())
    acc.close()
    return answer


def together() -> dict[str, object]:
    """A program that takes three images at a time: any number of images, in both layouts, before and after another network."""
    answer: dict[str, Any] = {"counts": []}
    with Accelerator(second, batch=4) as acc:
        answer["batch"] = acc.batch
        images, _, golden = acc.bundle.samples()
        planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        for count in range(len(images) + 1):
            right = (acc.predict(images[:count]) == golden[:count]).all() and (
                acc.predict(planar[:count]) == golden[:count]
            ).all()
            answer["counts"] += [count] * bool(right)
        acc.load(first)
        others, _, other_golden = acc.bundle.samples()
        answer["other"] = bool((acc.predict(others[:5]) == other_golden[:5]).all())
        acc.load(second)
        answer["again"] = bool((acc.predict(images) == golden).all())
        answer["different"] = len({row.tobytes() for row in golden})
    return answer


def opening() -> dict[str, object]:
    """Ctrl-C wherever the constructor has got to."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    answer: dict[str, Any] = {"interrupted": 0}
    Accelerator(first).close()  # imports pynq, which nothing can repeat that was cut in two
    begun = time.perf_counter()
    Accelerator(second).close()
    span = time.perf_counter() - begun
    for attempt in range(INTERRUPTS):
        signal.setitimer(signal.ITIMER_REAL, span * (attempt + 1) / INTERRUPTS)
        try:
            Accelerator(second).close()
            signal.setitimer(signal.ITIMER_REAL, 0)  # in here: it may ring just before
        except KeyboardInterrupt:
            answer["interrupted"] += 1
    with Accelerator(second) as acc:
        images, _, golden = acc.bundle.samples()
        answer["right"] = bool((acc.predict(images) == golden).all())
    return answer


def vanish() -> dict[str, object]:
    """End in the middle of a run, without giving anything back."""
    acc = Accelerator(first)
    images, _, _ = acc.bundle.samples()
    acc.fill(0, images[:30])
    acc._start(0, 30, False)
    print("{}", flush=True)
    os._exit(0)


def notebook() -> dict[str, object]:
    """The cells of the bundle's notebook, in order, in one namespace, as Jupyter does; the other bundle has few images."""
    cells = json.loads(Path(second, "accelerator.ipynb").read_text(encoding="utf-8"))["cells"]
    os.environ["BITSMITH_BUNDLE"] = second
    space: dict[str, object] = {}
    run = [cell for cell in cells if cell["cell_type"] == "code"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for cell in run:
            exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
    return {"cells": len(run), "said": said.getvalue()}


steps = {item.__name__: item for item in (plain, classify, snippet, together, opening, vanish, notebook)}
print(json.dumps(steps[what]()))
