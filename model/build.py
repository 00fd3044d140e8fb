"""From a recipe to its network: a built-in one, or whatever the user's own factory makes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwgen.errors import InputError
from model import choose, networks
from model.data import DataSet
from model.factory import call_factory
from model.frontend import prepare
from model.quantnet import QuantNet
from model.recipe import Recipe
from model.settings import ModelSection


def build_module(section: ModelSection, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The float module of a recipe's [model], for images (C, H, W).

    Raises:
        InputError: a factory that cannot be imported, does not take its options or makes no module; weights that do not fit.
    """
    options: dict[str, Any] = dict(section.options)
    if section.residual:
        options |= {} if section.shortcut is None else {"shortcut": section.shortcut}
    if section.network == "resnet":
        options |= {"stem": section.stem, "stages": section.stages}
    where = f"model '{section.network}'"
    if ":" in section.network:
        module = call_factory(section.network, options)
    else:
        try:
            module = networks.build(section.network, shape, classes, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"It does not take the options {options}: {type(error).__name__}: {error}.", where
            ) from error
    if not isinstance(module, nn.Module):
        raise InputError(f"It made a {type(module).__name__}, not a torch.nn.Module.", where)
    if section.weights:
        _load_weights(module, Path(section.weights).expanduser())
    return module


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"Cannot read it: {error.strerror}.", str(path)) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.UnpicklingError):
        raise InputError("It is damaged, or no state dict saved by torch.save.", str(path)) from None
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise InputError(
            [f"It is a state dict of another network: {problem}" for problem in problems], str(path)
        ) from None


def build_network(recipe: Recipe, data: DataSet) -> QuantNet:
    """The network of a recipe before training; fresh weights depend on the seed alone.

    Raises:
        InputError: a module that cannot become integers, or candidates that leave a layer without bits.
    """
    torch.manual_seed(recipe.seed)
    height, width, channels = data.train.images.shape[1:]
    search, section = recipe.search, recipe.model
    net = prepare(
        build_module(section, (channels, height, width), data.classes),
        (channels, height, width),
        name=section.name,
        input_bits=data.bits,
        weight_bits=search.weight_bits,
        activation_bits=search.activation_bits,
        pinned=search.pinned or None,
        weights=search.weight_quantiser,
        activations=search.activation_quantiser,
        mean=section.mean,
        std=section.std,
    )
    classes = len(net.weighted()[-1].weight)
    if classes != data.classes:
        raise InputError(
            f"The network has {classes} outputs, data set '{recipe.data}' {data.classes} classes.", section.name
        )
    choose.apply_rules(net, search.layers)
    return net
