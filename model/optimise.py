"""Optimisers of a stage, and how their rates fall over it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from model.quantnet import QuantNet
from model.settings import SearchSection, TrainSection


def optimisers(net: QuantNet, stage: str, train: TrainSection, search: SearchSection) -> list[torch.optim.Optimizer]:
    """Of weights, of clips and steps, and while searching of strengths."""
    rate = train.rate if stage == "float" else train.quantised_rate
    betas = _pair(train.betas)
    weights = net.meta_weights()
    if stage == "integer":
        weights = [node.weight for node in net.weighted() if isinstance(node.weight, nn.Parameter)]
    made: list[torch.optim.Optimizer] = []
    if train.optimiser == "sgd":
        made.append(torch.optim.SGD(weights, lr=rate, momentum=train.momentum, nesterov=True, weight_decay=train.decay))
    else:
        made.append(torch.optim.AdamW(weights, lr=rate, betas=betas, weight_decay=train.decay))
    clips = net.clips() or [nn.Parameter(torch.zeros(()))]  # a single layer has none, and optimisers go by their place
    made.append(torch.optim.Adam(clips, lr=train.clip_rate, betas=betas, weight_decay=train.clip_decay))
    strengths = net.strengths()
    if stage == "search" and strengths:  # none where every choice has one candidate
        made.append(torch.optim.Adam(strengths, lr=search.strength_rate, betas=_pair(search.strength_betas)))
    return made


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    return betas[0], betas[1]


def set_rates(made: Sequence[torch.optim.Optimizer], share: float) -> None:
    """Rates of weights and clips once ``share`` of their training is done, 0 to 1: a cosine that ends at nothing. Strengths
    keep their rate."""
    for optimiser in made[:2]:
        for group in optimiser.param_groups:
            group["lr"] = optimiser.defaults["lr"] * 0.5 * (1 + math.cos(math.pi * share))
