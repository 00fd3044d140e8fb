"""One step of training, of weights and clips or of strengths, in all processes together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from model.distributed import World
from model.nodes import Context, Mode
from model.quantnet import QuantNet
from model.recipe import TrainSection

_GRADIENT_NORM = 5.0


class NoNumberError(Exception):
    """A loss or a gradient is no number; the message says where first. Nothing was stepped."""


class Steps:
    """Steps of one network.

    Args:
        train: distillation, and how long gradients may be.
        world: the processes that share each batch.
    """

    def __init__(self, net: QuantNet, train: TrainSection, world: World) -> None:
        self.net, self.train, self.world = net, train, world
        self.optimisers: list[torch.optim.Optimizer] = []  # of weights, of clips and steps, and in a search of strengths
        self._model: Callable[..., Tensor] = net
        self._teacher: QuantNet | None = None

    def join(self) -> None:
        """Average gradients over all processes from now on."""
        for parameter in self.net.parameters():
            parameter.requires_grad_(True)  # what is off now would never be averaged
        self._model = self.world.wrap(self.net)

    def weights(
        self,
        images: Tensor,
        labels: Tensor,
        context: Context,
        *,
        teacher: Mapping[str, Tensor] | None,
        norms: bool = True,
    ) -> float:
        """One step of weights and clips.

        Args:
            teacher: state of the float network that is distilled from, if any.
            norms: whether batch norms learn the batch's statistics; they are folded in the integer stage.

        Returns:
            the loss, of all processes.

        Raises:
            NoNumberError: before anything is stepped.
        """
        self.net.train(norms)
        self._train_only(strengths=False)
        logits = self._model(images, context)
        loss = F.cross_entropy(logits, labels)
        if teacher is not None and self.train.distil:
            loss = self._distilled(loss, logits, images, teacher)
        value = self.world.mean(loss.detach())
        if not math.isfinite(value):
            raise self._no_number(images, context)
        self._differentiate(loss)
        weights = self.optimisers[0].param_groups[0]["params"]
        norm = torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        if not torch.isfinite(norm):
            raise self._no_number(images, context)
        torch.nn.utils.clip_grads_with_norm_(weights, _GRADIENT_NORM, norm)
        for optimiser in self.optimisers[:2]:
            optimiser.step()
        return value

    def strengths(self, images: Tensor, labels: Tensor, context: Context, pressure: Callable[[], Tensor]) -> None:
        """One step of the strengths on held-out images: batch-norm statistics and clips stay.

        Args:
            pressure: the cost term, 0-dim.

        Raises:
            NoNumberError: before anything is stepped.
        """
        self.net.eval()
        self._train_only(strengths=True)
        loss = F.cross_entropy(self._model(images, context), labels) + pressure()
        if not math.isfinite(self.world.mean(loss.detach())):
            raise self._no_number(images, context)
        self._differentiate(loss)
        self.optimisers[2].step()

    def _differentiate(self, loss: Tensor) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def _train_only(self, *, strengths: bool) -> None:
        """Gradients for the strengths or for everything else: what is not stepped costs nothing."""
        for parameter in self.net.parameters():
            parameter.requires_grad_(not strengths)
        for parameter in self.net.strengths():
            parameter.requires_grad_(strengths)

    def _distilled(self, loss: Tensor, logits: Tensor, images: Tensor, teacher: Mapping[str, Tensor]) -> Tensor:
        if self._teacher is None:
            self._teacher = copy.deepcopy(self.net)
            self._teacher.load_state_dict(teacher)
            self._teacher.eval()
        with torch.no_grad():
            target = self._teacher(images, Context(Mode.FLOAT))
        t = self.train.distil_temperature
        kept = F.kl_div(
            F.log_softmax(logits / t, 1), F.log_softmax(target / t, 1), log_target=True, reduction="batchmean"
        )
        return (1 - self.train.distil) * loss + self.train.distil * t * t * kept

    def _no_number(self, images: Tensor, context: Context) -> NoNumberError:
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
        if names:
            return NoNumberError(f"first in layer '{names[0]}'")
        return NoNumberError(f"in the gradient of layer '{grads[-1]}'" if grads else "in the loss itself")
