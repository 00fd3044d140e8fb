"""The nodes a network is trained as: the same nodes, rounding in the same places, as in the integer network.

Shapes: N images, C channels, H and W pixels. Tensors are (N, C, H, W). Every node has three ways to run (``Mode``):
float, quantised (mixed candidates while searching, fixed bits after), and integer, in which the codes come from the
folded integers of the network file and only the gradient from the quantised path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fold import Folded, fold
from model.mixture import mix_unsigned, mix_weight
from model.quantise import Branches, Quantised, quantise_signed, quantise_unsigned, quantise_weight

SKIP_BITS = 8
_EXACT_FLOAT32 = 1 << 24


class Mode(Enum):
    """How the network computes."""

    FLOAT = "float"
    QUANTISED = "quantised"
    INTEGER = "integer"


@dataclass
class Context:
    """What the nodes share during one pass. noise: Gumbel noise source of EBS-Sto; None: deterministic.

    branches: keep every candidate of an activation apart, for a supernet. autocast: convolve codes in bfloat16, which holds
    them exactly up to 256; scales, quantisers and mixtures stay in float32.
    """

    mode: Mode
    temperature: float = 1.0
    noise: torch.Generator | None = None
    branches: bool = False
    autocast: bool = False


class Choice(nn.Module):
    """Bits of one operand: candidates with strengths while searching, one number after.

    Strengths start equal. ``bits`` is None while the candidates are mixed.
    """

    def __init__(self, candidates: tuple[int, ...]) -> None:
        super().__init__()
        self.candidates = candidates
        self.bits: int | None = candidates[0] if len(candidates) == 1 else None
        self.strengths = nn.Parameter(torch.zeros(len(candidates)))

    def restrict(self, candidates: tuple[int, ...]) -> None:
        """Other candidates, their strengths equal again."""
        self.candidates = candidates
        self.bits = candidates[0] if len(candidates) == 1 else None
        self.strengths = nn.Parameter(self.strengths.new_zeros(len(candidates)))

    @property
    def searchable(self) -> bool:
        return len(self.candidates) > 1

    def probabilities(self, context: Context) -> Tensor:
        """softmax(strengths / temperature), with Gumbel noise (a soft sample) where the context has it."""
        logits = torch.log_softmax(self.strengths, 0)
        if context.noise is not None and self.searchable:
            uniform = torch.rand(logits.shape, generator=context.noise).clamp(1e-9, 1 - 1e-9)
            logits = logits - torch.log(-torch.log(uniform)).to(logits.device)
        return torch.softmax(logits / context.temperature, 0)


class Quantiser(nn.Module):
    """Quantiser of one activation tensor. signed: step learned; else PACT with clip alpha.

    ``clip`` is alpha (unsigned) or the step times 2**(bits-1) (signed), learned, set by calibration.
    """

    def __init__(self, candidates: tuple[int, ...], *, signed: bool = False) -> None:
        super().__init__()
        self.choice = Choice(candidates)
        self.signed = signed
        self.clip = nn.Parameter(torch.tensor(6.0))
        self.peak = 0.0
        self.calibrating = False

    @property
    def bits(self) -> int:
        """The chosen bits; an error while they are mixed."""
        assert self.choice.bits is not None, "bits are still mixed"
        return self.choice.bits

    @property
    def lo(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    def positive_clip(self) -> Tensor:
        return self.clip.abs().clamp(min=1e-3)

    def scale(self) -> Tensor:
        """Value of one code step."""
        return self.positive_clip() / ((1 << (self.bits - 1)) if self.signed else self.hi)

    def forward(self, x: Tensor, context: Context) -> Quantised:
        if context.mode is Mode.FLOAT:
            value = x if self.signed else F.relu(x)
            if self.calibrating:
                self.peak = max(self.peak, float(torch.quantile(value.detach().abs().flatten()[:100_000], 0.999)))
            return Quantised(value, None, None)
        if self.signed:
            return quantise_signed(x, self.scale(), self.bits)
        if self.choice.bits is None and context.branches:
            p = self.choice.probabilities(context)
            each = tuple(quantise_unsigned(x, self.positive_clip(), bits).value for bits in self.choice.candidates)
            return Quantised(sum_of(p, each), None, None, Branches(each, p))
        if self.choice.bits is None:
            return Quantised(
                mix_unsigned(x, self.positive_clip(), self.choice.probabilities(context), self.choice.candidates),
                None,
                None,
            )
        return quantise_unsigned(x, self.positive_clip(), self.bits)


def sum_of(p: Tensor, each: tuple[Tensor, ...]) -> Tensor:
    """sum_j p_j x_j."""
    total = p[0] * each[0]
    for weight, value in zip(p[1:], each[1:], strict=True):
        total = total + weight * value
    return total


def straight_through(code: Tensor, quantised: Quantised) -> Quantised:
    """Codes from the integer path with the gradient of the quantised path."""
    assert quantised.code is not None and quantised.scale is not None
    mixed = quantised.code + (code.to(quantised.code.dtype) - quantised.code).detach()
    return Quantised(mixed * quantised.scale, mixed, quantised.scale)


class NetNode(nn.Module):
    """A node: reads tensors by name, makes the tensor ``output``."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.name, self.inputs, self.output = name, inputs, output

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        raise AssertionError("every kind of node computes")


