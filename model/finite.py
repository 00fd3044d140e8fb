"""What float32 can still compute with: weights, clips and statistics that are numbers, and not absurd ones."""

from __future__ import annotations

from torch import Tensor

LARGEST = 1e18  # squares of more leave float32, and sums of squares are what norms are made of


def worst(values: Tensor) -> float | None:
    """The largest magnitude where it cannot be computed with, NaN if there is one; None: all values are fine."""
    if not values.is_floating_point() or not values.numel():
        return None
    most = float(values.detach().abs().max())
    return None if most <= LARGEST else most
