"""The EBS mixture of a signed activation tensor; like ``model.mixture`` it saves its input and recomputes the rest.

value = sum_i p_i D_i clip(floor(x / D_i + 1/2), -h_i, h_i - 1), h_i = 2**(b_i - 1), D_i = clip / h_i: one clip for all candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def _rounded(u: Tensor, bits: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """(r_b(u), where u is not clipped) of each candidate, u = x / clip."""
    for b in bits:
        half = float(1 << (b - 1))
        scaled = u * half
        yield (
            torch.floor(torch.clamp(scaled, -half, half - 1) + 0.5) / half,
            (scaled >= -half) & (scaled <= half - 1),
        )


class _MixSigned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: Tensor, p: Tensor, bits: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, clip, p)
        ctx.bits = bits
        total = torch.zeros_like(x)
        for weight, (r, _) in zip(p, _rounded(x / clip, bits), strict=True):
            total.addcmul_(r, weight * clip)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, clip, p = ctx.saved_tensors
        grad, u = grads[0], x / clip
        grad_x, dots, grad_clip = torch.zeros_like(x), [], torch.zeros_like(clip)
        for weight, (r, inside) in zip(p, _rounded(u, ctx.bits), strict=True):
            passed = grad * inside
            grad_x.addcmul_(passed, weight)
            dots.append((grad * r).sum())
            grad_clip = grad_clip + weight * (dots[-1] - (passed * u).sum())
        return grad_x, grad_clip, torch.stack(dots) * clip, None


def mix_signed(x: Tensor, clip: Tensor, p: Tensor, bits: Sequence[int]) -> Tensor:
    """The mixture of all candidates (2 bits and more) of a tensor ``x`` (any shape, float32); clip > 0, 0-dim."""
    result: Tensor = _MixSigned.apply(x, clip, p, tuple(bits))  # type: ignore[no-untyped-call]
    return result
