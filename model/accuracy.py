"""How often a network is right, and how wrong it is where its bits are compared."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from model.agreement import image_tensor
from model.data import Split
from model.nodes import Context, Mode
from model.quantnet import QuantNet

_COMPARED_IMAGES = 2048


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


@torch.no_grad()
def held_out_loss(net: QuantNet, split: Split) -> float:
    """Mean cross-entropy of the quantised network on the first 2,048 images at most, batch norm by each batch's own
    statistics: those it keeps are of the mixture, and a choice of bits would be blamed for the difference."""
    device = next(net.parameters()).device
    context = Context(Mode.QUANTISED, branches=any(node.branches is not None for node in net.weighted()))
    norms = [item for item in net.modules() if isinstance(item, nn.BatchNorm2d)]
    kept = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
    net.eval()
    for norm in norms:
        norm.train()
    losses = []
    count = min(len(split), _COMPARED_IMAGES)
    for pick in np.array_split(np.arange(count), -(-count // 256)):
        images, labels = image_tensor(split.images[pick]).to(device), torch.from_numpy(split.labels[pick]).to(device)
        losses.append(F.cross_entropy(net(images, context), labels, reduction="sum"))
    for norm, state in zip(norms, kept, strict=True):
        norm.load_state_dict(state)
    net.eval()
    return float(sum(losses)) / count
