"""Calibration: clips and steps from a few images, for the start of training or instead of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import choose
from model.agreement import image_tensor
from model.choose import Bits
from model.nodes import Context, Mode, Quantiser, WeightedNode
from model.quantise import quantise_linear_weight, quantise_signed, quantise_unsigned
from model.quantnet import QuantNet

LEAST_CLIP = 0.1
_BATCH = 64
_KEPT = 1 << 16  # values of a tensor that its clip is fitted on
_SHARES = 40  # clips that are tried, as shares of the largest value


def _default_bits(candidates: tuple[int, ...]) -> int:
    return sorted(candidates)[len(candidates) // 2]


@torch.no_grad()
def calibrate(net: QuantNet, images: NDArray[np.uint8], quantile: float = 0.999) -> None:
    """Set every activation clip to the quantile (0 to 1) that its tensor reaches on ``images``, uint8 (N, H, W, C), in float;
    and learned weight clips to the least squared error at the candidate in the middle."""
    net.eval()
    quantisers = list(net.quantisers().values())
    device = next(net.parameters()).device
    for quantiser in quantisers:
        quantiser.calibrating, quantiser.peak = quantile, 0.0
    for start in range(0, len(images), 512):
        net(image_tensor(images[start : start + 512]).to(device), Context(Mode.FLOAT))
    for quantiser in quantisers:
        quantiser.calibrating = None
        quantiser.clip.fill_(max(quantiser.peak, LEAST_CLIP))
    for node in net.weighted():
        if node.weight_clip is not None:
            _fit_weight(node, _default_bits(node.choice.candidates))


def _fit_weight(node: WeightedNode, bits: int) -> None:
    """The weight clip of least squared error."""
    assert node.weight_clip is not None
    w = node.weight.detach()
    most = float(w.abs().max() / w.square().mean().sqrt().clamp(min=1e-12))
    tries = []
    for step in range(1, _SHARES + 1):
        node.weight_clip.fill_(max(most * step / _SHARES, 1e-2))
        error = (quantise_linear_weight(w, node.weight_gamma(w), bits).value - w).square().sum()
        tries.append((float(error), float(node.weight_clip)))
    node.weight_clip.fill_(min(tries)[1])


def _fit_activation(quantiser: Quantiser, values: Tensor, bits: int) -> None:
    """The clip of least squared error over ``values``, real and flat."""
    wanted = values if quantiser.signed else values.clamp(0, quantiser.ceiling)
    most = max(float(wanted.abs().max()), 1e-3)
    tries = []
    for step in range(1, _SHARES + 1):
        clip = torch.tensor(most * step / _SHARES)
        made = quantise_signed(values, clip / (1 << (bits - 1)), bits) if quantiser.signed else quantise_unsigned(
            values, clip, bits
        )  # fmt: skip
        tries.append((float((made.value - wanted).square().sum()), float(clip)))
    quantiser.clip.fill_(min(tries)[1])


@contextmanager
def _caught(net: QuantNet) -> Iterator[dict[int, list[Tensor]]]:
    """What goes into each quantiser, by id, thinned out."""
    caught: dict[int, list[Tensor]] = {}

    def keep(module: Any, args: tuple[Any, ...]) -> None:
        flat = args[0].detach().flatten()
        caught.setdefault(id(module), []).append(flat[:: max(1, flat.numel() // _KEPT)].cpu())

    hooks = [item.register_forward_pre_hook(keep) for item in set(net.quantisers().values())]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def quantise_after_training(net: QuantNet, images: NDArray[np.uint8], bits: Bits) -> None:
    """Quantise a float network without training: bits by layer, clips of least squared error, on ``images``.

    Weights are clipped linearly where the network has learned weight clips (``weights="lsq"``); DoReFa's tanh bends weights
    that were trained without it.
    """
    choose.fix_bits(net, bits)
    for quantiser in net.quantisers().values():
        if quantiser.choice.bits is None:
            quantiser.choice.bits = _default_bits(quantiser.choice.candidates)
    fit_clips(net, images)


@torch.no_grad()
def fit_clips(net: QuantNet, images: NDArray[np.uint8]) -> None:
    """Set every clip to the least squared error at its tensor's bits: weights as they are, activations as they are in float
    on ``images``, uint8 (N, H, W, C)."""
    net.eval()
    device = next(net.parameters()).device
    for node in net.weighted():
        if node.weight_clip is not None:
            _fit_weight(node, node.weight_bits)
    with _caught(net) as caught:
        for start in range(0, len(images), _BATCH):
            net(image_tensor(images[start : start + _BATCH]).to(device), Context(Mode.FLOAT))
    for quantiser in set(net.quantisers().values()):
        _fit_activation(quantiser, torch.cat(caught[id(quantiser)]), quantiser.bits)
