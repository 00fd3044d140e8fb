"""A network as training knows it: a list of nodes in topological order. ``model.frontend`` makes it from an nn.Module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from model.nodes import Choice, Context, ConvNode, NetNode, Quantiser, WeightedNode
from model.pool_nodes import AvgPoolNode, RequantNode, SharingNode
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
        """The quantiser of every tensor that has one, by tensor name; pools and shortcuts that move codes share it."""
        found: dict[str, Quantiser] = {}
        for node in self:
            if isinstance(node, ConvNode | RequantNode | AvgPoolNode):
                found[node.output] = node.quantiser
            elif isinstance(node, SharingNode) and node.inputs[0] in found:
                found[node.output] = found[node.inputs[0]]
        return found

    def moved_from(self, name: str) -> str:
        """The tensor whose codes a pool or shortcut moved to ``name``; the name itself where none did."""
        for node in reversed(list(self)):
            if node.output == name and isinstance(node, SharingNode):
                name = node.inputs[0]
        return name

    def source_choice(self, node: WeightedNode) -> Choice | None:
        """The choice of bits of a weighted node's input; None for the image, whose bits are given."""
        quantiser = self.quantisers().get(node.inputs[0])
        return None if quantiser is None else quantiser.choice

    def strengths(self) -> list[nn.Parameter]:
        """Strengths of all searchable choices."""
        return [item.strengths for item in self.modules() if isinstance(item, Choice) and item.searchable]

    def clips(self) -> list[nn.Parameter]:
        """Clip and step parameters, of activations and where they are learned of weights."""
        clips = [item.clip for item in self.modules() if isinstance(item, Quantiser)]
        return clips + [node.weight_clip for node in self.weighted() if node.weight_clip is not None]

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
