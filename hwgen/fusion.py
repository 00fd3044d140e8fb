"""Fusion: where the codes of a tensor go, and which nodes need no pass of their own.

A requant node is the second rounding of the pass before it. A global average pool is the rounding of sums that the
convolution before it makes while it stores its codes. A 2x2 max pool is made of the planes of a convolution that walks
its positions window by window. An option-A shortcut is a byte map that the convolution before it
stores subsampled, and that the join reads between zero channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from hwgen import isa
from hwgen.engine import EngineConfig
from hwgen.network import AvgPool, Conv, MaxPool, Network, Node, Requant, ShortcutA, Tensor, Weighted
from hwgen.passes import Rounding

_MAX_ROW_TILES = 63


@dataclass(frozen=True)
class Uses:
    """Which buffers a tensor must lie in, by what reads it."""

    planes: bool
    bytes: bool


@dataclass(frozen=True)
class Store:
    """How a pass stores the codes it makes; the fields are those of :class:`hwgen.passes.Pass`."""

    planes: Tensor | None = None
    bytes: Tensor | None = None
    rounding: Rounding | None = None
    bytes_rounded: bool = False
    subsample: bool = False
    bytes_first_channel: int = 0
    fused: tuple[str, ...] = ()  # nodes that the pass takes over
    pooled: Tensor | None = None  # the max pool's output, where it is fused


class Fusion:
    """Decides for one network on one engine."""

    def __init__(self, network: Network, engine: EngineConfig) -> None:
        self.network = network
        self.engine = engine
        self.means = frozenset(self._means())
        self.shortcuts: dict[str, ShortcutA] = {}
        """By the name of the tensor that is subsampled."""
        for node in network.nodes:
            if isinstance(node, ShortcutA) and self._fusable(node):
                self.shortcuts[node.inputs[0]] = node

    # ---------------------------------------------------------------- who reads what
    def _readers(self, name: str) -> list[Node]:
        return [node for node in self.network.nodes if name in node.inputs]

    def _producer(self, name: str) -> Node | None:
        return next((node for node in self.network.nodes if node.output == name), None)

    def uses(self, name: str, without: Collection[str] = ()) -> Uses:
        """What the nodes that need a pass (but ``without`` those) read a tensor from."""
        planes = as_bytes = False
        for node in self._readers(name):
            if node.name in without:
                continue
            if isinstance(node, Weighted | AvgPool) and node.name not in self.means:
                planes |= node.inputs[0] == name
                as_bytes |= name in node.inputs[1:]
            else:
                as_bytes = True
        return Uses(planes, as_bytes)

    # ---------------------------------------------------------------- global average pools
    def _means(self) -> Iterator[str]:
        """Pools whose sums the convolution before them can make; one set of sums exists at a time."""
        order = {node.output: at for at, node in enumerate(self.network.nodes)}
        free_from = 0
        for at, node in enumerate(self.network.nodes):
            if not isinstance(node, AvgPool):
                continue
            source = self.network.tensors[node.inputs[0]]
            height, width, channels = source.shape
            if (
                node.kernel == (height, width)
                and node.padding == 0
                and isinstance(self._producer(source.name), Conv)
                and order[source.name] >= free_from
                and height * width * max(source.hi, -source.lo) < 1 << (isa.SUM_BITS - 1)
                and channels <= isa.SUM_GROUPS * self.engine.lane_rows
            ):
                free_from = at
                yield node.name

    # ---------------------------------------------------------------- option-A shortcuts
    def _fusable(self, node: ShortcutA) -> bool:
        source = self.network.tensors[node.inputs[0]]
        _, width, channels = source.shape
        engine = self.engine
        readers = self._readers(node.output)
        return (
            node.stride == 2
            and isinstance(self._producer(source.name), Conv)
            and width % engine.columns == 0
            and width // engine.columns <= _MAX_ROW_TILES
            and node.before % engine.lane_rows == channels % engine.lane_rows == 0
            and all(isinstance(item, Conv) and item.inputs[1:] == (node.output,) for item in readers)
            and self._store(source, (node.name,)).bytes is None
        )

    def shortcut_of(self, name: str) -> ShortcutA | None:
        """The fused shortcut whose output is the tensor of that name."""
        return next((node for node in self.shortcuts.values() if node.output == name), None)

    def summed(self, name: str) -> bool:
        """Whether a fused pool reads the tensor of that name."""
        return any(node.name in self.means for node in self._readers(name))

    # ---------------------------------------------------------------- max pools
    def _pool(self, code: Tensor) -> MaxPool | None:
        """The 2x2 max pool that the convolution before it can make: it alone reads the codes, and only planes are kept."""
        readers = self._readers(code.name)
        maker = self._producer(code.name)
        if len(readers) != 1 or not isinstance(maker, Conv) or maker.stride != 1 or len(maker.inputs) > 1:
            return None
        pool = readers[0]
        if not isinstance(pool, MaxPool) or (pool.kernel, pool.stride, pool.padding) != (2, 2, 0):
            return None
        made = self._store(self.network.tensors[pool.output], ())
        return pool if made.bytes is None and made.planes is not None else None

    # ---------------------------------------------------------------- stores
    def store(self, code: Tensor) -> Store:
        """Where a pass that makes ``code`` stores it; at most one requant node is fused, and one byte map stored."""
        pool = self._pool(code)
        if pool is not None:
            out = self.network.tensors[pool.output]
            made = self._store(out, ())
            return replace(made, fused=(pool.name, *made.fused), pooled=out)
        shortcut = self.shortcuts.get(code.name)
        if shortcut is None:
            return self._store(code, ())
        made = self._store(code, (shortcut.name,))
        return Store(made.planes, self.stored_shortcut(shortcut), made.rounding, False, True, shortcut.before, made.fused)

    def stored_shortcut(self, node: ShortcutA) -> Tensor:
        """The map of a fused shortcut as it is stored: without its zero channels."""
        out, source = self.network.tensors[node.output], self.network.tensors[node.inputs[0]]
        return Tensor(out.name, (*out.shape[:2], source.shape[2]), out.bits, out.signed, out.scale)

    def _store(self, code: Tensor, without: Collection[str]) -> Store:
        uses = self.uses(code.name, without)
        if uses.planes:
            return Store(code, code if uses.bytes else None)
        readers = [node for node in self._readers(code.name) if node.name not in without]
        requants = [node for node in readers if isinstance(node, Requant)]
        for node in requants:
            out = self.network.tensors[node.output]
            out_uses = self.uses(out.name)
            bytes_needed = len(readers) > 1
            if out_uses.bytes and bytes_needed:
                continue  # one byte map per pass
            rounding = Rounding(node.mul, node.bias, node.shift, out.lo, out.hi)
            stored = out if out_uses.bytes else code if bytes_needed else None
            return Store(out if out_uses.planes else None, stored, rounding, out_uses.bytes, fused=(node.name,))
        return Store(None, code if uses.bytes else None)
