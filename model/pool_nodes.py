"""Nodes without weights: requantisation, average and max pooling, option-A shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from model.fold import Folded, fold
from model.nodes import Context, Mode, NetNode, Quantiser
from model.quantise import Branches, Quantised, straight_through


class RequantNode(NetNode):
    """The consumer's code from the skip code, never from the sum; a ReLU of its own where its quantiser is unsigned."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str, quantiser: Quantiser) -> None:
        super().__init__(name, inputs, output)
        self.quantiser = quantiser

    def fold(self, scale: Tensor) -> Folded:
        """Integers of the network file; ``scale`` is the value of one unit of the skip code."""
        return fold((scale.double() / self.quantiser.scale().detach().double()).reshape(1), scale.new_zeros(1))

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        x = values[self.inputs[0]]
        out: Quantised = self.quantiser(x.value, context)
        if context.mode is not Mode.INTEGER:
            return out
        assert x.code is not None and x.scale is not None
        codes = self.fold(x.scale.detach()).apply(x.code.detach(), self.quantiser.lo, self.quantiser.hi)
        return straight_through(codes, out)


class AvgPoolNode(NetNode):
    """Mean over a window with its own single rounding; padding counts as 0. kernel: (height, width); None: the whole map."""

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        quantiser: Quantiser,
        kernel: tuple[int, int] | None = None,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__(name, inputs, output)
        self.quantiser, self.kernel, self.stride, self.padding = quantiser, kernel, stride, padding

    def window(self, height: int, width: int) -> tuple[int, int]:
        """The kernel on a map of this size."""
        return self.kernel or (height, width)

    def fold(self, scale: Tensor, pixels: int) -> Folded:
        """Integers of the network file; ``scale`` is the value of one unit of the sum over ``pixels``."""
        return fold((scale.double() / self.quantiser.scale().detach().double() / pixels).reshape(1), scale.new_zeros(1))

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        x = values[self.inputs[0]]
        kernel = self.window(x.value.shape[2], x.value.shape[3])
        mean = F.avg_pool2d(x.value, kernel, self.stride, self.padding)
        out: Quantised = self.quantiser(mean, context)
        if context.mode is not Mode.INTEGER:
            return out
        assert x.code is not None and x.scale is not None
        total = F.avg_pool2d(x.code.detach().double(), kernel, self.stride, self.padding, divisor_override=1)
        folded = self.fold(x.scale.detach(), kernel[0] * kernel[1])
        return straight_through(folded.apply(total, self.quantiser.lo, self.quantiser.hi), out)


class SharingNode(NetNode):
    """A node that moves codes and keeps their quantiser."""

    def move(self, x: Tensor) -> Tensor:
        """The moved values or codes, (N, C, H, W)."""
        raise AssertionError("every kind of node moves")

    def forward(self, values: Mapping[str, Quantised], context: Context) -> Quantised:
        x, move = values[self.inputs[0]], self.move
        branches = None if x.branches is None else _each(x.branches, move)
        if x.code is None:
            return Quantised(move(x.value), None, x.scale, branches)
        return Quantised(None, move(x.code), x.scale, branches)


def _each(branches: Branches, move: Callable[[Tensor], Tensor]) -> Branches:
    return Branches(tuple(move(x) for x in branches.each), branches.p)


class MaxPoolNode(SharingNode):
    """Maximum over a kernel x kernel window; padding counts as the lowest code."""

    def __init__(
        self, name: str, inputs: tuple[str, ...], output: str, kernel: int, stride: int, padding: int = 0
    ) -> None:
        super().__init__(name, inputs, output)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def move(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding)


class ShortcutANode(SharingNode):
    """Option-A shortcut: every stride-th pixel, zero channels around."""

    def __init__(self, name: str, inputs: tuple[str, ...], output: str, stride: int, before: int, channels: int) -> None:
        super().__init__(name, inputs, output)
        self.stride, self.before, self.channels = stride, before, channels

    def move(self, x: Tensor) -> Tensor:
        after = self.channels - self.before - x.shape[1]
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, after))
