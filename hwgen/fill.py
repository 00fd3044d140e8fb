"""How fill walks a position tile: its runs, and the operations of each (see bs_fill and bs_walker)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from hwgen.passes import Window
from hwgen.words import WordPlan

_TAPS = 3  # taps of a kernel row that one operation places


@lru_cache(maxsize=4096)
def _operations(groups: int, kernel_h: int, kernel_w: int, slots: int, planes: int, *, alone: bool) -> int:
    """Operations for ``planes`` planes that share words; ``alone``: each group begins a word (depthwise)."""
    operations = slot = 0
    for _ in range(planes * groups):
        for _ in range(kernel_h):
            kx = 0
            while kx < kernel_w:
                taps = min(_TAPS - slot % _TAPS, kernel_w - kx)
                kx += taps
                slot = (slot + taps) % slots
                operations += 1
        if alone:
            slot = 0
    return operations


def run_operations(words: WordPlan, window: Window, slots: int, *, depthwise: bool) -> int:
    """Operations, and cycles, of one run; ``slots`` of a word."""
    shape = (words.groups, window.kernel_h, window.kernel_w, slots)
    if words.merged:
        return _operations(*shape, words.planes, alone=False)
    return words.planes * _operations(*shape, 1, alone=depthwise)


def tile_runs(window: Window, columns: int) -> list[int]:
    """Runs of each position tile of a map: columns of one output row that one window read serves."""
    if window.pooled:
        # Windows of a row, then the same ones a position lower.
        upper = replace(window, pooled=False, stride=1)
        return [2 * runs for runs in tile_runs(upper, columns // 4)]
    room = {1: columns, 2: columns // 2}.get(window.stride, 1)
    counts = []
    x = y = 0
    for _ in range(window.tiles(columns)):
        column = runs = 0
        while column < columns and y < window.out_height:
            step = min(room - column % room, window.out_width - x)
            column += step
            x += step
            runs += 1
            if x == window.out_width:
                x, y = 0, y + 1
        counts.append(runs)
    return counts
