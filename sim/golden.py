"""The integer golden model: every node of a network in NumPy, exact, obvious before fast.

Matrix products run in float32 or float64 BLAS where the layer's own bound proves every partial sum exact (below 2**24 or
2**53), which is hundreds of times faster than int64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hwgen.network import AvgPool, Conv, Encoding, Logits, MaxPool, Network, Node, Requant, ShortcutA, Tensor, Weighted

Codes = NDArray[np.int64]
_BATCH_VALUES = 1 << 22  # values held at a time: of all tensors, or of the widest layer's im2col matrix


def weight_values(node: Weighted) -> Codes:
    """The integers t that a node's weight codes stand for, int64 (C_out, kh, kw, C_in or 1)."""
    codes = node.weight.astype(np.int64)
    return codes if node.encoding is Encoding.TWOS else 2 * codes - ((1 << node.weight_bits) - 1)


def _windows(x: Codes, kernel_h: int, kernel_w: int, stride: int) -> Codes:
    """(N, H, W, C) padded map -> (N, H_out, W_out, C, kh, kw), a view."""
    return sliding_window_view(x, (kernel_h, kernel_w), axis=(1, 2))[:, ::stride, ::stride]


def _columns(x: NDArray[Any], kernel_h: int, kernel_w: int, stride: int) -> NDArray[Any]:
    """im2col: (N, H, W, C) padded map -> (N, H_out, W_out, kh, kw, C), one copy per tap."""
    n, height, width, channels = x.shape
    rows, columns = (height - kernel_h) // stride + 1, (width - kernel_w) // stride + 1
    out = np.empty((n, rows, columns, kernel_h, kernel_w, channels), x.dtype)
    for ky in range(kernel_h):
        for kx in range(kernel_w):
            out[:, :, :, ky, kx] = x[
                :, ky : ky + (rows - 1) * stride + 1 : stride, kx : kx + (columns - 1) * stride + 1 : stride
            ]
    return out


def _pad(x: NDArray[Any], padding: int, codes: NDArray[np.integer] | int) -> NDArray[Any]:
    if not padding:
        return x
    n, height, width, channels = x.shape
    out = np.empty((n, height + 2 * padding, width + 2 * padding, channels), x.dtype)
    out[:] = codes
    out[:, padding : padding + height, padding : padding + width] = x
    return out


def _exact_type(bound: int) -> type[np.generic]:
    return np.float32 if bound < 1 << 24 else np.float64 if bound < 1 << 53 else np.int64


def accumulate(node: Weighted, x: Codes, source: Tensor) -> Codes:
    """acc = sum t*p of a weighted node, (N, H, W, C) -> (N, H_out, W_out, C_out)."""
    t = weight_values(node)
    kernel_h, kernel_w = t.shape[1:3]
    pads = np.asarray(node.pad_codes, np.int64) if node.pad_codes else 0
    if node.depthwise:
        windows = _windows(_pad(x, node.padding, pads), kernel_h, kernel_w, node.stride)
        return np.asarray(np.einsum("nyxcij,cij->nyxc", windows, t[..., 0], optimize=False), np.int64)
    bound = int(np.abs(t).reshape(len(t), -1).sum(axis=1).max()) * max(abs(source.lo), source.hi)
    exact = _exact_type(bound)
    columns = _columns(_pad(x.astype(exact), node.padding, pads), kernel_h, kernel_w, node.stride)
    matrix = t.reshape(len(t), -1).T.astype(exact)
    return (columns.reshape(-1, len(matrix)) @ matrix).astype(np.int64).reshape(*columns.shape[:3], len(t))


def _round(total: Codes, shift: int, out: Tensor) -> Codes:
    """clip(total >> shift, lo, hi), arithmetic shift."""
    return np.asarray(np.clip(total >> shift, out.lo, out.hi), np.int64)


def evaluate(node: Node, network: Network, values: Mapping[str, Codes]) -> Codes:
    """One node's output codes, int64 (N, H, W, C), from its inputs' codes."""
    x = values[node.inputs[0]]
    source, out = network.tensors[node.inputs[0]], network.tensors[node.output]
    match node:
        case Logits():
            return accumulate(node, x, source) + node.bias
        case Conv():
            total = accumulate(node, x, source) * node.mul.astype(np.int64) + node.bias
            if len(node.inputs) > 1:
                total = total + values[node.inputs[1]] * node.skip_mul
            return _round(total, node.shift, out)
        case Requant():
            return _round(x * node.mul + node.bias, node.shift, out)
        case AvgPool():
            windows = _windows(_pad(x, node.padding, 0), *node.kernel, node.stride)
            return _round(windows.sum(axis=(4, 5)) * node.mul + node.bias, node.shift, out)
        case MaxPool():
            windows = _windows(_pad(x, node.padding, source.lo), node.kernel, node.kernel, node.stride)
            return np.asarray(windows.max(axis=(4, 5)), np.int64)
        case ShortcutA():
            result = np.zeros((len(x), *out.shape), np.int64)
            result[..., node.before : node.before + x.shape[3]] = x[:, :: node.stride, :: node.stride]
            return result
    raise TypeError(f"the golden model has no {type(node).__name__}")


def _batches(network: Network, images: NDArray[np.uint8]) -> Iterator[dict[str, Codes]]:
    """Every tensor, int64 (n, H, W, C), of as many images at a time as a moderate memory holds."""
    source = network.tensors[network.input]
    if images.shape[1:] != source.shape or (images.size and (int(images.min()) < 0 or int(images.max()) > source.hi)):
        raise ValueError(f"images {images.shape} do not fit the input tensor {source.shape} of {source.bits} bits")
    widest = max(
        node.weight[0].size * int(np.prod(network.tensors[node.output].shape[:2]))
        for node in network.nodes
        if isinstance(node, Weighted)
    )
    every = sum(int(np.prod(tensor.shape)) for tensor in network.tensors.values())
    step = max(1, _BATCH_VALUES // max(widest, every))
    for start in range(0, len(images), step):
        values: dict[str, Codes] = {network.input: images[start : start + step].astype(np.int64)}
        for node in network.nodes:
            values[node.output] = evaluate(node, network, values)
        yield values


def run(network: Network, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int32]]:
    """Every tensor of the network by name.

    Args:
        images: uint8 (N, H, W, C), codes of the input tensor.

    Returns:
        int32 (N, H, W, C) each, the input included; the logits are (N, 1, 1, classes).

    Raises:
        ValueError: images of another shape, or codes above the input tensor's range.
    """
    out = {name: np.empty((len(images), *tensor.shape), np.int32) for name, tensor in network.tensors.items()}
    done = 0
    for values in _batches(network, images):
        count = len(values[network.input])
        for name, codes in values.items():
            out[name][done : done + count] = codes
        done += count
    return out


def logits(network: Network, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The logits alone, int32 (N, classes); unlike `run` it keeps no other tensor.

    Raises:
        ValueError: as `run`.
    """
    classes = network.tensors[network.output].shape[2]
    parts = [values[network.output].reshape(-1, classes).astype(np.int32) for values in _batches(network, images)]
    return np.concatenate([np.empty((0, classes), np.int32), *parts])


def classify(network: Network, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Arg-max of the logits, the lowest index of equal ones, int64 (N,)."""
    return np.asarray(logits(network, images).argmax(axis=1), np.int64)


def accuracy(network: Network, images: NDArray[np.uint8], labels: NDArray[Any]) -> float:
    """Share of images whose arg-max is their label."""
    return float(np.mean(classify(network, images) == labels))
