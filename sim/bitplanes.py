"""An independent path to the same sums: explicit bit planes, AND and population count, as the engine's arithmetic is defined.

Bipolar weights t = 2q - (2**M - 1):      acc = 2 S - (2**M - 1) sum p
Two's complement weights, top plane < 0:  acc = S
with S = sum over planes m, k of +-2**(m+k) popcount(b_m AND c_k), the sign that of the planes. Signed activation codes have
a negative top plane as well. Nothing here is shared with the golden model but the network's dataclasses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgen.network import Encoding, Tensor, Weighted


def planes(codes: NDArray[np.int64], bits: int, signed: bool) -> list[tuple[int, NDArray[np.bool_]]]:
    """(signed weight, plane) of every bit of integer codes, lowest first."""
    found = []
    for bit in range(bits):
        weight = -(1 << bit) if signed and bit == bits - 1 else 1 << bit
        found.append((weight, (codes >> bit & 1).astype(bool)))
    return found


def accumulate(node: Weighted, x: NDArray[np.int64], source: Tensor) -> NDArray[np.int64]:
    """acc of a weighted node, (N, H, W, C) -> (N, H_out, W_out, C_out), one output value at a time."""
    n, height, width, channels = x.shape
    channels_out, kernel_h, kernel_w, _ = node.weight.shape
    pad = node.padding
    pads = np.array(node.pad_codes or [0] * channels, np.int64)
    rows = (height + 2 * pad - kernel_h) // node.stride + 1
    columns = (width + 2 * pad - kernel_w) // node.stride + 1
    bipolar = node.encoding is Encoding.BIPOLAR
    weight_planes = planes(node.weight.astype(np.int64), node.weight_bits, not bipolar)
    out = np.zeros((n, rows, columns, channels_out), np.int64)
    for y in range(rows):
        for column in range(columns):
            window = np.empty((n, kernel_h, kernel_w, channels), np.int64)
            for ky in range(kernel_h):
                for kx in range(kernel_w):
                    iy, ix = y * node.stride + ky - pad, column * node.stride + kx - pad
                    inside = 0 <= iy < height and 0 <= ix < width
                    window[:, ky, kx] = x[:, iy, ix] if inside else pads
            code_planes = planes(window, source.bits, source.signed)
            for channel in range(channels_out):
                own = slice(channel, channel + 1) if node.depthwise else slice(None)
                total = np.zeros(n, np.int64)
                for m_weight, b in weight_planes:
                    for k_weight, c in code_planes:
                        count = np.count_nonzero(b[channel][None] & c[..., own], axis=(1, 2, 3))
                        total += m_weight * k_weight * count
                if bipolar:
                    total = 2 * total - ((1 << node.weight_bits) - 1) * window[..., own].sum(axis=(1, 2, 3))
                out[:, y, column, channel] = total
    return out