class WeightedNode(NetNode):
    """Convolution (also linear: its kernel is the whole map) with searchable weight bits."""

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        channels: tuple[int, int],
        kernel: int,
        stride: int,
        padding: int,
        candidates: tuple[int, ...],
    ) -> None:
        super().__init__(name, inputs, output)
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(channels[1], channels[0], kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.choice = Choice(candidates)
        self.branches: nn.ParameterDict | None = None  # a supernet's copies of the weights

    @property
    def weight_bits(self) -> int:
        assert self.choice.bits is not None, "bits are still mixed"
        return self.choice.bits

    def accumulate(self, x: Quantised, context: Context) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(sum in real units, integer sums, their scale); the integers only where both operands have codes."""
        if context.mode is Mode.FLOAT:
            return self._conv(x.value, self.weight), None, None
        if self.branches is not None and context.branches:
            return self._supernet(x, context), None, None
        if self.choice.bits is None:
            weight = mix_weight(self.weight, self.choice.probabilities(context), self.choice.candidates)
            return self._conv(x.value, weight), None, None
        weights = quantise_weight(self.weight, self.choice.bits)
        assert weights.code is not None and weights.scale is not None
        if x.code is None or x.scale is None:
            return self._conv(x.value, weights.value), None, None
        largest = int(x.code.detach().abs().max())
        bound = int(weights.code.detach().abs().flatten(1).sum(1).max()) * max(largest, 1)
        if bound < _EXACT_FLOAT32:
            acc = self._codes(x.code, weights.code, context)
        else:
            acc = self._conv(x.code.double(), weights.code.double())
        scale = x.scale * weights.scale
        return (acc * scale).to(x.value.dtype), acc, scale

    def _codes(self, code: Tensor, weight: Tensor, context: Context) -> Tensor:
        if not context.autocast or context.mode is Mode.INTEGER:
            return self._conv(code, weight)
        with torch.autocast(code.device.type, torch.bfloat16):
            return self._conv(code, weight).float()

    def _supernet(self, x: Quantised, context: Context) -> Tensor:
        """sum_ij p_i p_j conv(x_j, w_ij), a convolution each."""
        assert self.branches is not None
        each, p = (x.branches.each, x.branches.p) if x.branches is not None else ((x.value,), None)
        weight_p = self.choice.probabilities(context)
        total: Tensor | None = None
        for at, weight in enumerate(self.branches.values()):
            row, column = divmod(at, len(each))
            y = self._conv(each[column], quantise_weight(weight, self.choice.candidates[row]).value)
            y = y * (weight_p[row] if p is None else weight_p[row] * p[column])
            total = y if total is None else total + y
        assert total is not None
        return total

    def _conv(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


class ConvNode(WeightedNode):
    """Convolution, batch norm, optional skip add, then the output's quantiser (its ReLU is the quantiser's clip at 0)."""

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        candidates: tuple[int, ...],
        quantiser: Quantiser,
    ) -> None:
        super().__init__(
            name, inputs, output, channels, kernel, stride, kernel // 2 if padding is None else padding, candidates
        )
        self.norm = nn.BatchNorm2d(channels[1])
        self.quantiser = quantiser

    def norm_affine(self) -> tuple[Tensor, Tensor]:
        """Batch norm in evaluation as y = x * gain + offset, each (C,)."""
        assert self.norm.running_var is not None and self.norm.running_mean is not None
        gain = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return gain, self.norm.bias - self.norm.running_mean * gain

    def fold(self, scale: Tensor, skip_scale: Tensor | None) -> Folded:
        """Integers of the network file; ``scale`` is the value of one unit of the sum."""
        gain, offset = self.norm_affine()
        step = self.quantiser.scale().detach().double()
        skip = 0.0 if skip_scale is None else float(skip_scale.double() / step)
        return fold(scale.double() * gain.double() / step, offset.double() / step, skip)

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        real, acc, scale = self.accumulate(values[self.inputs[0]], context)
        skip = values[self.inputs[1]] if len(self.inputs) > 1 else None
        y = self.norm(real)
        if skip is not None:
            y = y + skip.value
        out: Quantised = self.quantiser(y, context)
        if context.mode is Mode.INTEGER:
            assert acc is not None and scale is not None
            folded = self.fold(scale.detach(), None if skip is None or skip.scale is None else skip.scale.detach())
            codes = folded.apply(
                acc.detach(),
                self.quantiser.lo,
                self.quantiser.hi,
                None if skip is None or skip.code is None else skip.code.detach(),
            )
            return straight_through(codes, out)
        return out


class LogitsNode(WeightedNode):
    """The classifier: a convolution over the whole map, bias, no rounding."""

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        channels: tuple[int, int],
        kernel: int,
        candidates: tuple[int, ...],
    ) -> None:
        super().__init__(name, inputs, output, channels, kernel, 1, 0, candidates)
        self.bias = nn.Parameter(torch.zeros(channels[1]))

    def fold_bias(self, scale: Tensor) -> Tensor:
        """Integer bias, float64 (classes,)."""
        return torch.floor(self.bias.detach().double() / scale.double() + 0.5)

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        real, acc, scale = self.accumulate(values[self.inputs[0]], context)
        y = real + self.bias.view(1, -1, 1, 1)
        if context.mode is not Mode.INTEGER:
            return Quantised(y, None, None)
        assert acc is not None and scale is not None
        code = acc.detach().double() + self.fold_bias(scale.detach()).view(1, -1, 1, 1)
        return Quantised(y + (code.to(y.dtype) * scale - y).detach(), code, scale)


class RequantNode(NetNode):
    """The consumer's code from the skip code, never from the sum."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str, quantiser: Quantiser) -> None:
        super().__init__(name, inputs, output)
        self.quantiser = quantiser

    def fold(self, scale: Tensor) -> Folded:
        """Integers of the network file; ``scale`` is the value of one unit of the skip code."""
        return fold((scale.double() / self.quantiser.scale().detach().double()).reshape(1), torch.zeros(1))

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        x = values[self.inputs[0]]
        out: Quantised = self.quantiser(x.value, context)
        if context.mode is not Mode.INTEGER:
            return out
        assert x.code is not None and x.scale is not None
        codes = self.fold(x.scale.detach()).apply(x.code.detach(), self.quantiser.lo, self.quantiser.hi)
        return straight_through(codes, out)


