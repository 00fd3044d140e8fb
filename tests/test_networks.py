"""Networks of the literature, whole, in RTL and HLS on one engine: every tensor equals the golden model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bench_engine import ENGINE, LARGE
from benchmarks.networks import Builder, cnv, mlp, mobilenet, resnet8, resnet18, resnet_cifar
from hwgen.board import load_board
from hwgen.build import generate, write_rtl
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network import AvgPool, MaxPool, Network, ShortcutA
from hwgen.passes import ArrayPass, MeanPass, PoolPass
from hwgen.schedule import Schedule, schedule
from sim.compiled import MemoryTiming, compile_engine
from sim.random_network import random_images
from sim.soak import Station, prepare
from sim.verify import verify

OTHER = resnet8(3, 2, (8, 8, 3))
"""Runs first, so that every program finds memory, buffers and registers as another one left them."""
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
def test_every_tensor(name: str, tmp_path: Path) -> None:
    """Two images, so that the second run meets what the first one left; memory is slow and stalls."""
    check_on_both(CASES[name](), ENGINE, tmp_path, 2)


def check_on_both(network: Network, engine: EngineConfig, folder: Path, images: int, batch: int = 1) -> Schedule:
    """RTL, after another program on the same engine, and HLS kernel, each against the golden model."""
    board, given = load_board("pynq-z2"), random_images(network, images, 1)
    work = prepare(network, random_images(network, -(-images // batch) * batch, 1), engine, batch=batch)
    stored = {tensor.name for item in work.plan.passes for tensor in (item.planes, item.bytes) if tensor}
    least = images // batch * (len(stored) + 1)
    library = compile_engine(write_rtl(engine, board, folder / "rtl"))
    with Station(library, 1, MemoryTiming((20, 120), 0.2, seed=1)) as station:
        for item in (prepare(OTHER, random_images(OTHER, 2, 2), engine), work):
            result = station.run(item)
            assert not result.problem and not result.wrong, (result.problem, result.mismatches[:3])
        assert result.tensors >= least
    build = generate(network, engine, board, folder / "hls", backend="hls", batch=batch)
    figures = verify(build.path, images=given, processes=1)
    assert not figures["problem"] and figures["mismatches"] == 0, (figures["problem"], figures["first_mismatches"])
    assert figures["tensors_compared"] >= least
    return work.plan


def test_a_large_image(tmp_path: Path) -> None:
    """ResNet-18 on one whole image of 224x224: interleaved in strips, weights streamed."""
    plan = check_on_both(resnet18(2, 2), LARGE, tmp_path, 1)
    assert plan.memory.strips is not None and plan.memory.streamed_rows > 0


@pytest.mark.parametrize(("bits", "batch", "images"), [(1, 8, 16), (2, 3, 8)])
def test_batches(bits: int, batch: int, images: int, tmp_path: Path) -> None:
    """CNV with images that share the weights of its last layers; the last batch is filled up."""
    plan = check_on_both(cnv(bits, bits), ENGINE, tmp_path, images, batch)
    assert plan.batch == batch and plan.program.batch == batch
    alone = schedule(cnv(bits, bits), ENGINE)
    assert plan.memory.streamed_rows / batch < alone.memory.streamed_rows / 2


def one_convolution() -> Network:
    made = Builder("one", (8, 8, 3), 2, 2)
    return made.logits(made.conv("stem", "image", 8, 3, stride=2, bits=8), 10)


@pytest.mark.parametrize(
    ("network", "batch", "said"),
    [
        (lambda: resnet8(2, 2), 2, "ends in layers of one position behind a convolution"),
        (lambda: mlp(2, 2), 2, "ends in layers of one position behind a convolution"),
        (one_convolution, 2, "that is not its first layer"),
        (lambda: cnv(2, 2), 17, "A batch has 1 to 16 images on this engine, not 17"),
        (lambda: cnv(2, 2), 16, "rows of bit planes, the engine has 1024"),
    ],
    ids=["shortcut", "linear", "first", "size", "memory"],
)
def test_batches_that_are_refused(network: Callable[[], Network], batch: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        schedule(network(), ENGINE, batch)


def pooled(side: int) -> Network:
    """A large window and a pool in front, as in ResNet-18."""
    made = Builder("pooled", (side, side, 3), 2, 3)
    at = made.maxpool("pool", made.conv("stem", "image", 8, 7, stride=2, bits=8), 3, 2, 1)
    at = made.block("s1", at, 8, 1, "projection")
    at = made.block("s2", at, 20, 2, "projection")
    return made.logits(made.mean("mean", at, 8), 10)


@pytest.mark.parametrize(
    ("network", "weights", "planes", "codes", "rings"),
    [
        (lambda: pooled(37), 4096, 1024, 1024, {"image"}),
        (lambda: pooled(44), 4096, 2048, 512, {"image", "stem.out"}),
        (lambda: resnet8(2, 2, (16, 16, 3)), 2048, 512, 512, {"image", "stem.out", "s1.code.out", "s1.conv1.out"}),
    ],
    ids=["image", "pool", "skip"],
)
def test_strips(
    network: Callable[[], Network], weights: int, planes: int, codes: int, rings: set[str], tmp_path: Path
) -> None:
    """Small memories that cannot hold the first maps whole; in three images each ring comes round many times."""
    engine = EngineConfig(
        rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=weights, plane_depth=planes,
        byte_depth=codes, program_depth=4096,
    )  # fmt: skip
    plan = check_on_both(network(), engine, tmp_path, 3)
    strips = plan.memory.strips
    assert strips is not None and strips.rings.keys() == rings
    height, width, _ = plan.network.tensors["image"].shape
    assert 2 * strips.rings["image"] <= height * width // engine.columns


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
