"""``prepare``: any nn.Module of supported layers as a searchable network of nodes.

Calls are first joined to stages (a convolution with its bias, batch norm, addition and ReLU is one, as in hardware); then
every tensor gets a quantiser by what reads it: searched bits where only convolutions do, else the 8-bit skip code, from
which a requant node makes the convolutions' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import nn

from hwgen.errors import InputError
from model.equivalence import check_equivalence
from model.finite import weight_problems
from model.layers import padding_of
from model.nodes import SKIP_BITS, AffineNode, ConvNode, LogitsNode, NetNode, Quantiser, WeightedNode
from model.pool_nodes import AvgPoolNode, MaxPoolNode, RequantNode, ShortcutANode
from model.quantnet import IMAGE, QuantNet
from model.trace import Kind, Op, Shortcut, trace

Norm = nn.BatchNorm2d | nn.BatchNorm1d
Sizes = tuple[int, int, int]


@dataclass(eq=False)
class _Stage:
    """What becomes one node. kind: IMAGE, WEIGHTED, NORM (affine), RELU (requantise), MAX, AVERAGE or SHORTCUT."""

    kind: Kind
    name: str
    shape: Sizes
    source: _Stage | None = None
    module: nn.Module | None = None
    norm: Norm | None = None
    skip: _Stage | None = None
    ceiling: float | None = None  # of its ReLU; None: it has none
    dropout: float = 0.0
    readers: list[_Stage] = field(default_factory=list)  # as main input

    @property
    def owner(self) -> _Stage:
        """The stage whose quantiser the tensor has."""
        if self.kind in (Kind.MAX, Kind.SHORTCUT):
            assert self.source is not None
            return self.source.owner
        return self

    @property
    def signed(self) -> bool:
        """Whether its codes are signed: no ReLU, and not the mean of unsigned codes."""
        owner = self.owner
        if owner.kind is Kind.IMAGE or owner.ceiling is not None:
            return False
        return not (owner.kind is Kind.AVERAGE and owner.source is not None and not owner.source.signed)

    @property
    def output(self) -> str:
        return IMAGE if self.kind is Kind.IMAGE else f"{self.name}.out"

    @property
    def code(self) -> str:
        """The tensor that convolutions read."""
        return f"{self.name}.code"


class _Stages:
    """Joins calls to stages."""

    def __init__(self, ops: Sequence[Op], output: int) -> None:
        self.ops = ops
        self.stages: list[_Stage] = []
        self.made: dict[int, _Stage] = {}
        self.uses = [0] * len(ops)
        for op in ops:
            if op.kind is not Kind.SAME:
                for index in op.inputs:
                    self.uses[self._root(index)[0]] += 1
        self.uses[self._root(output)[0]] += 1
        for index, op in enumerate(ops):
            if op.kind is not Kind.SAME:
                self.made[index] = self._stage(index, op)
        self.last = self.made[self._root(output)[0]]
        for stage in self.stages:
            if stage.source is not None:
                stage.source.readers.append(stage)

    def _root(self, index: int) -> tuple[int, float]:
        """(the call behind flatten, dropout and identity; the share that dropout keeps on the way)."""
        keep = 1.0
        while self.ops[index].kind is Kind.SAME:
            keep *= 1 - self.ops[index].dropout
            index = self.ops[index].inputs[0]
        return index, keep

    def _add(self, stage: _Stage) -> _Stage:
        self.stages.append(stage)
        return stage

    def _stage(self, index: int, op: Op) -> _Stage:
        roots = [self._root(item) for item in op.inputs]
        if op.kind is Kind.IMAGE:
            return self._add(_Stage(op.kind, IMAGE, op.shape))
        sources = [self.made[root] for root, _ in roots]
        source, alone = sources[0], self.uses[roots[0][0]] == 1
        if op.kind is Kind.NORM:
            assert isinstance(op.module, nn.BatchNorm2d | nn.BatchNorm1d)
            if alone and source.kind is Kind.WEIGHTED and not (source.norm or source.skip or source.ceiling is not None):
                source.norm = op.module
                return source
            return self._add(_Stage(Kind.NORM, op.name, op.shape, source, norm=op.module))
        if op.kind is Kind.RELU:
            below = source.source if source.kind is Kind.MAX else source
            assert below is not None
            # A ReLU behind a max pool may as well stand before it.
            chain = alone and (source is below or self._reads(below) == 1)
            if chain and below.kind in (Kind.WEIGHTED, Kind.NORM, Kind.AVERAGE) and below.ceiling is None:
                below.ceiling = op.ceiling
                return source
            return self._add(_Stage(Kind.RELU, op.name, op.shape, source, ceiling=op.ceiling))
        if op.kind is Kind.ADD:
            return self._addition(op, sources, [self.uses[root] for root, _ in roots])
        stage = _Stage(op.kind, op.name, op.shape, source, op.module, dropout=1 - roots[0][1])
        return self._add(stage)

    def _reads(self, stage: _Stage) -> int:
        return sum(self.uses[index] for index, made in self.made.items() if made is stage and self._ends(index))

    def _ends(self, index: int) -> bool:
        """Whether the call is the last that was joined to its stage."""
        return not any(made is self.made[index] and other > index for other, made in self.made.items())

    def _addition(self, op: Op, sources: list[_Stage], uses: list[int]) -> _Stage:
        """The convolution of most taps takes the addition in; where there is none, an affine stage does."""
        fit = [
            (stage.module.weight[0].numel() if isinstance(stage.module, nn.Conv2d | nn.Linear) else 0, at)
            for at, stage in enumerate(sources)
            if uses[at] == 1 and stage.kind in (Kind.WEIGHTED, Kind.NORM) and not stage.skip and stage.ceiling is None
        ]
        if not fit:
            return self._add(_Stage(Kind.NORM, op.name, op.shape, sources[0], skip=sources[1]))
        _, at = max(fit)
        stage, skip = sources[at], sources[1 - at]
        stage.skip = skip
        # The skip tensor may have been made after the convolution.
        self.stages.remove(stage)
        self.stages.append(stage)
        return stage


@dataclass
class _Nodes:
    """Makes the nodes of stages."""

    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    pinned: int | None
    weights: str
    learned_step: bool
    skips: set[_Stage]
    nodes: list[NetNode] = field(default_factory=list)

    def direct(self, stage: _Stage) -> bool:
        """Whether only convolutions read the tensor, so that it has their bits at once; never after an addition."""
        owner = stage.owner
        if owner.kind is Kind.IMAGE:
            return True
        if owner.skip is not None:
            return False
        return all(
            item not in self.skips and all(r.kind in (Kind.WEIGHTED, Kind.MAX, Kind.SHORTCUT) for r in item.readers)
            for item in self.sharing[owner]
        )

    def build(self, stages: Sequence[_Stage], last: _Stage) -> None:
        self.sharing: dict[_Stage, list[_Stage]] = {}
        for stage in stages:
            self.sharing.setdefault(stage.owner, []).append(stage)
        layers = [stage for stage in stages if stage.kind is Kind.WEIGHTED]
        self.edges, self.last = {layers[0], last}, last
        for stage in stages:
            if stage.kind is not Kind.IMAGE:
                node = self._node(stage)
                self.nodes.append(node)
                if not self.direct(stage) and any(item.kind is Kind.WEIGHTED for item in stage.readers):
                    quantiser = self._quantiser(stage, self._bits([stage]))
                    self.nodes.append(RequantNode(f"{stage.name}.requant", (stage.output,), stage.code, quantiser))

    def _bits(self, stages: Sequence[_Stage]) -> tuple[int, ...]:
        """Candidates of the tensor that these stages' readers share."""
        readers = {reader for stage in stages for reader in stage.readers if reader.kind is Kind.WEIGHTED}
        pinned = self.pinned is not None and readers and readers <= {self.last}
        bits = (self.pinned,) if pinned and self.pinned is not None else self.activation_bits
        return tuple(b for b in bits if b >= 2) or (2,) if stages[0].signed else bits

    def _quantiser(self, stage: _Stage, bits: tuple[int, ...]) -> Quantiser:
        ceiling = stage.owner.ceiling
        return Quantiser(
            bits,
            signed=stage.signed,
            ceiling=inf if ceiling is None else ceiling,
            learned_step=self.learned_step,
        )

    def _own(self, stage: _Stage) -> Quantiser:
        bits = self._bits(self.sharing[stage]) if self.direct(stage) else (SKIP_BITS,)
        return self._quantiser(stage, bits)

    def _read(self, source: _Stage) -> str:
        """The tensor that a convolution reads."""
        return source.output if self.direct(source) else source.code

    def _node(self, stage: _Stage) -> NetNode:
        source, module = stage.source, stage.module
        assert source is not None
        plain = (source.output,)
        both = plain if stage.skip is None else (*plain, stage.skip.output)
        if stage.kind is Kind.WEIGHTED:
            return self._weighted(stage, source)
        if stage.kind is Kind.NORM:
            node = AffineNode(stage.name, both, stage.output, stage.shape[0], self._own(stage), stage.norm is not None)
            _copy_norm(node, stage.norm)
            return node
        if stage.kind is Kind.RELU:
            return RequantNode(stage.name, plain, stage.output, self._own(stage))
        if stage.kind is Kind.AVERAGE:
            assert isinstance(module, nn.AvgPool2d) and isinstance(module.kernel_size, tuple)
            whole = module.kernel_size == source.shape[1:]
            kernel = None if whole else (module.kernel_size[0], module.kernel_size[1])
            return AvgPoolNode(
                stage.name, plain, stage.output, self._own(stage), kernel, int(module.stride), int(module.padding)  # type: ignore[arg-type]
            )  # fmt: skip
        if stage.kind is Kind.MAX:
            assert isinstance(module, nn.MaxPool2d)
            return MaxPoolNode(
                stage.name, plain, stage.output, int(module.kernel_size), int(module.stride), int(module.padding)  # type: ignore[arg-type]
            )  # fmt: skip
        assert isinstance(module, Shortcut)
        before = (module.channels - source.shape[0]) // 2
        return ShortcutANode(stage.name, plain, stage.output, module.stride, before, module.channels)

    def _weighted(self, stage: _Stage, source: _Stage) -> WeightedNode:
        module = stage.module
        assert isinstance(module, nn.Conv2d | nn.Linear)
        weight = module.weight.detach()
        stride, padding, depthwise = 1, 0, False
        if isinstance(module, nn.Conv2d):
            stride, padding, depthwise = module.stride[0], padding_of(module), module.groups > 1
        else:
            weight = weight.reshape(len(weight), *source.shape)
        channels, kernel = (source.shape[0], len(weight)), (weight.shape[2], weight.shape[3])
        edge = stage in self.edges and self.pinned is not None
        candidates = (self.pinned,) if edge and self.pinned is not None else self.weight_bits
        inputs = (self._read(source),) if stage.skip is None else (self._read(source), stage.skip.output)
        node: WeightedNode
        if stage is self.last:
            node = LogitsNode(stage.name, inputs, "logits", channels, kernel, candidates, weights=self.weights)
        else:
            node = ConvNode(
                stage.name,
                inputs,
                stage.output,
                channels,
                kernel,
                stride=stride,
                padding=padding,
                candidates=candidates,
                quantiser=self._own(stage),
                norm=stage.norm is not None,
                depthwise=depthwise,
                bias=module.bias is not None,
                weights=self.weights,
            )
            _copy_norm(node, stage.norm)
        node.weight.data.copy_(weight)
        if module.bias is not None and node.bias is not None:
            node.bias.data.copy_(module.bias.detach())
        node.dropout = stage.dropout
        return node


