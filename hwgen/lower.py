"""Lowering: from the nodes of a network to the passes of the engine.

A ``requant`` node that reads the output of a pass is rounded in the same pass. Everything the hardware does not know is
settled here: signed codes become offset binary, average pools and bipolar depthwise layers become two's complement
planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.fusion import Fusion, Store
from hwgen.network import AvgPool, Conv, Encoding, Logits, MaxPool, Network, Node, Requant, ShortcutA, Tensor, Weighted
from hwgen.network_check import SUM_LIMIT
from hwgen.passes import NIBBLE, ArrayPass, MeanPass, Pass, PoolPass, Rounding, Window, count_fits


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
        self.fusion = Fusion(network, engine)
        self.problems: list[str] = []
        self.fused = {node.name for node in self.fusion.shortcuts.values()}
        self.tensors = dict(network.tensors)

    def run(self) -> tuple[Pass, ...]:
        passes = []
        if self.fusion.uses(self.network.input).bytes:
            self.problems.append(
                f"tensor '{self.network.input}': the image may only feed convolutions, linear layers and average pools;"
                " put a convolution before the pool, requant or shortcut that reads it."
            )
        for node in self.network.nodes:
            if node.name in self.fused:
                continue
            made = self._pass(node)
            if made is not None:
                passes.append(made)
        if self.problems:
            raise InputError(self.problems, f"network '{self.network.name}' on engine {self.engine.name}")
        return self._with_nibbles(_skips_early(passes))

    def _pass(self, node: Node) -> Pass | None:
        if isinstance(node, MaxPool | ShortcutA | Requant):
            return self._pool(node)
        if isinstance(node, AvgPool) and node.name in self.fusion.means:
            return self._mean(node)
        return self._array(node)

    def _store(self, node: Node, code: Tensor) -> Store:
        """Where the codes go; the requant node that is fused needs no pass."""
        store = self.fusion.store(code)
        if store.rounding is not None:
            self._check_rounding(node.name, store.rounding)
        self.fused.update(store.fused)
        return store

    def _mean(self, node: AvgPool) -> MeanPass:
        out = self.tensors[node.output]
        store = self._store(node, out)
        channels = out.shape[2]
        return MeanPass(
            name=node.name,
            node=node,
            source=self.tensors[node.inputs[0]],
            window=Window(1, 1, 1, 1, 1, 0, 1, 1),
            code=out,
            planes=store.planes,
            bytes=store.bytes,
            rounding=store.rounding,
            bytes_rounded=store.bytes_rounded,
            mul=np.full(channels, node.mul, np.int64),
            bias=np.full(channels, node.bias, np.int64),
            shift=node.shift,
        )

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
        store = Store() if logits else self._store(node, code)
        skip_first_channel = 0
        if skip is not None:
            shortcut = self.fusion.shortcut_of(skip.name)
            if shortcut is not None:
                skip, skip_first_channel = self.fusion.stored_shortcut(shortcut), shortcut.before
        out = store.pooled or code
        window = Window(
            height, width, kernel_h, kernel_w, stride, padding, *out.shape[:2], pooled=store.pooled is not None
        )
        made = ArrayPass(
            name=node.name,
            node=node,
            source=source,
            window=window,
            code=code,
            planes=store.planes,
            bytes=store.bytes,
            rounding=store.rounding,
            bytes_rounded=store.bytes_rounded,
            subsample=store.subsample,
            bytes_first_channel=store.bytes_first_channel,
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
            skip_first_channel=skip_first_channel,
            sums=self.fusion.summed(code.name),
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
        # bs_lane adds bias, skip and a product of 17-bit limbs before it drops bits: that sum must not wrap.
        skip = max(abs(made.skip.lo), made.skip.hi) * made.skip_mul if made.skip is not None else 0
        if int(np.abs(made.bias).max()) + skip + (1 << 34) >= SUM_LIMIT:
            self.problems.append(
                f"node '{made.name}': its bias, corrected for the source's sign, and its skip add up to more than the"
                " lanes' 48 bits; use smaller multipliers with a smaller shift."
            )
        groups = -(-made.source.shape[2] // self.engine.slot_channels)
        if groups > 1 and len(set(made.pad_codes.tolist())) > 1:
            self.problems.append(
                f"node '{made.name}': 'pad_codes' differ between channels, which needs at most"
                f" {self.engine.slot_channels} input channels; it has {made.source.shape[2]}."
            )

    def _check_rounding(self, name: str, rounding: Rounding) -> None:
        for what, value, bits in (("mul", rounding.mul, 18), ("bias", rounding.bias, 32)):
            if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
                self.problems.append(f"node '{name}': the '{what}' {value} of its requant does not fit {bits} bits.")

    def _pool(self, node: Node) -> Pass | None:
        source = self.tensors[node.inputs[0]]
        out = self.tensors[node.output]
        zero = 0
        if isinstance(node, Requant):
            kernel, stride, padding = 1, 1, 0
            rounding = Rounding(node.mul, node.bias, node.shift, out.lo, out.hi)
            self._check_rounding(node.name, rounding)
            uses = self.fusion.uses(out.name)
            store = Store(out if uses.planes else None, out if uses.bytes else None, rounding, True)
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
            store = self._store(node, out)
        window = Window(source.shape[0], source.shape[1], kernel, kernel, stride, padding, out.shape[0], out.shape[1])
        return PoolPass(
            name=node.name,
            node=node,
            source=source,
            window=window,
            code=out,
            planes=store.planes,
            bytes=store.bytes,
            rounding=store.rounding,
            bytes_rounded=store.bytes_rounded,
            zero_channels=zero,
        )


def _skips_early(passes: Sequence[Pass]) -> list[Pass]:
    """A pass that makes the skip of the next one before the pass in front of it, where that does not feed it.

    Else the join would wait until the skip has left the lanes.
    """
    made = list(passes)
    for at in range(1, len(made) - 1):
        before, here, join = made[at - 1 : at + 2]
        fed = {item.name for item in before.tensors}
        stored = here.bytes.name if here.bytes is not None else None
        if (
            stored == _skip(join)
            and stored is not None
            and join.source.name in fed
            and not {here.source.name, _skip(here)} & fed
            and not isinstance(here, MeanPass)
        ):
            made[at - 1], made[at] = here, before
    return made


def _skip(item: Pass) -> str | None:
    return item.skip.name if isinstance(item, ArrayPass) and item.skip is not None else None


def lower(network: Network, engine: EngineConfig) -> tuple[Pass, ...]:
    """The passes of a network in order.

    Raises:
        InputError: what the engine cannot run, every node at once.
    """
    return _Lowering(network, engine).run()
