"""Networks of the literature, whole, in RTL on one engine: every tensor equals the golden model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_engine import ENGINE
from benchmarks.networks import cnv, mlp, mobilenet, resnet8, resnet_cifar
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.network import AvgPool, MaxPool, Network, ShortcutA
from hwgen.passes import ArrayPass, MeanPass, PoolPass
from hwgen.schedule import schedule
from sim.random_network import random_images
from sim.verify import verify

CASES = {
    "resnet20-w1a1": lambda: resnet_cifar(20, 1, 1),
    "resnet20-w2a2": lambda: resnet_cifar(20, 2, 2),
    "resnet20-w4a4": lambda: resnet_cifar(20, 4, 4),
    "resnet20-w3a5": lambda: resnet_cifar(20, 3, 5),
    "resnet32-w2a2": lambda: resnet_cifar(32, 2, 2),
    "resnet56-w2a2": lambda: resnet_cifar(56, 2, 2),
    "resnet8-w8a8": lambda: resnet8(8, 8),
    "cnv-w1a1": lambda: cnv(1, 1),
    "cnv-w2a2": lambda: cnv(2, 2),
    "mlp-w2a2": lambda: mlp(2, 2),
    "mlp-odd": lambda: mlp(3, 2, (529, 37, 101, 7)),
    "mobilenet-w4a4": lambda: mobilenet(4, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_in_rtl(name: str, tmp_path: Path) -> None:
    """Two images, so that the second run meets what the first one left; memory is slow and stalls."""
    network: Network = CASES[name]()
    build = generate(network, ENGINE, load_board("pynq-z2"), tmp_path / "build")
    result = verify(build.path, images=random_images(network, 2, 1), processes=1, latency=(20, 120), stall=0.2)
    assert not result["problem"], result["problem"]
    assert result["mismatches"] == 0, result["first_mismatches"]
    stored = {tensor.name for item in build.schedule.passes for tensor in (item.planes, item.bytes) if tensor}
    assert result["tensors_compared"] >= 2 * (len(stored) + 1)


def test_what_costs_no_pass() -> None:
    """Option-A shortcuts, global average pools and 2x2 max pools are fused; weights stream where they must."""
    residual = resnet_cifar(20, 2, 2)
    assert sum(isinstance(node, ShortcutA) for node in residual.nodes) == 2
    made = schedule(residual, ENGINE)
    assert not any(isinstance(item, PoolPass) for item in made.passes)
    assert sum(isinstance(item, MeanPass) for item in made.passes) == 1
    assert sum(isinstance(node, AvgPool) for node in residual.nodes) == 1
    assert made.memory.streamed_rows == 0

    plain = cnv(2, 2)
    assert sum(isinstance(node, MaxPool) for node in plain.nodes) == 2
    made = schedule(plain, ENGINE)
    assert all(isinstance(item, ArrayPass) for item in made.passes)
    assert sum(item.window.pooled for item in made.passes) == 2
    assert made.memory.streamed_rows > 0
