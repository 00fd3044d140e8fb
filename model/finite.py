"""What float32 can still compute with: weights, clips and statistics that are numbers, and not absurd ones."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

LARGEST = 1e18  # squares of more leave float32, and sums of squares are what norms are made of


def worst(values: Tensor) -> float | None:
    """The largest magnitude where it cannot be computed with, NaN if there is one; None: all values are fine."""
    if not values.is_floating_point() or not values.numel():
        return None
    most = float(values.detach().abs().max())
    return None if most <= LARGEST else most


def weight_problems(module: nn.Module) -> Iterator[str]:
    """A sentence about all parameters and buffers without values, and one about each that cannot be computed with."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    meta = [name for name, values in tensors.items() if values.is_meta]
    if meta:
        others = f" (of {len(meta)} tensors) is" if len(meta) > 1 else " is"
        yield (
            f"'{meta[0]}'{others} on the meta device, without values; make the network on the CPU, or to_empty(device=\"cpu\") it,"
            " and load its weights."
        )
    for name, values in tensors.items():
        if not values.is_meta and not is_lazy(values) and (most := worst(values)) is not None:
            yield (
                f"'{name}' holds {most:.3g}, which nothing can be computed with; mend the weights that the network starts from."
            )
