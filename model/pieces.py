"""Elementwise work on large tensors piece by piece, so that a chain of operations reads and writes memory once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_PIECE = 1 << 17  # elements; on a GPU, where cache is no concern, everything in one piece
_GPU_PIECE = 1 << 28


def flat(x: Tensor) -> Tensor:
    """A view of a dense tensor's elements in memory order (channels-last too); a copy of any other tensor."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).reshape(-1)
    return x.reshape(-1)


def like(x: Tensor, other: Tensor) -> Tensor:
    """``x`` in the memory order of ``other``."""
    if other.dim() == 4 and other.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def empty(x: Tensor) -> Tensor:
    """A dense tensor of ``x``'s shape and memory order, its values left open."""
    return torch.empty_like(like(x, x))


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one size along their first dimension in pieces that stay in cache."""
    rows = len(tensors[0])
    size = _PIECE if tensors[0].device.type == "cpu" else _GPU_PIECE
    size = max(1, size * rows // max(1, tensors[0].numel()))
    for start in range(0, rows, size):
        yield tuple(item[start : start + size] for item in tensors)
