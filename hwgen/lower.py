"""Lowering: from the nodes of a network to the passes of the engine.

A pass is what one pair of instructions does: the array convolves (or the byte reader pools), the lanes round, and the
codes are stored as bit planes, as bytes, or sent out as logits. A ``requant`` node that reads the output of a pass is
rounded in the same pass. Everything the hardware does not know is settled here: signed codes become offset binary,
average pools and bipolar depthwise layers become two's complement planes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network import AvgPool, Conv, Encoding, Logits, MaxPool, Network, Node, Requant, ShortcutA, Tensor, Weighted

ACC_LOGIT_BITS = 32
NIBBLE = 4  # bits of a channel in a slot of a nibble plane
_COUNT_BITS = 16  # the sum of all codes under a window of merged words is counted in so many bits


@dataclass(frozen=True)
class Window:
    """How output positions read the source map: sizes and steps in pixels."""

    in_height: int
    in_width: int
    kernel_h: int
    kernel_w: int
    stride: int
    pad: int
    out_height: int
    out_width: int

    @property
    def positions(self) -> int:
        return self.out_height * self.out_width

    def last_pixel(self, position: int) -> int:
        """Highest linear index of a source pixel that output positions 0..position read."""
        row = min(position // self.out_width * self.stride - self.pad + self.kernel_h - 1, self.in_height - 1)
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

    @property
    def channels_out(self) -> int:
        return int(self.codes.shape[0])


@dataclass(frozen=True, kw_only=True)
class PoolPass(Pass):
    """A pass of the byte reader: maximum over windows; zero_channels in front of the copied channels."""

    zero_channels: int


@dataclass(frozen=True)
class Uses:
    """Which buffers a tensor must lie in, by what reads it."""

    planes: bool
    bytes: bool


def tensor_uses(network: Network) -> dict[str, Uses]:
    """For every tensor, whether array passes (planes) and skip, pool or requant (bytes) read it."""
    planes: dict[str, bool] = defaultdict(bool)
    as_bytes: dict[str, bool] = defaultdict(bool)
    for node in network.nodes:
        if isinstance(node, Weighted | AvgPool):
            planes[node.inputs[0]] = True
            for skip in node.inputs[1:]:
                as_bytes[skip] = True
        else:
            for name in node.inputs:
                as_bytes[name] = True
    return {name: Uses(planes[name], as_bytes[name]) for name in network.tensors}


def _weights(node: Weighted) -> tuple[NDArray[np.uint16], int, bool, bool]:
    """Unsigned codes, planes, bipolar, negative_top."""
    codes = node.weight.astype(np.int64)
    if node.encoding is Encoding.TWOS:
        return (codes & ((1 << node.weight_bits) - 1)).astype(np.uint16), node.weight_bits, False, True
    if not node.depthwise:
        return codes.astype(np.uint16), node.weight_bits, True, False
    # A column's count U runs over all channels of a slot, a depthwise row over one: use two's complement planes.
    planes = node.weight_bits + 1
    t = 2 * codes - ((1 << node.weight_bits) - 1)
    return (t & ((1 << planes) - 1)).astype(np.uint16), planes, False, True


def _signed_sum(codes: NDArray[np.uint16], planes: int, bipolar: bool, negative_top: bool) -> NDArray[np.int64]:
    """Sum of the integers t that each output channel's codes stand for."""
    t = codes.astype(np.int64)
    if bipolar:
        t = 2 * t - ((1 << planes) - 1)
    elif negative_top:
        t = np.where(t >> (planes - 1) & 1, t - (1 << planes), t)
    return np.asarray(t.reshape(t.shape[0], -1).sum(axis=1), dtype=np.int64)


