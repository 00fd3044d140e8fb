"""The path of a run: prepare a recipe, train and search, export, evaluate. The command line and the API call this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from hwgen.errors import InputError
from hwgen.network import Network, Samples
from hwgen.network_file import write_network
from model import choose
from model.accuracy import accuracy
from model.agreement import check_images, compare, demand_equal, layer_reports
from model.assign import OutOfReachError
from model.build import build_network
from model.cost import BitOperations, Cost, Table, WeightBytes
from model.data import DataSet, Split, load_data
from model.distributed import World
from model.export import export
from model.nodes import AffineNode, Mode
from model.quantnet import QuantNet
from model.recipe import Recipe
from model.search import Search
from model.train import STAGES, Trainer
from sim import golden

REFERENCE_BITS = 4
_SAMPLES = 1000
_SAMPLE_BYTES = 1 << 26


def _silent(*_: Any) -> None:
    pass


@dataclass
class Run:
    """A prepared run: data, network, cost table and the trainer that holds its state."""

    recipe: Recipe
    data: DataSet
    net: QuantNet
    search: Search
    trainer: Trainer
    folder: Path | None

    @property
    def table(self) -> Table:
        """Cost of each layer by its bits."""
        return self.search.table

    @property
    def budget(self) -> int:
        """Most that the assembled program may cost."""
        return self.search.budget

    @property
    def mode(self) -> Mode:
        """How the trained network computes: with the folded integers of the network file, unless their stage was left out."""
        return Mode.INTEGER if self.trainer.epochs("integer") else Mode.QUANTISED


def describe(recipe: Recipe) -> Network:
    """The integer network of a recipe at the bits that budgets are shares of, untrained: what its engine is chosen for."""
    data = load_data(recipe.data, recipe.data_path, recipe.tuning_share)
    net = build_network(recipe, data)
    choose.fix_bits(net, reference_bits(net, recipe.search.pinned))
    return export(net, proven=False)


def _check_sizes(recipe: Recipe, data: DataSet, processes: int) -> None:
    """Every part of the training set must fill at least one batch and hold every class."""
    total, batch = len(data.train), recipe.train.batch
    held = int(total * recipe.search.hold_out)
    problems = []
    if recipe.search.method == "uniform" and recipe.search.target is not None:
        problems.append(
            "'search.target': uniform bits cost what they cost; leave the budget out, or search with another search.method."
        )
    if batch % processes:
        problems.append(f"'train.batch': {batch} images cannot be shared by {processes} processes.")
    if batch > total:
        problems.append(f"'train.batch': {batch} is more than the {total} training images.")
    elif recipe.search.method not in ("uniform", "random"):
        if held < max(batch, data.classes):
            problems.append(
                f"'search.hold_out': {recipe.search.hold_out} holds out {held} of {total} images, less than a batch of {batch};"
                " raise it or lower train.batch."
            )
        elif total - held < batch:
            problems.append(f"'search.hold_out': it leaves {total - held} images, less than a batch of {batch}.")
    if problems:
        raise InputError(problems, "recipe")


def _check_budget(search: Search, net: QuantNet, reference: int) -> None:
    """Whether any assignment meets the budget, said in the terms that it was given in. reference: what it is a share of, or 0."""
    try:
        search.check(net)
    except OutOfReachError as error:
        if not reference:
            raise InputError(error.problems, "'search.target'") from None
        thousandths = ceil(1000 * error.least / reference)
        while int(thousandths / 1000 * reference) < error.least:  # rounded as the budget is
            thousandths += 1
        raise InputError(
            [*error.problems, f"The budget is the share {search.recipe.search.budget} of the {reference}{search.cost.unit} of"
             f" uniform W4A4; the least share that can be met is {thousandths / 1000}."],
            "'search.budget'",
        ) from None  # fmt: skip


def cost_of(recipe: Recipe, cycles: Cost | None) -> Cost:
    """The cost that a recipe counts.

    Raises:
        InputError: it counts cycles and there is no engine, or chooses engines while it counts something else.
    """
    if recipe.search.joint and recipe.search.cost != "cycles":
        raise InputError("'search.joint' chooses engines by their cycles; set search.cost to \"cycles\".", "recipe")
    if recipe.search.cost == "cycles":
        if cycles is None:
            raise InputError(
                'The recipe\'s cost is cycles, which needs an engine; give one, or set search.cost to "bitops".'
            )
        return cycles
    return BitOperations() if recipe.search.cost == "bitops" else WeightBytes()


def prepare(
    recipe: Recipe,
    folder: Path | None = None,
    cycles: Cost | None = None,
    progress: Callable[..., None] = _silent,
    world: World | None = None,
) -> Run:
    """Load the data, build the network and its cost table.

    Args:
        cycles: counts cycles on the run's engine; needed where the recipe counts them.
        world: the processes that train together; None: this one, on the CPU.

    Raises:
        InputError: the recipe counts cycles and there is no engine, its sizes do not fit the data or the number of
            processes, or no bits are as cheap as its budget.
    """
    world = world or World()
    data = load_data(recipe.data, recipe.data_path, recipe.tuning_share)
    _check_sizes(recipe, data, world.size)
    net = build_network(recipe, data)
    search = Search(recipe, build_network(recipe, data), cost_of(recipe, cycles), 0)
    reference = 0 if recipe.search.target else search.program(reference_bits(net, recipe.search.pinned))
    search.budget = recipe.search.target or int(recipe.search.budget * reference)
    if recipe.search.method != "uniform":  # known now, not after minutes of training
        _check_budget(search, net, reference)
    trainer = Trainer(net, recipe, data, search, folder, progress, world)
    return Run(recipe, data, net, search, trainer, folder)


def reference_bits(net: QuantNet, pinned: int = 0) -> choose.Bits:
    """W4A4 everywhere but at the image and where bits are pinned: what budgets are shares of."""
    layers = [node for node in net.weighted() if not isinstance(node, AffineNode)]
    bits = {}
    for node in net.weighted():
        given = choose.input_bits(net, node)
        fixed = net.source_choice(node) is None or isinstance(node, AffineNode) or given == (pinned,)
        edge = pinned and node in (layers[0], layers[-1])
        weight = 1 if isinstance(node, AffineNode) else pinned if edge else REFERENCE_BITS
        bits[node.name] = (weight, given[0] if fixed else REFERENCE_BITS)
    return bits


def train(run: Run, until: str = STAGES[-1], *, resume: bool = False) -> None:
    """Train the stages up to ``until``; with ``resume`` from the checkpoint on."""
    if resume:
        run.trainer.resume()
    run.trainer.run(until)


def check_trained(run: Run, advice: str = "train it to its end first.") -> None:
    """Whether all stages are over.

    Raises:
        InputError: they are not.
    """
    if run.trainer.state.stage < len(STAGES):
        raise InputError(f"The run has stopped in stage '{STAGES[run.trainer.state.stage]}'; {advice}", str(run.folder))


def export_run(run: Run, *, full: bool = False) -> Network:
    """The integer network of a trained run, with test images as samples; written to ``network/`` of its folder.

    Args:
        full: compare every code on the whole test set; else on at least 1,000 images.

    Raises:
        InputError: the run is not trained to its end, or the integer network differs from the trained one.
    """
    check_trained(run)
    network = export(run.net, file_samples(run.data))
    images = check_images(run.data, full=full)
    agreement = compare(run.net, network, images, lambda done, total: run.trainer.progress("check", done, total))
    demand_equal(agreement, network)
    if run.folder is not None:
        write_network(network, run.folder / "network")
    return network


def file_samples(data: DataSet) -> Samples:
    """Test images that go into the network file: all of a small set, else some evenly spaced ones."""
    count = min(len(data.test), _SAMPLES, max(1, _SAMPLE_BYTES // int(np.prod(data.test.images.shape[1:]))))
    pick = data.test.evenly(count)
    return Samples(data.test.images[pick], data.test.labels[pick])


def integer_accuracy(network: Network, split: Split) -> float:
    """Accuracy of the golden model; images are taken in parts, for they may have to be decoded."""
    right = 0
    for start in range(0, len(split), _SAMPLES):
        classes = golden.classify(network, split.images[start : start + _SAMPLES])
        right += int((classes == split.labels[start : start + _SAMPLES]).sum())
    return right / len(split)


def compare_layers(run: Run, network: Network, images: int = 256) -> list[dict[str, Any]]:
    """Float, fake-quantised and integer network, layer by layer, on some test images."""
    return [report.row() for report in layer_reports(run.net, network, check_images(run.data)[:images])]


def evaluate(run: Run, network: Network, final_cost: int | None = None, *, full: bool = False) -> dict[str, Any]:
    """Accuracies on the test images and what the search found, with the keys that others rely on."""
    test = run.data.test
    state = run.trainer.state
    float_net = build_network(run.recipe, run.data)
    float_net.load_state_dict(run.trainer.float_state)
    agreement = compare(run.net, network, check_images(run.data, full=full))
    integer = integer_accuracy(network, test)
    final = final_cost if final_cost is not None else run.search.cost.total(network)
    metrics: dict[str, Any] = {
        "method": run.recipe.search.method,
        "images": len(test),
        "float_accuracy": accuracy(float_net, test, Mode.FLOAT),
        "quantised_accuracy": accuracy(run.net, test, run.mode),
        "integer_accuracy": integer,
        "trained_as": run.mode.value,
        "agreement": agreement.top1,
        "logit_agreement": agreement.logits,
        "checked_images": agreement.images,
        "first_difference": None if agreement.first is None else list(agreement.first),
        "seconds": {
            stage: round(sum(float(row["seconds"]) for row in state.history if row["stage"] == stage), 1)
            for stage in STAGES
        },
        "bits": choose.bit_rows(state.bits, run.search.table),
        "cost": run.recipe.search.cost,
        "budget": run.budget,
        "expected_cost": state.chosen.get("expected_cost", state.chosen.get("program_cost")),
        **state.chosen,
        "final_cost": final,
        "bit_operations": BitOperations().total(network),
        "table_difference": final - int(state.chosen.get("final_table_cost", final)),
    }
    return metrics
