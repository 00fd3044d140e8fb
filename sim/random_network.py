"""Random legal networks with awkward shapes, for holding the hardware against the golden model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwgen.network import (
    AvgPool,
    Conv,
    Encoding,
    Logits,
    MaxPool,
    Network,
    Node,
    Requant,
    ShortcutA,
    Tensor,
)
from hwgen.network_check import checked
from sim.golden import Codes, accumulate, evaluate

FEATURES = frozenset(
    {
        "depthwise",
        "extreme",
        "linear",
        "linear_image",
        "maxpool",
        "avgpool",
        "pad_codes",
        "pool_code",
        "residual",
        "shortcut_a",
        "signed",
        "twos",
    }
)
# Primes, one, and just below, at and above the slots and row tiles of engines.
_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 23, 24, 31, 32, 33)
_MUL_LIMIT = (1 << 17) - 1
_SKIP_LIMIT = (1 << 24) - 1
_SATURATING = 1 << 45
_LINEAR_WEIGHTS = 20_000


class _Maker:
    """Grows one network node by node, watching the codes that random images give."""

    def __init__(self, seed: int, features: frozenset[str]) -> None:
        self.rng = np.random.default_rng(seed)
        self.later = np.random.default_rng((seed, 1))  # of what came later: networks without it stay as they were
        self.features = features
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Codes] = {}
        self.name = f"random-{seed}"

    def pick(self, *options: int) -> int:
        return int(self.rng.choice(options))

    def chance(self, feature: str, p: float) -> bool:
        return feature in self.features and bool(self.rng.random() < p)

    def add(self, node: Node, tensor: Tensor) -> str:
        self.nodes.append(node)
        self.tensors[tensor.name] = tensor
        network = Network(self.name, self.tensors, (), "image", tensor.name)
        self.values[tensor.name] = evaluate(node, network, self.values)
        return tensor.name

    def label(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    # ---------------------------------------------------------------- weighted nodes
    def codes(self, shape: tuple[int, ...], bits: int, encoding: Encoding) -> NDArray[np.int16]:
        lo = 0 if encoding is Encoding.BIPOLAR else -(1 << (bits - 1))
        hi = lo + (1 << bits) - 1
        if self.chance("extreme", 0.1):
            return np.full(shape, self.pick(lo, hi, (lo + hi + 1) // 2), np.int16)
        return self.rng.integers(lo, hi + 1, shape).astype(np.int16)

    def weighted(self, source: str, channels: int, kernel: tuple[int, int], depthwise: bool) -> dict[str, object]:
        x = self.tensors[source]
        bits = self.pick(1, 2, 3, 4, 5, 6, 7, 8)
        encoding = Encoding.TWOS if self.chance("twos", 0.3) else Encoding.BIPOLAR
        shape = (x.shape[2] if depthwise else channels, *kernel, 1 if depthwise else x.shape[2])
        return {
            "weight": self.codes(shape, bits, encoding),
            "weight_bits": bits,
            "encoding": encoding,
            "depthwise": depthwise,
        }

    def conv(
        self,
        source: str,
        channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        bits: int | None = None,
        signed: bool | None = None,
        skip: str | None = None,
        depthwise: bool = False,
    ) -> str:
        x = self.tensors[source]
        sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        fields = self.weighted(source, channels, sizes, depthwise)
        if padding and source == "image" and self.chance("pad_codes", 0.6):
            fields["pad_codes"] = tuple(int(code) for code in self.rng.integers(0, x.hi + 1, x.shape[2]))
        channels = x.shape[2] if depthwise else channels
        rows, columns = ((size + 2 * padding - taps) // stride + 1 for size, taps in zip(x.shape[:2], sizes, strict=True))
        if signed is None:
            signed = self.chance("signed", 0.25)
        bits = bits or self.pick(*range(2 if signed else 1, 9))
        name = self.label("conv")
        out = Tensor(f"{name}.out", (rows, columns, channels), bits, signed)
        draft = Conv(
            name=name,
            inputs=(source,),
            output=out.name,
            bias=np.zeros(channels, np.int64),
            mul=np.zeros(channels, np.int32),
            shift=1,
            stride=stride,
            padding=padding,
            **fields,  # type: ignore[arg-type]
        )
        acc = accumulate(draft, self.values[source], x).reshape(-1, channels)
        spread = np.maximum(acc.std(axis=0), 1.0)
        width = (out.hi - out.lo) / 4
        factor = width / spread * self.rng.uniform(0.5, 2.0, channels)
        ratio = 0.0
        if skip is not None:
            ratio = width / max(float(self.values[skip].std()), 1.0) * self.rng.uniform(0.3, 1.5)
        shift = 31
        while shift > 1 and (factor.max() * 2**shift > _MUL_LIMIT or ratio * 2**shift > _SKIP_LIMIT):
            shift -= 1
        mul = np.clip(np.round(factor * 2**shift), 1, _MUL_LIMIT).astype(np.int64)
        if self.rng.random() < 0.2:
            mul[self.rng.integers(channels)] *= -1
        centre = (out.hi + out.lo + 1) / 2 * self.rng.uniform(0.5, 1.5, channels)
        bias = np.round(centre * 2**shift - acc.mean(axis=0) * mul).astype(np.int64) + (1 << (shift - 1))
        if self.chance("extreme", 0.15):
            # Some channels that always clip, and the largest multipliers of both signs.
            wild = self.rng.random(channels) < 0.4
            mul[wild] = self.rng.choice([0, _MUL_LIMIT, -_MUL_LIMIT], channels)[wild]
            bias[wild] = self.rng.choice([0, _SATURATING, -_SATURATING], channels)[wild]
        node = Conv(
            name=name,
            inputs=(source,) if skip is None else (source, skip),
            output=out.name,
            bias=bias,
            mul=mul.astype(np.int32),
            shift=shift,
            stride=stride,
            padding=padding,
            skip_mul=0 if skip is None else int(min(round(ratio * 2**shift), _SKIP_LIMIT)),
            **fields,  # type: ignore[arg-type]
        )
        return self.add(node, out)

    def logits(self, source: str) -> None:
        x = self.tensors[source]
        classes = self.pick(2, 3, 10, 13)
        fields = self.weighted(source, classes, x.shape[:2], False)
        bias = self.rng.integers(-(1 << 20), 1 << 20, classes)
        node = Logits(name="logits", inputs=(source,), output="logits.out", bias=bias, **fields)  # type: ignore[arg-type]
        self.add(node, Tensor("logits.out", (1, 1, classes), 32, True))

    # ---------------------------------------------------------------- other nodes
    def requant(self, source: str, signed: bool = False) -> str:
        x = self.tensors[source]
        bits = max(self.pick(1, 2, 3, 4, 5, 6, 7, 8), 1 + signed)
        factor = ((1 << bits) - 1) / max(int(self.values[source].max()), 1) * self.rng.uniform(0.7, 1.5)
        shift = min(31, int(np.log2(_MUL_LIMIT / factor)))
        if factor * 2**shift > _MUL_LIMIT or shift > 25:
            shift = min(shift - 1, 20)
        shift = min(shift, 20) if signed else shift
        out = Tensor("", x.shape, bits, signed)
        name = self.label("requant")
        node = Requant(
            name=name,
            inputs=(source,),
            output=f"{name}.out",
            mul=int(factor * 2**shift),
            bias=(1 << (shift - 1)) + (out.lo << shift),
            shift=shift,
        )
        return self.add(node, replace(out, name=node.output))

    def maxpool(self, source: str) -> str:
        x = self.tensors[source]
        kernel = min(self.pick(2, 3), *x.shape[:2])
        padding = self.pick(0, 1) if kernel == 3 else 0
        stride = self.pick(1, 2, 3)
        name = self.label("maxpool")
        rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[:2])
        node = MaxPool(name=name, inputs=(source,), output=f"{name}.out", kernel=kernel, stride=stride, padding=padding)
        return self.add(node, Tensor(f"{name}.out", (rows, columns, x.shape[2]), x.bits, x.signed))

    def avgpool(self, source: str, whole: bool) -> str:
        x = self.tensors[source]
        most = self.pick(2, 2, 3)
        kernel = x.shape[:2] if whole else (min(most, x.shape[0]), min(most, x.shape[1]))
        stride = 1 if whole else self.pick(1, 2)
        bits = self.pick(2, 3, 5, 8)
        out_signed = x.signed
        factor = (1 << bits) / (1 << x.bits) / (kernel[0] * kernel[1]) * self.rng.uniform(0.8, 1.4)
        shift = min(20, int(np.log2(_MUL_LIMIT / factor)))
        name = self.label("avgpool")
        padding = 0 if whole or min(kernel) < 2 else self.pick(0, 0, 1)
        rows, columns = (
            (size + 2 * padding - step) // stride + 1 for size, step in zip(x.shape[:2], kernel, strict=True)
        )
        node = AvgPool(
            name=name,
            inputs=(source,),
            output=f"{name}.out",
            kernel=kernel,
            stride=stride,
            padding=padding,
            mul=int(factor * 2**shift),
            bias=1 << (shift - 1),
            shift=shift,
        )
        return self.add(node, Tensor(f"{name}.out", (rows, columns, x.shape[2]), bits, out_signed))

    def residual(self, source: str) -> str:
        """A block: skip code, requant, convolution, convolution with a skip."""
        channels = self.pick(8, 16, 24)
        signed = self.chance("signed", 0.3)
        skip = self.conv(source, channels, 3, padding=1, bits=8, signed=signed)
        code = self.requant(skip)
        stride = self.pick(1, 2)
        wide = channels
        if stride == 1:
            inner = self.conv(code, channels, 3, padding=1)
        else:
            wide = channels + self.pick(8, 16)
            inner = self.conv(code, wide, 3, stride=2, padding=1)
            if self.chance("shortcut_a", 0.5):
                x = self.tensors[skip]
                name = self.label("shortcut")
                shape = (*self.tensors[inner].shape[:2], wide)
                skip = self.add(
                    ShortcutA(name=name, inputs=(skip,), output=f"{name}.out", stride=2, before=self.pick(0, 8)),
                    Tensor(f"{name}.out", shape, x.bits, x.signed),
                )
            else:
                skip = self.conv(code, wide, 1, stride=2, bits=8, signed="signed" in self.features)
        joined = self.conv(inner, wide, 3, padding=1, bits=8, signed=False, skip=skip)
        return self.requant(joined)

    def linear(self, source: str) -> str:
        """A hidden linear layer over the whole map."""
        x = self.tensors[source]
        channels = self.pick(
            *[count for count in (1, 5, 8, 13, 17, 32) if count == 1 or count * np.prod(x.shape) < _LINEAR_WEIGHTS]
        )
        return self.conv(source, channels, x.shape[:2])

    def recoded(self, p: float) -> bool:
        return "pool_code" in self.features and bool(self.later.random() < p)

    def plain(self, source: str) -> str:
        """A convolution, now and then followed by a pool, with another code before or after it."""
        x = self.tensors[source]
        smallest = min(x.shape[:2])
        depthwise = source != "image" and self.chance("depthwise", 0.25)
        kernel = self.pick(*[size for size in (1, 2, 3, 3, 5, 7) if size <= smallest + 2])
        padding = self.pick(0, kernel // 2) if kernel <= smallest else kernel // 2
        while smallest + 2 * padding < kernel:
            padding += 1
        result = self.conv(
            source,
            self.pick(*_CHANNELS),
            kernel,
            stride=self.pick(1, 1, 1, 2, 2, 3),
            padding=padding,
            depthwise=depthwise,
        )
        pooled = result
        if self.recoded(0.1):
            pooled = self.requant(pooled, "signed" in self.features and self.recoded(0.3))
        if self.chance("maxpool", 0.3) and min(self.tensors[pooled].shape[:2]) > 1:
            pooled = self.maxpool(pooled)
        if self.chance("avgpool", 0.2) and min(self.tensors[pooled].shape[:2]) > 1:
            pooled = self.avgpool(pooled, whole=False)
        if pooled != result and self.recoded(0.4):
            pooled = self.requant(pooled, "signed" in self.features and self.recoded(0.3))
        return pooled


def random_network(seed: int, features: frozenset[str] = FEATURES) -> Network:
    """A legal network of 1 to 5 layers before the logits; the same seed and features give the same network."""
    maker = _Maker(seed, features)
    rng = maker.rng
    bits = maker.pick(1, 2, 4, 8, 8)
    shape = (maker.pick(1, 3, 5, 8, 9, 12), maker.pick(1, 2, 5, 8, 11, 12), maker.pick(1, 2, 3, 4))
    if maker.chance("linear_image", 0.1):
        shape = (8, 8, 1)
    maker.tensors["image"] = Tensor("image", shape, bits)
    maker.values["image"] = rng.integers(0, 1 << bits, (4, *shape)).astype(np.int64)
    at = "image"
    if not (shape == (8, 8, 1) and maker.chance("linear_image", 0.5)):
        for _ in range(maker.pick(1, 2, 3)):
            grow = maker.residual if maker.chance("residual", 0.35) else maker.plain
            at = grow(at)
        if maker.chance("avgpool", 0.3) and max(maker.tensors[at].shape[:2]) <= 15:
            at = maker.avgpool(at, whole=True)
        if maker.chance("linear", 0.15) and max(maker.tensors[at].shape[:2]) <= 15:
            at = maker.linear(at)
    maker.logits(at)
    return checked(Network(maker.name, maker.tensors, tuple(maker.nodes), "image", "logits.out"))


def random_images(network: Network, count: int, seed: int) -> NDArray[np.uint8]:
    """Random images (N, H, W, C); the first is all zeros, the second all maximum."""
    source = network.tensors[network.input]
    images = np.random.default_rng(seed).integers(0, source.hi + 1, (count, *source.shape)).astype(np.uint8)
    for at, value in enumerate((0, source.hi)[:count]):
        images[at] = value
    return images