class _Lowering:
    """One run of :func:`lower`."""

    def __init__(self, network: Network, engine: EngineConfig) -> None:
        self.network = network
        self.engine = engine
        self.uses = tensor_uses(network)
        self.problems: list[str] = []
        self.fused: set[str] = set()
        self.tensors = dict(network.tensors)

    def run(self) -> tuple[Pass, ...]:
        passes = []
        if self.uses[self.network.input].bytes:
            self.problems.append(
                f"tensor '{self.network.input}': the image may only feed convolutions, linear layers and average pools;"
                " put a convolution before the pool, requant or shortcut that reads it."
            )
        for node in self.network.nodes:
            if node.name in self.fused:
                continue
            made = self._pool(node) if isinstance(node, MaxPool | ShortcutA | Requant) else self._array(node)
            if made is not None:
                passes.append(made)
        if self.problems:
            raise InputError(self.problems, f"network '{self.network.name}' on engine {self.engine.name}")
        return self._with_nibbles(passes)

    def _with_nibbles(self, passes: list[Pass]) -> tuple[Pass, ...]:
        """Nibble planes for the image, if every pass that reads it can use them."""
        readers = [item for item in passes if isinstance(item, ArrayPass) and item.source.name == self.network.input]
        use = all(
            item.bipolar
            and item.source.shape[2] <= self.engine.slot_channels // NIBBLE
            and count_fits(item.codes[0].size, item.source.bits)
            for item in readers
        )
        return tuple(replace(item, nibbles=True) if use and item in readers else item for item in passes)

    def _store(self, code: Tensor) -> tuple[Tensor | None, Tensor | None, Rounding | None, bool]:
        """planes, bytes, rounding, bytes_rounded of a pass that makes ``code``; fuses at most one requant node."""
        uses = self.uses[code.name]
        if uses.planes:
            return code, code if uses.bytes else None, None, False
        readers = [node for node in self.network.nodes if isinstance(node, Requant) and node.inputs[0] == code.name]
        skips = any(code.name in node.inputs and not isinstance(node, Requant) for node in self.network.nodes)
        for node in readers:
            out = self.tensors[node.output]
            out_uses = self.uses[out.name]
            bytes_needed = skips or len(readers) > 1
            if out_uses.bytes and bytes_needed:
                continue  # one byte map per pass
            self.fused.add(node.name)
            rounding = Rounding(node.mul, node.bias, node.shift, out.lo, out.hi)
            stored_bytes = out if out_uses.bytes else code if bytes_needed else None
            return out if out_uses.planes else None, stored_bytes, rounding, out_uses.bytes
        return None, code if uses.bytes else None, None, False

    def _array(self, node: Node) -> Pass | None:
        source = self.tensors[node.inputs[0]]
        code = self.tensors[node.output]
        if isinstance(node, AvgPool):
            channels = source.shape[2]
            weights = np.ones((channels, *node.kernel, 1), np.uint16)
            kernel_h, kernel_w, stride, padding, depthwise = *node.kernel, node.stride, node.padding, True
            codes, planes, bipolar, negative_top = weights, 1, False, False
            mul = np.full(channels, node.mul, np.int64)
            bias = np.full(channels, node.bias, np.int64)
            shift, skip, skip_mul, logits, weight_bits = node.shift, None, 0, False, 1
            pads: tuple[int, ...] = ()
        elif isinstance(node, Weighted):
            codes, planes, bipolar, negative_top = _weights(node)
            kernel_h, kernel_w = codes.shape[1:3]
            stride, padding, depthwise = node.stride, node.padding, node.depthwise
            bias = node.bias.astype(np.int64)
            pads, weight_bits = node.pad_codes, node.weight_bits
            if isinstance(node, Conv):
                mul, shift, skip_mul, logits = node.mul.astype(np.int64), node.shift, node.skip_mul, False
                skip = self.tensors[node.inputs[1]] if len(node.inputs) > 1 else None
            else:
                assert isinstance(node, Logits)
                mul, shift, skip_mul, logits, skip = np.ones(codes.shape[0], np.int64), 0, 0, True, None
        else:
            self.problems.append(f"node '{node.name}': the engine has no pass for a {type(node).__name__}.")
            return None
        height, width, channels = source.shape
        whole_map = (kernel_h, kernel_w) == (height, width) and padding == 0 and not depthwise
        if (
            whole_map
            and source.name == self.network.input
            and channels <= self.engine.slot_channels
            and height * width > 1
        ):
            # A linear layer on the image: its bytes are one long pixel.
            if max(kernel_h, kernel_w) > 15 or channels < 3:
                readers = [item for item in self.network.nodes if source.name in item.inputs]
                if len(readers) == 1:
                    codes = codes.reshape(codes.shape[0], 1, 1, -1)
                    source = Tensor(
                        source.name, (1, 1, height * width * channels), source.bits, source.signed, source.scale
                    )
                    self.tensors[source.name] = source
                    height, width, channels, kernel_h, kernel_w = 1, 1, source.shape[2], 1, 1
        if max(kernel_h, kernel_w) > 15:
            self.problems.append(
                f"node '{node.name}': kernel {kernel_h}x{kernel_w} is larger than 15x15; pool before it."
            )
            return None
        offset = 1 << (source.bits - 1) if source.signed else 0
        if offset:
            sums = _signed_sum(codes, planes, bipolar, negative_top)
            bias = bias - mul * offset * sums
        pad_codes = np.asarray(pads if pads else [0] * channels, np.int64) + offset
        planes_out, bytes_out, rounding, bytes_rounded = (None, None, None, False) if logits else self._store(code)
        window = Window(height, width, kernel_h, kernel_w, stride, padding, code.shape[0], code.shape[1])
        made = ArrayPass(
            name=node.name,
            node=node,
            source=source,
            window=window,
            code=code,
            planes=planes_out,
            bytes=bytes_out,
            rounding=rounding,
            bytes_rounded=bytes_rounded,
            codes=codes,
            weight_planes=planes,
            bipolar=bipolar,
            negative_top=negative_top,
            depthwise=depthwise,
            mul=mul,
            bias=bias,
            shift=shift,
            skip=skip,
            skip_mul=skip_mul,
            pad_codes=pad_codes,
            logits=logits,
            weight_bits=weight_bits,
        )
        self._check_array(made)
        return made

    def _check_array(self, made: ArrayPass) -> None:
        top = (1 << made.source.bits) - 1
        codes = made.codes.astype(np.int64).reshape(made.channels_out, -1)
        if made.bipolar:
            # S and U are accumulated unsigned.
            need = max(int(codes.sum(axis=1).max()), codes.shape[1] * ((1 << made.weight_planes) - 1)) * top
            bits = need.bit_length()
        else:
            half = 1 << (made.weight_planes - 1) if made.negative_top else 0
            t = np.where(codes >= half, codes - 2 * half, codes) if half else codes
            need = int(np.abs(t).sum(axis=1).max()) * top
            bits = need.bit_length() + 1
        if bits > self.engine.acc_bits:
            self.problems.append(
                f"node '{made.name}': its sums need {bits}-bit accumulators, the engine has {self.engine.acc_bits};"
                " use fewer bits in this layer or an engine with wider accumulators."
            )
        groups = -(-made.source.shape[2] // self.engine.slot_channels)
        if groups > 1 and len(set(made.pad_codes.tolist())) > 1:
            self.problems.append(
                f"node '{made.name}': 'pad_codes' differ between channels, which needs at most"
                f" {self.engine.slot_channels} input channels; it has {made.source.shape[2]}."
            )
        rounding = made.rounding
        if rounding is not None:
            self._check_rounding(made.name, rounding)

    def _check_rounding(self, name: str, rounding: Rounding) -> None:
        for what, value, bits in (("mul", rounding.mul, 18), ("bias", rounding.bias, 32)):
            if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
                self.problems.append(f"node '{name}': the '{what}' {value} of its requant does not fit {bits} bits.")

    def _pool(self, node: Node) -> Pass | None:
        source = self.tensors[node.inputs[0]]
        out = self.tensors[node.output]
        zero = 0
        rounding = None
        if isinstance(node, Requant):
            kernel, stride, padding = 1, 1, 0
            rounding = Rounding(node.mul, node.bias, node.shift, out.lo, out.hi)
            self._check_rounding(node.name, rounding)
            uses = self.uses[out.name]
            planes, stored, bytes_rounded = out if uses.planes else None, out if uses.bytes else None, True
        else:
            if isinstance(node, MaxPool):
                kernel, stride, padding = node.kernel, node.stride, node.padding
            else:
                assert isinstance(node, ShortcutA)
                kernel, stride, padding, zero = 1, node.stride, 0, node.before
                if zero % self.engine.lane_rows or (
                    source.shape[2] % self.engine.lane_rows and zero + source.shape[2] != out.shape[2]
                ):
                    self.problems.append(
                        f"node '{node.name}': 'before' ({zero}) and the copied channels ({source.shape[2]}) must be"
                        f" multiples of the engine's lane_rows ({self.engine.lane_rows})."
                    )
            planes, stored, rounding, bytes_rounded = self._store(out)
            if rounding is not None:
                self._check_rounding(node.name, rounding)
        window = Window(source.shape[0], source.shape[1], kernel, kernel, stride, padding, out.shape[0], out.shape[1])
        return PoolPass(
            name=node.name,
            node=node,
            source=source,
            window=window,
            code=out,
            planes=planes,
            bytes=stored,
            rounding=rounding,
            bytes_rounded=bytes_rounded,
            zero_channels=zero,
        )


def count_fits(length: int, bits: int) -> bool:
    """Whether the sum of ``length`` codes of ``bits`` bits fits the count beside merged words."""
    return length * ((1 << bits) - 1) < 1 << _COUNT_BITS


def lower(network: Network, engine: EngineConfig) -> tuple[Pass, ...]:
    """The passes of a network in order.

    Raises:
        InputError: what the engine cannot run, every node at once.
    """
    return _Lowering(network, engine).run()


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
