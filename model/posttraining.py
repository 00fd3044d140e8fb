"""Calibration-only quantisation: a float network at given bits without training, for a first look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwgen.errors import InputError
from hwgen.network import Network
from model import choose
from model.accuracy import accuracy
from model.agreement import check_images, compare, demand_equal
from model.build import build_network
from model.calibrate import quantise_after_training
from model.cost import BitOperations
from model.data import load_data
from model.export import export
from model.float_network import take_float
from model.nodes import Mode
from model.pipeline import file_samples, integer_accuracy
from model.quantnet import QuantNet
from model.recipe import Recipe

IMAGES = 512
WEIGHTS = "lsq"  # whatever the recipe says: DoReFa's tanh bends weights that were trained without it
_EVERY = list(range(1, 9))


@dataclass(frozen=True)
class Quantised:
    """A network quantised by calibration alone, its integer network and the figures of both."""

    net: QuantNet
    network: Network
    metrics: dict[str, Any]


def quantise(
    recipe: Recipe,
    weight_bits: int,
    activation_bits: int,
    float_from: Path | None = None,
    images: int = IMAGES,
    progress: Callable[..., None] = lambda *_: None,
) -> Quantised:
    """Quantise a recipe's float network at uniform bits without training. Pinned layers keep theirs, those with a rule of their
    own get the nearest bits that it allows.

    Args:
        float_from: run folder or checkpoint with the float network; left out: the weights that the recipe names, or those
            that its factory comes with.
        images: training images that clips are fitted on.

    Raises:
        InputError: there is no float network or it is another one's; a rule that matches no layer or leaves one without bits;
            or integers that would overflow.
    """
    if float_from is None and not recipe.model.weights and ":" not in recipe.model.network:
        raise InputError(
            "There is no float network to quantise: give the run that trained it (--from RUN), or set model.weights.",
            "recipe",
        )
    data = load_data(recipe.data, recipe.data_path, recipe.tuning_share)
    search = recipe.search.model_copy(
        update={
            "weight_bits": _EVERY,  # not what a search would try: a rule may have a range alone
            "activation_bits": _EVERY,
            "weight_quantiser": WEIGHTS,
        }
    )
    net = build_network(recipe.model_copy(update={"search": search}), data)
    if float_from is not None:
        take_float(net, float_from)
    plain = accuracy(net, data.test, Mode.FLOAT)
    pick = data.train.evenly(images)
    progress("calibration", 0, 1)
    bits = choose.uniform_bits(net, weight_bits, activation_bits)
    quantise_after_training(net, data.train.images[pick], bits)
    progress("calibration", 1, 1)
    network = export(net, file_samples(data))
    found = compare(net, network, check_images(data), lambda done, total: progress("check", done, total))
    demand_equal(found, network)
    return Quantised(
        net,
        network,
        {
            "method": "calibration",
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "weight_quantiser": WEIGHTS,
            "bits": choose.bit_rows(bits),
            "bit_operations": BitOperations().total(network),
            "pinned": recipe.search.pinned,
            "images": len(data.test),
            "calibration_images": len(pick),
            "float_accuracy": plain,
            "quantised_accuracy": accuracy(net, data.test, Mode.QUANTISED),
            "integer_accuracy": integer_accuracy(network, data.test),
            "logit_agreement": found.logits,
            "checked_images": found.images,
        },
    )
