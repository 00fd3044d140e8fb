"""Compares every code of the trained and the integer network on the whole CIFAR-10 test set, for several networks and bits.

    python -m benchmarks.check_exactness --data /where/cifar-10-batches-bin
    python -m benchmarks.check_exactness --data /where/cifar-10-batches-bin --weights lsq-channel
    python -m benchmarks.check_exactness --data /where/cifar-10-batches-bin --run build/study/study_resnet8/ebs-at-w3a3-1

A trained run (``--run``) is compared as it was exported. Else the networks have fresh weights, quantised as ``--weights`` says
(dorefa, lsq or lsq-channel), batch norms with statistics of a few training batches, and random bits per layer: exactness does not
depend on training. Prints a line per network and ends with 1 if a single code differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from bitsmith import run as runs
from model import prepare
from model.agreement import compare, image_tensor
from model.calibrate import calibrate
from model.data import DataSet, load_data
from model.export import export
from model.networks import build
from model.nodes import Context, Mode
from model.quantnet import QuantNet
from model.recipe import Recipe

BATCH, BATCHES = 128, 4


def trained(folder: Path, data: str) -> QuantNet:
    """The network of a run folder as its training left it."""
    recipe = Recipe.model_validate(json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"])
    run = runs.reopen(folder, runs.Asked(recipe.model_copy(update={"data_path": data})))
    return run.trainer.net


def fresh(name: str, data: DataSet, options: argparse.Namespace) -> QuantNet:
    """A network with fresh weights and random bits."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    net = prepare(build(name, (3, 32, 32), 10), (3, 32, 32), name=name, weights=options.weights, pinned=None)
    net.train()
    with torch.no_grad():
        for start in range(0, BATCH * BATCHES, BATCH):
            net(image_tensor(data.train.images[start : start + BATCH]), Context(Mode.FLOAT))
    calibrate(net, data.train.images[:BATCH])
    for node in net.weighted():
        node.choice.bits = int(rng.choice(node.choice.candidates))
    for quantiser in net.quantisers().values():
        quantiser.choice.bits = int(rng.choice(quantiser.choice.candidates))
    return net


def main() -> int:
    """Exit status 0 where everything is equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar-10-batches-bin or an archive of JPEG files (.npz)")
    parser.add_argument("--networks", nargs="+", default=["resnet8", "resnet20"])
    parser.add_argument("--run", type=Path, help="folder of a trained run, compared instead of fresh networks")
    parser.add_argument("--weights", choices=["dorefa", "lsq", "lsq-channel"], default="dorefa",
                        help="weight quantiser of the fresh networks; a trained run has its own")  # fmt: skip
    parser.add_argument("--images", type=int, help="test images; left out: all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    data = load_data("cifar10", options.data)
    images = data.test.images[: options.images]
    status = 0
    for name in options.networks if options.run is None else [options.run.name]:
        began = time.monotonic()
        net = fresh(name, data, options) if options.run is None else trained(options.run, options.data)
        found = compare(net, export(net, proven=options.run is not None), images)
        told = (
            "equal" if found.first is None else f"differ, first in {found.first[0]} ({found.first[1]:.4%} of its codes)"
        )
        print(f"{name}: {found.images} images, logits equal {found.logits:.4%}, all codes {told}; "
              f"{time.monotonic() - began:.0f} s")  # fmt: skip
        status |= not found.exact
    return status


if __name__ == "__main__":
    sys.exit(main())
