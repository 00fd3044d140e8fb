"""Batch norm whose statistics do not depend on how a batch is cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.norm import BatchNorm, _channel_sums, _Normalise


def batch(dtype: torch.dtype, shape: tuple[int, ...] = (128, 16, 32, 32)) -> Tensor:
    torch.manual_seed(3)
    made = torch.randn(shape, dtype=torch.float64) * torch.linspace(0.5, 9, shape[1]).view(1, -1, 1, 1) + 7
    return made.to(dtype=dtype, memory_format=torch.channels_last)


def pair(momentum: float | None, dtype: torch.dtype) -> tuple[BatchNorm, nn.BatchNorm2d]:
    ours, theirs = BatchNorm(16, momentum=momentum).to(dtype), nn.BatchNorm2d(16, momentum=momentum).to(dtype)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_it_is_batch_norm(momentum: float | None) -> None:
    """Values, statistics and gradients are those of PyTorch's own, which is accurate in float64; in evaluation too."""
    ours, theirs = pair(momentum, torch.float64)
    slope = torch.randn(8, 16, 5, 3, dtype=torch.float64)
    inputs = [batch(torch.float64, (8, 16, 5, 3)).requires_grad_() for _ in range(2)]
    for norm, x in zip((ours, theirs), inputs, strict=True):
        for _ in range(2):
            (norm(x) * slope).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, msg=name)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(inputs[0]), theirs.eval()(inputs[1]))


def test_its_gradient_is_that_of_its_values() -> None:
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *given: _Normalise.apply(*given, 1e-5, 48, False)[0], (x, weight, bias))  # type: ignore[no-untyped-call]


def test_float32_is_as_good_as_its_inputs() -> None:
    """PyTorch's own, with channels last, is off by more than these limits."""
    ours, _ = pair(0.1, torch.float32)
    x = batch(torch.float32)
    exact = nn.functional.batch_norm(x.double(), None, None, ours.weight.double(), ours.bias.double(), training=True)
    assert float((ours(x) - exact).detach().abs().max()) < 2e-6
    assert ours.running_mean is not None
    assert float((ours.running_mean - 0.1 * x.double().mean((0, 2, 3))).abs().max()) < 2e-7


def test_a_batch_in_two_parts_has_the_same_sums() -> None:
    x = batch(torch.float32)
    whole = _channel_sums(x, False).float()
    assert torch.equal(whole, (_channel_sums(x[0::2], False) + _channel_sums(x[1::2], False)).float())
