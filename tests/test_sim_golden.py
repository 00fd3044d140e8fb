"""The golden model against plain Python integers, against explicit bit planes, and against sums done by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import networks
import numpy as np
import pytest
from numpy.typing import NDArray

from hwgen.network import AvgPool, Conv, Encoding, Logits, MaxPool, Network, Node, Requant, ShortcutA, Tensor, Weighted
from sim import bitplanes, golden
from sim.random_network import random_images, random_network


def at(x: NDArray[Any], y: int, column: int, channel: int, outside: int) -> int:
    inside = 0 <= y < x.shape[0] and 0 <= column < x.shape[1]
    return int(x[y, column, channel]) if inside else outside


def clip(total: int, shift: int, out: Tensor) -> int:
    """The contract's rounding in Python integers: half of an LSB is in the bias, so this is a floor."""
    return min(max(total // (1 << shift), out.lo), out.hi)


def plain(node: Node, network: Network, values: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """One image's output codes, one value after the other in Python integers, straight from the contract."""
    x, out = values[node.inputs[0]], network.tensors[node.output]
    source = network.tensors[node.inputs[0]]
    result = np.zeros(out.shape, np.int64)
    for y, column, channel in product(*map(range, out.shape)):
        if isinstance(node, Weighted):
            acc = 0
            _, kernel_h, kernel_w, channels = node.weight.shape
            for ky, kx, c in product(range(kernel_h), range(kernel_w), range(channels)):
                q = int(node.weight[channel, ky, kx, c])
                t = q if node.encoding is Encoding.TWOS else 2 * q - (2**node.weight_bits - 1)
                own = channel if node.depthwise else c
                pad = node.pad_codes[own] if node.pad_codes else 0
                acc += t * at(x, y * node.stride + ky - node.padding, column * node.stride + kx - node.padding, own, pad)
            total = acc * (int(node.mul[channel]) if isinstance(node, Conv) else 1) + int(node.bias[channel])
            if isinstance(node, Conv) and len(node.inputs) > 1:
                total += int(values[node.inputs[1]][y, column, channel]) * node.skip_mul
            result[y, column, channel] = clip(total, node.shift, out) if isinstance(node, Conv) else total
        elif isinstance(node, Requant):
            result[y, column, channel] = clip(int(x[y, column, channel]) * node.mul + node.bias, node.shift, out)
        elif isinstance(node, ShortcutA):
            c = channel - node.before
            if 0 <= c < x.shape[2]:
                result[y, column, channel] = x[y * node.stride, column * node.stride, c]
        elif isinstance(node, MaxPool | AvgPool):
            kernel_h, kernel_w = node.kernel if isinstance(node, AvgPool) else (node.kernel, node.kernel)
            outside = 0 if isinstance(node, AvgPool) else source.lo
            window = [
                at(x, y * node.stride + ky - node.padding, column * node.stride + kx - node.padding, channel, outside)
                for ky, kx in product(range(kernel_h), range(kernel_w))
            ]
            pooled = (
                clip(sum(window) * node.mul + node.bias, node.shift, out) if isinstance(node, AvgPool) else max(window)
            )
            result[y, column, channel] = pooled
    return result


def products(network: Network) -> int:
    return sum(
        node.weight[0].size * int(np.prod(network.tensors[node.output].shape))
        for node in network.nodes
        if isinstance(node, Weighted)
    )


def hold(network: Network, images: NDArray[np.uint8]) -> None:
    tensors = golden.run(network, images)
    assert set(tensors) == set(network.tensors)
    for n in range(len(images)):
        values: dict[str, NDArray[Any]] = {network.input: images[n]}
        for node in network.nodes:
            values[node.output] = plain(node, network, values)
        for name, codes in values.items():
            assert tensors[name].dtype == np.int32
            np.testing.assert_array_equal(tensors[name][n], codes, err_msg=name)


def test_every_op_equals_plain_integers() -> None:
    network = networks.tiny()
    assert network.samples is not None
    hold(network, network.samples.images)


def test_random_networks_equal_plain_integers() -> None:
    held: set[str] = set()
    for seed in range(200, 260):
        network = random_network(seed)
        if products(network) < 20_000:
            hold(network, random_images(network, 3, seed)[2:])
            held |= {type(node).__name__ for node in network.nodes}
            held |= {"depthwise" for node in network.nodes if isinstance(node, Weighted) and node.depthwise}
    assert held >= {"Conv", "Logits", "Requant", "MaxPool", "AvgPool", "depthwise"}, held


# -------------------------------------------------------------------------------- bit planes
def layer(
    bits: int, encoding: Encoding, source: Tensor, *, depthwise: bool = False, pad_codes: tuple[int, ...] = ()
) -> Conv:
    rng = np.random.default_rng(bits * 100 + source.bits)
    channels = source.shape[2]
    shape = (channels, 3, 2, 1) if depthwise else (4, 3, 2, channels)
    lo = 0 if encoding is Encoding.BIPOLAR else -(1 << (bits - 1))
    weight = rng.integers(lo, lo + (1 << bits), shape).astype(np.int16)
    weight[0], weight[1] = lo, lo + (1 << bits) - 1
    return Conv(
        name="conv", inputs=("x",), output="y", weight=weight, weight_bits=bits, encoding=encoding, padding=1, stride=2,
        bias=np.zeros(len(weight), np.int64), mul=np.ones(len(weight), np.int32), shift=1, depthwise=depthwise,
        pad_codes=pad_codes,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_planes_and_golden_equal_int64_sums(bits: int, encoding: Encoding) -> None:
    for code_bits, signed, depthwise in product(range(1, 9), (False, True), (False, True)):
        if signed and code_bits == 1:
            continue
        source = Tensor("x", (5, 4, 3), code_bits, signed)
        pads = (source.lo, source.hi, 0)
        node = layer(bits, encoding, source, depthwise=depthwise, pad_codes=pads)
        x = np.random.default_rng(code_bits).integers(source.lo, source.hi + 1, (3, *source.shape))
        x[0], x[1] = source.lo, source.hi
        padded = np.empty((3, 7, 6, 3), np.int64)
        padded[:] = pads
        padded[:, 1:-1, 1:-1] = x
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(1, 2))[:, ::2, ::2]
        t = golden.weight_values(node)
        formula = "nyxcij,cijz->nyxc" if depthwise else "nyxcij,oijc->nyxo"
        expected = np.einsum(formula, windows, t)
        np.testing.assert_array_equal(golden.accumulate(node, x, source), expected)
        np.testing.assert_array_equal(bitplanes.accumulate(node, x, source), expected)


def test_weight_values_of_both_encodings() -> None:
    source = Tensor("x", (5, 4, 3), 1)
    for encoding, codes, expected in (
        (Encoding.BIPOLAR, [0, 1, 2, 3], [-3, -1, 1, 3]),
        (Encoding.TWOS, [-2, -1, 0, 1], [-2, -1, 0, 1]),
    ):
        node = replace(layer(2, encoding, source), weight=np.array(codes, np.int16).reshape(4, 1, 1, 1))
        assert golden.weight_values(node).ravel().tolist() == expected
    one = replace(layer(1, Encoding.BIPOLAR, source), weight=np.array([0, 1], np.int16).reshape(2, 1, 1, 1))
    assert golden.weight_values(one).ravel().tolist() == [-1, 1]


# -------------------------------------------------------------------------------- exact in floats
@pytest.mark.parametrize(
    ("bound", "kind"),
    [
        ((1 << 24) - 1, np.float32),
        (1 << 24, np.float64),
        ((1 << 53) - 1, np.float64),
        (1 << 53, np.int64),
    ],
)
def test_the_type_of_the_sums_follows_the_bound(bound: int, kind: type) -> None:
    assert golden._exact_type(bound) is kind


def test_sums_that_float32_cannot_hold() -> None:
    """260 codes of 255 with t of 255, one of 1: 16,906,501 is odd and beyond 2**24, so float32 would round it."""
    weight = np.full((1, 1, 1, 261), 255, np.int16)
    weight[..., 260] = 128
    node = Logits(
        name="fc", inputs=("x",), output="y", weight=weight, weight_bits=8, encoding=Encoding.BIPOLAR,
        bias=np.zeros(1, np.int64),
    )  # fmt: skip
    x = np.full((1, 1, 1, 261), 255, np.int64)
    x[..., 260] = 1
    expected = 260 * 255 * 255 + 1
    assert int(np.float32(expected)) != expected
    assert golden.accumulate(node, x, Tensor("x", (1, 1, 261), 8)).item() == expected


# -------------------------------------------------------------------------------- by hand
def single(node: Node, source: Tensor, out: Tensor, codes: Any) -> list[int]:
    network = Network("one", {"x": source, "y": out}, (node,), "x", "y")
    x = np.asarray(codes, np.int64).reshape(1, *source.shape)
    result = golden.evaluate(node, network, {"x": x})
    assert result.shape[1:] == out.shape
    return [int(value) for value in result.ravel()]


def test_rounding_is_half_up_below_zero_too() -> None:
    """-2.5, -1.5, -0.5, 0.5, 1.5 become -2, -1, 0, 1, 2: neither away from zero nor to even."""
    node = Requant(name="r", inputs=("x",), output="y", mul=1, bias=1, shift=1)
    source, out = Tensor("x", (1, 5, 1), 8, True), Tensor("y", (1, 5, 1), 8, True)
    assert single(node, source, out, [-5, -3, -1, 1, 3]) == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize(
    ("bits", "signed", "expected"),
    [(2, False, [0, 0, 0, 3, 3]), (3, True, [-4, -1, 0, 3, 3]), (8, True, [-128, -1, 0, 5, 127])],
)
def test_clipping_is_to_the_codes_of_the_output(bits: int, signed: bool, expected: list[int]) -> None:
    node = Requant(name="r", inputs=("x",), output="y", mul=2, bias=1, shift=1)
    source, out = Tensor("x", (1, 5, 1), 8, True), Tensor("y", (1, 5, 1), bits, signed)
    assert single(node, source, out, [-128, -1, 0, 5, 127]) == expected


def test_max_pool_pads_with_the_lowest_code() -> None:
    node = MaxPool(name="p", inputs=("x",), output="y", kernel=2, stride=2, padding=1)
    source, out = Tensor("x", (2, 2, 1), 3, True), Tensor("y", (2, 2, 1), 3, True)
    assert single(node, source, out, [-4, -2, -3, -1]) == [-4, -2, -3, -1]


def test_average_pool_pads_with_zero_and_rounds_once() -> None:
    """Means of 2x2 windows with three zeros around each corner: 10/4 = 2.5, 6/4 = 1.5, 5/4, 4/4."""
    node = AvgPool(name="p", inputs=("x",), output="y", kernel=(2, 2), stride=2, padding=1, mul=1, bias=2, shift=2)
    source, out = Tensor("x", (2, 2, 1), 4), Tensor("y", (2, 2, 1), 4)
    assert single(node, source, out, [10, 6, 5, 4]) == [3, 2, 1, 1]


def test_shortcut_takes_every_stride_th_pixel_between_zeros() -> None:
    node = ShortcutA(name="s", inputs=("x",), output="y", stride=2, before=1)
    source, out = Tensor("x", (1, 3, 2), 8), Tensor("y", (1, 2, 4), 8)
    assert single(node, source, out, [1, 2, 3, 4, 5, 6]) == [0, 1, 2, 0, 0, 5, 6, 0]


# -------------------------------------------------------------------------------- images and classes
def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.tiny()
    images = random_images(network, 7, 1)
    whole = golden.run(network, images)
    logits = golden.logits(network, images)
    for values in (1, 2000):  # one image at a time, then a few and a rest
        monkeypatch.setattr(golden, "_BATCH_VALUES", values)
        parts = golden.run(network, images)
        for name, codes in whole.items():
            np.testing.assert_array_equal(parts[name], codes)
        np.testing.assert_array_equal(golden.logits(network, images), logits)
    np.testing.assert_array_equal(whole["logits"].reshape(7, 5), logits)


def test_no_images() -> None:
    network = networks.tiny()
    none = np.zeros((0, 6, 6, 3), np.uint8)
    assert golden.logits(network, none).shape == (0, 5)
    assert golden.run(network, none)["join.out"].shape == (0, 3, 3, 8)


def test_images_that_do_not_fit() -> None:
    network = networks.retensor(networks.tiny(), "image", bits=4)
    for images in (np.full((1, 6, 6, 3), 16, np.uint8), np.zeros((1, 6, 6, 1), np.uint8), np.zeros((6, 6, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"do not fit the input tensor \(6, 6, 3\) of 4 bits"):
            golden.run(network, images)


def test_the_lowest_of_equal_logits_wins() -> None:
    network = networks.one_layer(classes=4)
    fc = networks.node(network, "fc")
    network = networks.edit(network, "fc", weight=np.zeros_like(fc.weight), bias=np.array([-1, 7, 7, 0]))
    images = random_images(network, 3, 1)
    assert golden.classify(network, images).tolist() == [1, 1, 1]
    assert golden.accuracy(network, images, np.array([1, 2, 1])) == pytest.approx(2 / 3)