def _copy_norm(node: ConvNode, norm: Norm | None) -> None:
    if norm is None or node.norm is None:
        return
    node.norm.eps, node.norm.momentum = norm.eps, norm.momentum
    for own, given in ((node.norm.weight, norm.weight), (node.norm.bias, norm.bias)):
        if given is not None:
            own.data.copy_(given.detach())
    assert node.norm.running_mean is not None and node.norm.running_var is not None
    assert norm.running_mean is not None and norm.running_var is not None
    node.norm.running_mean.copy_(norm.running_mean)
    node.norm.running_var.copy_(norm.running_var)


def prepare(
    module: nn.Module,
    shape: Sizes,
    *,
    name: str | None = None,
    input_bits: int = 8,
    weight_bits: Sequence[int] = (1, 2, 3, 4, 5),
    activation_bits: Sequence[int] = (1, 2, 3, 4, 5),
    pinned: int | None = 8,
    weights: str = "dorefa",
    activations: str = "lsq",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> QuantNet:
    """Make any module of supported layers searchable, with its weights and batch-norm statistics as they are.

    Layers may be written as modules, functions or methods: convolution (bias or not, depthwise), linear, batch norm, ReLU,
    ReLU6, addition, max, average and global average pooling, flatten, dropout. The last must be a linear layer (or a
    convolution over the whole map).

    Args:
        shape: (C, H, W) of an image. input_bits: width of its codes, 1 to 8; the network sees code / (2**input_bits - 1).
        weight_bits, activation_bits: candidates of every layer, 1 to 8. Signed activations have 2 bits and more.
        pinned: bits of the first and last layer's weights and of the last layer's input; None or 0: they are searched too.
        weights: "dorefa", "lsq" (learned step size) or "lsq-channel" (by each output channel's size). activations: "lsq" (learned step size) or "pact".
        mean, std: what the module's input was normalised by, per channel of values in [0, 1]; folded into the first layer.

    Raises:
        InputError: a module that cannot be traced, unsupported layers (all of them at once), weights that are no numbers, no
            candidates, or float logits that are not the module's.
    """
    subject = f"network '{name or type(module).__name__}'"
    if not isinstance(module, nn.Module):
        raise InputError("It is no torch.nn.Module; call what makes the network, and give what it returns.", subject)
    problems = [
        f"'{what}': the candidates {list(bits)} must be one or more of 1 to 8."
        for what, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits), ("pinned", [pinned or 8]))
        if not bits or not all(1 <= b <= 8 for b in bits)
    ]
    if not 1 <= input_bits <= 8:
        problems.append(f"'input_bits': {input_bits} is out of range 1..8.")
    if weights not in ("dorefa", "lsq", "lsq-channel") or activations not in ("lsq", "pact"):
        problems.append("'weights' is dorefa, lsq or lsq-channel, 'activations' is lsq or pact.")
    problems += weight_problems(module)
    if problems:
        raise InputError(problems, subject)
    joined = _Stages(*trace(module, shape))
    last = joined.last
    if (
        last.kind is not Kind.WEIGHTED
        or (last.norm or last.skip or last.ceiling is not None or last.readers)
        or not _whole_map(last)
    ):
        raise InputError(
            f"'{last.name}' makes the logits; the last layer must be a linear layer (or a convolution over the whole map)"
            " with nothing behind it.",
            subject,
        )
    skips = {stage.skip for stage in joined.stages if stage.skip is not None}
    made = _Nodes(tuple(sorted(set(weight_bits))), tuple(sorted(set(activation_bits))), pinned or None, weights,
                  activations == "lsq", skips)  # fmt: skip
    stages = [stage for stage in joined.stages if stage is not last] + [last]
    made.build(stages, last)
    net = QuantNet(name or type(module).__name__, (shape[1], shape[2], shape[0]), input_bits, made.nodes)
    check_equivalence(module, net, subject)
    if mean is not None or std is not None:
        _normalise(net, mean or [0.0] * shape[0], std or [1.0] * shape[0], subject)
    return net


