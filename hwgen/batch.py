"""Batches: several images share the weights of the last layers.

Where a network ends in layers of one position (linear layers), their weights are most of what is streamed, and their tiles
are almost empty. In a batch, the passes before run once per image, and the last ones once for all, an image a position:

- *front*: passes that run image after image;
- the *turn*: the pass before the last ones. Its bands take turns image by image under the same weights, and it leaves the
  maps of all images side by side, each in position tiles of its own, as one map: the *stack*;
- *tail*: passes of one position per image. The first one steps over the stack from image to image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwgen.errors import InputError
from hwgen.network import Tensor
from hwgen.passes import ArrayPass, Pass, Window

MAX_BATCH = 16
_MAX_STRIDE = 15


@dataclass(frozen=True)
class Batch:
    """How ``size`` images run together.

    turn: index of the pass that leaves the stack; those after it are the tail. stack_tiles: position tiles of an image in
    the stack. waiting: tensor that the turn reads, of which one is kept for each image. Of one image turn is -1.
    """

    size: int = 1
    turn: int = -1
    stack_tiles: int = 0
    waiting: str = ""

    def copies(self, index: int) -> int:
        """How often a pass runs."""
        return self.size if index <= self.turn else 1

    def stack_tile(self, index: int, copy: int) -> int:
        """Position tiles of a pass' map that belong to the images before."""
        return copy * self.stack_tiles if index == self.turn else 0


ALONE = Batch()


def stack_shape(item: Pass, columns: int) -> tuple[int, int] | None:
    """Width of a stack's rows, and its rows per image, that hold the map of a pass in whole position tiles."""
    height, width, _ = item.code.shape
    for tiles in range(-(-height * width // columns), -(-height * width // columns) + 3):
        for row in range(width, tiles * columns + 1):
            rows = tiles * columns // row
            if rows * row == tiles * columns and height <= rows <= _MAX_STRIDE:
                return row, rows
    return None


def find_turn(passes: Sequence[Pass], columns: int) -> int | None:
    """Index of the pass before those of one position; None where the network does not end in such passes."""
    turn = len(passes) - 1
    while turn >= 0 and _alone(passes[turn]):
        turn -= 1
    if turn < 1 or turn == len(passes) - 1:
        return None  # nothing behind it, or it reads the image itself, which is not kept for the batch
    item, first = passes[turn], passes[turn + 1]
    whole = (first.window.in_height, first.window.in_width) == (first.window.kernel_h, first.window.kernel_w)
    plain = isinstance(item, ArrayPass) and item.skip is None and item.bytes is None and not item.window.pooled
    if not (plain and whole and item.planes is not None and first.source.name == item.planes.name):
        return None
    return turn if stack_shape(item, columns) is not None else None


def _alone(item: Pass) -> bool:
    """Whether a pass makes one position from bit planes and nothing else."""
    return (
        isinstance(item, ArrayPass)
        and (item.window.out_height, item.window.out_width, item.window.pad) == (1, 1, 0)
        and item.skip is None
        and item.bytes is None
        and not item.sums
        and not item.depthwise
    )


def make_batch(passes: Sequence[Pass], size: int, columns: int) -> tuple[tuple[Pass, ...], Batch]:
    """The passes of a batch; of one image the passes as they are.

    Raises:
        InputError: the network does not end in layers of one position, or the size is out of range.
    """
    if size == 1:
        return tuple(passes), ALONE
    if not 1 <= size <= min(MAX_BATCH, columns):
        raise InputError(f"A batch has 1 to {min(MAX_BATCH, columns)} images on this engine, not {size}.", "batch")
    turn = find_turn(passes, columns)
    if turn is None:
        raise InputError(
            "Images are batched where a network ends in layers of one position behind a convolution without shortcut or"
            " pool that is not its first layer; this one does not. Leave the batch at 1.",
            "batch",
        )
    item = passes[turn]
    shape = stack_shape(item, columns)
    assert shape is not None and item.planes is not None
    width, rows = shape
    stacked: dict[str, Tensor] = {
        item.planes.name: replace(item.planes, shape=(size * rows, width, item.planes.shape[2]))
    }
    made = list(passes)
    made[turn] = replace(item, window=replace(item.window, out_width=width), planes=stacked[item.planes.name])
    for index in range(turn + 1, len(passes)):
        tail = passes[index]
        assert isinstance(tail, ArrayPass)
        source = stacked[tail.source.name]
        for tensor in (tail.code, tail.planes):
            if tensor is not None:
                stacked[tensor.name] = replace(tensor, shape=(1, size, tensor.shape[2]))
        first = index == turn + 1
        step, out = (rows, (size, 1)) if first else (1, (1, size))
        window = Window(*source.shape[:2], tail.window.kernel_h, tail.window.kernel_w, step, 0, *out)
        made[index] = replace(
            tail,
            source=source,
            window=window,
            code=stacked[tail.code.name],
            planes=None if tail.planes is None else stacked[tail.planes.name],
        )
    return tuple(made), Batch(size, turn, rows * width // columns, item.source.name)
