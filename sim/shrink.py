"""Makes a failing network smaller: fewer images, no nodes before or after the ones that matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwgen.network import MAX_KERNEL, Encoding, Logits, Network, Node, Tensor
from sim import golden

Fails = Callable[[Network, NDArray[np.uint8]], bool]


def shrink(network: Network, images: NDArray[np.uint8], fails: Fails) -> tuple[Network, NDArray[np.uint8]]:
    """The smallest network and images (N, H, W, C) found that still fail; those given where nothing smaller does.

    Args:
        fails: whether a candidate fails; one that cannot be run does not.
    """
    found = True
    while found:
        found = False
        for smaller in _smaller(network, images):
            if fails(*smaller):
                (network, images), found = smaller, True
                break
    return network, images


def _smaller(network: Network, images: NDArray[np.uint8]) -> Iterator[tuple[Network, NDArray[np.uint8]]]:
    if len(images) > 1:
        for index in range(len(images)):
            yield network, images[index : index + 1]
    for index in range(len(network.nodes) - 1):
        ended = _ended(network, index)
        if ended is not None and len(ended.nodes) < len(network.nodes):
            yield ended, images
    tensors = golden.run(network, images)
    for node in reversed(network.nodes[:-1]):
        begun = _begun(network, node.output)
        if begun is not None:
            yield begun, tensors[node.output].astype(np.uint8)


def _ancestors(nodes: tuple[Node, ...], name: str) -> set[str]:
    """Names of the tensors that one needs, itself included."""
    needed = {name}
    for node in reversed(nodes):
        if node.output in needed:
            needed |= set(node.inputs)
    return needed


def _kept(network: Network, nodes: tuple[Node, ...], tensors: dict[str, Tensor], source: str) -> Network:
    names = {source, *(node.output for node in nodes)}
    used = {name: tensor for name, tensor in tensors.items() if name in names}
    return replace(network, nodes=nodes, tensors=used, input=source, output=nodes[-1].output, samples=None)


def _ended(network: Network, index: int) -> Network | None:
    """The network up to a node, with two logits of weights 1 and -1 behind it."""
    end = network.tensors[network.nodes[index].output]
    if max(end.shape[:2]) > MAX_KERNEL:
        return None
    needed = _ancestors(network.nodes[: index + 1], end.name)
    weight = np.zeros((2, *end.shape), np.int16)
    weight[0] = 1
    last = Logits(
        name="logits", inputs=(end.name,), output="logits.out", weight=weight, weight_bits=1,
        encoding=Encoding.BIPOLAR, bias=np.zeros(2, np.int64),
    )  # fmt: skip
    logits = Tensor(last.output, (1, 1, 2), 32, True)
    nodes = tuple(node for node in network.nodes[: index + 1] if node.output in needed)
    return _kept(network, (*nodes, last), {**network.tensors, last.output: logits}, network.input)


def _begun(network: Network, name: str) -> Network | None:
    """The network that has a tensor as its image, if nothing else from before it is needed."""
    start = network.tensors[name]
    if start.signed or start.bits > 8:
        return None
    nodes: list[Node] = []
    ready = {name}
    for node in network.nodes:
        if set(node.inputs) <= ready and node.output != name:
            nodes.append(node)
            ready.add(node.output)
    if not nodes or nodes[-1].output != network.output:
        return None
    needed = _ancestors(tuple(nodes), network.output)
    return _kept(network, tuple(node for node in nodes if node.output in needed), dict(network.tensors), name)
