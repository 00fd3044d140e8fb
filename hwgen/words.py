"""Words: how slots of taps and channel groups fill the array's words, and the weight rows that match.

Fill writes column words and issue reads weight rows in one order, fixed here (see docs/engine.md): planes from the top;
in a plane the channel groups, in a group the kernel rows and columns. In plain words every plane begins a word, and a
weight row holds one weight plane. Merged words hold the slots of all planes without a gap; each significance s reads
those in which a plane has a partner, with weight rows of its own: where a slot has plane k, the weights' plane s - k.
A nibble plane of the image holds four bits of up to G/4 channels in a slot, so that few channels still fill words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen.engine import EngineConfig
from hwgen.passes import NIBBLE, ArrayPass


def pairs_of(significance: int, weight_planes: int, planes: int) -> int:
    """How many plane pairs (m, k) have m + k = significance."""
    return min(weight_planes - 1, significance) - max(0, significance - planes + 1) + 1


@dataclass(frozen=True)
class WordPlan:
    """Counts of one array pass on one engine.

    groups: channel groups of the source. pair_slots: slots of one plane (of one group where depthwise).
    planes: activation planes as they are stored; of nibbles where ``nibbles``. plane_words, plane_rest: words of one
    plane; merged: whole words that its slots fill, and slots beyond. column_words: words per position tile.
    row_words: array cycles of one row tile. weight_pitch: weight rows of one row tile. row_tiles: output channel tiles.
    """

    groups: int
    pair_slots: int
    planes: int
    plane_words: int
    plane_rest: int
    column_words: int
    row_words: int
    weight_pitch: int
    row_tiles: int
    merged: bool
    nibbles: bool

    @property
    def column_pitch(self) -> int:
        """Words of one activation plane, all groups; 0 where merged."""
        return 0 if self.merged else self.column_words // self.planes

    @property
    def weight_rows(self) -> int:
        """Weight rows of the whole pass."""
        return self.row_tiles * self.weight_pitch


@dataclass(frozen=True)
class Significance:
    """The column words [first, last] that significance ``s`` reads."""

    s: int
    first: int
    last: int


def significances(pair_slots: int, weight_planes: int, bits: int, slots: int, *, nibbles: bool) -> list[Significance]:
    """The significances of merged words, from the top.

    pair_slots: slots of one plane. bits: of the source tensor. slots: of a word.
    """
    step = NIBBLE if nibbles else 1
    planes = -(-bits // step)
    found = []
    for s in reversed(range(weight_planes + bits - 1)):
        top = min(planes - 1, s // step)
        low = max(0, -(-(s - weight_planes - step + 2) // step))
        first = (planes - 1 - top) * pair_slots // slots
        last = ((planes - low) * pair_slots - 1) // slots
        found.append(Significance(s, first, last))
    return found


def plan_words(
    channels_in: int,
    channels_out: int,
    taps: int,
    weight_planes: int,
    bits: int,
    engine: EngineConfig,
    *,
    depthwise: bool = False,
    merged: bool = False,
    nibbles: bool = False,
) -> WordPlan:
    """Count words for a layer geometry; ``bits`` are the source's, ``taps`` is kernel_h * kernel_w."""
    groups = 1 if nibbles else -(-channels_in // engine.slot_channels)
    row_tiles = -(-channels_out // engine.rows)
    pair_slots = taps if depthwise else taps * groups
    planes = -(-bits // NIBBLE) if nibbles else bits
    if merged:
        column_words = -(-pair_slots * planes // engine.slots)
        row_words = sum(
            item.last - item.first + 1
            for item in significances(pair_slots, weight_planes, bits, engine.slots, nibbles=nibbles)
        )
        plane_words, plane_rest = divmod(pair_slots, engine.slots)
        weight_pitch = row_words
    else:
        plane_words, plane_rest = -(-pair_slots // engine.slots), 0
        column_words = plane_words * planes * (groups if depthwise else 1)
        row_words = plane_words * weight_planes * planes
        weight_pitch = plane_words * weight_planes
    return WordPlan(
        groups,
        pair_slots,
        planes,
        plane_words,
        plane_rest,
        column_words,
        row_words,
        weight_pitch,
        row_tiles,
        merged,
        nibbles,
    )


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
    planes = _slot_planes(made, plan, engine)
    words = _merged_words(planes, made, plan, engine) if plan.merged else _plain_words(planes, plan, engine)
    # (C_out, weight rows of a row tile, D_K) -> rows of D_M words.
    rows = words.reshape(plan.row_tiles, engine.rows, -1, engine.word_bits).transpose(0, 2, 1, 3)
    full = np.zeros((plan.weight_rows, engine.row_chunks * 64), np.uint8)
    full[:, : engine.rows * engine.word_bits] = rows.reshape(plan.weight_rows, -1)
    return np.packbits(full, axis=1, bitorder="little")


def _slot_planes(made: ArrayPass, plan: WordPlan, engine: EngineConfig) -> NDArray[np.uint8]:
    """Bits (weight planes, C_out in whole row tiles, pair_slots, channels of a slot) of a pass's codes."""
    out_channels, kernel_h, kernel_w, _ = made.codes.shape
    group = engine.slot_channels // NIBBLE if plan.nibbles else engine.slot_channels
    codes: NDArray[np.uint16] = np.zeros(
        (plan.row_tiles * engine.rows, kernel_h * kernel_w, plan.groups * group), np.uint16
    )
    taps = made.codes.reshape(out_channels, kernel_h * kernel_w, -1)
    if made.depthwise:
        index = np.arange(out_channels)
        codes[index, :, index] = taps[:, :, 0]
    else:
        codes[:out_channels, :, : made.source.shape[2]] = taps
    # (C_out, groups, taps, channels): a plane's slots in order.
    by_slot: NDArray[np.uint16] = codes.reshape(codes.shape[0], -1, plan.groups, group).transpose(0, 2, 1, 3)
    if made.depthwise:
        own = np.arange(codes.shape[0]) // group % plan.groups
        by_slot = by_slot[np.arange(codes.shape[0]), own][:, None]
    by_slot = by_slot.reshape(codes.shape[0], plan.pair_slots, group)
    return np.stack([(by_slot >> m & 1).astype(np.uint8) for m in range(made.weight_planes)])


def _plain_words(planes: NDArray[np.uint8], plan: WordPlan, engine: EngineConfig) -> NDArray[np.uint8]:
    """Words (C_out, weight planes * plane_words, D_K), top plane first."""
    depth, channels = planes.shape[:2]
    padded = np.zeros((channels, depth, plan.plane_words * engine.slots, engine.slot_channels), np.uint8)
    padded[:, :, : plan.pair_slots] = planes[::-1].transpose(1, 0, 2, 3)
    return padded.reshape(channels, depth * plan.plane_words, engine.word_bits)


def _merged_words(planes: NDArray[np.uint8], made: ArrayPass, plan: WordPlan, engine: EngineConfig) -> NDArray[np.uint8]:
    """Words (C_out, row_words, D_K): one stretch of words for each significance from the top."""
    channels = planes.shape[1]
    step = NIBBLE if plan.nibbles else 1
    stretches = []
    for item in significances(plan.pair_slots, made.weight_planes, made.source.bits, engine.slots, nibbles=plan.nibbles):
        # (C_out, slots of all planes, channels of a slot, bits of a channel in it)
        bits = np.zeros((channels, plan.column_words * engine.slots, engine.slot_channels // step, step), np.uint8)
        for k in range(made.source.bits):
            if 0 <= item.s - k < made.weight_planes:
                start = (plan.planes - 1 - k // step) * plan.pair_slots
                bits[:, start : start + plan.pair_slots, :, k % step] = planes[item.s - k]
        words = bits.reshape(channels, plan.column_words, engine.word_bits)
        assert not words[:, : item.first].any() and not words[:, item.last + 1 :].any()
        stretches.append(words[:, item.first : item.last + 1])
    return np.concatenate(stretches, axis=1)
