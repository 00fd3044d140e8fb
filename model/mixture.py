"""The EBS mixture of one tensor over all its candidates: one autograd Function that saves its input and recomputes the rest.

value = sum_i p_i q_{b_i}(u), u in [0, 1]: activations (PACT) u = clip(x / alpha, 0, 1), times alpha; weights (DoReFa)
t = tanh(w) / (2 gamma) + 1/2, as sum_i p_i gamma (2 q_i(t) - 1), gamma = max|tanh w| detached.

The mixture is a staircase whose steps lie on the grid 1/L, L the least common multiple of the candidates' 2 (2**b - 1).
Where L is small (all of 1..6 together: 19,530) one look-up replaces every candidate, so that time does not grow with them;
else each candidate is rounded in turn. Both work in pieces that stay in cache and leave nothing behind for backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from model.pieces import empty, flat, like, pieces
from model.quantise import grad_inside

_LARGEST_GRID = 1 << 16


@lru_cache(maxsize=256)
def _levels(bits: tuple[int, ...]) -> tuple[int, Tensor | None]:
    """(L, q_b at the grid's points as float64 (candidates, L + 1)); None where L is too large for a table."""
    grid = math.lcm(*(2 * ((1 << b) - 1) for b in bits))
    if grid > _LARGEST_GRID:
        return grid, None
    point = torch.arange(grid + 1, dtype=torch.int64)
    rows = []
    for b in bits:
        levels = (1 << b) - 1
        rows.append(((2 * point * levels + grid) // (2 * grid)).double() / levels)
    return grid, torch.stack(rows)


def _looked_up(table: Tensor, p: Tensor) -> Tensor:
    """The mixture at the grid's points, and behind them what a u that is no number gives."""
    return torch.cat([p @ table.to(p), p.new_full((1,), math.nan)])


def _mix_into(out: Tensor, u: Tensor, p: Tensor, bits: tuple[int, ...], grid: int, table: Tensor | None) -> None:
    """out = sum_i p_i q_i(u) for u in [0, 1]; ``u`` is spoiled. table: :func:`_looked_up`."""
    if table is not None:
        torch.index_select(table, 0, u.mul_(grid).nan_to_num_(nan=grid + 1).to(torch.int32), out=out)
        return
    out.zero_()
    code = torch.empty_like(u)
    for at, b in enumerate(bits):
        levels = (1 << b) - 1
        torch.mul(u, levels, out=code)
        out.addcmul_(code.add_(0.5).floor_(), p[at] / levels)


def _dots(g: Tensor, u: Tensor, bits: tuple[int, ...]) -> Tensor:
    """sum of g q_i(u) of each candidate, float64 (candidates,)."""
    code = torch.empty_like(u)
    sums = []
    for b in bits:
        levels = (1 << b) - 1
        torch.mul(u, levels, out=code)
        sums.append(torch.dot(code.add_(0.5).floor_(), g).double() / levels)
    return torch.stack(sums)


def _mixture(x: Tensor, factor: Tensor | None, p: Tensor, bits: tuple[int, ...]) -> Tensor:
    """The mixture at u = clip(factor x, 0, 1), or at u = x without a factor, in x's memory order."""
    grid, table = _levels(bits)
    row = None if table is None else _looked_up(table, p)
    out = empty(x)
    for piece, part in pieces(flat(x), flat(out)):
        u = piece.clone() if factor is None else (piece * factor).clamp_(0, 1)
        _mix_into(part, u, p, bits, grid, row)
    return out


class _MixActivation(torch.autograd.Function):
    """alpha sum_i p_i q_i(clip(x / alpha, 0, 1)); saves x (and the few numbers alpha and p)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, p: Tensor, bits: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, alpha, p)
        ctx.bits = bits
        return _mixture(x, 1 / alpha, p, bits).mul_(alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, alpha, p = ctx.saved_tensors
        bits: tuple[int, ...] = ctx.bits
        needs_x, needs_alpha, needs_p, _ = ctx.needs_input_grad
        grad = like(grads[0], x)
        total = p.sum()
        grad_x = empty(x) if needs_x else x
        dots = torch.zeros(len(bits), dtype=torch.float64, device=x.device)
        slope = torch.zeros((), dtype=torch.float64, device=x.device)
        mixed = torch.zeros((), dtype=torch.float64, device=x.device)
        grid, table = _levels(bits)
        row = None if table is None or not needs_alpha else _looked_up(table, p)
        inverse = 1 / alpha
        for piece, g, out in pieces(flat(x), flat(grad), flat(grad_x)):
            u = piece * inverse
            inside = out if needs_x else torch.empty_like(u)
            grad_inside(g, u, inside)
            u.clamp_(0, 1)
            if needs_alpha:
                slope += torch.dot(inside, u)
            if needs_x:
                out.mul_(total)
            if needs_p:
                dots += _dots(g, u, bits)
            elif needs_alpha:
                value = torch.empty_like(u)
                _mix_into(value, u, p, bits, grid, row)
                mixed += torch.dot(value, g)
        if needs_p:
            mixed = dots @ p.double()
        return (
            grad_x if needs_x else None,
            (mixed - slope * total).to(alpha.dtype) if needs_alpha else None,
            (dots * alpha).to(p.dtype) if needs_p else None,
            None,
        )


class _MixWeight(torch.autograd.Function):
    """gamma sum_i p_i (2 q_i(t) - 1); saves w and p."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, p: Tensor, bits: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(w, p)
        ctx.bits = bits
        t, gamma = _unit(w)
        return _mixture(t, None, p, bits).mul_(2 * gamma).sub_(gamma * p.sum())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        w, p = ctx.saved_tensors
        t, gamma = _unit(w)
        grad = like(grads[0], w)
        grad_p = None
        if ctx.needs_input_grad[1]:
            grad_p = (gamma * (2 * _dots(flat(grad), flat(t), ctx.bits) - grad.sum())).to(p.dtype)
        grad_w = None
        if ctx.needs_input_grad[0]:  # d value / d t = 2 gamma sum p, d t / d w = (1 - tanh(w)**2) / (2 gamma)
            grad_w = torch.tanh(w).square_().neg_().add_(1).mul_(grad).mul_(p.sum())
        return grad_w, grad_p, None


def _unit(w: Tensor) -> tuple[Tensor, Tensor]:
    """DoReFa's (t in [0, 1], gamma); an all-zero tensor gives t = 1/2, gamma = 1."""
    squashed = torch.tanh(w)
    gamma = squashed.abs().max()
    gamma = torch.where(gamma > 0, gamma, torch.ones_like(gamma))
    return squashed.div_(2 * gamma).add_(0.5).clamp_(0, 1), gamma


def mix_unsigned(x: Tensor, alpha: Tensor, p: Tensor, bits: Sequence[int]) -> Tensor:
    """The mixture of all candidates of one activation tensor ``x`` (any shape), clip ``alpha`` > 0 (0-dim)."""
    result: Tensor = _MixActivation.apply(x, alpha, p, tuple(bits))  # type: ignore[no-untyped-call]
    return result


def mix_weight(w: Tensor, p: Tensor, bits: Sequence[int]) -> Tensor:
    """The mixture of all candidates of one weight tensor (any shape)."""
    result: Tensor = _MixWeight.apply(w, p, tuple(bits))  # type: ignore[no-untyped-call]
    return result
