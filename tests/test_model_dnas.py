"""The DNAS-style supernet that searches are compared with."""

from __future__ import annotations

import pytest
import torch
from short_runs import shortest

from model import choose, dnas, pipeline
from model.networks import residual_network
from model.nodes import Context, Mode, WeightedNode


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_supernet_is_the_sum_over_branches() -> None:
    torch.manual_seed(0)
    net = residual_network(
        "net", (6, 6, 2), 4, 3, 4, [(4, 1, 1)], shortcut="a", weight_bits=(2, 3), activation_bits=(1, 4)
    )
    dnas.expand(net)
    node = net.weighted()[1]
    assert node.branches is not None and set(node.branches) == {"w2a1", "w2a4", "w3a1", "w3a4"}
    for weight in node.branches.values():
        weight.data.add_(torch.randn_like(weight) * 0.1)
    context = Context(Mode.QUANTISED, branches=True)
    values = net.tensors(torch.randint(0, 16, (2, 2, 6, 6)).float(), context)
    x = values[node.inputs[0]]
    assert x.branches is not None
    found = node._supernet(x, context, 1.0)
    expected = torch.zeros_like(found)
    for w in (2, 3):
        for column, a in enumerate((1, 4)):
            weight = choose_weight(node, w, a)
            expected += 0.25 * torch.nn.functional.conv2d(x.branches.each[column], weight, padding=1)
    assert torch.allclose(found, expected, atol=1e-5)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in node.branches.values())


def choose_weight(node: WeightedNode, w: int, a: int) -> torch.Tensor:
    from model.quantise import quantise_weight

    assert node.branches is not None
    return quantise_weight(node.branches[dnas.branch_name(w, a)], w).value


def test_collapsing_keeps_the_chosen_branch() -> None:
    net = residual_network(
        "net", (6, 6, 2), 4, 3, 4, [(4, 1, 1)], shortcut="a", weight_bits=(1, 2, 3), activation_bits=(1, 2, 3)
    )
    dnas.expand(net)
    for node in net.weighted():
        assert node.branches is not None
        for at, weight in enumerate(node.branches.values()):
            weight.data.fill_(float(at))
    bits = choose.uniform_bits(net, 3, 2)
    dnas.collapse(net, bits)
    assert all(node.branches is None for node in net.weighted())
    third_of_weights, second_of_activations = 2, 1
    assert set(net.weighted()[1].weight.detach().flatten().tolist()) == {3.0 * third_of_weights + second_of_activations}


def test_statistics_of_a_supernet_are_those_of_its_branches() -> None:
    """Batch norm is estimated of the network as it runs then: every branch apart while there are branches."""
    run = pipeline.prepare(
        shortest(
            "search.method=dnas", 'search.cost="bitops"', "search.weight_bits=[2, 4]", "search.activation_bits=[2, 4]"
        )
    )
    seen: list[bool] = []
    run.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].branches))
    dnas.expand(run.net)
    run.trainer._estimate_norms(1, 0.5)
    assert seen == [True, True]
    dnas.collapse(run.net, choose.uniform_bits(run.net, 2, 2))
    run.trainer._estimate_norms(1, 0.5)
    assert seen == [True, True, False, False]
