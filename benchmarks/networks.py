"""Networks of the literature with random integer weights at any bits: the hardware can be measured without training.

Roundings are fitted to the codes that a few random images give, so that every tensor uses its whole range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hwgen.network import AvgPool, Conv, Encoding, Logits, MaxPool, Network, Node, Requant, ShortcutA, Tensor
from hwgen.network_check import checked
from sim.golden import Codes, accumulate, evaluate

_MUL_LIMIT = (1 << 17) - 1
_SKIP_LIMIT = (1 << 24) - 1


class Builder:
    """Grows a network node by node.

    Args:
        shape: (H, W, C) of the 8-bit image. weight_bits, activation_bits: of all layers but the first and last.
        first_bits: weight bits of the first layer. last_bits: (weight, activation) bits of the last. seed: of the weights.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        weight_bits: int,
        activation_bits: int,
        *,
        first_bits: int = 8,
        last_bits: tuple[int, int] = (8, 8),
        seed: int = 1,
    ) -> None:
        self.name = name
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.first_bits, self.last_bits = first_bits, last_bits
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.tensors = {"image": Tensor("image", shape, 8)}
        self.values: dict[str, Codes] = {"image": self.rng.integers(0, 256, (1, *shape))}

    def add(self, node: Node, tensor: Tensor) -> str:
        self.nodes.append(node)
        self.tensors[tensor.name] = tensor
        network = Network(self.name, self.tensors, (), "image", tensor.name)
        self.values[tensor.name] = evaluate(node, network, self.values)
        return tensor.name

    def _weights(
        self, source: str, channels: int, kernel: tuple[int, int], depthwise: bool, bits: int
    ) -> NDArray[np.int16]:
        depth = 1 if depthwise else self.tensors[source].shape[2]
        return self.rng.integers(0, 1 << bits, (channels, *kernel, depth)).astype(np.int16)

    def conv(
        self,
        name: str,
        source: str,
        channels: int,
        kernel: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        bits: int | None = None,
        weight_bits: int | None = None,
        skip: str | None = None,
        signed: bool = False,
        depthwise: bool = False,
    ) -> str:
        """A convolution; ``bits`` are its output's."""
        x = self.tensors[source]
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = size[0] // 2 if padding is None else padding
        weight_bits = weight_bits or (self.first_bits if source == "image" else self.weight_bits)
        weight = self._weights(source, channels, size, depthwise, weight_bits)
        rows, columns = ((x.shape[at] + 2 * padding - size[at]) // stride + 1 for at in range(2))
        out = Tensor(f"{name}.out", (rows, columns, channels), bits or self.activation_bits, signed)

        def node(mul: Codes, bias: Codes, shift: int, skip_mul: int) -> Conv:
            return Conv(
                name=name,
                inputs=(source,) if skip is None else (source, skip),
                output=out.name,
                weight=weight,
                weight_bits=weight_bits,
                encoding=Encoding.BIPOLAR,
                bias=bias,
                mul=mul.astype(np.int32),
                shift=shift,
                stride=stride,
                padding=padding,
                depthwise=depthwise,
                skip_mul=skip_mul,
            )

        nothing = np.zeros(channels, np.int64)
        acc = accumulate(node(nothing, nothing, 1, 0), self.values[source], x).reshape(-1, channels)
        width = (out.hi - out.lo) / 4
        factor = width / np.maximum(acc.std(axis=0), 1.0)
        ratio = 0.0 if skip is None else width / max(float(self.values[skip].std()), 1.0)
        shift = 31
        while shift > 1 and (factor.max() * 2**shift > _MUL_LIMIT or ratio * 2**shift > _SKIP_LIMIT):
            shift -= 1
        mul = np.clip(np.round(factor * 2**shift), 1, _MUL_LIMIT).astype(np.int64)
        centre = (out.hi + out.lo + 1) / 2 - ratio * (0.0 if skip is None else float(self.values[skip].mean()))
        bias = np.round(centre * 2**shift - acc.mean(axis=0) * mul).astype(np.int64) + (1 << (shift - 1))
        return self.add(node(mul, bias, shift, round(ratio * 2**shift)), out)

    def requant(self, name: str, source: str, bits: int | None = None) -> str:
        """The consumer's code of a skip code."""
        bits = bits or self.activation_bits
        x = self.tensors[source]
        shift = 16
        mul = ((1 << bits) - 1 << shift) // x.hi
        node = Requant(name=name, inputs=(source,), output=f"{name}.out", mul=mul, bias=1 << (shift - 1), shift=shift)
        return self.add(node, Tensor(f"{name}.out", x.shape, bits))

    def maxpool(self, name: str, source: str, kernel: int = 2, stride: int = 2, padding: int = 0) -> str:
        x = self.tensors[source]
        rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[:2])
        node = MaxPool(name=name, inputs=(source,), output=f"{name}.out", kernel=kernel, stride=stride, padding=padding)
        return self.add(node, Tensor(f"{name}.out", (rows, columns, x.shape[2]), x.bits, x.signed))

    def mean(self, name: str, source: str, bits: int) -> str:
        """Global average pool."""
        x = self.tensors[source]
        height, width, channels = x.shape
        shift = 16
        mul = round(((1 << bits) - 1) / x.hi / (height * width) * (1 << shift))
        node = AvgPool(
            name=name,
            inputs=(source,),
            output=f"{name}.out",
            kernel=(height, width),
            stride=1,
            mul=mul,
            bias=1 << (shift - 1),
            shift=shift,
        )
        return self.add(node, Tensor(f"{name}.out", (1, 1, channels), bits))

    def shortcut(self, name: str, source: str, channels: int, stride: int) -> str:
        """Option A."""
        x = self.tensors[source]
        shape = (-(-x.shape[0] // stride), -(-x.shape[1] // stride), channels)
        node = ShortcutA(
            name=name, inputs=(source,), output=f"{name}.out", stride=stride, before=(channels - x.shape[2]) // 2
        )
        return self.add(node, Tensor(f"{name}.out", shape, x.bits, x.signed))

    def logits(self, source: str, classes: int) -> Network:
        """The last layer; returns the checked network."""
        bits = self.last_bits[0]
        weight = self._weights(source, classes, self.tensors[source].shape[:2], False, bits)
        node = Logits(
            name="logits",
            inputs=(source,),
            output="logits.out",
            weight=weight,
            weight_bits=bits,
            encoding=Encoding.BIPOLAR,
            bias=self.rng.integers(-(1 << 12), 1 << 12, classes),
        )
        self.add(node, Tensor("logits.out", (1, 1, classes), 32, True))
        return checked(Network(self.name, self.tensors, tuple(self.nodes), "image", "logits.out"))

    def block(self, name: str, skip: str, channels: int, stride: int, shortcut: str) -> str:
        """Two 3x3 convolutions and a join; in and out are skip codes. shortcut: "a" or "projection" where shapes change."""
        code = self.requant(f"{name}.code", skip)
        inner = self.conv(f"{name}.conv1", code, channels, stride=stride)
        if stride != 1 or self.tensors[skip].shape[2] != channels:
            if shortcut == "a":
                skip = self.shortcut(f"{name}.short", skip, channels, stride)
            else:
                skip = self.conv(f"{name}.short", code, channels, 1, stride=stride, bits=8, signed=True)
        return self.conv(f"{name}.conv2", inner, channels, bits=8, skip=skip)


def resnet_cifar(
    depth: int, weight_bits: int, activation_bits: int, shape: tuple[int, int, int] = (32, 32, 3)
) -> Network:
    """ResNet-20/32/44/56 with option-A shortcuts; first and last layer 8 bit."""
    made = Builder(f"resnet{depth}", shape, weight_bits, activation_bits)
    at = made.conv("stem", "image", 16, bits=8)
    for stage, channels in enumerate((16, 32, 64)):
        for index in range((depth - 2) // 6):
            at = made.block(f"s{stage + 1}b{index + 1}", at, channels, 2 if stage and not index else 1, "a")
    return made.logits(made.mean("mean", at, made.last_bits[1]), 10)


def resnet8(weight_bits: int, activation_bits: int, shape: tuple[int, int, int] = (32, 32, 3)) -> Network:
    """The residual network of MLPerf Tiny: three blocks, projection shortcuts."""
    made = Builder("resnet8", shape, weight_bits, activation_bits)
    at = made.conv("stem", "image", 16, bits=8)
    for stage, channels in enumerate((16, 32, 64)):
        at = made.block(f"s{stage + 1}", at, channels, 2 if stage else 1, "projection")
    return made.logits(made.mean("mean", at, made.last_bits[1]), 10)


def cnv(weight_bits: int, activation_bits: int, shape: tuple[int, int, int] = (32, 32, 3)) -> Network:
    """FINN's CNV: six convolutions without padding, two max pools, three linear layers; first layer M x 8 bits."""
    made = Builder(
        "cnv", shape, weight_bits, activation_bits, first_bits=weight_bits, last_bits=(weight_bits, activation_bits)
    )
    at = "image"
    for index, channels in enumerate((64, 64, 128, 128, 256, 256)):
        at = made.conv(f"conv{index + 1}", at, channels, padding=0)
        if index in (1, 3):
            at = made.maxpool(f"pool{index // 2 + 1}", at)
    for index in range(2):
        at = made.conv(f"fc{index + 1}", at, 512, made.tensors[at].shape[:2], padding=0)
    return made.logits(at, 10)


def mlp(
    weight_bits: int, activation_bits: int, sizes: tuple[int, ...] = (784, 512, 512, 10), *, first_bits: int = 8
) -> Network:
    """Linear layers on an image of one channel where the first size is a square, else of one pixel."""
    side = int(sizes[0] ** 0.5)
    shape = (side, side, 1) if side * side == sizes[0] else (1, 1, sizes[0])
    made = Builder("mlp", shape, weight_bits, activation_bits, first_bits=first_bits)
    at = "image"
    for index, channels in enumerate(sizes[1:-1]):
        bits = made.last_bits[1] if index == len(sizes) - 3 else None
        at = made.conv(f"fc{index + 1}", at, channels, made.tensors[at].shape[:2], padding=0, bits=bits)
    return made.logits(at, sizes[-1])


def resnet18(weight_bits: int, activation_bits: int, side: int = 224, classes: int = 1000) -> Network:
    """ResNet-18 for ImageNet, projection shortcuts."""
    made = Builder("resnet18", (side, side, 3), weight_bits, activation_bits)
    at = made.maxpool("pool", made.conv("stem", "image", 64, 7, stride=2, bits=8), 3, 2, 1)
    for stage, channels in enumerate((64, 128, 256, 512)):
        for index in range(2):
            at = made.block(f"s{stage + 1}b{index + 1}", at, channels, 2 if stage and not index else 1, "projection")
    return made.logits(made.mean("mean", at, made.last_bits[1]), classes)


def mobilenet(weight_bits: int, activation_bits: int, shape: tuple[int, int, int] = (32, 32, 3)) -> Network:
    """Five depthwise-separable blocks as in MobileNetV1."""
    made = Builder("mobilenet", shape, weight_bits, activation_bits)
    at = made.conv("stem", "image", 16)
    for index, (channels, stride) in enumerate(((32, 1), (64, 2), (64, 1), (128, 2), (128, 1))):
        depth = made.tensors[at].shape[2]
        at = made.conv(f"depthwise{index + 1}", at, depth, stride=stride, depthwise=True)
        at = made.conv(f"pointwise{index + 1}", at, channels, 1)
    return made.logits(made.mean("mean", at, made.last_bits[1]), 10)


NETWORKS: Mapping[str, Callable[[int, int], Network]] = {
    "resnet20": lambda m, k: resnet_cifar(20, m, k),
    "resnet32": lambda m, k: resnet_cifar(32, m, k),
    "resnet56": lambda m, k: resnet_cifar(56, m, k),
    "resnet8": resnet8,
    "cnv": cnv,
    "mlp": mlp,
    "mobilenet": mobilenet,
    "resnet18": resnet18,
}
