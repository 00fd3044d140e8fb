"""Training in stages: float, search, retrain, integer. Each epoch draws its randomness from (seed, stage, epoch), so a
resumed run is the run that was never interrupted."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hwgen.errors import InputError
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

_log = logging.getLogger(__name__)
STAGES = ("float", "search", "retrain", "integer")
Progress = Callable[..., None]
_CALIBRATION_IMAGES = 512
_GRADIENT_NORM = 5.0
_TRIAL_BATCH, _TRIAL_IMAGES = 512, 4096
_NORM_STREAM, _STAGE_STREAM = 77, 0


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
        self.optimisers: list[torch.optim.Optimizer] = []
        self._teacher: QuantNet | None = None
        net.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world.size > 1:
            share_norms(net)
        self._model: Callable[..., Tensor] = net

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
                "optimisers": [item.state_dict() for item in self.optimisers],
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
            self.optimisers = optimisers(self.net, stage, self.recipe.train, self.recipe.search.strength_rate)
            for optimiser, saved in zip(self.optimisers, data["optimisers"], strict=True):
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
            InputError: the loss is no number any more; the last good checkpoint is kept.
        """
        last = STAGES.index(until)
        while self.state.stage <= last:
            stage = STAGES[self.state.stage]
            total = self.epochs(stage)
            if self.state.epoch == 0:
                self._enter(stage)
                self.optimisers = optimisers(self.net, stage, self.recipe.train, self.recipe.search.strength_rate)
            for parameter in self.net.parameters():
                parameter.requires_grad_(True)  # what is off now would never be averaged
            self._model = self.world.wrap(self.net)
            while self.state.epoch < total:
                began = time.monotonic()
                figures = self._epoch(stage, self.state.epoch, total)
                self.state.epoch += 1
                told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
                _log.info("%s, epoch %d of %d: %s", stage, self.state.epoch, total, told)
                figures["seconds"] = round(time.monotonic() - began, 3)
                self.state.history.append({"stage": stage, "epoch": self.state.epoch, **figures})
                self.save()
                self.progress(stage, self.state.epoch, total, f"loss {figures['loss']:.3f}")
            self._leave(stage)
            self.state.stage, self.state.epoch = self.state.stage + 1, 0
            self.save()

    def _enter(self, stage: str) -> None:
        train = self.recipe.train
        if stage == "float" and train.float_from:
            take_float(self.net, Path(train.float_from))
        elif stage == "search" and self.recipe.search.method == "dnas":
            dnas.expand(self.net)
        elif stage == "retrain":
            if train.start == "float":
                kept = {k: v for k, v in self.float_state.items() if not k.endswith("strengths")}
                self.net.load_state_dict(kept, strict=False)
            choose.fix_bits(self.net, self.state.bits)
            if train.start == "float":
                fit_clips(self.net, self._calibration_images())
            self._estimate_norms(STAGES.index(stage))
        elif stage == "integer":
            self._estimate_norms(STAGES.index(stage))

    def _leave(self, stage: str) -> None:
        if stage == "float":
            calibrate(self.net, self._calibration_images())
            self.float_state = {name: value.clone() for name, value in self.net.state_dict().items()}
        elif stage == "search":
            _, held = hold_out(self.data.train, self.recipe.search.hold_out, self.recipe.seed)
            chosen = self.search.choose(self.net, self._measures(held))
            self.state.bits, self.state.chosen = chosen
            if self.state.history and self.state.history[-1]["stage"] == stage:
                self.state.history[-1] |= {name: value for name, value in chosen[1].items() if name.endswith("_accuracy")}

    def check_start(self) -> None:
        """Whether what training starts from is there.

        Raises:
            InputError: the recipe takes the float network of a run that has none, or of another network.
        """
        if self.recipe.train.float_from:
            read_float(self.net, Path(self.recipe.train.float_from))

    def _calibration_images(self) -> Pixels:
        """Training images that clips are set on before they are trained."""
        pick = np.linspace(0, len(self.data.train) - 1, min(_CALIBRATION_IMAGES, len(self.data.train))).astype(np.int64)
        return self.data.train.images[pick]

    def _measures(self, held: Split) -> Measures:
        """Accuracy with the statistics that retraining begins with: those of the mixture are none of a network whose bits are
        fixed."""

        def held_accuracy() -> float:
            self._estimate_norms(STAGES.index("search"), self.search.last)
            return accuracy(self.net, held, Mode.QUANTISED, self.search.last)

        @cache  # decoded once
        def trial_images() -> tuple[Pixels, NDArray[np.int64]]:
            pick = np.linspace(0, len(held) - 1, min(_TRIAL_IMAGES, len(held))).astype(np.int64)
            return held.images[pick], held.labels[pick]

        return Measures(
            held_accuracy,
            lambda: fresh_loss(self.net, *trial_images(), _TRIAL_BATCH),
            lambda done, total: self.progress("trying bits", done, total),
        )

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
        mode = {"float": Mode.FLOAT, "integer": Mode.INTEGER}.get(stage, Mode.QUANTISED)
        context = Context(
            mode, branches=recipe.search.method == "dnas" and stage == "search", autocast=recipe.train.autocast
        )
        split, held, warm, first = self.data.train, None, True, 0
        if stage == "search":
            context.temperature = self.search.temperature(epoch, total)
            if recipe.search.method == "ebs-sto":
                context.noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            split, held = hold_out(self.data.train, recipe.search.hold_out, recipe.seed)
            first = math.ceil(recipe.search.warm * total)  # epoch that trains the strengths
            warm = epoch < first or len(self.optimisers) < 3
            self.search.prepare_epoch(self.net, epoch, total, context.temperature)
        steps = len(split) // recipe.train.batch
        if recipe.train.most_steps is not None:
            steps = min(steps, recipe.train.most_steps)
        held_batches = iter(()) if held is None else self._cycle(held, rng)
        losses = []
        for at, (images, labels) in enumerate(self._batches(split, rng, steps)):
            set_rates(self.optimisers, self._share(stage, epoch + at / steps))
            if not warm:
                done = (epoch + at / steps - first) / (total - first)
                self._strength_step(*next(held_batches), context, self.search.allowed(self.net, done))
            losses.append(self._weight_step(images, labels, context, stage))
        figures = {"loss": float(np.mean(losses)), "temperature": context.temperature}
        if stage == "search":
            found, rows = self.search.figures(self.net, context.temperature)
            figures |= found
            self.state.strengths.append({"epoch": epoch + 1, **rows})
        return figures

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

    # ---------------------------------------------------------------- steps
    def _weight_step(self, images: Tensor, labels: Tensor, context: Context, stage: str) -> float:
        self.net.train(stage != "integer")
        self._train_only(strengths=False)
        logits = self._model(images, context)
        loss = F.cross_entropy(logits, labels)
        if self.recipe.train.distil and stage in ("retrain", "integer"):
            loss = self._distilled(loss, logits, images)
        value = self.world.mean(loss.detach())
        if not math.isfinite(value):
            raise self._no_number(images, context)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        weights = self.optimisers[0].param_groups[0]["params"]
        norm = torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        if not torch.isfinite(norm):
            raise self._no_number(images, context)
        torch.nn.utils.clip_grads_with_norm_(weights, _GRADIENT_NORM, norm)
        for optimiser in self.optimisers[:2]:
            optimiser.step()
        return value

    def _strength_step(self, images: Tensor, labels: Tensor, context: Context, allowed: float) -> None:
        """One step of the strengths on held-out images: batch-norm statistics and clips stay."""
        self.net.eval()
        self._train_only(strengths=True)
        loss = F.cross_entropy(self._model(images, context), labels)
        loss = loss + self.search.pressure(self.net, context.temperature, allowed)
        if not math.isfinite(self.world.mean(loss.detach())):
            raise self._no_number(images, context)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimisers[2].step()

    def _train_only(self, *, strengths: bool) -> None:
        """Gradients for the strengths or for everything else: what is not stepped costs nothing."""
        for parameter in self.net.parameters():
            parameter.requires_grad_(not strengths)
        for parameter in self.net.strengths():
            parameter.requires_grad_(strengths)

    def _distilled(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        train = self.recipe.train
        if self._teacher is None:
            self._teacher = copy.deepcopy(self.net)
            self._teacher.load_state_dict(self.float_state)
            self._teacher.eval()
        with torch.no_grad():
            target = self._teacher(images, Context(Mode.FLOAT))
        t = train.distil_temperature
        kept = F.kl_div(
            F.log_softmax(logits / t, 1), F.log_softmax(target / t, 1), log_target=True, reduction="batchmean"
        )
        return (1 - train.distil) * loss + train.distil * t * t * kept

    def _no_number(self, images: Tensor, context: Context) -> InputError:
        """The error that names the first layer without numbers, in any process."""
        with torch.no_grad():
            values = self.net.tensors(images, context)
        own = [node.name for node in self.net if not torch.isfinite(values[node.output].value).all()]
        grads = [
            node.name
            for node in self.net
            if any(p.grad is not None and not p.grad.isfinite().all() for p in node.parameters())
        ]
        names = [name for found in self.world.gather(own) for name in found]
        where = f"first in layer '{names[0]}'" if names else "in the loss itself"
        if not names and grads:
            where = f"in the gradient of layer '{grads[-1]}'"
        kept, float_from = "", ""
        if self.path is not None and self.path.exists():
            kept = "; the last good checkpoint is kept"
            float_from = f" with train.float_from={self.path.parent}" if self.state.stage else ""
        return InputError(
            f"The loss is no longer a number, {where}{kept}. Start again in another folder{float_from} and a lower"
            f" {'train.quantised_rate' if self.state.stage else 'train.rate'}.",
            "training",
        )
