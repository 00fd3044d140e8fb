"""The networks that come with bitsmith, as plain modules: CIFAR and ImageNet residual networks, CNV, VGG, MLP.

They go through ``model.frontend.prepare`` like any other module. Shapes: (N, C, H, W) in, (N, classes) out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.frontend import prepare
from model.quantnet import QuantNet
from model.trace import Shortcut


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: "projection" (1x1 convolution) or "a" (subsampling, zero channels)."""

    def __init__(self, channels: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        if stride == 1 and channels == width:
            self.shortcut: nn.Module = nn.Identity()
        elif shortcut == "a":
            self.shortcut = Shortcut(stride, width)
        else:
            self.project = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        skip = self.norm3(self.project(x)) if hasattr(self, "project") else self.shortcut(x)
        return F.relu(y + skip)


class ResNet(nn.Module):
    """A residual network; its blocks are named block1, block2, ...

    Args:
        stem: channels of the first convolution. stages: (channels, blocks, stride) each.
        shortcut: "projection" or "a" where shapes change. large: the stem of ImageNet, 7x7 with stride 2 and a max pool.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        stem: int,
        stages: Sequence[Sequence[int]],
        *,
        shortcut: str = "projection",
        large: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, stem, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem)
        self.stem_pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.blocks: list[str] = []
        channels = stem
        for width, count, stride in stages:
            for index in range(count):
                self.blocks.append(f"block{len(self.blocks) + 1}")
                self.add_module(self.blocks[-1], _Block(channels, width, stride if index == 0 else 1, shortcut))
                channels = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_pool(F.relu(self.stem_norm(self.stem(x))))
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        out: Tensor = self.classifier(self.pool(x).flatten(1))
        return out


class CNV(nn.Module):
    """FINN's CNV, VGG-like: six unpadded 3x3 convolutions with two max pools, three linear layers; for 32x32 images."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        features: list[nn.Module] = []
        for width, pool in ((64, False), (64, True), (128, False), (128, True), (256, False), (256, False)):
            features += [nn.Conv2d(channels, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            features += [nn.MaxPool2d(2)] if pool else []
            channels = width
        self.features = nn.Sequential(*features)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(256, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(),
            nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


class MLP(nn.Module):
    """Linear layers with batch norm and ReLU on the flattened image of ``inputs`` values."""

    def __init__(self, inputs: int, classes: int, hidden: Sequence[int] = (64, 64, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.layers(x))
        return out


_CIFAR = {"resnet20": 3, "resnet32": 5, "resnet56": 9}
_SHALLOW = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


def build(network: str, shape: tuple[int, int, int], classes: int, **options: Any) -> nn.Module:
    """A network by name for images (C, H, W), freshly initialised (He, fan in; biases 0).

    Args:
        options: those of its class; "resnet" needs ``stem`` and ``stages``.
    """
    channels, height, width = shape
    makers: dict[str, Callable[[], nn.Module]] = {
        "resnet": lambda: ResNet(channels, classes, **options),
        "resnet8": lambda: ResNet(channels, classes, 16, [(16, 1, 1), (32, 1, 2), (64, 1, 2)], **options),
        "cnv": lambda: CNV(channels, classes, **options),
        "mlp": lambda: MLP(channels * height * width, classes, **options),
    }
    if network in _CIFAR:
        count = _CIFAR[network]
        stages = [(16, count, 1), (32, count, 2), (64, count, 2)]
        module: nn.Module = ResNet(channels, classes, 16, stages, **{"shortcut": "a", **options})
    elif network in _SHALLOW:
        sizes = zip((64, 128, 256, 512), _SHALLOW[network], (1, 2, 2, 2), strict=True)
        module = ResNet(channels, classes, 64, [tuple(size) for size in sizes], large=True, **options)
    else:
        module = makers[network]()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def residual_network(
    name: str,
    shape: tuple[int, int, int],
    input_bits: int,
    classes: int,
    stem: int,
    stages: Sequence[tuple[int, int, int]],
    *,
    shortcut: str,
    weight_bits: tuple[int, ...],
    activation_bits: tuple[int, ...],
    pinned: int | None = None,
) -> QuantNet:
    """A searchable CIFAR-style residual network; shape: (height, width, channels), the rest as in ResNet and prepare."""
    chw = (shape[2], shape[0], shape[1])
    module = build("resnet", chw, classes, stem=stem, stages=stages, shortcut=shortcut)
    return prepare(
        module, chw, name=name, input_bits=input_bits, weight_bits=weight_bits, activation_bits=activation_bits, pinned=pinned
    )  # fmt: skip
