"""The integer network: what training exports and everything downstream reads.

Activations are integer codes p; the value is ``scale * p``. Weights are integer codes q of an encoding.
All arithmetic is exact; see docs/network-format.md for the file format and the arithmetic of each node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 8
MAX_KERNEL = 15
MAX_STRIDE = 15
MAX_PADDING = 15


class Encoding(Enum):
    """How the weight codes of a node stand for integers t.

    ``BIPOLAR``: q in [0, 2**M - 1], t = 2q - (2**M - 1) (DoReFa; odd, symmetric).
    ``TWOS``: q = t in [-2**(M-1), 2**(M-1) - 1].
    """

    BIPOLAR = "bipolar"
    TWOS = "twos"


@dataclass(frozen=True)
class Tensor:
    """One activation tensor of shape (height, width, channels); codes in [lo, hi]."""

    name: str
    shape: tuple[int, int, int]
    bits: int
    signed: bool = False
    scale: float = 1.0

    @property
    def lo(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node computes one tensor, ``output``, from the tensors named in ``inputs``."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True)
class Weighted(Node):
    """Multiply-accumulate node. acc[c] = sum t*p, int32.

    weight: int16 codes q (Cout, kh, kw, Cin); Cin is 1 where ``depthwise`` (then Cout equals the input channels).
    bias: int64 (Cout,), already holding 2**(shift-1) where the node requantises.
    pad_codes: one code of the input tensor per input channel, read outside the map; empty means code 0.
    """

    weight: NDArray[np.int16]
    weight_bits: int
    encoding: Encoding
    bias: NDArray[np.int64]
    stride: int = 1
    padding: int = 0
    depthwise: bool = False
    pad_codes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conv(Weighted):
    """out = clip((acc*mul[c] + skip*skip_mul + bias[c]) >> shift, lo, hi), lo/hi of the output tensor.

    inputs: (x,) or (x, skip); mul: int32 (Cout,) within int18; skip_mul in [0, 2**24); shift in 1..31.
    A linear layer is a Conv whose kernel is the whole input map and whose padding is 0.
    """

    mul: NDArray[np.int32]
    shift: int
    skip_mul: int = 0


@dataclass(frozen=True, kw_only=True)
class Logits(Weighted):
    """The output node: int32 logits = acc + bias[c], not clipped; kernel is the whole input map; output shape (1, 1, classes)."""


@dataclass(frozen=True, kw_only=True)
class Requant(Node):
    """out = clip((j*mul + bias) >> shift, lo, hi); mul in [0, 2**17), bias int48, shift 1..31."""

    mul: int
    bias: int
    shift: int


@dataclass(frozen=True, kw_only=True)
class MaxPool(Node):
    """Maximum over a kernel x kernel window; padding counts as the lowest code. Bits and scale are the input's."""

    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class AvgPool(Node):
    """out = clip((sum p * mul + bias) >> shift, lo, hi) over a kernel_h x kernel_w window; padding counts as code 0.

    A global average pool has the whole map as its kernel. mul in [0, 2**17), bias int48, shift 1..31.
    """

    kernel: tuple[int, int]
    stride: int
    mul: int
    bias: int
    shift: int
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class ShortcutA(Node):
    """Option-A shortcut: every stride-th pixel, ``before`` zero channels in front and zeros up to the output's channels behind."""

    stride: int
    before: int


@dataclass(frozen=True)
class Samples:
    """Example images, uint8 (N, H, W, C), and their labels, int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Network:
    """A checked graph in topological order.

    tensors: every activation tensor by name, the input and the logits (bits 32, signed) included.
    """

    name: str
    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    input: str
    output: str
    samples: Samples | None = field(default=None, compare=False)
