"""A network of one's own, a VGG without batch norm, from ``prepare`` to its RTL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from examples.own_network import small_vgg
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.engine import EngineConfig
from hwgen.network import Samples, Weighted
from hwgen.network_file import read_network, write_network
from model import prepare
from model.agreement import image_tensor
from model.calibrate import quantise_after_training
from model.export import export
from model.nodes import Context, Mode
from sim.verify import verify

# The shape of test_sim_compiled, which is compiled once for both.
SHAPE = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=8192, plane_depth=2048,
                     byte_depth=2048, column_depth=1024)  # fmt: skip
BITS = {"conv1": (4, 4), "conv2": (3, 2), "conv3": (2, 3), "classifier": (5, 4)}
IMAGES = 3


def test_a_vgg_without_batch_norm_computes_in_rtl_what_it_computed_in_torch(tmp_path: Path) -> None:
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    images = rng.integers(0, 16, (64, 8, 8, 1), dtype=np.uint8)
    net = prepare(small_vgg(width=8, classes=5), (1, 8, 8), name="own", input_bits=4, pinned=None, weights="lsq")
    assert set(BITS) == {node.name for node in net.weighted()}
    quantise_after_training(net, images, BITS)
    net.eval()
    with torch.no_grad():
        logits = net(image_tensor(images), Context(Mode.INTEGER)).numpy()
    classes = logits.argmax(1)
    pick = [int(np.argmax(classes != classes[0])), 0, 1][:IMAGES]  # classes that differ, or the check below means little
    assert len(set(classes[pick])) > 1

    write_network(export(net, Samples(images[pick], classes[pick].astype(np.int64))), tmp_path / "network")
    network = read_network(tmp_path / "network")
    found = {node.name: node for node in network.nodes if node.name in BITS}
    for name, (weight, activation) in BITS.items():
        assert network.tensors[found[name].inputs[0]].bits == activation
        node = found[name]
        assert isinstance(node, Weighted) and node.weight_bits == weight
    build = generate(network, SHAPE, load_board("pynq-z2"), tmp_path / "build")
    seen = verify(build.path, count=IMAGES, processes=1)
    assert seen["problem"] == ""
    assert seen["mismatches"] == 0
    assert seen["tensors_compared"] >= IMAGES * len(BITS)
    assert seen["predictions"] == classes[pick].tolist()
    assert seen["accuracy"] == 1.0
