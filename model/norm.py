"""Batch norm with statistics that do not depend on how a batch is cut: over one process or several.

Rounding to few bits turns the last bit of a sum into another code here and there, and a code that rounds the other way is a step of
its own. So sums are taken image by image, and those of the images in float64: whoever adds them up finds the same number.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def _channel_sums(x: Tensor, shared: bool) -> Tensor:
    """Sum over images and pixels, of all processes where the batch is ``shared``: (N, C, H, W) to (C,) in float64."""
    total = x.sum((2, 3)).sum(0, dtype=torch.float64)
    if shared:
        dist.all_reduce(total)
    return total


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


class _Normalise(torch.autograd.Function):
    """(normalised, mean, biased variance) of a batch (N, C, H, W); the gradients of weight and bias are this process's share."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, count: int, shared: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = (_channel_sums(x, shared) / count).to(x.dtype)
        centred = x - _by_channel(mean)
        variance = _channel_sums(centred.square(), shared) / count
        scale = torch.rsqrt(variance + eps).to(x.dtype)
        ctx.save_for_backward(centred, weight, scale)
        ctx.count, ctx.shared = count, shared
        variance = variance.to(x.dtype)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(_by_channel(bias), centred, _by_channel(weight * scale)), mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        centred, weight, scale = ctx.saved_tensors
        own = torch.stack([_channel_sums(grad, False), _channel_sums(grad * centred, False)])
        every = own
        if ctx.shared:
            dist.all_reduce(every := own.clone())
        grad_bias, grad_weight = own[0].to(grad.dtype), (own[1] * scale).to(grad.dtype)
        # (x - mean) * gain with mean and variance functions of x: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3.
        gain = weight * scale
        level, slope = (every / -ctx.count * gain).to(grad.dtype)
        level = torch.addcmul(_by_channel(level), grad, _by_channel(gain))
        return level.addcmul_(centred, _by_channel(slope * scale.square())), grad_weight, grad_bias, None, None, None


class BatchNorm(nn.BatchNorm2d):
    """Batch norm on (N, C, H, W).

    shared: whether a batch is that of all processes; each has as many images.
    """

    shared = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the batch's statistics in training, by the learnt ones else."""
        if not self.training or (x.is_cuda and not self.shared):  # a GPU's own kernel sums up accurately, and in one pass
            return super().forward(x)
        count = x.numel() // x.shape[1] * (dist.get_world_size() if self.shared else 1)
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps, count, self.shared)  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
        return y  # type: ignore[no-any-return]
