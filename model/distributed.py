"""Several processes as one: each takes its part of every global batch; gradients, losses and batch norm are those of the whole.

Started by ``torchrun``; without it there is one process. Every process draws the same randomness (order, augmentation, Gumbel
noise), so that a run of several is the run of one with the same global batch, but for the order of float sums.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hwgen.errors import InputError, ToldError
from model.norm import BatchNorm

T = TypeVar("T")
_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class World:
    """This process among all of a run. device: where it computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def part(self, batch: NDArray[Any]) -> NDArray[Any]:
        """This process's share of a global batch."""
        return batch[self.rank :: self.size]

    def wrap(self, net: nn.Module) -> Callable[..., Tensor]:
        """The network whose gradients are averaged over all processes and whose batch norm sees all of them."""
        if self.size == 1:
            return net
        ids = None if self.device.type == "cpu" else [self.device.index]
        # Weights and strengths are trained in turn, so each step leaves some of them without a gradient.
        made: nn.Module = DistributedDataParallel(
            net, device_ids=ids, find_unused_parameters=True, broadcast_buffers=False
        )
        return made

    def mean(self, value: Tensor) -> float:
        """The mean of a 0-dim tensor over all processes."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.size
        return float(value)

    def gather(self, value: T) -> list[T]:
        """Everyone's ``value``, by rank."""
        if self.size == 1:
            return [value]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, value)
        return every

    def lead(self, work: Callable[[], T]) -> T:
        """What the first process makes of ``work``, given to all; its mistake is everyone's.

        Raises:
            InputError: the first process's.
        """
        if self.size == 1:
            return work()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = work()
            except InputError as error:
                box[1] = (error.problems, error.subject)
        dist.broadcast_object_list(box)
        if box[1] is not None:
            raise InputError(*box[1]) if self.first else ToldError(*box[1])
        result: T = box[0]
        return result

    def fail(self, problem: str) -> NoReturn:
        """Raises InputError in the first process, whose mistake all have made; the others leave it to that."""

        def work() -> NoReturn:
            raise InputError(problem)

        self.lead(work)
        raise AssertionError("the first process's mistake is everyone's")


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the first of the processes that ``torchrun`` started, or the only one."""
    return _rank() == 0


def join(device: str = "auto") -> World:
    """This process's world; joins the others where ``torchrun`` started it.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    name = "cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), _rank()
    where = torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device("cpu")
    if name == "cuda":
        torch.cuda.set_device(where)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if name == "cuda" else "gloo")
        atexit.register(leave)  # a process that ends while its group lives is aborted
    world = World(rank, size, where)
    if device not in _DEVICES:
        world.fail(f"There is no device '{device}'; it is {', '.join(_DEVICES[:-1])} or {_DEVICES[-1]}.")
    if device == "cuda" and name != "cuda":
        world.fail("There is no GPU that torch can use; leave the device out, or install a CUDA build of torch.")
    return world


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share_norms(net: nn.Module) -> None:
    """Make every batch norm of a network one over all processes."""
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.shared = True
