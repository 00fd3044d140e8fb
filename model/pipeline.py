"""The path of a run: prepare a recipe, train and search, export, evaluate. The command line and the API call this."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwgen.errors import InputError
from hwgen.network import Network, Samples, Weighted
from hwgen.network_file import write_network
from model.assign import check_budget
from model.data import DataSet, digits
from model.export import compare, export
from model.networks import QuantNet, residual_network
from model.nodes import Context, Mode
from model.recipe import Recipe
from model.train import STAGES, Table, Trainer, accuracy
from sim import golden

REFERENCE_BITS = 4
CostModel = Callable[[Network], Table]


def _silent(*_: Any) -> None:
    pass


@dataclass
class Run:
    """A prepared run: data, network, cost table and the trainer that holds its state."""

    recipe: Recipe
    data: DataSet
    net: QuantNet
    table: Table
    budget: int
    trainer: Trainer
    folder: Path | None


def build_network(recipe: Recipe, data: DataSet) -> QuantNet:
    """The untrained network of a recipe; its initial weights depend on the seed alone."""
    torch.manual_seed(recipe.seed)
    height, width, channels = data.train.images.shape[1:]
    search = recipe.search
    return residual_network(
        recipe.model.name,
        (height, width, channels),
        data.bits,
        data.classes,
        recipe.model.stem,
        recipe.model.stages,
        shortcut=recipe.model.shortcut,
        weight_bits=tuple(search.weight_bits),
        activation_bits=tuple(search.activation_bits),
        pinned=search.pinned,
    )


def describe(recipe: Recipe, bits: int = REFERENCE_BITS) -> Network:
    """The integer network of a recipe at uniform bits, untrained: the shapes that engine choice and cost tables need."""
    data = digits()
    flat = recipe.model_copy(
        update={
            "search": recipe.search.model_copy(update={"weight_bits": [bits], "activation_bits": [bits], "pinned": None})
        }
    )
    return export(build_network(flat, data), proven=False)


def bit_operations(network: Network) -> Table:
    """Binary operations of each weighted node: MAC * weight bits * activation bits, int64 (8, 8)."""
    steps = np.arange(1, 9, dtype=np.int64)
    table = {}
    for node in network.nodes:
        if isinstance(node, Weighted):
            height, width, _ = network.tensors[node.output].shape
            table[node.name] = node.weight.size * height * width * np.outer(steps, steps)
    return table


def _check_sizes(recipe: Recipe, data: DataSet) -> None:
    """Every part of the training set must fill at least one batch and hold every class."""
    total, batch = len(data.train), recipe.train.batch
    held = int(total * recipe.search.hold_out)
    problems = []
    if batch > total:
        problems.append(f"'train.batch': {batch} is more than the {total} training images.")
    elif recipe.search.method != "uniform":
        if held < max(batch, data.classes):
            problems.append(
                f"'search.hold_out': {recipe.search.hold_out} holds out {held} of {total} images, less than a batch of {batch};"
                " raise it or lower train.batch."
            )
        elif total - held < batch:
            problems.append(f"'search.hold_out': it leaves {total - held} images, less than a batch of {batch}.")
    if problems:
        raise InputError(problems, "recipe")


def prepare(
    recipe: Recipe,
    folder: Path | None = None,
    cost_model: CostModel | None = None,
    progress: Callable[..., None] = _silent,
) -> Run:
    """Load the data, build the network and its cost table.

    Args:
        cost_model: gives the cycles table of the run's engine for a network; needed where the recipe counts cycles.

    Raises:
        InputError: the recipe counts cycles and there is no cost model, its sizes do not fit the data, or no bits are
            as cheap as its budget.
    """
    data = digits()
    _check_sizes(recipe, data)
    reference = describe(recipe)
    if recipe.search.cost == "bitops":
        table = bit_operations(reference)
    elif cost_model is None:
        raise InputError('The recipe\'s cost is cycles, which needs an engine; give one, or set search.cost to "bitops".')
    else:
        table = cost_model(reference)
    net = build_network(recipe, data)
    uniform = sum(
        int(table[node.name][REFERENCE_BITS - 1, (data.bits if net.source_choice(node) is None else REFERENCE_BITS) - 1])
        for node in net.weighted()
    )
    budget = int(recipe.search.budget * uniform)
    trainer = Trainer(net, recipe, data, table, budget, folder, progress)
    if recipe.search.method != "uniform":  # known now, not after minutes of training
        check_budget(trainer.groups(Context(Mode.QUANTISED)), budget)
    return Run(recipe, data, net, table, budget, trainer, folder)


def train(run: Run, until: str = STAGES[-1], *, resume: bool = False) -> None:
    """Train the stages up to ``until``; with ``resume`` from the checkpoint on."""
    if resume:
        run.trainer.resume()
    run.trainer.run(until)
    if run.folder is not None:
        write_curves(run)


def write_curves(run: Run) -> None:
    """curves.csv: one line per epoch."""
    assert run.folder is not None
    history = run.trainer.state.history
    names = list(dict.fromkeys(name for row in history for name in row))
    with (run.folder / "curves.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(history)


def export_run(run: Run) -> Network:
    """The integer network of a trained run, with the test images as samples; written to ``network/`` of its folder.

    Raises:
        InputError: the run is not trained to its end, or the integer network differs from the trained one.
    """
    if run.trainer.state.stage < len(STAGES):
        raise InputError(
            f"The run has stopped in stage '{STAGES[run.trainer.state.stage]}'; go on with 'bitsmith train --resume'.",
            str(run.folder),
        )
    network = export(run.net, Samples(run.data.test.images, run.data.test.labels))
    agreement = compare(run.net, network, run.data.test.images)
    if not agreement.exact:
        assert agreement.first is not None
        raise InputError(
            f"The integer network differs from the trained one, first in tensor '{agreement.first[0]}'"
            f" ({agreement.first[1]:.2%} of its codes).",
            f"network '{network.name}'",
        )
    if run.folder is not None:
        write_network(network, run.folder / "network")
    return network


def evaluate(run: Run, network: Network, final_cost: int | None = None) -> dict[str, Any]:
    """Accuracies on the test images and what the search found, with the keys that others rely on."""
    test = run.data.test
    state = run.trainer.state
    float_net = build_network(run.recipe, run.data)
    float_net.load_state_dict(run.trainer.float_state)
    agreement = compare(run.net, network, test.images)
    integer = golden.accuracy(network, test.images, test.labels)
    metrics: dict[str, Any] = {
        "method": run.recipe.search.method,
        "images": len(test),
        "float_accuracy": accuracy(float_net, test, Mode.FLOAT),
        "quantised_accuracy": accuracy(run.net, test, Mode.INTEGER),
        "integer_accuracy": integer,
        "agreement": agreement.top1,
        "logit_agreement": agreement.logits,
        "bits": [
            {"layer": name, "weight": weight, "activation": activation}
            for name, (weight, activation) in state.bits.items()
        ],
        "cost": run.recipe.search.cost,
        "budget": run.budget,
        "expected_cost": state.chosen.get("expected_cost", state.chosen.get("final_table_cost")),
        **state.chosen,
        "final_cost": final_cost if final_cost is not None else state.chosen.get("final_table_cost"),
    }
    if run.folder is not None:
        (run.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def with_samples(network: Network, samples: Samples) -> Network:
    """The network with other samples."""
    return replace(network, samples=samples)
