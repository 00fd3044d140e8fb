"""Words: how slots of taps and channel groups fill the array's words, and the weight rows that match.

Fill writes column words and issue reads weight rows in one order, fixed here (see docs/engine.md): planes from the top;
in a plane the channel groups, in a group the kernel rows and columns. Packed, all plane pairs of equal significance
share words: significances from the top, in each the pairs from the highest activation plane down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen.engine import EngineConfig
from hwgen.lower import ArrayPass


def pairs_of(significance: int, weight_planes: int, planes: int) -> int:
    """How many plane pairs (m, k) have m + k = significance."""
    return min(weight_planes - 1, significance) - max(0, significance - planes + 1) + 1


@dataclass(frozen=True)
class WordPlan:
    """Counts of one array pass on one engine.

    groups: channel groups of the source. pair_slots: slots of one plane pair (of one group where depthwise).
    plane_words: words of one plane pair. column_words: words per position tile. row_words: weight rows, and array
    cycles, of one row tile. row_tiles: output channel tiles. planes: activation planes.
    """

    groups: int
    pair_slots: int
    plane_words: int
    column_words: int
    row_words: int
    row_tiles: int
    planes: int
    packed: bool

    @property
    def column_pitch(self) -> int:
        """Words of one activation plane, all groups; no meaning where packed."""
        return self.column_words // self.planes if not self.packed else 0


def plan_words(
    channels_in: int,
    channels_out: int,
    taps: int,
    weight_planes: int,
    planes: int,
    engine: EngineConfig,
    *,
    depthwise: bool,
    packed: bool,
) -> WordPlan:
    """Count words for a layer geometry; ``planes`` are activation planes, ``taps`` is kernel_h * kernel_w."""
    groups = -(-channels_in // engine.slot_channels)
    row_tiles = -(-channels_out // engine.rows)
    pair_slots = taps if depthwise else taps * groups
    plane_words = -(-pair_slots // engine.slots)
    if packed:
        words = sum(
            -(-pair_slots * pairs_of(s, weight_planes, planes) // engine.slots) for s in range(weight_planes + planes - 1)
        )
        return WordPlan(groups, pair_slots, plane_words, words, words, row_tiles, planes, True)
    columns = plane_words * planes * (groups if depthwise else 1)
    return WordPlan(
        groups, pair_slots, plane_words, columns, plane_words * weight_planes * planes, row_tiles, planes, False
    )


def weight_rows_used(plan: WordPlan, weight_planes: int) -> int:
    """Weight rows of a whole pass in the weight buffer."""
    return plan.row_tiles * weight_pitch(plan, weight_planes)


def weight_pitch(plan: WordPlan, weight_planes: int) -> int:
    """Weight rows of one row tile."""
    return plan.row_words if plan.packed else plan.plane_words * weight_planes


def tile_bound(
    channels_in: int,
    channels_out: int,
    taps: int,
    positions: int,
    weight_bits: int,
    activation_bits: int,
    engine: EngineConfig,
    *,
    depthwise: bool = False,
) -> int:
    """Packed tile bound in cycles: what no schedule of this array shape can beat.

    ceil(C_out/D_M) * ceil(positions/D_N) * max(sum over s of ceil(K_len * n_s / D_K), ceil(D_M*D_N/lanes)), n_s plane
    pairs of significance s. A depthwise layer's K_len is that of one output channel.
    """
    length = taps * (1 if depthwise else channels_in)
    words = sum(
        -(-length * pairs_of(s, weight_bits, activation_bits) // engine.word_bits)
        for s in range(weight_bits + activation_bits - 1)
    )
    tiles = -(-channels_out // engine.rows) * -(-positions // engine.columns)
    return tiles * max(words, -(-engine.rows * engine.columns // engine.lanes))


def weight_image(made: ArrayPass, plan: WordPlan, engine: EngineConfig) -> NDArray[np.uint8]:
    """The weight rows of a pass, uint8 (rows, ceil(D_M*D_K/64)*8), bit i of a row is bit i % 8 of byte i // 8."""
    out_channels, kernel_h, kernel_w, _ = made.codes.shape
    group, slots = engine.slot_channels, engine.slots
    channels_in = made.source.shape[2]
    codes: NDArray[np.uint16] = np.zeros(
        (plan.row_tiles * engine.rows, kernel_h * kernel_w, plan.groups * group), np.uint16
    )
    taps = made.codes.reshape(out_channels, kernel_h * kernel_w, -1)
    if made.depthwise:
        index = np.arange(out_channels)
        codes[index, :, index] = taps[:, :, 0]
    else:
        codes[:out_channels, :, :channels_in] = taps
    # (C_out, groups, taps, G): a pair's slots in order.
    by_slot: NDArray[np.uint16] = codes.reshape(codes.shape[0], -1, plan.groups, group).transpose(0, 2, 1, 3)
    if made.depthwise:
        own = np.arange(codes.shape[0]) // group % plan.groups
        by_slot = by_slot[np.arange(codes.shape[0]), own][:, None]
    by_slot = by_slot.reshape(codes.shape[0], plan.pair_slots, group)
    planes = [(by_slot >> m & 1).astype(np.uint8) for m in range(made.weight_planes)]
    runs: list[list[NDArray[np.uint8]]]
    if plan.packed:
        runs = []
        for s in reversed(range(made.weight_planes + made.source.bits - 1)):
            lowest = max(0, s - made.source.bits + 1)
            runs.append([planes[m] for m in range(lowest, min(made.weight_planes - 1, s) + 1)])
    else:
        runs = [[planes[m]] for m in reversed(range(made.weight_planes))]
    rows = []
    for run in runs:
        bits = np.concatenate(run, axis=1)
        words = -(-bits.shape[1] // slots)
        padded = np.zeros((bits.shape[0], words * slots, group), np.uint8)
        padded[:, : bits.shape[1]] = bits
        rows.append(padded.reshape(plan.row_tiles, engine.rows, words, engine.word_bits).transpose(0, 2, 1, 3))
    bits_of_rows = np.concatenate(rows, axis=1).reshape(-1, engine.rows * engine.word_bits)
    full = np.zeros((bits_of_rows.shape[0], engine.row_chunks * 64), np.uint8)
    full[:, : bits_of_rows.shape[1]] = bits_of_rows
    return np.packbits(full, axis=1, bitorder="little")
