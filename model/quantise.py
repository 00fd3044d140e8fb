"""Quantisers: pure functions and the autograd functions behind them. Rounding is half-up, as in hardware.

q_b(x) = floor((2**b - 1) x + 1/2) / (2**b - 1).
Weights (DoReFa, arXiv 1606.06160): t = tanh(w) / (2 max|tanh w|) + 1/2, value gamma (2 q_b(t) - 1), gamma = max|tanh w|.
Activations (PACT, arXiv 1805.06085): value alpha q_b(clip(x, 0, alpha) / alpha).
Their mixtures over candidates are in ``model.mixture``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.pieces import empty, flat, like, pieces

_EDGE = 2.0**-23  # to the next float32 above 1


class Branches(NamedTuple):
    """One activation tensor at each of its candidates with their probabilities, for a supernet."""

    each: tuple[Tensor, ...]
    p: Tensor


class Quantised:
    """An activation or weight tensor: ``value = scale * code``.

    code: integers in float, or None while candidates are mixed or nothing is quantised. The value of a tensor with codes is
    computed when first asked for: most readers convolve the codes.
    """

    def __init__(
        self, value: Tensor | None, code: Tensor | None, scale: Tensor | None, branches: Branches | None = None
    ) -> None:
        self._value, self.code, self.scale, self.branches = value, code, scale, branches

    @property
    def value(self) -> Tensor:
        """In real units, the shape of the codes."""
        if self._value is None:
            assert self.code is not None and self.scale is not None
            self._value = self.code * self.scale
        return self._value


class _Round(torch.autograd.Function):
    """floor(x + 1/2); straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2), with a gradient of 1."""
    result: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return result


def grad_inside(grad: Tensor, u: Tensor, out: Tensor) -> None:
    """out = grad where 0 <= u <= 1, else 0: one pass, where comparisons and a product by their result are four."""
    torch.ops.aten.hardtanh_backward(grad, u, -_EDGE, 1 + _EDGE, grad_input=out)  # the kernel's limits are outside


class _UnsignedCode(torch.autograd.Function):
    """floor(levels clip(x / alpha, 0, 1) + 1/2), straight through; saves x and alpha alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.levels = levels
        code = empty(x)
        for part, out in pieces(flat(x), flat(code)):
            torch.div(part, alpha, out=out).clamp_(0, 1).mul_(levels).add_(0.5).floor_()
        return code

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, alpha = ctx.saved_tensors
        grad_x = empty(x)
        slope = torch.zeros((), dtype=torch.float64, device=x.device)
        inverse = 1 / alpha
        for part, grad, out in pieces(flat(x), flat(like(grads[0], x)), flat(grad_x)):
            u = part * inverse
            grad_inside(grad, u, out)
            if ctx.needs_input_grad[1]:
                slope -= torch.dot(out, u.clamp_(0, 1))  # clamped: an infinity times no gradient would be no number
            out.mul_(ctx.levels * inverse)
        return grad_x, (slope * (ctx.levels / alpha)).to(alpha.dtype) if ctx.needs_input_grad[1] else None, None


class _StraightThrough(torch.autograd.Function):
    """Codes forward, their gradient to the codes they stand for."""

    @staticmethod
    def forward(ctx: Any, instead: Tensor, code: Tensor) -> Tensor:
        return code

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(code: Tensor, quantised: Quantised) -> Quantised:
    """Codes from the integer path with the gradient of the quantised path."""
    assert quantised.code is not None and quantised.scale is not None
    passed: Tensor = _StraightThrough.apply(quantised.code, code.to(quantised.code.dtype))  # type: ignore[no-untyped-call]
    return Quantised(None, passed, quantised.scale)


def normalise_weight(w: Tensor) -> tuple[Tensor, Tensor]:
    """DoReFa: (t in [0, 1], gamma), gamma detached; an all-zero tensor gives t = 1/2, gamma = 1."""
    squashed = torch.tanh(w)
    gamma = squashed.detach().abs().max()
    if float(gamma) == 0.0:
        return squashed + 0.5, torch.ones_like(gamma)
    return squashed / (2 * gamma) + 0.5, gamma


def quantise_weight(w: Tensor, bits: int) -> Quantised:
    """Bipolar weights: code t = 2q - (2**bits - 1), odd integers; scale gamma / (2**bits - 1)."""
    t, gamma = normalise_weight(w)
    levels = (1 << bits) - 1
    code = 2 * round_half_up(t * levels) - levels
    scale = gamma / levels
    return Quantised(None, code, scale)


def quantise_linear_weight(w: Tensor, gamma: Tensor, bits: int) -> Quantised:
    """Learned step size (LSQ, arXiv 1902.08153) on DoReFa's levels: w clipped at +-gamma, step 2 gamma / (2**bits - 1).

    Same codes as :func:`quantise_weight`; gamma > 0, 0-dim, learned.
    """
    levels = (1 << bits) - 1
    code = 2 * round_half_up(torch.clamp(w / (2 * gamma) + 0.5, 0, 1) * levels) - levels
    scale = gamma / levels
    return Quantised(None, code, scale)


def quantise_unsigned(x: Tensor, alpha: Tensor, bits: int, *, learned_step: bool = True) -> Quantised:
    """Codes in [0, 2**bits - 1], scale alpha / (2**bits - 1).

    d alpha = 1 where x >= alpha; below it q(u) - u, u = x / alpha, or 0 where not ``learned_step`` (PACT).
    """
    levels = (1 << bits) - 1
    slope = None if learned_step else pact_slope(x, alpha)
    alpha = alpha if learned_step else alpha.detach()
    code: Tensor = _UnsignedCode.apply(x, alpha, levels)  # type: ignore[no-untyped-call]
    scale = alpha / levels
    if slope is not None:
        code = code + slope / scale
    return Quantised(None, code, scale)


def pact_slope(x: Tensor, alpha: Tensor) -> Tensor:
    """Zeros, whose gradient of alpha is PACT's: 1 where x >= alpha, else 0."""
    return torch.where(x.detach() >= alpha.detach(), alpha - alpha.detach(), 0.0)


def quantise_signed(x: Tensor, step: Tensor, bits: int) -> Quantised:
    """clip(floor(x / step + 1/2), -2**(bits-1), 2**(bits-1) - 1), scale step."""
    half = 1 << (bits - 1)
    code = round_half_up(torch.clamp(x / step, -half, half - 1))
    return Quantised(None, code, step)
