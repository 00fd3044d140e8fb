"""How fast the board's driver copies images into the engine's memory: 1,000 CIFAR images, on plain host memory.

The driver is the one that bundles hold; memory is NumPy instead of ``pynq.allocate``, which on a board is cached memory too
and is flushed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from hwgen import isa
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.bundle import Samples, write_bundle
from hwgen.driver.bitsmith_driver import Accelerator
from hwgen.engine import EngineConfig
from hwgen.network import Encoding, Logits, Network, Tensor

IMAGES = 1000
SETS = 64
SHAPE = (32, 32, 3)
LIMIT_MS = 5.0
OFFSET = {item.name: item.offset for item in isa.REGISTERS}


class HostMemory:
    """Host memory that syncing has nothing to do for."""

    def __init__(self, size: int) -> None:
        self.array = np.zeros(size, np.uint8)
        self.address = 0

    def push(self, count: int) -> None: ...

    def pull(self, count: int) -> None: ...

    def free(self) -> None: ...


class HostPlatform:
    """A platform whose engine is always done."""

    remote = False

    def __init__(self, engine_hash: int) -> None:
        self.lock = threading.RLock()
        self._values = {OFFSET["id"]: isa.DEVICE_ID, OFFSET["version"]: isa.DEVICE_VERSION, OFFSET["engine"]: engine_hash}

    def load(self, bit: Path) -> None: ...

    def read(self, offset: int) -> int:
        return self._values.get(offset, 0)

    def write(self, offset: int, value: int) -> None: ...

    def clock_mhz(self) -> float:
        return 100.0

    def allocate(self, size: int) -> HostMemory:
        return HostMemory(size)

    def wait(self, seconds: float) -> bool:
        return True


def network() -> Network:
    """A linear layer on a CIFAR image: only the image's shape matters here."""
    weights = np.ones((10, *SHAPE), np.int16)
    node = Logits(
        name="fc", inputs=("image",), output="logits", weight=weights, weight_bits=2, encoding=Encoding.TWOS,
        bias=np.zeros(10, np.int64),
    )  # fmt: skip
    tensors = {"image": Tensor("image", SHAPE, 8), "logits": Tensor("logits", (1, 1, 10), 32, signed=True)}
    return Network(name="cifar-shape", input="image", output="logits", tensors=tensors, nodes=(node,))


def measure(repeats: int) -> dict[str, Any]:
    """Milliseconds for copying 1,000 images into both input buffers, batch by batch, and for all of ``predict``."""
    rng = np.random.default_rng(1)
    # More than the caches hold: a user's images come from memory.
    sets = rng.integers(0, 256, (SETS, IMAGES, *SHAPE), np.uint8)
    images = sets[0]
    with tempfile.TemporaryDirectory() as scratch:
        engine = EngineConfig(weight_depth=4096, column_depth=1024, plane_depth=4096)
        build = generate(network(), engine, load_board("pynq-z2"), Path(scratch) / "build")
        samples = Samples(images[:1], None, np.zeros((1, 10), np.int32))
        bundle = write_bundle(build, samples, Path(scratch) / "bundle", virtual=True)
        acc = Accelerator(bundle, HostPlatform(engine.hash))
    copy, whole = [], []
    for repeat in range(repeats):
        images = sets[repeat % SETS]
        begun = time.perf_counter()
        for index, at in enumerate(range(0, IMAGES, acc.batch)):
            acc.fill(index & 1, images[at : at + acc.batch])
        copy.append(1000 * (time.perf_counter() - begun))
        last = (IMAGES - 1) // acc.batch
        held = acc._inputs[last & 1].array[: images[last * acc.batch :].size]
        assert (held == images[last * acc.batch :].ravel()).all(), "the copy differs"
        begun = time.perf_counter()
        acc.predict(images)
        whole.append(1000 * (time.perf_counter() - begun))
    return {
        "images": IMAGES,
        "bytes": images.nbytes,
        "batch": acc.batch,
        "repeats": repeats,
        "copy_ms_median": float(np.median(copy)),
        "copy_ms_worst": max(copy),
        "predict_ms_median": float(np.median(whole)),
        "limit_ms": LIMIT_MS,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }


def main() -> int:
    """Write the figures and print them; 1 where the copy takes longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/driver.json"))
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    figures = measure(options.repeats)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{figures['copy_ms_median']:.2f} ms for {IMAGES} images (median; limit {LIMIT_MS} ms). Wrote {options.out}.")
    return int(figures["copy_ms_median"] >= LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
