"""Training in stages: float, search, retrain, integer. Each epoch draws its randomness from (seed, stage, epoch), so a
resumed run is the run that was never interrupted."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwgen.errors import InputError, ToldError
from model import checkpoint, choose, dnas
from model.accuracy import accuracy, fresh_loss
from model.agreement import image_tensor
from model.calibrate import calibrate, fit_clips
from model.data import DRAWS, DataSet, Pixels, Split, hold_out
from model.distributed import World, share_norms
from model.float_network import read_float, take_float
from model.logbook import write_logs
from model.nodes import Context, Mode
from model.optimise import optimisers, set_rates
from model.quantnet import QuantNet
from model.recipe import Recipe
from model.search import Measures, Search
from model.steps import NoNumberError, Steps

_log = logging.getLogger(__name__)
STAGES = ("float", "search", "retrain", "integer")
Progress = Callable[..., None]
_CHECK_IMAGES, _TRIAL_BATCH = 64, 512
_NORM_STREAM, _FINAL_STREAM = 77, 79


@dataclass
class State:
    """Where a run stands. bits: (weight, activation) by layer once chosen. strengths: probabilities by epoch and operand."""

    stage: int = 0
    epoch: int = 0
    bits: dict[str, tuple[int, int]] = field(default_factory=dict)
    history: list[dict[str, float | str]] = field(default_factory=list)
    strengths: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Trains one network by a recipe.

    Args:
        search: how its bits are chosen, and what they cost.
        folder: where the checkpoint goes; None: none is written.
        world: the processes that share each batch.
    """

    def __init__(
        self,
        net: QuantNet,
        recipe: Recipe,
        data: DataSet,
        search: Search,
        folder: Path | None,
        progress: Progress,
        world: World,
    ) -> None:
        self.net, self.recipe, self.data, self.search = net, recipe, data, search
        self.folder, self.progress, self.world = folder, progress, world
        self.state = State()
        self.float_state: dict[str, Tensor] = {}
        net.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world.size > 1:
            share_norms(net)
        self.steps = Steps(net, recipe.train, world)

    # ---------------------------------------------------------------- checkpoints
    @property
    def path(self) -> Path | None:
        return None if self.folder is None else self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and the logs up to it."""
        if self.path is None or not self.world.first:
            return
        state = self.state
        checkpoint.save(
            self.path,
            {
                "stage": state.stage,
                "epoch": state.epoch,
                "bits": {name: list(pair) for name, pair in state.bits.items()},
                "history": state.history,
                "strengths": state.strengths,
                "chosen": state.chosen,
                "net": self.net.state_dict(),
                "float": self.float_state,
                "optimisers": [item.state_dict() for item in self.steps.optimisers],
                "search": self.search.state(),
            },
            self.recipe.digest,
        )
        assert self.folder is not None
        write_logs(self.folder, state.history, state.strengths)

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
        self.state = State(data["stage"], data["epoch"], bits, data["history"], data["strengths"], data["chosen"])
        self.search.restore(data["search"])
        stage = STAGES[self.state.stage] if self.state.stage < len(STAGES) else ""
        if stage == "search" and self.state.epoch and self.recipe.search.method == "dnas":
            dnas.expand(self.net)
        self.net.load_state_dict(data["net"])
        self.float_state = {name: value.to(self.world.device) for name, value in data["float"].items()}
        if self.state.bits:
            choose.fix_bits(self.net, self.state.bits)
        if self.state.epoch and stage:
            self.steps.optimisers = optimisers(self.net, stage, self.recipe.train, self.recipe.search)
            for optimiser, saved in zip(self.steps.optimisers, data["optimisers"], strict=True):
                optimiser.load_state_dict(saved)

    # ---------------------------------------------------------------- stages
    def epochs(self, stage: str) -> int:
        """Epochs of a stage; none where there is nothing to do."""
        train = self.recipe.train
        return {
            "float": 0 if train.float_from else train.float_epochs,
            "search": self.recipe.search.epochs if self.search.trains else 0,
            "retrain": train.epochs,
            "integer": train.integer_epochs,
        }[stage]

    def run(self, until: str = STAGES[-1]) -> None:
        """Train up to and including stage ``until``.

        Raises:
            InputError: the loss or the network is no number any more; the last good checkpoint is kept.
        """
        last = STAGES.index(until)
        while self.state.stage <= last:
            stage = STAGES[self.state.stage]
            total = self.epochs(stage)
            if self.state.epoch == 0:
                self._enter(stage)
                self.steps.optimisers = optimisers(self.net, stage, self.recipe.train, self.recipe.search)
            self.steps.join()
            while self.state.epoch < total:
                began = time.monotonic()
                try:
                    figures = self._epoch(stage, self.state.epoch, total)
                    self._check(stage, figures["temperature"], last=self.state.epoch == total - 1)
                except NoNumberError as where:
                    raise self._no_number(where) from None
                self.state.epoch += 1
                told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
                _log.info("%s, epoch %d of %d: %s", stage, self.state.epoch, total, told)
                figures["seconds"] = round(time.monotonic() - began, 3)
                self.state.history.append({"stage": stage, "epoch": self.state.epoch, **figures})
                self.save()
                self.progress(stage, self.state.epoch, total, f"loss {figures['loss']:.3f}")
            try:
                self._leave(stage)
                self.steps.check()
            except NoNumberError as where:
                raise self._no_number(where) from None
            self.state.stage, self.state.epoch = self.state.stage + 1, 0
            self.save()

    def _enter(self, stage: str) -> None:
        train = self.recipe.train
        if stage == "float" and train.float_from:
            take_float(self.net, Path(train.float_from))
        elif stage == "search" and self.recipe.search.method == "dnas":
            dnas.expand(self.net)
        elif stage == "retrain":
            choose.fix_bits(self.net, self.state.bits)
            self._start_retraining()
        elif stage == "integer":
            self._estimate_norms(STAGES.index(stage))

    def _start_retraining(self) -> None:
        """What the network starts from at the bits that are set."""
        if self.recipe.train.start == "float":
            kept = {k: v for k, v in self.float_state.items() if not k.endswith("strengths")}
            self.net.load_state_dict(kept, strict=False)
            fit_clips(self.net, self._calibration_images())
        self._estimate_norms(STAGES.index("retrain"))

    def _leave(self, stage: str) -> None:
        if stage == "float":
            calibrate(self.net, self._calibration_images(), self.recipe.train.calibration_quantile)
            self.float_state = {name: value.clone() for name, value in self.net.state_dict().items()}
        elif stage == "search":
            rest, held = hold_out(self.data.train, self.recipe.search.hold_out, self.recipe.seed)
            chosen = self.search.choose(self.net, self._measures(rest, held))
            self.state.bits, self.state.chosen = chosen
            if self.state.history and self.state.history[-1]["stage"] == stage:
                self.state.history[-1] |= {name: value for name, value in chosen[1].items() if name.endswith("_accuracy")}

    def check_start(self) -> None:
        """Whether training can start, and would choose bits by what it has learnt.

        Raises:
            InputError: the recipe takes the float network of a run that has none, or of another network; or no epoch trains the
                strengths.
        """
        if self.recipe.train.float_from:
            read_float(self.net, Path(self.recipe.train.float_from))
        self.search.check_epochs(self.net)

    def _calibration_images(self) -> Pixels:
        """Training images that clips are set on before they are trained."""
        train = self.data.train
        return train.images[train.evenly(self.recipe.train.calibration_images)]

    def _measures(self, rest: Split, held: Split) -> Measures:
        """Accuracy with the statistics that retraining begins with: those of the mixture are none of a network whose bits are
        fixed."""

        def held_accuracy() -> float:
            self._estimate_norms(STAGES.index("search"), self.search.last)
            return accuracy(self.net, held, Mode.QUANTISED, self.search.last)

        @cache  # decoded once
        def trial_images() -> tuple[Pixels, NDArray[np.int64]]:
            pick = held.evenly(self.recipe.search.trial_images)
            return held.images[pick], held.labels[pick]

        return Measures(
            held_accuracy,
            lambda: fresh_loss(self.net, *trial_images(), _TRIAL_BATCH),
            lambda: self._retrained_loss(rest, held),
            self.progress,
        )

    def _retrained_loss(self, rest: Split, held: Split) -> float:
        """Held-out loss after an epoch of retraining at the bits that are set, infinite where it diverges; the network is as before
        then."""
        kept = copy.deepcopy(self.net.state_dict())
        self._start_retraining()
        train = self.recipe.train
        self.steps.optimisers = optimisers(self.net, "retrain", train, self.recipe.search)
        stream = [self.recipe.seed, _FINAL_STREAM]
        torch.manual_seed(int(np.random.SeedSequence(stream).generate_state(1)[0]) + self.world.rank)
        context = Context(Mode.QUANTISED, autocast=train.autocast)
        steps = min(len(rest) // train.batch, train.most_steps or len(rest))
        loss = math.inf
        with contextlib.suppress(NoNumberError):  # bits that cannot be trained are not chosen; the search has not failed
            for at, (images, labels) in enumerate(self._batches(rest, np.random.default_rng(stream), steps)):
                set_rates(self.steps.optimisers, at / steps)
                self.steps.weights(images, labels, context, teacher=self.float_state)
            pick = held.evenly(self.recipe.search.final_images)
            loss = fresh_loss(self.net, held.images[pick], held.labels[pick], _TRIAL_BATCH)
        self.net.load_state_dict(kept)
        return loss if math.isfinite(loss) else math.inf

    def _estimate_norms(self, stage: int, temperature: float = 1.0) -> None:
        """Batch norm's statistics anew, of the network as it is now."""
        norms = [item for item in self.net.modules() if isinstance(item, nn.BatchNorm2d)]
        if not self.recipe.train.norm_batches or not norms:
            return
        momentum = norms[0].momentum
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.net.train()
        rng = np.random.default_rng([self.recipe.seed, _NORM_STREAM, stage])
        context = Context(
            Mode.QUANTISED, temperature, branches=any(node.branches is not None for node in self.net.weighted())
        )
        with torch.no_grad():
            for images, _ in self._batches(self.data.train, rng, self.recipe.train.norm_batches):
                self.net(images, context)
        for norm in norms:
            norm.momentum = momentum

    # ---------------------------------------------------------------- epochs
    def _images(self, images: Any) -> Tensor:
        return image_tensor(images).to(self.world.device, non_blocking=True)

    def _batches(
        self, split: Split, rng: np.random.Generator, most: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of each global batch, in an order that all processes share."""
        order = rng.permutation(len(split))
        train = self.recipe.train
        size = train.batch
        for at, start in enumerate(range(0, len(order) - size + 1, size)):
            if most is not None and at == most:
                return
            draws = self.world.part(rng.random((size, DRAWS)))  # drawn for the global batch: all processes stay in step
            pick = self.world.part(order[start : start + size])
            yield (
                self._images(split.batch(pick, draws, train.shift, train.flip)),
                torch.from_numpy(split.labels[pick]).to(self.world.device),
            )

    def _epoch(self, stage: str, epoch: int, total: int) -> dict[str, float]:
        stream = [self.recipe.seed, STAGES.index(stage), epoch]
        rng = np.random.default_rng(stream)
        # Of dropout: each process has images of its own, and drops other codes of them.
        torch.manual_seed(int(np.random.SeedSequence(stream).generate_state(1)[0]) + self.world.rank)
        recipe = self.recipe
        context = self._context(stage)
        split, held, warm, first = self.data.train, None, True, 0
        if stage == "search":
            context.temperature = self.search.temperature(epoch, total)
            if recipe.search.method == "ebs-sto":
                context.noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            split, held = hold_out(self.data.train, recipe.search.hold_out, recipe.seed)
            first = self.search.warm
            warm = epoch < first or len(self.steps.optimisers) < 3
            self.search.prepare_epoch(self.net, epoch, total, context.temperature)
        steps = len(split) // recipe.train.batch
        if recipe.train.most_steps is not None:
            steps = min(steps, recipe.train.most_steps)
        held_batches = iter(()) if held is None else self._cycle(held, rng)
        teacher = self.float_state if stage in ("retrain", "integer") else None
        losses = []
        for at, (images, labels) in enumerate(self._batches(split, rng, steps)):
            set_rates(self.steps.optimisers, self._share(stage, epoch + at / steps))
            if not warm:
                done = (epoch + at / steps - first) / (total - first)
                allowed, temperature = self.search.allowed(self.net, done), context.temperature
                self.steps.strengths(
                    *next(held_batches), context, partial(self.search.pressure, self.net, temperature, allowed)
                )
            losses.append(self.steps.weights(images, labels, context, teacher=teacher, norms=stage != "integer"))
        figures = {"loss": float(np.mean(losses)), "temperature": context.temperature}
        if stage == "search":
            found, rows = self.search.figures(self.net, context.temperature)
            figures |= found
            self.state.strengths.append({"epoch": epoch + 1, **rows})
        return figures

    def _context(self, stage: str) -> Context:
        return Context(
            {"float": Mode.FLOAT, "integer": Mode.INTEGER}.get(stage, Mode.QUANTISED),
            branches=self.recipe.search.method == "dnas" and stage == "search",
            autocast=self.recipe.train.autocast,
        )

    def _check(self, stage: str, temperature: float, *, last: bool) -> None:
        """Whether the epoch's last steps have left a network that can be gone on with; earlier ones are seen by those after them.

        Nothing random is drawn, so what is trained stays the same. last: of the stage, whose network is next calibrated or exported
        with the statistics that it has learnt.

        Raises:
            NoNumberError: they have not.
        """
        self.steps.check()
        train = self.data.train
        pick = train.evenly(_CHECK_IMAGES)
        labels = torch.from_numpy(train.labels[pick]).to(self.world.device)
        context = self._context(stage)
        context.temperature = temperature
        learnt = last or stage == "integer"
        self.steps.check_loss(self._images(train.images[pick]), labels, context, learnt=learnt)

    def _share(self, stage: str, done: float) -> float:
        """How much of its training is over ``done`` epochs into a stage. Retraining and the integer stage are one: a rate that
        rises again undoes what retraining has settled."""
        if stage not in ("retrain", "integer"):
            return done / self.epochs(stage)
        before = self.epochs("retrain")
        return (done + (before if stage == "integer" else 0)) / (before + self.epochs("integer"))

    def _cycle(self, split: Split, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self._batches(split, rng)

    def _no_number(self, where: NoNumberError) -> InputError:
        kept, float_from = "", ""
        if self.path is not None and self.path.exists():
            kept = "; the last good checkpoint is kept"
            float_from = f" with train.float_from={self.path.parent}" if self.state.stage else ""
        made = InputError if self.world.first else ToldError  # all processes have come to it
        return made(
            f"{where}{kept}. Start again in another folder{float_from} and a lower"
            f" {where.setting or ('train.quantised_rate' if self.state.stage else 'train.rate')}.",
            "training",
        )
