"""The EBS mixture: values and gradients of the plain sum over candidates, and memory that does not grow with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model import pieces
from model.mixture import mix_unsigned, mix_weight
from model.networks import residual_network
from model.nodes import Context, Mode
from model.quantise import normalise_weight, quantise_unsigned, quantise_weight

CANDIDATES = [(2, 5), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6), (2, 4, 7, 8), (3,)]


def strengths(bits: tuple[int, ...]) -> Tensor:
    return torch.softmax(torch.randn(len(bits)), 0).requires_grad_()


def spread(shape: tuple[int, ...], *, last: bool) -> Tensor:
    """Values on both sides of every clip, in either memory order."""
    x = torch.randn(shape) * 2
    return (x.contiguous(memory_format=torch.channels_last) if last else x).requires_grad_()


@pytest.mark.parametrize("bits", CANDIDATES)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_activations_are_the_plain_sum(bits: tuple[int, ...], last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIECE", 100)  # several pieces, the last one not full
    torch.manual_seed(1)
    x, alpha, p = spread((3, 4, 7, 5), last=last), torch.tensor(1.7, requires_grad=True), strengths(bits)
    g = torch.randn(3, 4, 7, 5)
    plain = sum((p[at] * quantise_unsigned(x, alpha, b).value for at, b in enumerate(bits)), torch.zeros(()))
    expected = torch.autograd.grad(plain, (x, alpha, p), g)
    mixed = mix_unsigned(x, alpha, p, bits)
    found = torch.autograd.grad(mixed, (x, alpha, p), g)
    assert torch.allclose(mixed, plain, atol=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    # Without a gradient for p the clip's comes from the mixture itself.
    alone = torch.autograd.grad(mix_unsigned(x, alpha, p.detach(), bits), (x, alpha), g)
    assert torch.allclose(alone[1], expected[1], rtol=1e-4, atol=1e-5) and torch.equal(alone[0], found[0])


@pytest.mark.parametrize("bits", CANDIDATES)
def test_weights_are_the_plain_sum(bits: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    w, p, g = torch.randn(6, 5, 3, 3, requires_grad=True), strengths(bits), torch.randn(6, 5, 3, 3)
    plain = sum((p[at] * quantise_weight(w, b).value for at, b in enumerate(bits)), torch.zeros(()))
    expected = torch.autograd.grad(plain, (w, p), g)
    mixed = mix_weight(w, p, bits)
    found = torch.autograd.grad(mixed, (w, p), g)
    assert torch.allclose(mixed, plain, atol=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_zero_weights_mix_to_a_number() -> None:
    w = torch.zeros(4, 4, requires_grad=True)
    mixed = mix_weight(w, torch.tensor([0.5, 0.5]), (1, 2))
    mixed.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(mixed).all() and w.grad is not None and torch.isfinite(w.grad).all()
    one, two = (quantise_weight(torch.zeros(4, 4), b).value / 2 for b in (1, 2))
    assert torch.allclose(mixed, one + two)
    assert normalise_weight(w)[0].tolist() == [[0.5] * 4] * 4


@pytest.mark.parametrize("bits", [b for b in CANDIDATES if len(b) > 1])
def test_steps_lie_where_the_candidates_round(bits: tuple[int, ...]) -> None:
    """Half-up at every threshold that a float can hold: the table and the candidates agree there."""
    alpha = torch.tensor(1.0)
    for at, b in enumerate(bits):
        levels = (1 << b) - 1
        only = torch.zeros(len(bits))
        only[at] = 1.0
        x = (torch.arange(levels) + 0.5) / levels
        x = x[(x * 256) % 1 == 0]  # exactly representable
        assert torch.equal(mix_unsigned(x, alpha, only, bits), quantise_unsigned(x, alpha, b).value)


def saved(candidates: tuple[int, ...]) -> int:
    """Bytes that one pass of a network keeps for backward."""
    net = residual_network(
        "net", (16, 16, 3), 8, 10, 8, [(8, 1, 1), (16, 1, 2)], shortcut="a", weight_bits=candidates,
        activation_bits=candidates,
    )  # fmt: skip
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t, lambda t: t
    ):
        logits = net(torch.zeros(16, 3, 16, 16), Context(Mode.QUANTISED))
    assert logits.requires_grad
    return sum(kept.values())


def test_what_backward_keeps_does_not_grow_with_the_candidates() -> None:
    assert saved((1, 2, 3, 4, 5)) <= 1.03 * saved((2, 5))
