"""The trained network against its integer network: every code of every tensor, and where quantisation changes what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log10
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwgen.errors import InputError
from hwgen.network import Network
from model.data import DataSet, Pixels
from model.nodes import Context, Mode
from model.quantise import Quantised
from model.quantnet import QuantNet
from sim import golden

LEAST_CHECKED = 1000
_BATCH = 100
_LOUDEST = 200.0  # dB; stands for no difference at all


@dataclass(frozen=True)
class Agreement:
    """Trained against integer network over some images.

    top1, logits: share of equal classes and of equal logits. first: the first differing tensor with the share of its codes
    that differ, or None. images: how many were compared.
    """

    top1: float
    logits: float
    first: tuple[str, float] | None
    images: int = 0

    @property
    def exact(self) -> bool:
        return self.first is None


def image_tensor(images: Pixels) -> torch.Tensor:
    """uint8 (N, H, W, C) -> codes (N, C, H, W) in torch's default type."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)).to(torch.get_default_dtype())


def check_images(data: DataSet, *, full: bool = False) -> Pixels:
    """Images that an export is checked on: at least 1,000, of the test set first; ``full``: all of the test set too.

    No label is looked at, so this does not read the test set for accuracy.
    """
    test, train = len(data.test), len(data.train)
    count = test if full else min(test, LEAST_CHECKED)
    parts = [data.test.images[data.test.evenly(count)]]
    if count < LEAST_CHECKED:
        parts.append(data.train.images[np.arange(min(train, LEAST_CHECKED - count))])
    return np.concatenate(parts)


def _codes(value: Quantised) -> NDArray[np.float64]:
    """(N, H, W, C)."""
    assert value.code is not None
    return value.code.double().cpu().numpy().transpose(0, 2, 3, 1)


def compare(
    net: QuantNet, network: Network, images: Pixels, progress: Callable[[int, int], None] = lambda done, total: None
) -> Agreement:
    """Every tensor of the folded network in PyTorch against the golden model, on images (N, H, W, C)."""
    net.eval()
    device = next(net.parameters()).device
    names = [node.output for node in network.nodes]
    wrong, seen = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    classes = logits = 0
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        expected = golden.run(network, part)
        with torch.no_grad():
            found = net.tensors(image_tensor(part).to(device), Context(Mode.INTEGER))
        for name in names:
            differs = _codes(found[name]) != expected[name]
            wrong[name] += int(differs.sum())
            seen[name] += differs.size
        ours = _codes(found[network.output]).reshape(len(part), -1)
        theirs = expected[network.output].reshape(len(part), -1)
        classes += int((ours.argmax(1) == theirs.argmax(1)).sum())
        logits += int((ours == theirs).sum())
        progress(min(start + _BATCH, len(images)), len(images))
    first = next(((name, wrong[name] / seen[name]) for name in names if wrong[name]), None)
    return Agreement(classes / len(images), logits / seen[network.output], first, len(images))


def demand_equal(agreement: Agreement, network: Network) -> None:
    """Raises InputError with the first differing layer and the share of its codes unless everything is equal."""
    if agreement.first is None:
        return
    tensor, share = agreement.first
    node = next(item.name for item in network.nodes if item.output == tensor)
    raise InputError(
        f"The integer network differs from the trained one, first in layer '{node}': {share:.2%} of its codes over"
        f" {agreement.images} images.",
        f"network '{network.name}'",
    )


@dataclass(frozen=True)
class LayerReport:
    """One tensor in three networks of the same weights.

    quantisation_db: power of the float values over that of what quantisation changed, all layers before included.
    changed: share of codes that folding scales into integers changed from the fake-quantised ones; most: by how many steps.
    """

    layer: str
    bits: int
    quantisation_db: float
    changed: float
    most: int

    def row(self) -> dict[str, Any]:
        return dict(self.__dict__)


def layer_reports(net: QuantNet, network: Network, images: Pixels) -> list[LayerReport]:
    """Float, fake-quantised (batch norm in float) and integer network, layer by layer, on images (N, H, W, C)."""
    net.eval()
    device = next(net.parameters()).device
    power: dict[str, float] = {}
    noise: dict[str, float] = {}
    changed: dict[str, int] = {}
    most: dict[str, float] = {}
    size: dict[str, int] = {}
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        codes = image_tensor(part).to(device)
        expected = golden.run(network, part)
        with torch.no_grad():
            plain = net.tensors(codes, Context(Mode.FLOAT))
            fake = net.tensors(codes, Context(Mode.QUANTISED))
        for node in network.nodes:
            name = node.output
            wanted, found = plain[name].value.double(), fake[name].value.double()
            power[name] = power.get(name, 0.0) + float(wanted.square().sum())
            noise[name] = noise.get(name, 0.0) + float((found - wanted).square().sum())
            step = network.tensors[name].scale
            ours = np.floor(found.cpu().numpy().transpose(0, 2, 3, 1) / step + 0.5)
            differs = np.abs(ours - expected[name])
            changed[name] = changed.get(name, 0) + int((differs > 0).sum())
            most[name] = max(most.get(name, 0.0), float(differs.max()))
            size[name] = size.get(name, 0) + differs.size
    return [
        LayerReport(
            node.name,
            network.tensors[node.output].bits,
            _LOUDEST if noise[node.output] == 0 else 10 * log10(max(power[node.output], 1e-30) / noise[node.output]),
            changed[node.output] / size[node.output],
            int(most[node.output]),
        )
        for node in network.nodes
    ]
