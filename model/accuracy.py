"""How often a network is right, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from model.agreement import image_tensor
from model.data import Pixels, Split
from model.nodes import Context, Mode
from model.quantnet import QuantNet


def accuracy(net: QuantNet, split: Split, mode: Mode, temperature: float = 1.0) -> float:
    """Share of images whose largest logit is their label; ``temperature`` is that of bits still mixed."""
    net.eval()
    device = next(net.parameters()).device
    context = Context(mode, temperature, branches=any(node.branches is not None for node in net.weighted()))
    right = []
    with torch.no_grad():
        for at in range(0, len(split), 256):
            logits = net(image_tensor(split.images[at : at + 256]).to(device), context)
            right.append(logits.argmax(1).cpu().numpy() == split.labels[at : at + 256])
    return float(np.mean(np.concatenate(right)))


@contextmanager
def batch_statistics(net: QuantNet) -> Iterator[None]:
    """Evaluation in which batch norm takes each batch's own statistics, as in training; what it has learnt stays."""
    net.eval()
    norms = [item for item in net.modules() if isinstance(item, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


def fresh_loss(net: QuantNet, images: Pixels, labels: NDArray[np.int64], batch: int) -> float:
    """Cross entropy at bits that were set just now: batch norm takes each batch's own statistics, for it has none of them yet.

    Args:
        batch: images whose statistics are taken together, at most.
    """
    device = next(net.parameters()).device
    context = Context(Mode.QUANTISED, branches=any(node.branches is not None for node in net.weighted()))
    total = 0.0
    with torch.no_grad(), batch_statistics(net):
        for part in np.array_split(np.arange(len(labels)), -(-len(labels) // batch)):
            logits = net(image_tensor(images[part]).to(device), context)
            total += float(F.cross_entropy(logits, torch.from_numpy(labels[part]).to(device), reduction="sum"))
    return total / len(labels)
