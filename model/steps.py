"""One step of training, of weights and clips or of strengths, in all processes together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from model import choose
from model.accuracy import batch_statistics
from model.distributed import World
from model.finite import LARGEST, worst
from model.nodes import Context, Mode
from model.quantnet import QuantNet
from model.settings import TrainSection

_MOST_LOSS = 2.0**24  # float32 has no fractions beyond: no probability but 0 and 1, and nothing to learn from them
_KINDS = {  # by the last part of a parameter's or buffer's name: what people call it, and what moves it
    "strengths": ("a strength", "search.strength_rate"),
    "clip": ("a clip", "train.clip_rate"),
    "weight_clip": ("a weight clip", "train.clip_rate"),
    "running_mean": ("a mean of batch norm", ""),
    "running_var": ("a variance of batch norm", ""),
}


class NoNumberError(Exception):
    """A loss, a gradient or the network itself is no number any more.

    The message says what and where first, a sentence without its end. setting: what to lower; "": the weights' rate.
    """

    def __init__(self, what: str, setting: str = "") -> None:
        super().__init__(what)
        self.setting = setting


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
        torch.nn.utils.clip_grads_with_norm_(weights, self.train.gradient_norm, norm)
        for optimiser in self.optimisers[:2]:
            optimiser.step()
        return value

    def strengths(self, images: Tensor, labels: Tensor, context: Context, pressure: Callable[[], Tensor]) -> None:
        """One step of the strengths on held-out images: batch-norm statistics and clips stay.

        Args:
            pressure: the cost term, 0-dim.

        Raises:
            NoNumberError: the loss is none, before anything is stepped; or the strengths are none after it.
        """
        self.net.eval()
        self._train_only(strengths=True)
        loss = F.cross_entropy(self._model(images, context), labels) + pressure()
        if not math.isfinite(self.world.mean(loss.detach())):
            raise self._no_number(images, context)
        self._differentiate(loss)
        self.optimisers[2].step()
        if not torch.cat([item.detach() for item in self.net.strengths()]).isfinite().all():
            table = choose.strength_table(self.net, choose.plain_context())
            first = next(name for name, _, p in table if not p.isfinite().all())
            raise NoNumberError(
                f"The strengths of the search are no longer numbers, first those of '{first}'", "search.strength_rate"
            )

    def check(self) -> None:
        """Whether the network is still made of numbers that can be computed with: a step may have left others.

        Raises:
            NoNumberError: it is not.
        """
        for node in self.net:
            for name, values in (*node.named_parameters(), *node.named_buffers()):
                if (most := worst(values)) is not None:
                    kind, setting = _KINDS.get(name.rpartition(".")[2], ("a weight", ""))
                    raise NoNumberError(f"In layer '{node.name}' {kind} has become {most:.3g}", setting)

    def check_loss(self, images: Tensor, labels: Tensor, context: Context, *, learnt: bool) -> None:
        """Whether the network can be gone on with: weights may be numbers, and what is computed with them none.

        Args:
            learnt: with the statistics that batch norm has learnt, which lag behind while weights move fast; else as training
                sees it, with those of the images.

        Raises:
            NoNumberError: the loss of these images is no number, or one that nothing is learnt from.
        """
        self.net.eval()
        with nullcontext() if learnt else batch_statistics(self.net):
            with torch.no_grad():
                value = self.world.mean(F.cross_entropy(self.net(images, context), labels))
            if not math.isfinite(value):
                raise self._no_number(images, context)
            if value > _MOST_LOSS:
                raise NoNumberError(f"The loss has become {value:.3g}{self._first(images, context, _MOST_LOSS)}")

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
        # Sums over a batch leave float32 before its single values do, so a second look is at values that are merely absurd.
        where = self._first(images, context, torch.finfo(torch.float32).max) or self._first(images, context, LARGEST)
        grads = [
            node.name
            for node in self.net
            if any(p.grad is not None and not p.grad.isfinite().all() for p in node.parameters())
        ]
        if not where:
            where = f", in the gradient of layer '{grads[-1]}'" if grads else ", in the loss itself"
        return NoNumberError(f"The loss is no longer a number{where}")

    def _first(self, images: Tensor, context: Context, most: float) -> str:
        """The first layer, in any process, with values beyond ``most``, as the end of a sentence; nothing where there is none.

        Logits may be numbers while the loss that is made of them is none: then it is the last layer.
        """
        with torch.no_grad():
            values = self.net.tensors(images, context)
        nodes = list(self.net)
        own = [node.name for node in nodes if not values[node.output].value.abs().max() <= most]
        logits = values[nodes[-1].output].value.flatten(1)
        if not own and not torch.log_softmax(logits, 1).abs().max() <= most:
            own = [nodes[-1].name]
        names = [name for found in self.world.gather(own) for name in found]
        return f", first in layer '{names[0]}'" if names else ""
