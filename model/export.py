"""Export: from a trained network of nodes to the integer network, with the proof that nothing is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hwgen.errors import InputError
from hwgen.network import AvgPool, Conv, Encoding, Logits, MaxPool, Network, Node, Requant, Samples, ShortcutA, Tensor
from hwgen.network_check import checked, weight_sums
from model.fold import scale_error
from model.nodes import Context, ConvNode, LogitsNode, Mode, WeightedNode
from model.pool_nodes import AvgPoolNode, MaxPoolNode, RequantNode, ShortcutANode
from model.quantise import Quantised
from model.quantnet import IMAGE, QuantNet

SCALE_ERROR_LIMIT = 1 / 8


def _ints(values: torch.Tensor, dtype: type[np.generic]) -> NDArray[np.generic]:
    return values.detach().double().cpu().numpy().astype(np.int64).astype(dtype)


@dataclass
class _Exporter:
    net: QuantNet
    values: dict[str, Quantised]
    problems: list[str]

    def tensor(self, name: str) -> Tensor:
        value = self.values[name].value
        shape = (int(value.shape[2]), int(value.shape[3]), int(value.shape[1]))
        if name == IMAGE:
            return Tensor(name, shape, self.net.input_bits, False, self.net.input_scale)
        quantiser = self.net.quantisers().get(name)
        if quantiser is None:
            scale = self.values[name].scale
            assert scale is not None
            source = self.net.moved_from(name)
            if source == IMAGE:  # a pool or shortcut that reads the image
                return Tensor(name, shape, self.net.input_bits, False, self.net.input_scale)
            return Tensor(name, (1, 1, shape[2]), 32, True, float(scale))
        return Tensor(name, shape, quantiser.bits, quantiser.signed, float(quantiser.scale()))

    def _scale(self, name: str) -> torch.Tensor:
        scale = self.values[name].scale
        assert scale is not None
        return scale.detach()

    def _codes(self, node: WeightedNode) -> tuple[NDArray[np.int16], torch.Tensor]:
        weights = node.quantised_weight(node.weight_bits)
        assert weights.code is not None and weights.scale is not None
        q = (weights.code + ((1 << node.weight_bits) - 1)) / 2
        return np.asarray(_ints(q, np.int16).transpose(0, 2, 3, 1)), weights.scale.flatten()

    def node(self, node: torch.nn.Module) -> Node:
        if isinstance(node, ConvNode):
            return self._conv(node)
        if isinstance(node, LogitsNode):
            weight, scale = self._codes(node)
            unit = self._scale(node.inputs[0]) * scale
            return Logits(
                name=node.name,
                inputs=node.inputs,
                output=node.output,
                weight=weight,
                weight_bits=node.weight_bits,
                encoding=Encoding.BIPOLAR,
                bias=np.asarray(_ints(node.fold_bias(unit), np.int64)),
            )
        if isinstance(node, RequantNode):
            folded = node.fold(self._scale(node.inputs[0]))
            return Requant(
                name=node.name,
                inputs=node.inputs,
                output=node.output,
                mul=int(folded.mul),
                bias=int(folded.bias),
                shift=folded.shift,
            )
        if isinstance(node, AvgPoolNode):
            height, width, _ = self.tensor(node.inputs[0]).shape
            kernel = node.window(height, width)
            folded = node.fold(self._scale(node.inputs[0]), kernel[0] * kernel[1])
            return AvgPool(
                name=node.name,
                inputs=node.inputs,
                output=node.output,
                kernel=kernel,
                stride=node.stride,
                padding=node.padding,
                mul=int(folded.mul),
                bias=int(folded.bias),
                shift=folded.shift,
            )
        if isinstance(node, MaxPoolNode):
            return MaxPool(
                name=node.name,
                inputs=node.inputs,
                output=node.output,
                kernel=node.kernel,
                stride=node.stride,
                padding=node.padding,
            )
        assert isinstance(node, ShortcutANode)
        return ShortcutA(name=node.name, inputs=node.inputs, output=node.output, stride=node.stride, before=node.before)

    def _conv(self, node: ConvNode) -> Conv:
        weight, scale = self._codes(node)
        unit = self._scale(node.inputs[0]) * scale
        skip = self._scale(node.inputs[1]) if len(node.inputs) > 1 else None
        folded = node.fold(unit, skip)
        made = Conv(
            name=node.name,
            inputs=node.inputs,
            output=node.output,
            weight=weight,
            weight_bits=node.weight_bits,
            encoding=Encoding.BIPOLAR,
            stride=node.stride,
            padding=node.padding,
            depthwise=node.depthwise,
            pad_codes=() if node.pad_codes is None else tuple(int(code) for code in node.pad_codes),
            mul=np.asarray(_ints(folded.mul, np.int32)),
            bias=np.asarray(_ints(folded.bias, np.int64)),
            shift=folded.shift,
            skip_mul=folded.skip_mul,
        )
        source, out = self.tensor(node.inputs[0]), self.tensor(node.output)
        gain, offset = node.norm_affine()
        step = node.quantiser.scale().detach().double()
        acc = torch.from_numpy(weight_sums(made) * max(source.hi, -source.lo)).to(gain.device)
        ratio = 0.0 if skip is None else float(skip.double() / step)
        most = 0 if skip is None else max(self.tensor(node.inputs[1]).hi, -self.tensor(node.inputs[1]).lo)
        error = scale_error(
            folded, unit.double() * gain.double() / step, offset.double() / step, ratio, acc, out.hi - out.lo, most
        )
        if error > SCALE_ERROR_LIMIT:
            self.problems.append(
                f"node '{node.name}': rounding its multipliers can move a code by {error:.2f} LSB, more than 1/8; its"
                " channels' scales lie too far apart. Train on with weight decay, or give the layer fewer activation bits."
            )
        return made


def export(net: QuantNet, samples: Samples | None = None, *, proven: bool = True) -> Network:
    """The integer network of a network whose bits are all chosen.

    Args:
        samples: images and labels to put into the file.
        proven: also prove the scale-rounding error; off for networks that were never trained.

    Raises:
        InputError: an accumulator or sum that could overflow, or scales that cannot be folded; every node at once.
    """
    height, width, channels = net.shape
    was_training = net.training
    net.eval()
    with torch.no_grad():
        blank = torch.zeros(1, channels, height, width, device=next(net.parameters()).device)
        values = net.tensors(blank, Context(Mode.INTEGER))
        exporter = _Exporter(net, values, [])
        nodes = tuple(exporter.node(node) for node in net)
        tensors = {name: exporter.tensor(name) for name in values}
    net.train(was_training)
    network = checked(Network(net.name, tensors, nodes, IMAGE, nodes[-1].output, samples))
    if proven and exporter.problems:
        raise InputError(exporter.problems, f"network '{net.name}'")
    return network
