"""Folding real scales into the integers of the network file: mul, bias, shift; and the proof that little is lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.pieces import pieces

MUL_LIMIT = 1 << 17
SKIP_LIMIT = 1 << 24
MAX_SHIFT = 31
_MOST_SKIP = 2.0**62  # what tensors can be multiplied by; no network file takes as much


@dataclass(frozen=True)
class Folded:
    """clip((acc * mul + skip * skip_mul + bias) >> shift, lo, hi); mul and bias float64 integers (C,) or scalars."""

    mul: Tensor
    bias: Tensor
    shift: int
    skip_mul: int

    def apply(self, acc: Tensor, lo: int, hi: int, skip: Tensor | None = None) -> Tensor:
        """Codes from integer sums and skip codes, all (N, C, H, W), float; exact while the sum stays below 2**53.

        The codes are float32 in channels-last order.
        """
        codes = torch.empty(acc.permute(0, 2, 3, 1).shape, dtype=torch.float32, device=acc.device)
        scale = 2.0**-self.shift
        for part, code, *more in pieces(
            *(_by_channel(x) for x in (acc, codes.permute(0, 3, 1, 2), skip) if x is not None)
        ):
            total = part.double().mul_(self.mul).add_(self.bias)
            for skipped in more:
                total.add_(skipped.double(), alpha=self.skip_mul)
            code.copy_(total.mul_(scale).floor_().clamp_(lo, hi))
        return codes.permute(0, 3, 1, 2)


def _by_channel(x: Tensor) -> Tensor:
    """(pixels, C) of (N, C, H, W); a view where channels are last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def fold(mul: Tensor, bias: Tensor, skip: float = 0.0, mul_limit: int = MUL_LIMIT) -> Folded:
    """Integers for code = acc * mul + skip_code * skip + bias, rounded half-up.

    The shift is the largest in 1..31 at which both multipliers fit; 2**(shift-1) is put into the bias.
    """
    mul, bias = mul.detach().double(), bias.detach().double()
    shift = MAX_SHIFT
    while shift > 1 and (
        float(torch.floor(mul.abs().max() * 2.0**shift + 0.5)) >= mul_limit
        or skip * 2.0**shift + 0.5 >= SKIP_LIMIT
        or float(bias.abs().max()) * 2.0**shift >= 2.0**46
    ):
        shift -= 1
    scale = 2.0**shift
    return Folded(
        torch.floor(mul * scale + 0.5),
        torch.floor(bias * scale + 0.5) + 2.0 ** (shift - 1),
        shift,
        int(min(_MOST_SKIP, skip * scale + 0.5)),  # in this order NaN is the limit too: it shows in what else is computed
    )


def scale_error(
    folded: Folded, mul: Tensor, bias: Tensor, skip: float, acc_limit: Tensor, out_range: int, skip_limit: int
) -> float:
    """Largest error of a code before rounding, in LSB, over all sums that do not saturate the output.

    acc_limit: largest |acc| per channel, (C,). The multipliers' own rounding errs by at most |acc| * |d mul| +
    |skip| * |d skip_mul| + |d bias|; where the output is not clipped, |acc * mul| <= out_range + |bias| + |skip part|.
    """
    scale = 2.0**folded.shift
    mul, bias = mul.detach().double(), bias.detach().double()
    reach = (out_range + bias.abs() + skip * skip_limit) / mul.abs().clamp(min=1e-30)
    acc = torch.minimum(acc_limit.double(), reach)
    error = acc * (folded.mul / scale - mul).abs() + ((folded.bias - scale / 2) / scale - bias).abs()
    return float(error.max()) + skip_limit * abs(folded.skip_mul / scale - skip)
