"""The comparison: a DNAS-style supernet (arXiv 1812.00090), one weight copy and one convolution per weight x activation branch.

y = sum_ij p_i p_j conv(x_j, w_ij), x_j the activations at the j-th candidate, w_ij the branch's own weights at the i-th. Its
time and memory grow with the product of the candidates; the rest of the pipeline is that of EBS.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from model.quantnet import QuantNet


def branch_name(weight: int, activation: int) -> str:
    """The key of a branch."""
    return f"w{weight}a{activation}"


def expand(net: QuantNet) -> None:
    """Give every layer with something to search a copy of its weights per branch; those are trained from here on."""
    for node in net.weighted():
        choice = net.source_choice(node)
        activations = (net.input_bits,) if choice is None else choice.candidates
        if len(node.choice.candidates) * len(activations) > 1:
            node.branches = nn.ParameterDict(
                {
                    branch_name(w, a): nn.Parameter(node.weight.detach().clone())
                    for w in node.choice.candidates
                    for a in activations
                }
            )


def borrow(net: QuantNet, bits: Mapping[str, tuple[int, int]]) -> dict[str, nn.ParameterDict]:
    """Put the chosen branches' weights in their layers' place and take the branches away; returns those."""
    taken = {}
    for node in net.weighted():
        if node.branches is not None:
            node.weight.data.copy_(node.branches[branch_name(*bits[node.name])].data)
            taken[node.name], node.branches = node.branches, None
    return taken


def give_back(net: QuantNet, taken: Mapping[str, nn.ParameterDict]) -> None:
    """Undo :func:`borrow`."""
    for node in net.weighted():
        node.branches = taken.get(node.name, node.branches)


def collapse(net: QuantNet, bits: Mapping[str, tuple[int, int]]) -> None:
    """Keep the weights of the chosen branches alone."""
    borrow(net, bits)
