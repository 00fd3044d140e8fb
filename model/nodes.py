"""The nodes a network is trained as: the same nodes, rounding in the same places, as in the integer network.

Shapes: N images, C channels, H and W pixels. Tensors are (N, C, H, W). Every node has three ways to run (``Mode``):
float, quantised (mixed candidates while searching, fixed bits after), and integer, in which the codes come from the
folded integers of the network file and only the gradient from the quantised path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fold import Folded, fold
from model.mixture import mix_unsigned, mix_weight
from model.mixture_signed import mix_signed
from model.norm import BatchNorm
from model.quantise import (
    Branches,
    Quantised,
    pact_slope,
    quantise_linear_weight,
    quantise_signed,
    quantise_unsigned,
    quantise_weight,
    straight_through,
)

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

    Strengths start equal. ``bits`` is None while the candidates are mixed. least: signed codes need 2 bits.
    """

    def __init__(self, candidates: tuple[int, ...], least: int = 1) -> None:
        super().__init__()
        self.candidates, self.least = candidates, least
        self.ruled = False  # whether the recipe has a rule for this layer: uniform bits keep to its candidates too
        self.bits: int | None = candidates[0] if len(candidates) == 1 else None
        self.strengths = nn.Parameter(torch.zeros(len(candidates)))

    def restrict(self, candidates: tuple[int, ...]) -> None:
        """Candidates by a rule of the recipe, their strengths equal again."""
        self.candidates, self.ruled = candidates, True
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
    """Quantiser of one activation tensor. signed: step learned; else codes from 0 (a ReLU) to the clip alpha.

    ``clip`` is alpha (unsigned) or the step times 2**(bits-1) (signed), learned, set by calibration.
    ceiling: largest value that the float network lets through (6 for ReLU6). learned_step: the clip's gradient counts
    rounding below it too (learned step size); off: PACT's, which is 0 there.
    """

    def __init__(
        self,
        candidates: tuple[int, ...],
        *,
        signed: bool = False,
        ceiling: float = math.inf,
        learned_step: bool = True,
    ) -> None:
        super().__init__()
        self.choice = Choice(candidates, 2 if signed else 1)
        self.signed, self.ceiling, self.learned_step = signed, ceiling, learned_step
        self.clip = nn.Parameter(torch.tensor(6.0))
        self.peak = 0.0
        self.calibrating: float | None = None  # the share of values that the peak holds; None: not calibrating

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
        return self.clip.abs().clamp(1e-3, self.ceiling)

    def scale(self) -> Tensor:
        """Value of one code step."""
        return self.positive_clip() / ((1 << (self.bits - 1)) if self.signed else self.hi)

    def forward(self, x: Tensor, context: Context) -> Quantised:
        if context.mode is Mode.FLOAT:
            value = x if self.signed else F.relu(x) if self.ceiling == math.inf else torch.clamp(x, 0, self.ceiling)
            if self.calibrating is not None:
                self.peak = max(
                    self.peak, float(torch.quantile(value.detach().abs().flatten()[:100_000], self.calibrating))
                )
            return Quantised(value, None, None)
        clip = self.positive_clip()
        if self.choice.bits is not None:
            return self._one(x, clip, self.choice.bits)
        p = self.choice.probabilities(context)
        if context.branches:
            each = tuple(self._one(x, clip, bits).value for bits in self.choice.candidates)
            return Quantised(sum_of(p, each), None, None, Branches(each, p))
        if self.signed:
            return Quantised(mix_signed(x, clip, p, self.choice.candidates), None, None)
        if self.learned_step:
            return Quantised(mix_unsigned(x, clip, p, self.choice.candidates), None, None)
        mixed = mix_unsigned(x, clip.detach(), p, self.choice.candidates)
        return Quantised(mixed + pact_slope(x, clip), None, None)

    def _one(self, x: Tensor, clip: Tensor, bits: int) -> Quantised:
        if self.signed:
            return quantise_signed(x, clip / (1 << (bits - 1)), bits)
        return quantise_unsigned(x, clip, bits, learned_step=self.learned_step)


def sum_of(p: Tensor, each: tuple[Tensor, ...]) -> Tensor:
    """sum_j p_j x_j."""
    total = p[0] * each[0]
    for weight, value in zip(p[1:], each[1:], strict=True):
        total = total + weight * value
    return total


