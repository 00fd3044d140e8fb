"""Whether a prepared network computes what its module does, tried before anything is searched or trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hwgen.errors import InputError
from model.nodes import Context, Mode
from model.quantnet import QuantNet
from model.trace import BATCH

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the largest logit


def check_equivalence(module: nn.Module, net: QuantNet, subject: str) -> None:
    """Compares float logits on the same random images, in evaluation; before mean and deviation are folded.

    Raises:
        InputError: they differ, or are not finite.
    """
    height, width, channels = net.shape
    generator = torch.Generator().manual_seed(0)  # its own: fresh weights and batches do not depend on the check
    codes = torch.randint(0, 1 << net.input_bits, (BATCH, channels, height, width), generator=generator)
    with torch.no_grad():
        theirs = _logits(module, codes.double() * torch.tensor(net.input_scale))
        ours = copy.deepcopy(net).eval().to(theirs.dtype)(codes.to(theirs.dtype), Context(Mode.FLOAT))
    if not theirs.isfinite().all():
        raise InputError("Its logits are not finite on random images; train it anew, or load other weights.", subject)
    size, same = float(theirs.abs().max()), ours.shape == theirs.shape
    difference = float((ours - theirs).abs().max()) if same else float("inf")
    if not difference <= _TOLERANCES[theirs.dtype] * size:
        raise InputError(
            f"On random images its own logits (up to {size:.3g}) and those of the network made of it differ by"
            f" {difference:.2g}: its forward does what torch.fx does not record. It must do the same in every call, by layers,"
            " functions and methods of tensors alone; if it does, this is a mistake of bitsmith's: report it.",
            subject,
        )


def _logits(module: nn.Module, images: Tensor) -> Tensor:
    """In float64, where what differs by more than rounding stands out however deep the network is."""
    module = copy.deepcopy(module).cpu().eval()
    try:
        logits: Tensor = module.double()(images)
    except RuntimeError:  # it has a float32 tensor that is neither parameter nor buffer
        logits = module.float()(images.float())
    return logits.flatten(1)