class GlobalAveragePoolNode(NetNode):
    """Mean over the map with its own single rounding."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str, quantiser: Quantiser) -> None:
        super().__init__(name, inputs, output)
        self.quantiser = quantiser

    def fold(self, scale: Tensor, pixels: int) -> Folded:
        """Integers of the network file; ``scale`` is the value of one unit of the sum."""
        return fold((scale.double() / self.quantiser.scale().detach().double() / pixels).reshape(1), torch.zeros(1))

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        x = values[self.inputs[0]]
        out: Quantised = self.quantiser(x.value.mean((2, 3), keepdim=True), context)
        if context.mode is not Mode.INTEGER:
            return out
        assert x.code is not None and x.scale is not None
        pixels = x.code.shape[2] * x.code.shape[3]
        total = x.code.detach().double().sum((2, 3), keepdim=True)
        codes = self.fold(x.scale.detach(), pixels).apply(total, self.quantiser.lo, self.quantiser.hi)
        return straight_through(codes, out)


class ShortcutANode(NetNode):
    """Option-A shortcut: every stride-th pixel, zero channels around."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str, stride: int, before: int, channels: int) -> None:
        super().__init__(name, inputs, output)
        self.stride, self.before, self.channels = stride, before, channels

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        x = values[self.inputs[0]]
        after = self.channels - self.before - x.value.shape[1]

        def move(t: Tensor) -> Tensor:
            return F.pad(t[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, after))

        return Quantised(move(x.value), None if x.code is None else move(x.code), x.scale)
