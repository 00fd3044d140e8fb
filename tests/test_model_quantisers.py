"""Quantisers by configuration: learned step size, PACT and signed activations, and their mixtures against the plain sum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model import pieces
from model.calibrate import _fit_weight
from model.mixture_signed import mix_signed
from model.nodes import Context, ConvNode, Mode, Quantiser
from model.quantise import quantise_linear_weight, quantise_signed, quantise_unsigned, quantise_weight, round_half_up


def strengths(count: int) -> Tensor:
    return torch.softmax(torch.randn(count), 0).requires_grad_()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(4)


@pytest.mark.parametrize("bits", [(2, 5), (2, 3, 4, 8), (3,)])
def test_the_signed_mixture_is_the_plain_sum(bits: tuple[int, ...]) -> None:
    x = (torch.randn(500) * 2).requires_grad_()
    clip, p, g = torch.tensor(1.3, requires_grad=True), strengths(len(bits)), torch.randn(500)
    plain = torch.stack([p[at] * quantise_signed(x, clip / (1 << (b - 1)), b).value for at, b in enumerate(bits)]).sum(0)
    mixed = mix_signed(x, clip, p, bits)
    assert torch.allclose(mixed, plain, atol=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(mixed, (x, clip, p), g), torch.autograd.grad(plain, (x, clip, p), g), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_signed_mixture_saves_its_input_alone() -> None:
    sizes: list[int] = []
    x = torch.randn(1000, requires_grad=True)

    def note(t: torch.Tensor) -> torch.Tensor:
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        mix_signed(x, torch.tensor(1.0), strengths(4), (2, 3, 4, 5))
    assert sum(sizes) <= 1000 + 5


def node(weights: str, bits: tuple[int, ...]) -> ConvNode:
    return ConvNode("n", ("x",), "y", (4, 6), (3, 3), candidates=bits, quantiser=Quantiser((4,)), weights=weights)


@pytest.mark.parametrize("weights", ["lsq", "lsq-channel"])
@pytest.mark.parametrize("bits", [(1, 2, 5), (4, 8)])
def test_the_mixture_of_linear_weights_is_the_plain_sum(bits: tuple[int, ...], weights: str) -> None:
    conv = node(weights, bits)
    conv.choice.strengths.data.normal_()
    assert conv.weight_clip is not None
    conv.weight_clip.data.fill_(1.2)
    context, g = Context(Mode.QUANTISED), torch.randn(conv.weight.shape)
    p = conv.choice.probabilities(context)
    plain = torch.stack([p[at] * conv.quantised_weight(b).value for at, b in enumerate(bits)]).sum(0)
    mixed = conv._mixed_weight(context)
    assert torch.allclose(mixed, plain, atol=1e-6)
    wanted = (conv.weight, conv.weight_clip, conv.choice.strengths)
    for ours, theirs in zip(
        torch.autograd.grad(mixed, wanted, g, retain_graph=True), torch.autograd.grad(plain, wanted, g), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_size_of_one_channel_is_its_own() -> None:
    for weights, same in (("lsq-channel", True), ("lsq", False)):
        conv = node(weights, (2,))
        before = conv.quantised_weight(2)
        with torch.no_grad():
            conv.weight[3] *= 8
        after = conv.quantised_weight(2)
        assert before.code is not None and after.code is not None
        assert torch.equal(before.code, after.code) == same
        if same:
            assert torch.allclose(after.value[3], 8 * before.value[3]) and torch.equal(after.value[:3], before.value[:3])


def test_linear_weights_have_the_levels_of_dorefa() -> None:
    w = torch.tensor([-2.0, -0.4, 0.0, 0.4, 2.0])
    made = quantise_linear_weight(w, torch.tensor(1.0), 2)
    assert made.code is not None and made.code.tolist() == [-3.0, -1.0, 1.0, 1.0, 3.0]
    assert torch.allclose(made.value, torch.tensor([-1.0, -1 / 3, 1 / 3, 1 / 3, 1.0]))
    other = quantise_weight(w, 2).code
    assert other is not None and set(other.tolist()) <= {-3.0, -1.0, 1.0, 3.0}


def test_learned_steps_have_the_gradient_of_lsq() -> None:
    """d value / d gamma: the rounding error per unit of the step inside, the sign outside."""
    gamma = torch.tensor(1.0, requires_grad=True)
    w = torch.tensor([0.2, -0.7, 3.0, -3.0])
    for at, value in enumerate(w):
        (slope,) = torch.autograd.grad(quantise_linear_weight(value, gamma, 2).value, gamma)
        q = float(quantise_linear_weight(value, gamma.detach(), 2).value)
        assert float(slope) == pytest.approx(q - float(value) if abs(float(value)) < 1 else q, abs=1e-6), at


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_codes_are_the_plain_formula(bits: int, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIECE", 100)  # several pieces, the last one not full
    torch.manual_seed(1)
    x = torch.randn(3, 4, 7, 5) * 2
    x = (x.contiguous(memory_format=torch.channels_last) if last else x).requires_grad_()
    alpha, g, levels = torch.tensor(1.7, requires_grad=True), torch.randn(3, 4, 7, 5), (1 << bits) - 1
    plain = round_half_up(torch.clamp(x / alpha, 0, 1) * levels) * (alpha / levels)
    made = quantise_unsigned(x, alpha, bits).value
    assert torch.equal(made, plain)
    wanted = torch.autograd.grad(plain, (x, alpha), g)
    found = torch.autograd.grad(made, (x, alpha), g)
    assert torch.allclose(found[0], wanted[0], rtol=1e-6) and torch.allclose(found[1], wanted[1], rtol=1e-4)


def test_pact_counts_clipped_values_alone() -> None:
    x, g = torch.tensor([-1.0, 0.7, 1.9, 2.0, 5.0]), torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    for bits in (1, 2, 5):
        alpha = torch.tensor(2.0, requires_grad=True)
        quantise_unsigned(x, alpha, bits, learned_step=False).value.backward(g)  # type: ignore[no-untyped-call]
        assert alpha.grad is not None and alpha.grad.item() == pytest.approx(24.0)
    for candidates in ((3,), (2, 3, 4)):
        quantiser = Quantiser(candidates, learned_step=False)
        quantiser.clip.data.fill_(2.0)
        quantiser(x, Context(Mode.QUANTISED)).value.backward(g)
        assert quantiser.clip.grad is not None and quantiser.clip.grad.item() == pytest.approx(24.0, rel=1e-5)


def test_relu6_never_passes_six() -> None:
    quantiser = Quantiser((8,), ceiling=6.0)
    quantiser.clip.data.fill_(9.0)
    x = torch.tensor([-1.0, 3.0, 8.0])
    assert quantiser(x, Context(Mode.FLOAT)).value.tolist() == [0.0, 3.0, 6.0]
    assert quantiser(x, Context(Mode.QUANTISED)).value.max().item() == pytest.approx(6.0)


def test_a_weight_clip_starts_where_the_error_is_least() -> None:
    conv = node("lsq", (2,))
    conv.weight.data.normal_()
    assert conv.weight_clip is not None
    with torch.no_grad():
        _fit_weight(conv, 2)
    # The best uniform two-bit quantiser of a normal variable has its outer levels near 1.5 standard deviations.
    assert conv.weight_clip.item() == pytest.approx(1.49, abs=0.15)