class NetNode(nn.Module):
    """A node: reads tensors by name, makes the tensor ``output``."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.name, self.inputs, self.output = name, inputs, output

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        raise AssertionError("every kind of node computes")


class WeightedNode(NetNode):
    """Convolution (also linear: its kernel is the whole map) with searchable weight bits.

    Args:
        channels: (in, out); depthwise: one filter per channel. bias: added to the sum, real, per output channel.
        weights: DoReFa's tanh ("dorefa"), a learned clip ("lsq"), or one that counts from each output channel's own size
            ("lsq-channel"; the classifier's channels share it, since their sums are compared).
    """

    weight: Tensor

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        stride: int,
        padding: int,
        candidates: tuple[int, ...],
        *,
        depthwise: bool = False,
        bias: bool = False,
        weights: str = "dorefa",
    ) -> None:
        super().__init__(name, inputs, output)
        self.stride, self.padding, self.depthwise = stride, padding, depthwise
        self.weight = nn.Parameter(torch.empty(channels[1], 1 if depthwise else channels[0], *kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(channels[1])) if bias else None
        self.weight_clip = None if weights == "dorefa" else nn.Parameter(torch.tensor(3.0))
        self.by_channel = weights == "lsq-channel"
        self.choice = Choice(candidates)
        self.branches: nn.ParameterDict | None = None  # a supernet's copies of the weights
        self.dropout = 0.0  # share of the input that training drops
        self.register_buffer("pad_codes", None)  # image codes beyond the border, float (C,); None: 0
        self.pad_codes: Tensor | None

    @property
    def weight_bits(self) -> int:
        assert self.choice.bits is not None, "bits are still mixed"
        return self.choice.bits

    def quantised_weight(self, bits: int, weight: Tensor | None = None) -> Quantised:
        """Bipolar codes of the layer's weights, or of a supernet's copy."""
        w = self.weight if weight is None else weight
        if self.weight_clip is None:
            return quantise_weight(w, bits)
        return quantise_linear_weight(w, self.weight_gamma(w), bits)

    def weight_gamma(self, w: Tensor) -> Tensor:
        """The learned clip: a factor times the weights' root mean square, which is detached; 0-dim, or (C, 1, 1, 1)."""
        assert self.weight_clip is not None
        size = w.detach().square().mean((1, 2, 3) if self.by_channel else None, keepdim=self.by_channel).sqrt()
        return self.weight_clip.abs().clamp(min=1e-2) * torch.where(size > 0, size, torch.ones_like(size))

    def _mixed_weight(self, context: Context) -> Tensor:
        p = self.choice.probabilities(context)
        if self.weight_clip is None:
            return mix_weight(self.weight, p, self.choice.candidates)
        gamma = self.weight_gamma(self.weight)
        two = gamma.new_tensor(2.0)
        return gamma * (mix_unsigned(self.weight / gamma + 1, two, p, self.choice.candidates) - p.sum())

    def _dropped(self, x: Quantised) -> Quantised:
        """Dropout on codes: what is kept keeps its code, the scale grows."""
        if not self.training or not self.dropout:
            return x
        keep = 1 - self.dropout
        whole = x.value if x.code is None else x.code
        mask = (torch.rand_like(whole) < keep).to(whole.dtype)
        if x.code is None or x.scale is None:
            return Quantised(x.value * mask / keep, None, None, x.branches)
        return Quantised(None, x.code * mask, x.scale / keep)

    def accumulate(self, x: Quantised, context: Context) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(sum in real units, integer sums, their scale); the integers only where both operands have codes and someone asks.

        The scale has one value, or one for each output channel, (C,).
        """
        x = self._dropped(x)
        unit = 1.0 if x.scale is None else x.scale
        if context.mode is Mode.FLOAT:
            return self._conv(x.value, self.weight, unit), None, None
        if self.branches is not None and context.branches:
            return self._supernet(x, context, unit), None, None
        if self.choice.bits is None:
            return self._conv(x.value, self._mixed_weight(context), unit), None, None
        weights = self.quantised_weight(self.choice.bits)
        assert weights.code is not None and weights.scale is not None
        if x.code is None or x.scale is None:
            return self._conv(x.value, weights.value), None, None
        scale = x.scale * weights.scale
        if context.mode is Mode.QUANTISED:
            return self._scaled(x.code, weights.code, scale, context), None, None
        least, most = torch.aminmax(x.code.detach())
        # In float: what is no number flows on to the loss, where all processes see it.
        bound = float(weights.code.detach().abs().flatten(1).sum(1).max()) * float(
            torch.maximum(-least, most).clamp(min=1)
        )
        exact = torch.float32 if bound < _EXACT_FLOAT32 else torch.float64
        acc = self._conv(x.code.to(exact), weights.code.to(exact))
        return (acc * scale.view(1, -1, 1, 1)).to(x.code.dtype), acc, scale.flatten()

    def _scaled(self, code: Tensor, weight: Tensor, scale: Tensor, context: Context) -> Tensor:
        if not context.autocast:
            return self._conv(code, weight * scale)  # the few weights rather than every sum
        with torch.autocast(code.device.type, torch.bfloat16):
            return self._conv(code, weight).float() * scale.view(1, -1, 1, 1)

    def _supernet(self, x: Quantised, context: Context, unit: Tensor | float) -> Tensor:
        """sum_ij p_i p_j conv(x_j, w_ij), a convolution each."""
        assert self.branches is not None
        each, p = (x.branches.each, x.branches.p) if x.branches is not None else ((x.value,), None)
        weight_p = self.choice.probabilities(context)
        total: Tensor | None = None
        for at, weight in enumerate(self.branches.values()):
            row, column = divmod(at, len(each))
            y = self._conv(each[column], self.quantised_weight(self.choice.candidates[row], weight).value, unit)
            y = y * (weight_p[row] if p is None else weight_p[row] * p[column])
            total = y if total is None else total + y
        assert total is not None
        return total

    def _conv(self, x: Tensor, weight: Tensor, unit: Tensor | float = 1.0) -> Tensor:
        """unit: value of one code of ``x``; 1 where ``x`` holds codes."""
        groups, padding = x.shape[1] if self.depthwise else 1, self.padding
        if self.pad_codes is not None and padding:
            level = (self.pad_codes * unit).to(x.dtype).view(1, -1, 1, 1)
            # Pad what lies above the level with zeros: the border then has exactly the level's codes.
            x, padding = F.pad(x - level, (padding,) * 4) + level, 0
        return F.conv2d(x, weight, stride=self.stride, padding=padding, groups=groups)


class ConvNode(WeightedNode):
    """Convolution, bias, batch norm, skip add (each but the first optional), then the output's quantiser.

    A ReLU is the quantiser's clip at 0. ``options`` are those of :class:`WeightedNode`.
    """

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        candidates: tuple[int, ...],
        quantiser: Quantiser,
        norm: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(name, inputs, output, channels, kernel, stride, padding, candidates, **options)
        self.norm = BatchNorm(channels[1]) if norm else None
        self.quantiser = quantiser

    def norm_affine(self) -> tuple[Tensor, Tensor]:
        """Bias and batch norm in evaluation as y = x * gain + offset, each (C,)."""
        channels = len(self.weight)
        bias = self.weight.new_zeros(channels) if self.bias is None else self.bias
        if self.norm is None:
            return torch.ones_like(bias), bias
        assert self.norm.running_var is not None and self.norm.running_mean is not None
        gain = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return gain, self.norm.bias + (bias - self.norm.running_mean) * gain

    def fold(self, scale: Tensor, skip_scale: Tensor | None) -> Folded:
        """Integers of the network file; ``scale`` is the value of one unit of the sum."""
        gain, offset = self.norm_affine()
        step = self.quantiser.scale().detach().double()
        skip = 0.0 if skip_scale is None else float(skip_scale.double() / step)
        return fold(scale.double() * gain.double() / step, offset.double() / step, skip)

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        real, acc, scale = self.accumulate(values[self.inputs[0]], context)
        skip = values[self.inputs[1]] if len(self.inputs) > 1 else None
        y = real if self.bias is None else real + self.bias.view(1, -1, 1, 1)
        if self.norm is not None:
            y = self.norm(y)
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


class AffineNode(ConvNode):
    """A batch norm or an addition that no convolution stands before: a depthwise 1x1 convolution with weights of one."""

    def __init__(
        self, name: str, inputs: tuple[str, ...], output: str, channels: int, quantiser: Quantiser, norm: bool
    ) -> None:
        super().__init__(
            name, inputs, output, (channels, channels), (1, 1), candidates=(1,), quantiser=quantiser, norm=norm, depthwise=True
        )  # fmt: skip
        del self.weight
        self.register_buffer("weight", torch.ones(channels, 1, 1, 1))

    def quantised_weight(self, bits: int, weight: Tensor | None = None) -> Quantised:
        """The codes +1 of scale 1."""
        return Quantised(self.weight, self.weight, torch.ones_like(self.weight[0, 0, 0, 0]))


class LogitsNode(WeightedNode):
    """The classifier: a convolution over the whole map, bias, no rounding."""

    bias: nn.Parameter

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        candidates: tuple[int, ...],
        *,
        weights: str = "dorefa",
    ) -> None:
        weights = "lsq" if weights == "lsq-channel" else weights  # the sums of all classes are compared
        super().__init__(name, inputs, output, channels, kernel, 1, 0, candidates, bias=True, weights=weights)

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
