"""What makes a network legal, and the proofs that its integers never overflow.

Every rule names the node (or tensor) and the field; all of them are checked, so that one look shows every problem.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hwgen.errors import InputError
from hwgen.network import (
    MAX_BITS,
    MAX_KERNEL,
    MAX_PADDING,
    MAX_STRIDE,
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
    Weighted,
)

ACC_LIMIT = 1 << 31  # |acc| and |logit| stay below
SUM_LIMIT = 1 << 47  # |acc*mul + skip*skip_mul + bias| stays below
_MUL_LIMIT = 1 << 17
_SKIP_MUL_LIMIT = 1 << 24
_BIAS_LIMIT = 1 << 47


def _out_size(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _largest(tensor: Tensor) -> int:
    return max(abs(tensor.lo), tensor.hi)


def _has_codes(tensor: Tensor) -> bool:
    """Whether shape and bits are sound enough to compute with; each fault has its own sentence."""
    return len(tensor.shape) == 3 and min(tensor.shape) >= 1 and (2 if tensor.signed else 1) <= tensor.bits <= 32


def weight_sums(node: Weighted) -> NDArray[np.int64]:
    """Sum of |t| per output channel, int64 (C_out,)."""
    codes = node.weight.astype(np.int64)
    t = codes if node.encoding is Encoding.TWOS else 2 * codes - ((1 << node.weight_bits) - 1)
    return np.asarray(np.abs(t).reshape(len(t), -1).sum(axis=1), np.int64)


class _Check:
    """One run over a network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tensors = network.tensors
        self.unusable = {name for name, tensor in network.tensors.items() if not _has_codes(tensor)}
        self.logits = {node.output for node in network.nodes if isinstance(node, Logits)}

    def run(self) -> Iterator[str]:
        yield from self._tensors()
        graph = list(self._graph())
        yield from graph
        known = [
            node
            for node in self.network.nodes
            if node.inputs
            and all(name in self.tensors and name not in self.unusable for name in (node.output, *node.inputs))
        ]
        for node in known:
            for problem in self._node(node):
                yield f"node '{node.name}', {problem}"
        yield from self._samples()

    def _tensors(self) -> Iterator[str]:
        made = {self.network.input, *(node.output for node in self.network.nodes)}
        for name, tensor in self.tensors.items():
            if not name or not name.isprintable() or name != tensor.name:
                yield f"tensor {name!r}, field 'name': it must be printable, and the tensor's own ({tensor.name!r})."
            if name not in made:
                yield f"tensor '{name}': no node makes it; remove it."
            if (
                len(tensor.shape) != 3
                or any(not 1 <= size <= 1023 for size in tensor.shape[:2])
                or not (1 <= tensor.shape[2] <= 4095)
            ):
                yield f"tensor '{name}', field 'shape': {tensor.shape} must be height and width 1..1023, channels 1..4095."
            if name in self.logits:
                if tensor.bits != 32 or not tensor.signed:
                    yield f"tensor '{name}', field 'bits': logits are signed with 32 bits, not {tensor.bits}."
            elif not (2 if tensor.signed else 1) <= tensor.bits <= MAX_BITS:
                yield (
                    f"tensor '{name}', field 'bits': {tensor.bits} is out of range; unsigned codes have 1..8 bits,"
                    " signed ones 2..8."
                )
            if not np.isfinite(tensor.scale) or tensor.scale <= 0:
                yield f"tensor '{name}', field 'scale': {tensor.scale} must be a positive number."

    def _graph(self) -> Iterator[str]:
        made: set[str] = {self.network.input}
        every = {node.output for node in self.network.nodes}
        names: set[str] = set()
        for what, name in (("input", self.network.input), ("output", self.network.output)):
            if name not in self.tensors:
                yield f"field '{what}': there is no tensor '{name}'."
        source = self.tensors.get(self.network.input)
        if source is not None and source.signed:
            yield f"tensor '{source.name}', field 'signed': the input image is unsigned."
        for node in self.network.nodes:
            if not node.name or not node.name.isprintable():
                yield f"node {node.name!r}, field 'name': a name is made of printable characters."
            if not node.inputs:
                yield f"node '{node.name}', field 'inputs': it reads no tensor."
            if node.name in names:
                yield f"node '{node.name}', field 'name': another node has this name."
            names.add(node.name)
            for name in node.inputs:
                if name not in self.tensors:
                    yield f"node '{node.name}', field 'inputs': there is no tensor '{name}'."
                elif name not in made:
                    reason = (
                        "it is made by a later node or by itself: the graph has a cycle or is not in topological order"
                        if name in every
                        else "no node makes it"
                    )
                    yield f"node '{node.name}', field 'inputs': tensor '{name}' is not ready here; {reason}."
            if node.output not in self.tensors:
                yield f"node '{node.name}', field 'output': there is no tensor '{node.output}'."
            elif node.output in made:
                yield f"node '{node.name}', field 'output': tensor '{node.output}' is made twice."
            made.add(node.output)
        outputs = [node for node in self.network.nodes if isinstance(node, Logits)]
        if len(outputs) != 1 or outputs[0].output != self.network.output or self.network.nodes[-1] is not outputs[0]:
            yield "field 'nodes': a network has exactly one logits node, its last, which makes the output tensor."
        read = {name for node in self.network.nodes for name in node.inputs}
        for node in self.network.nodes:
            if node.output not in read and node.output != self.network.output:
                yield f"node '{node.name}', field 'output': nothing reads tensor '{node.output}'; remove the node."

    # ---------------------------------------------------------------- nodes
    def _node(self, node: Node) -> Iterator[str]:
        source, out = self.tensors[node.inputs[0]], self.tensors[node.output]
        most = 2 if isinstance(node, Conv) else 1
        if len(node.inputs) > most:
            yield f"field 'inputs': it reads {len(node.inputs)} tensors; this op reads at most {most}."
        if source.name in self.logits:
            yield f"field 'inputs': tensor '{source.name}' holds the logits, which no node reads."
            return
        if isinstance(node, Weighted):
            yield from self._weighted(node, source, out)
        elif isinstance(node, MaxPool | AvgPool):
            kernel = node.kernel if isinstance(node, AvgPool) else (node.kernel, node.kernel)
            yield from self._window(kernel, node.stride, node.padding, source, out)
            if out.shape[2] != source.shape[2]:
                yield f"field 'output': a pool keeps its {source.shape[2]} channels, the tensor has {out.shape[2]}."
            if isinstance(node, AvgPool):
                yield from self._scalars(node, kernel[0] * kernel[1] * _largest(source))
            else:
                yield from self._same_codes(source, out)
        elif isinstance(node, Requant):
            if out.shape != source.shape:
                yield f"field 'output': its shape {out.shape} must be that of the input, {source.shape}."
            yield from self._scalars(node, _largest(source))
        elif isinstance(node, ShortcutA):
            shape = (*(_out_size(size, 1, max(node.stride, 1), 0) for size in source.shape[:2]), out.shape[2])
            if not 1 <= node.stride <= MAX_STRIDE:
                yield f"field 'stride': {node.stride} is out of range 1..{MAX_STRIDE}."
            elif out.shape != shape:
                yield f"field 'output': its shape {out.shape} must be {shape}."
            if node.before < 0 or node.before + source.shape[2] > out.shape[2]:
                yield f"field 'before': {node.before} zero channels and {source.shape[2]} copied ones exceed {out.shape[2]}."
            yield from self._same_codes(source, out)

    def _same_codes(self, source: Tensor, out: Tensor) -> Iterator[str]:
        if (out.bits, out.signed) != (source.bits, source.signed):
            yield (
                f"field 'output': this op copies codes, so its tensor must have the input's {source.bits} bits"
                f" and signedness."
            )

    def _window(self, kernel: tuple[int, int], stride: int, padding: int, source: Tensor, out: Tensor) -> Iterator[str]:
        problems = []
        if any(not 1 <= size <= MAX_KERNEL for size in kernel) and kernel != source.shape[:2]:
            problems.append(f"field 'kernel': {kernel[0]}x{kernel[1]} is out of range 1..{MAX_KERNEL}.")
        if not 1 <= stride <= MAX_STRIDE:
            problems.append(f"field 'stride': {stride} is out of range 1..{MAX_STRIDE}.")
        if not 0 <= padding <= MAX_PADDING or padding >= max(kernel):
            problems.append(f"field 'padding': {padding} must be at least 0 and less than the kernel.")
        yield from problems
        if problems:
            return
        shape = tuple(_out_size(size, step, stride, padding) for size, step in zip(source.shape[:2], kernel, strict=True))
        if min(shape) < 1:
            yield f"field 'kernel': {kernel[0]}x{kernel[1]} is larger than the padded map {source.shape[:2]}."
        elif out.shape[:2] != shape:
            yield f"field 'output': its map is {out.shape[:2]}, kernel, stride and padding give {shape}."

    def _scalars(self, node: Requant | AvgPool, most: int) -> Iterator[str]:
        if not 0 <= node.mul < _MUL_LIMIT:
            yield f"field 'mul': {node.mul} is out of range 0..{_MUL_LIMIT - 1}."
        if not 1 <= node.shift <= 31:
            yield f"field 'shift': {node.shift} is out of range 1..31."
        if abs(node.bias) >= _BIAS_LIMIT:
            yield f"field 'bias': {node.bias} does not fit 48 bits."
        elif most * node.mul + abs(node.bias) >= SUM_LIMIT:
            yield "field 'bias': the sum can reach 2**47; use smaller multipliers."

    def _weighted(self, node: Weighted, source: Tensor, out: Tensor) -> Iterator[str]:
        if getattr(node.weight, "ndim", 0) != 4 or node.weight.size == 0:
            yield f"field 'weight': it must be (C_out, kh, kw, C_in), not {getattr(node.weight, 'shape', None)}."
            return
        channels_out, kernel_h, kernel_w, channels_in = node.weight.shape
        yield from self._window((kernel_h, kernel_w), node.stride, node.padding, source, out)
        if channels_in != (1 if node.depthwise else source.shape[2]):
            yield f"field 'weight': it has {channels_in} input channels, the input tensor has {source.shape[2]}."
        if node.depthwise and channels_out != source.shape[2]:
            yield f"field 'weight': depthwise weights have one row per input channel, {source.shape[2]}, not {channels_out}."
        if out.shape[2] != channels_out:
            yield f"field 'output': it has {out.shape[2]} channels, the weights make {channels_out}."
        if not 1 <= node.weight_bits <= MAX_BITS:
            yield f"field 'weight_bits': {node.weight_bits} is out of range 1..{MAX_BITS}."
            return
        bipolar = node.encoding is Encoding.BIPOLAR
        lo = 0 if bipolar else -(1 << (node.weight_bits - 1))
        hi = lo + (1 << node.weight_bits) - 1
        if int(node.weight.min()) < lo or int(node.weight.max()) > hi:
            yield f"field 'weight': codes of {node.weight_bits} bits, {node.encoding.value}, lie in {lo}..{hi}."
            return
        if node.pad_codes:
            if len(node.pad_codes) != source.shape[2]:
                yield f"field 'pad_codes': there are {len(node.pad_codes)}, the input has {source.shape[2]} channels."
            if any(not source.lo <= code <= source.hi for code in node.pad_codes):
                yield f"field 'pad_codes': codes of the input lie in {source.lo}..{source.hi}."
        for name in ("bias", "mul"):
            array = getattr(node, name, None)
            if array is not None and array.shape != (channels_out,):
                yield f"field '{name}': its shape is {array.shape}, there are {channels_out} output channels."
                return
        acc = weight_sums(node) * _largest(source)
        if int(acc.max()) >= ACC_LIMIT:
            yield (
                f"field 'weight': the accumulator of channel {int(acc.argmax())} can reach {int(acc.max())}, beyond"
                " int32; use fewer bits or a smaller kernel."
            )
        bias = np.abs(node.bias.astype(object))
        if isinstance(node, Conv):
            yield from self._conv(node, acc, bias, out)
        elif max(acc.astype(object) + bias) >= ACC_LIMIT:
            yield "field 'bias': a logit can leave int32."
        if isinstance(node, Logits) and out.shape[:2] != (1, 1):
            yield f"field 'output': logits are (1, 1, classes), not {out.shape}; the kernel must be the whole map."

    def _conv(self, node: Conv, acc: NDArray[np.int64], bias: NDArray[np.object_], out: Tensor) -> Iterator[str]:
        if int(np.abs(node.mul.astype(np.int64)).max()) >= _MUL_LIMIT:
            yield f"field 'mul': multipliers must lie within +-{_MUL_LIMIT - 1}."
        if not 1 <= node.shift <= 31:
            yield f"field 'shift': {node.shift} is out of range 1..31."
        if not 0 <= node.skip_mul < _SKIP_MUL_LIMIT:
            yield f"field 'skip_mul': {node.skip_mul} is out of range 0..{_SKIP_MUL_LIMIT - 1}."
        skip = 0
        if len(node.inputs) > 1:
            tensor = self.tensors[node.inputs[1]]
            if tensor.shape != out.shape:
                yield f"field 'inputs': the skip tensor is {tensor.shape}, the output {out.shape}; they must be equal."
            if tensor.name in self.logits:
                yield f"field 'inputs': the skip tensor '{tensor.name}' holds the logits, which no node reads."
            else:
                skip = _largest(tensor) * node.skip_mul
        elif node.skip_mul:
            yield "field 'skip_mul': there is no skip tensor; leave it 0."
        total = acc.astype(object) * np.abs(node.mul.astype(object)) + bias + skip
        if max(bias) >= _BIAS_LIMIT or max(total) >= SUM_LIMIT:
            yield f"field 'bias': the sum before the shift can reach {max(total)}, beyond 2**47."

    def _samples(self) -> Iterator[str]:
        samples, source = self.network.samples, self.tensors.get(self.network.input)
        if samples is None or source is None or source.name in self.unusable:
            return
        if samples.images.ndim != 4 or samples.images.shape[1:] != source.shape or len(samples.images) == 0:
            yield f"samples, field 'images': their shape is {samples.images.shape}, the network reads (N, {source.shape})."
        elif int(samples.images.max()) > source.hi:
            yield f"samples, field 'images': codes of the input tensor are at most {source.hi}."
        if samples.labels.shape != samples.images.shape[:1]:
            yield f"samples, field 'labels': there are {samples.labels.shape} for {len(samples.images)} images."


def check(network: Network) -> list[str]:
    """Every problem of a network, one sentence each; empty where it is legal."""
    if not network.nodes:
        return ["field 'nodes': the network has none."]
    return list(_Check(network).run())


def checked(network: Network) -> Network:
    """The network itself.

    Raises:
        InputError: if it is not legal.
    """
    problems = check(network)
    if problems:
        raise InputError(problems, f"network '{network.name}'")
    return network