def _whole_map(stage: _Stage) -> bool:
    assert stage.source is not None
    if isinstance(stage.module, nn.Linear):
        return True
    conv: Any = stage.module
    return tuple(conv.kernel_size) == stage.source.shape[1:] and padding_of(conv) == 0 and conv.groups == 1


def _normalise(net: QuantNet, mean: Sequence[float], std: Sequence[float], subject: str) -> None:
    """Fold (x - mean) / std into the layers that read the image; their padding then is the mean's nearest code."""
    readers = [node for node in net if IMAGE in node.inputs]
    if len(mean) != net.shape[2] or len(std) != net.shape[2] or min(std) <= 0:
        raise InputError(f"'mean' and 'std' need {net.shape[2]} numbers each, 'std' above 0.", subject)
    if any(not isinstance(node, WeightedNode) or isinstance(node, AffineNode) for node in readers):
        raise InputError("'mean' and 'std' fold into convolutions; something else reads the image.", subject)
    centre, scale = torch.tensor(list(mean)), torch.tensor(list(std))
    for node in readers:
        assert isinstance(node, WeightedNode)
        if node.depthwise:
            raise InputError("'mean' and 'std' do not fold into a depthwise convolution.", subject)
        node.weight.data.div_(scale.view(1, -1, 1, 1))
        if node.bias is None:
            node.bias = nn.Parameter(torch.zeros(len(node.weight)))
        node.bias.data.sub_((node.weight.detach() * centre.view(1, -1, 1, 1)).sum((1, 2, 3)))
        if node.padding:
            top = (1 << net.input_bits) - 1
            node.pad_codes = torch.clamp(torch.floor(centre * top + 0.5), 0, top)
