"""Passes: what one pair of instructions does.

The array convolves (or the byte reader pools, or the sums of a map are rounded), the lanes round, and the codes are
stored as bit planes, as bytes, or sent out as logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from hwgen.engine import EngineConfig
from hwgen.network import Node, Tensor

NIBBLE = 4  # bits of a channel in a slot of a nibble plane
_COUNT_BITS = 16  # the sum of all codes under a window of merged words is counted in so many bits


@dataclass(frozen=True)
class Window:
    """How output positions read the source map: sizes and steps in pixels.

    pooled: the output's positions are windows of 2x2 positions of the convolution, of which the maximum is kept.
    """

    in_height: int
    in_width: int
    kernel_h: int
    kernel_w: int
    stride: int
    pad: int
    out_height: int
    out_width: int
    pooled: bool = False

    @property
    def positions(self) -> int:
        return self.out_height * self.out_width

    def tile_positions(self, columns: int) -> int:
        """Positions of a position tile on an array of so many columns."""
        return columns // 4 if self.pooled else columns

    def tiles(self, columns: int) -> int:
        """Position tiles of the map."""
        return -(-self.positions // self.tile_positions(columns))

    def last_pixel(self, position: int) -> int:
        """Highest linear index of a source pixel that output positions 0..position read."""
        y = position // self.out_width
        y = 2 * y + 1 if self.pooled else y
        row = min(y * self.stride - self.pad + self.kernel_h - 1, self.in_height - 1)
        return max(row, 0) * self.in_width + self.in_width - 1


@dataclass(frozen=True)
class Rounding:
    """The second rounding: clip((j * mul + bias) >> shift, lo, hi)."""

    mul: int
    bias: int
    shift: int
    lo: int
    hi: int


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What both kinds of passes have.

    code: tensor that the first rounding (or the pool) makes. planes, bytes: tensors stored in the two buffers.
    code's map is larger than that of ``planes`` where the window is pooled.
    subsample: ``bytes`` holds every second pixel of every second row, the channels from ``bytes_first_channel`` on.
    rounding: the second rounding where there is one; ``bytes_rounded`` tells whether the byte map has had it.
    """

    name: str
    node: Node
    source: Tensor
    window: Window
    code: Tensor
    planes: Tensor | None
    bytes: Tensor | None
    rounding: Rounding | None
    bytes_rounded: bool
    subsample: bool = False
    bytes_first_channel: int = 0

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors this pass makes, each once."""
        made = {item.name: item for item in (self.code, self.planes, self.bytes) if item is not None}
        return tuple(made.values())


@dataclass(frozen=True, kw_only=True)
class ArrayPass(Pass):
    """A pass of the array.

    codes: uint8 planes' source, unsigned weight codes (C_out, kh, kw, C_in or 1), plane m is bit m.
    negative_top: the top plane counts negative (two's complement). bipolar: acc = 2S - U.
    mul, bias: per output channel; the bias holds the correction for offset-binary sources.
    pad_codes: stored code outside the map per source channel, (C_in,).
    nibbles: the source is stored in nibble planes (see hwgen.words): images of few channels.
    skip: the byte map to add; its first channel belongs to output channel ``skip_first_channel``.
    sums: the codes are also added up per channel, for the mean pass that follows.
    """

    codes: NDArray[np.uint16]
    weight_planes: int
    bipolar: bool
    negative_top: bool
    depthwise: bool
    mul: NDArray[np.int64]
    bias: NDArray[np.int64]
    shift: int
    skip: Tensor | None
    skip_mul: int
    pad_codes: NDArray[np.int64]
    logits: bool
    weight_bits: int
    nibbles: bool = False
    skip_first_channel: int = 0
    sums: bool = False

    @property
    def channels_out(self) -> int:
        return int(self.codes.shape[0])


@dataclass(frozen=True, kw_only=True)
class PoolPass(Pass):
    """A pass of the byte reader: maximum over windows; zero_channels in front of the copied channels."""

    zero_channels: int


@dataclass(frozen=True, kw_only=True)
class MeanPass(Pass):
    """A global average pool: rounds the sums that the pass before has made. mul, bias: per channel."""

    mul: NDArray[np.int64]
    bias: NDArray[np.int64]
    shift: int

    @property
    def channels_out(self) -> int:
        return self.code.shape[2]


def count_fits(length: int, bits: int) -> bool:
    """Whether the sum of ``length`` codes of ``bits`` bits fits the count beside merged words."""
    return length * ((1 << bits) - 1) < 1 << _COUNT_BITS


def source_channels_last_group(channels: int, slot_channels: int) -> int:
    """Channels in the last channel group, 1..slot_channels."""
    return (channels - 1) % slot_channels + 1


def pad_fields(made: ArrayPass, engine: EngineConfig) -> tuple[int, int]:
    """The instruction fields ``pad_full`` and ``pad_planes`` of an array pass."""
    channels = made.source.shape[2]
    if made.nibbles:
        mask = (1 << NIBBLE) - 1
        planes = 0
        for plane in range(-(-made.source.bits // NIBBLE)):
            for channel, code in enumerate(made.pad_codes.tolist()):
                planes |= (code >> NIBBLE * plane & mask) << (plane * isa.PAD_PLANE_BITS + NIBBLE * channel)
        return 0, planes
    last = source_channels_last_group(channels, engine.slot_channels)
    full = int(made.pad_codes[0])
    planes = 0
    for plane in range(made.source.bits):
        for channel in range(last):
            bit = int(made.pad_codes[channels - last + channel]) >> plane & 1
            planes |= bit << (plane * isa.PAD_PLANE_BITS + channel)
    return full, planes
