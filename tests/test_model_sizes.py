"""Modules that ask a map for its size, as many CIFAR-10 networks do before their last pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import model
from hwgen.errors import InputError
from model.nodes import Context, Mode

SHAPE = (3, 12, 10)


class Pooled(nn.Module):
    def __init__(self, pool: Callable[[Tensor, Tensor], Any], features: int = 8) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(features, 5)
        self.pool = pool

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(image)))
        x = self.pool(x, image)
        return self.last(x.view(x.size(0), -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("pool", "features"),
    [
        (lambda x, _: F.avg_pool2d(x, x.size()[2:]), 8),
        (lambda x, _: F.avg_pool2d(x, (x.size(2), x.size(3))), 8),
        (lambda x, _: F.avg_pool2d(x, kernel_size=x.shape[-2:]), 8),
        (lambda x, _: F.max_pool2d(x, x.size()[3], stride=1), 24),
        (lambda x, image: F.max_pool2d(x, image.size(1), stride=2), 32 * 3),
        (lambda x, _: F.max_pool2d(x, x.shape[2] // 5), 5 * 4 * 8),
    ],
)
def test_a_pool_as_wide_as_its_map(pool: Callable[[Tensor, Tensor], Any], features: int) -> None:
    module = Pooled(pool, features).eval()
    net = model.prepare(module, SHAPE).eval()
    codes = torch.randint(0, 256, (5, *SHAPE)).float()
    with torch.no_grad():
        assert torch.allclose(module(codes / 255), net(codes, Context(Mode.FLOAT)), atol=1e-5)


@pytest.mark.parametrize(
    "pool", [lambda x, _: F.max_pool2d(x, x.size(0)), lambda x, _: F.max_pool2d(x, x.numel() // 640)]
)
def test_the_number_of_images_is_no_size_of_a_map(pool: Callable[[Tensor, Tensor], Any]) -> None:
    with pytest.raises(InputError, match="its kernel_size must be a parameter or a number, not computed in forward"):
        model.prepare(Pooled(pool, 160), SHAPE)
