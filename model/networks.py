"""Networks as lists of nodes: residual networks of any depth and width, with option-A or projection shortcuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from model.nodes import (
    SKIP_BITS,
    Choice,
    Context,
    ConvNode,
    GlobalAveragePoolNode,
    LogitsNode,
    NetNode,
    Quantiser,
    RequantNode,
    ShortcutANode,
    WeightedNode,
)
from model.quantise import Quantised

IMAGE = "image"


class QuantNet(nn.Module):
    """A network of nodes in topological order, on images of integer codes (N, C, H, W).

    shape: (height, width, channels) of the image; input_bits: its code width. The value of a code is code / (2**bits - 1).
    """

    def __init__(self, name: str, shape: tuple[int, int, int], input_bits: int, nodes: Sequence[NetNode]) -> None:
        super().__init__()
        self.name, self.shape, self.input_bits = name, shape, input_bits
        self.nodes = nn.ModuleList(nodes)

    def __iter__(self) -> Iterator[NetNode]:
        for node in self.nodes:
            assert isinstance(node, NetNode)
            yield node

    @property
    def input_scale(self) -> float:
        return 1.0 / ((1 << self.input_bits) - 1)

    def weighted(self) -> list[WeightedNode]:
        """Convolutions and the classifier in order."""
        return [node for node in self if isinstance(node, WeightedNode)]

    def quantisers(self) -> dict[str, Quantiser]:
        """The quantiser of every tensor that has one, by tensor name."""
        return {
            node.output: node.quantiser
            for node in self
            if isinstance(node, ConvNode | RequantNode | GlobalAveragePoolNode)
        }

    def source_choice(self, node: WeightedNode) -> Choice | None:
        """The choice of bits of a weighted node's input; None for the image, whose bits are given."""
        quantiser = self.quantisers().get(node.inputs[0])
        return None if quantiser is None else quantiser.choice

    def strengths(self) -> list[nn.Parameter]:
        """Strengths of all searchable choices."""
        return [item.strengths for item in self.modules() if isinstance(item, Choice) and item.searchable]

    def clips(self) -> list[nn.Parameter]:
        """Clip and step parameters."""
        return [item.clip for item in self.modules() if isinstance(item, Quantiser)]

    def meta_weights(self) -> list[nn.Parameter]:
        """Everything that is neither a strength nor a clip."""
        special = {id(item.strengths) for item in self.modules() if isinstance(item, Choice)}
        special |= {id(item) for item in self.clips()}
        return [item for item in self.parameters() if id(item) not in special]

    def tensors(self, codes: Tensor, context: Context) -> dict[str, Quantised]:
        """Every tensor of a pass over image codes, float (N, C, H, W)."""
        scale = torch.tensor(self.input_scale)
        values = {IMAGE: Quantised(codes * scale, codes, scale)}
        for node in self:
            values[node.output] = node(values, context)
        return values

    def forward(self, codes: Tensor, context: Context) -> Tensor:
        """Logits in real units, (N, classes)."""
        last = list(self)[-1]
        return self.tensors(codes, context)[last.output].value.flatten(1)


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
    """A CIFAR-style residual network.

    Args:
        stem: channels of the first convolution. stages: (channels, blocks, stride) each.
        shortcut: where shapes change: "projection" (1x1 convolution and batch norm) or "a" (subsampling, zero channels).
        weight_bits, activation_bits: candidates of every layer. pinned: bits of first and last layer's weights instead.
    """
    edge = weight_bits if pinned is None else (pinned,)
    nodes: list[NetNode] = [
        ConvNode("stem", (IMAGE,), "stem.out", (shape[2], stem), 3, candidates=edge, quantiser=Quantiser((SKIP_BITS,)))
    ]
    skip, channels, size, number = "stem.out", stem, shape[:2], 0
    for width, blocks, stride in stages:
        for index in range(blocks):
            number += 1
            step = stride if index == 0 else 1
            block = f"block{number}"
            code = f"{block}.in"
            nodes.append(RequantNode(f"{block}.requant", (skip,), code, Quantiser(activation_bits)))
            nodes.append(
                ConvNode(
                    f"{block}.conv1",
                    (code,),
                    f"{block}.mid",
                    (channels, width),
                    3,
                    stride=step,
                    candidates=weight_bits,
                    quantiser=Quantiser(activation_bits),
                )
            )
            if step != 1 or width != channels:
                if shortcut == "projection":
                    nodes.append(
                        ConvNode(
                            f"{block}.project",
                            (code,),
                            f"{block}.skip",
                            (channels, width),
                            1,
                            stride=step,
                            candidates=weight_bits,
                            quantiser=Quantiser((SKIP_BITS,), signed=True),
                        )
                    )
                else:
                    nodes.append(
                        ShortcutANode(f"{block}.shortcut", (skip,), f"{block}.skip", step, (width - channels) // 2, width)
                    )
                skip = f"{block}.skip"
            nodes.append(
                ConvNode(
                    f"{block}.conv2",
                    (f"{block}.mid", skip),
                    f"{block}.out",
                    (width, width),
                    3,
                    candidates=weight_bits,
                    quantiser=Quantiser((SKIP_BITS,)),
                )
            )
            skip, channels = f"{block}.out", width
            size = (-(-size[0] // step), -(-size[1] // step))
    nodes.append(
        GlobalAveragePoolNode("pool", (skip,), "pool.out", Quantiser(activation_bits if pinned is None else (pinned,)))
    )
    nodes.append(LogitsNode("classifier", ("pool.out",), "logits", (channels, classes), 1, edge))
    return QuantNet(name, shape, input_bits, nodes)
