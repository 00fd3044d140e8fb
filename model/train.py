"""Training in stages: float, search, retrain, integer. Each epoch draws its randomness from (seed, stage, epoch), so a
resumed run is the run that was never interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hwgen.errors import InputError
from model import checkpoint
from model.assign import Group, Layer, as_bits, most_likely, solve, total_cost
from model.data import DataSet, Split, hold_out, shift
from model.export import image_tensor
from model.networks import QuantNet
from model.nodes import Choice, Context, Mode
from model.recipe import Recipe

STAGES = ("float", "search", "retrain", "integer")
Progress = Callable[..., None]
Table = Mapping[str, NDArray[np.int64]]
_CALIBRATION_IMAGES = 512
_GRADIENT_NORM = 5.0
_WARM_SHARE = 0.2  # of the search epochs train the weights alone


@dataclass
class State:
    """Where a run stands. bits: (weight, activation) by layer once chosen."""

    stage: int = 0
    epoch: int = 0
    bits: dict[str, tuple[int, int]] = field(default_factory=dict)
    history: list[dict[str, float | str]] = field(default_factory=list)
    chosen: dict[str, float | int] = field(default_factory=dict)


class Trainer:
    """Trains one network by a recipe.

    Args:
        table: cost of each weighted layer by [weight bits - 1][activation bits - 1], int64 (8, 8).
        budget: most that the chosen bits may cost by the table.
        folder: where the checkpoint goes; None: none is written.
    """

    def __init__(
        self,
        net: QuantNet,
        recipe: Recipe,
        data: DataSet,
        table: Table,
        budget: int,
        folder: Path | None,
        progress: Progress,
    ) -> None:
        self.net, self.recipe, self.data, self.table, self.budget = net, recipe, data, table, budget
        self.folder, self.progress = folder, progress
        self.state = State()
        self.float_state: dict[str, Tensor] = {}
        self.optimisers: list[torch.optim.Optimizer] = []

    # ---------------------------------------------------------------- checkpoints
    @property
    def path(self) -> Path | None:
        return None if self.folder is None else self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; whole or not at all."""
        if self.path is None:
            return
        state = self.state
        checkpoint.save(
            self.path,
            {
                "stage": state.stage,
                "epoch": state.epoch,
                "bits": {name: list(pair) for name, pair in state.bits.items()},
                "history": state.history,
                "chosen": state.chosen,
                "net": self.net.state_dict(),
                "float": self.float_state,
                "optimisers": [item.state_dict() for item in self.optimisers],
                "budget": self.budget,
            },
            self.recipe.digest,
        )

    def resume(self) -> None:
        """Go on from the checkpoint.

        Raises:
            InputError: there is none, it is damaged, or it belongs to another recipe.
        """
        assert self.path is not None
        data = checkpoint.load(self.path, self.recipe.digest)
        try:
            self._restore(data)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError):
            raise InputError("Its state lacks parts of a run; it was damaged or edited.", str(self.path)) from None
        except RuntimeError:
            raise InputError("It belongs to a network of another shape.", str(self.path)) from None

    def _restore(self, data: dict[str, Any]) -> None:
        bits = {name: (pair[0], pair[1]) for name, pair in data["bits"].items()}
        self.state = State(data["stage"], data["epoch"], bits, data["history"], data["chosen"])
        self.net.load_state_dict(data["net"])
        self.float_state = data["float"]
        if self.state.bits:
            self._fix(self.state.bits)
        if self.state.epoch and self.state.stage < len(STAGES):
            self.optimisers = self._optimisers(STAGES[self.state.stage])
            for optimiser, saved in zip(self.optimisers, data["optimisers"], strict=True):
                optimiser.load_state_dict(saved)

    # ---------------------------------------------------------------- stages
    def epochs(self, stage: str) -> int:
        train = self.recipe.train
        searched = self.recipe.search.method != "uniform"
        return {
            "float": train.float_epochs,
            "search": self.recipe.search.epochs if searched else 0,
            "retrain": train.epochs,
            "integer": train.integer_epochs,
        }[stage]

    def run(self, until: str = STAGES[-1]) -> None:
        """Train up to and including stage ``until``.

        Raises:
            InputError: the loss is no number any more; the last good checkpoint is kept.
        """
        last = STAGES.index(until)
        while self.state.stage <= last:
            stage = STAGES[self.state.stage]
            total = self.epochs(stage)
            if self.state.epoch == 0:
                self._enter(stage)
                self.optimisers = self._optimisers(stage)
            while self.state.epoch < total:
                figures = self._epoch(stage, self.state.epoch, total)
                self.state.epoch += 1
                self.state.history.append({"stage": stage, "epoch": self.state.epoch, **figures})
                self.save()
                self.progress(stage, self.state.epoch, total, f"loss {figures['loss']:.3f}")
            self._leave(stage)
            self.state.stage, self.state.epoch = self.state.stage + 1, 0
            self.save()

    def _enter(self, stage: str) -> None:
        if stage == "retrain":
            self._fix(self.state.bits)

    def _leave(self, stage: str) -> None:
        if stage == "float":
            self._calibrate()
            self.float_state = {name: value.clone() for name, value in self.net.state_dict().items()}
        elif stage == "search":
            self._choose()

    def _calibrate(self) -> None:
        """Set every clip to what its tensor reaches in one pass over training images."""
        self.net.eval()
        quantisers = list(self.net.quantisers().values())
        for quantiser in quantisers:
            quantiser.calibrating = True
        with torch.no_grad():
            self.net(image_tensor(self.data.train.images[:_CALIBRATION_IMAGES]), Context(Mode.FLOAT))
            for quantiser in quantisers:
                quantiser.calibrating = False
                quantiser.clip.fill_(max(quantiser.peak, 0.1))

    # ---------------------------------------------------------------- bits
    def groups(self, context: Context) -> list[Group]:
        """Choices with their probabilities, layers that read one tensor together."""
        by_choice: dict[int, tuple[Choice | None, list[Layer]]] = {}
        for node in self.net.weighted():
            choice = self.net.source_choice(node)
            p = tuple(node.choice.probabilities(context).tolist())
            layer = Layer(node.name, node.choice.candidates, p, self.table[node.name])
            by_choice.setdefault(-1 - len(by_choice) if choice is None else id(choice), (choice, []))[1].append(layer)
        groups = []
        for choice, layers in by_choice.values():
            if choice is None:
                groups.append(Group((self.net.input_bits,), (1.0,), tuple(layers)))
            else:
                groups.append(Group(choice.candidates, tuple(choice.probabilities(context).tolist()), tuple(layers)))
        return groups

    def _choose(self) -> None:
        search = self.recipe.search
        if search.method == "uniform":
            w, k = search.uniform
            bits = {}
            for node in self.net.weighted():
                choice = self.net.source_choice(node)
                edge = search.pinned is not None and node in (self.net.weighted()[0], self.net.weighted()[-1])
                bits[node.name] = (
                    search.pinned if edge and search.pinned else w,
                    self.net.input_bits
                    if choice is None
                    else k
                    if choice.searchable or len(choice.candidates) > 1
                    else choice.candidates[0],
                )
            self.state.bits = bits
            self.state.chosen = {"final_table_cost": total_cost(bits, self.table)}
            return
        with torch.no_grad():
            groups = self.groups(Context(Mode.QUANTISED, search.temperature[1]))
        chosen = solve(groups, self.budget)
        likely = as_bits(groups, most_likely(groups))
        self.state.bits = as_bits(groups, chosen)
        with torch.no_grad():
            expected = float(self._expected_cost(Context(Mode.QUANTISED, search.temperature[1])))
        # The mixture has more levels than any candidate: what choosing costs before retraining, on held-out images.
        _, held = hold_out(self.data.train, search.hold_out, self.recipe.seed)
        mixed = accuracy(self.net, held, Mode.QUANTISED, search.temperature[1])
        self._fix(likely)
        likely_accuracy = accuracy(self.net, held, Mode.QUANTISED)
        self._fix(self.state.bits)
        self.state.chosen = {
            "expected_cost": expected,
            "arg_max_cost": total_cost(likely, self.table),
            "final_table_cost": total_cost(self.state.bits, self.table),
            "mixed_accuracy": mixed,
            "arg_max_accuracy": likely_accuracy,
            "chosen_accuracy": accuracy(self.net, held, Mode.QUANTISED),
        }

    def _fix(self, bits: Mapping[str, tuple[int, int]]) -> None:
        for node in self.net.weighted():
            weight, activation = bits[node.name]
            node.choice.bits = weight
            choice = self.net.source_choice(node)
            if choice is not None:
                choice.bits = activation

    def _expected_cost(self, context: Context) -> Tensor:
        """sum over layers of p_w^T table p_a."""
        total = torch.zeros(())
        for node in self.net.weighted():
            choice = self.net.source_choice(node)
            rows = [bits - 1 for bits in node.choice.candidates]
            columns = [self.net.input_bits - 1] if choice is None else [bits - 1 for bits in choice.candidates]
            table = torch.from_numpy(self.table[node.name][np.ix_(rows, columns)].astype(np.float32))
            p = torch.ones(1) if choice is None else choice.probabilities(context)
            total = total + node.choice.probabilities(context) @ table @ p
        return total

    # ---------------------------------------------------------------- epochs
    def _optimisers(self, stage: str) -> list[torch.optim.Optimizer]:
        train = self.recipe.train
        rate = train.rate if stage == "float" else train.quantised_rate * (0.25 if stage == "integer" else 1.0)
        weights = self.net.meta_weights()
        if stage == "integer":
            weights = [node.weight for node in self.net.weighted()]
        clip_rate = train.clip_rate * (0.1 if stage == "integer" else 1.0)
        made: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(weights, lr=rate, weight_decay=train.decay),
            torch.optim.Adam(self.net.clips(), lr=clip_rate),
        ]
        strengths = self.net.strengths()
        if stage == "search" and strengths:  # none where every choice has one candidate
            made.append(torch.optim.Adam(strengths, lr=self.recipe.search.strength_rate, betas=(0.5, 0.999)))
        return made

    def _batches(self, split: Split, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = rng.permutation(len(split))
        images = shift(split.images, self.recipe.train.shift, rng)
        size = self.recipe.train.batch
        for start in range(0, len(order) - size + 1, size):
            pick = order[start : start + size]
            yield image_tensor(images[pick]), torch.from_numpy(split.labels[pick])

    def _epoch(self, stage: str, epoch: int, total: int) -> dict[str, float]:
        rng = np.random.default_rng([self.recipe.seed, STAGES.index(stage), epoch])
        search = self.recipe.search
        mode = {"float": Mode.FLOAT, "integer": Mode.INTEGER}.get(stage, Mode.QUANTISED)
        context = Context(mode)
        split, held = self.data.train, None
        if stage == "search":
            first, last = search.temperature
            context.temperature = first * (last / first) ** (epoch / max(total - 1, 1))
            if search.method == "ebs-sto":
                context.noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            split, held = hold_out(self.data.train, search.hold_out, self.recipe.seed)
        rate = 0.5 * (1 + math.cos(math.pi * epoch / max(total, 1)))
        peak = [item.defaults["lr"] for item in self.optimisers]
        for optimiser, most in zip(self.optimisers[:2], peak, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = most * max(rate, 0.02)
        warm = epoch < _WARM_SHARE * total or len(self.optimisers) < 3
        held_batches = iter(()) if held is None else self._cycle(held, rng)
        losses = []
        for images, labels in self._batches(split, rng):
            if held is not None and not warm:
                self._strength_step(*next(held_batches), context)
            losses.append(self._weight_step(images, labels, context, frozen=stage == "integer"))
        figures = {"loss": float(np.mean(losses)), "temperature": context.temperature}
        if stage == "search":
            with torch.no_grad():
                plain = Context(Mode.QUANTISED, context.temperature)
                figures["expected_cost"] = float(self._expected_cost(plain))
                figures["entropy"] = self._entropy(plain)
        return figures

    def _cycle(self, split: Split, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self._batches(split, rng)

    def _entropy(self, context: Context) -> float:
        """Mean entropy of all searchable choices, in bits."""
        values = []
        for choice in self.net.modules():
            if isinstance(choice, Choice) and choice.searchable:
                p = choice.probabilities(context)
                values.append(float(-(p * torch.log2(p.clamp(min=1e-12))).sum()))
        return float(np.mean(values)) if values else 0.0

    def _weight_step(self, images: Tensor, labels: Tensor, context: Context, *, frozen: bool) -> float:
        self.net.train(not frozen)
        loss = F.cross_entropy(self.net(images, context), labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(self._blame(images, context), "training")
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.optimisers[0].param_groups[0]["params"], _GRADIENT_NORM)
        for optimiser in self.optimisers[:2]:
            optimiser.step()
        return value

    def _strength_step(self, images: Tensor, labels: Tensor, context: Context) -> None:
        """One step of the strengths on held-out images: batch-norm statistics and clips stay."""
        self.net.eval()
        cost = self._expected_cost(Context(Mode.QUANTISED, context.temperature))
        excess = F.relu(cost / self.budget - 1.0)
        loss = F.cross_entropy(self.net(images, context), labels) + self.recipe.search.cost_weight * excess
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimisers[2].step()

    def _blame(self, images: Tensor, context: Context) -> str:
        with torch.no_grad():
            values = self.net.tensors(images, context)
        names = [node.name for node in self.net if not torch.isfinite(values[node.output].value).all()]
        where = f"first in layer '{names[0]}'" if names else "in the loss itself"
        return (
            f"The loss is no longer a number, {where}; the last good checkpoint is kept. Lower train.rate or"
            " train.quantised_rate."
        )


def accuracy(net: QuantNet, split: Split, mode: Mode, temperature: float = 1.0) -> float:
    """Share of images whose largest logit is their label; ``temperature`` is that of bits still mixed."""
    net.eval()
    with torch.no_grad():
        right = [
            (
                net(image_tensor(split.images[at : at + 256]), Context(mode, temperature)).argmax(1).numpy()
                == split.labels[at : at + 256]
            )
            for at in range(0, len(split), 256)
        ]
    return float(np.mean(np.concatenate(right)))
