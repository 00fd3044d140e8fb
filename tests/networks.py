"""A small network that uses every kind of node, and edits of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwgen.network import (
    AvgPool,
    Conv,
    Encoding,
    Logits,
    MaxPool,
    Network,
    Node,
    Requant,
    Samples,
    ShortcutA,
    Tensor,
)


def conv(rng: np.random.Generator, name: str, inputs: tuple[str, ...], shape: tuple[int, ...], **fields: Any) -> Conv:
    """A convolution with random bipolar codes of 2 bits (or as ``fields`` say)."""
    bits = fields.pop("weight_bits", 2)
    encoding = fields.pop("encoding", Encoding.BIPOLAR)
    lo = 0 if encoding is Encoding.BIPOLAR else -(1 << (bits - 1))
    shift = fields.pop("shift", 12)
    made: dict[str, Any] = {
        "weight": rng.integers(lo, lo + (1 << bits), shape).astype(np.int16),
        "weight_bits": bits,
        "encoding": encoding,
        "bias": rng.integers(0, 1 << 14, shape[0]),
        "mul": rng.integers(1, 200, shape[0]).astype(np.int32),
        "shift": shift,
    }
    return Conv(name=name, inputs=inputs, output=f"{name}.out", **(made | fields))


def tiny(seed: int = 1, samples: int = 3) -> Network:
    """Every op on a 6x6x3 image."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = [
        conv(rng, "stem", ("image",), (4, 3, 3, 3), padding=1, pad_codes=(1, 2, 3), weight_bits=3),
        Requant(name="code", inputs=("stem.out",), output="code.out", mul=120, bias=2048, shift=12),
        conv(rng, "inner", ("code.out",), (8, 3, 3, 4), padding=1, stride=2, encoding=Encoding.TWOS),
        ShortcutA(name="short", inputs=("stem.out",), output="short.out", stride=2, before=2),
        conv(rng, "join", ("inner.out", "short.out"), (8, 3, 3, 8), padding=1, skip_mul=300),
        MaxPool(name="pool", inputs=("join.out",), output="pool.out", kernel=2, stride=1),
        AvgPool(
            name="mean", inputs=("pool.out",), output="mean.out", kernel=(2, 2), stride=1, mul=1024, bias=2048, shift=12
        ),
        Logits(
            name="fc",
            inputs=("mean.out",),
            output="logits",
            weight=rng.integers(0, 16, (5, 1, 1, 8)).astype(np.int16),
            weight_bits=4,
            encoding=Encoding.BIPOLAR,
            bias=rng.integers(-9, 9, 5),
        ),
    ]
    tensors = [
        Tensor("image", (6, 6, 3), 8, scale=1 / 255),
        Tensor("stem.out", (6, 6, 4), 8, scale=0.125),
        Tensor("code.out", (6, 6, 4), 3),
        Tensor("inner.out", (3, 3, 8), 2),
        Tensor("short.out", (3, 3, 8), 8),
        Tensor("join.out", (3, 3, 8), 4),
        Tensor("pool.out", (2, 2, 8), 4),
        Tensor("mean.out", (1, 1, 8), 4),
        Tensor("logits", (1, 1, 5), 32, signed=True),
    ]
    images = rng.integers(0, 256, (samples, 6, 6, 3)).astype(np.uint8)
    given = Samples(images, rng.integers(0, 5, samples)) if samples else None
    return Network("tiny", {item.name: item for item in tensors}, tuple(nodes), "image", "logits", given)


def linear_end(seed: int = 1, samples: int = 7) -> Network:
    """Two convolutions, then layers of one position, so that images can share their weights."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = [
        conv(rng, "stem", ("image",), (4, 3, 3, 3), padding=1, weight_bits=3, encoding=Encoding.TWOS),
        conv(rng, "turn", ("stem.out",), (8, 3, 3, 4), padding=1, stride=2, encoding=Encoding.TWOS, shift=10),
        conv(rng, "hidden", ("turn.out",), (12, 3, 3, 8), encoding=Encoding.TWOS, bias=np.full(12, 1 << 14), shift=8),
        Logits(
            name="fc",
            inputs=("hidden.out",),
            output="logits",
            weight=rng.integers(0, 16, (5, 1, 1, 12)).astype(np.int16),
            weight_bits=4,
            encoding=Encoding.BIPOLAR,
            bias=rng.integers(-9, 9, 5),
        ),
    ]
    tensors = [
        Tensor("image", (6, 6, 3), 8, scale=1 / 255),
        Tensor("stem.out", (6, 6, 4), 3),
        Tensor("turn.out", (3, 3, 8), 2),
        Tensor("hidden.out", (1, 1, 12), 8),
        Tensor("logits", (1, 1, 5), 32, signed=True),
    ]
    given = Samples(rng.integers(0, 256, (samples, 6, 6, 3)).astype(np.uint8), rng.integers(0, 5, samples))
    return Network("linear-end", {item.name: item for item in tensors}, tuple(nodes), "image", "logits", given)


def one_layer(shape: tuple[int, int, int] = (4, 4, 1), classes: int = 3) -> Network:
    """A linear layer on the image."""
    weight = np.random.default_rng(1).integers(0, 4, (classes, *shape)).astype(np.int16)
    fc = Logits(
        name="fc",
        inputs=("image",),
        output="logits",
        weight=weight,
        weight_bits=2,
        encoding=Encoding.BIPOLAR,
        bias=np.zeros(classes, np.int64),
    )
    tensors = {"image": Tensor("image", shape, 4), "logits": Tensor("logits", (1, 1, classes), 32, signed=True)}
    return Network("one-layer", tensors, (fc,), "image", "logits")


def node(network: Network, name: str) -> Any:
    """The node of a name."""
    return next(item for item in network.nodes if item.name == name)


def edit(network: Network, name: str, /, **fields: Any) -> Network:
    """The network with fields of one node replaced."""
    return replace(network, nodes=tuple(replace(item, **fields) if item.name == name else item for item in network.nodes))


def retensor(network: Network, name: str, /, **fields: Any) -> Network:
    """The network with fields of one tensor replaced."""
    return replace(network, tensors={**network.tensors, name: replace(network.tensors[name], **fields)})
