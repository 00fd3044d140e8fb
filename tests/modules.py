"""PyTorch modules that tests prepare: what `networks` is for integer networks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.calibrate import calibrate
from model.networks import build
from model.quantnet import QuantNet

SHAPE = (3, 12, 10)


class Vgg(nn.Module):
    """No batch norm; layers as modules, functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding="same")
        self.second = nn.Parameter(torch.randn(8, 8, 3, 3) * 0.2)
        self.shift = nn.Parameter(torch.randn(8) * 0.1)
        self.third = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.4)
        self.hidden = nn.Linear(12 * 3 * 3, 16)
        self.last = nn.Linear(16, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.max_pool2d(F.conv2d(x, self.second, self.shift, padding=1).relu(), (2, 2))
        x = F.relu6(self.third(x)).view(x.size(0), -1)
        y: Tensor = self.last(self.drop(self.hidden(x).clamp(min=0)))
        return y


class PreActivation(nn.Module):
    """Batch norm and ReLU before each convolution; sums without ReLU, identities and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, 2, 1, bias=False)
        self.norm4, self.conv4 = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, 1, 1, bias=False)
        self.project = nn.Conv2d(8, 16, 1, 2, bias=False)
        self.norm5, self.last = nn.BatchNorm2d(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        y = F.relu(self.norm3(x))
        x = torch.add(self.conv4(self.norm4(self.conv3(y)).relu_()), self.project(y))
        z: Tensor = self.last(F.relu(self.norm5(x)).mean((2, 3)))
        return z


class Odd(nn.Module):
    """Depthwise convolution, ReLU6, padded pools, batch norm behind a pool, signed activations, a sum of two pools."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 1),
        )  # fmt: skip
        self.maximum, self.average = nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1)
        self.wide = nn.Conv2d(8, 6, (1, 3))
        self.last = nn.Conv2d(6, 5, (5, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)  # signed
        x = self.maximum(x).add(self.average(x))
        return torch.flatten(self.last(self.wide(x)), 1)


def mlp() -> nn.Module:
    return build("mlp", SHAPE, 5, hidden=[12, 9])


def settle(net: QuantNet, seed: int) -> None:
    """Random batch norms, calibrated clips, random bits."""
    rng = np.random.default_rng(seed)
    shake(net, seed)
    images = rng.integers(0, 256, (32, net.shape[0], net.shape[1], net.shape[2])).astype(np.uint8)
    calibrate(net, images)
    for node in net.weighted():
        node.choice.bits = int(rng.choice(node.choice.candidates))
    for quantiser in net.quantisers().values():
        quantiser.choice.bits = int(rng.choice(quantiser.choice.candidates))


def shake(network: nn.Module, seed: int) -> None:
    """Random batch norms."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.3)
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)


MODULES = {"vgg": Vgg, "pre-activation": PreActivation, "odd": Odd, "mlp": mlp}
