"""A network of one's own: a small VGG without batch norm, written as one writes it, with nothing of bitsmith in it.

    bitsmith search examples/recipes/own-network.toml --out runs/own

or in Python:

    import model
    from examples.own_network import small_vgg

    net = model.prepare(small_vgg(), (1, 8, 8), input_bits=4, weights="lsq")
    print([node.name for node in net.weighted()])
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SmallVgg(nn.Module):
    """Three convolutions with biases, a max pool, a linear layer; (N, 1, 8, 8) to (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(2 * width * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.conv3(x).relu().flatten(1)
        out: Tensor = self.classifier(self.dropout(x))
        return out


def small_vgg(width: int = 16, classes: int = 10) -> nn.Module:
    """What the recipe names; its options are the arguments."""
    return SmallVgg(width, classes)
