"""How often a network is right."""

from __future__ import annotations

import numpy as np
import torch

from model.agreement import image_tensor
from model.data import Split
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
