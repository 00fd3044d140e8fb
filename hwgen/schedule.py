"""The scheduler: passes become bands, bands become instructions, dependencies become tokens.

Each stage runs its instructions in order, so a dependency on an instruction of another stage is a count: wait until
that stage has finished so many of its instructions. The counts are absolute; a wait field is the difference to what the
stage has taken before. The first image depends on no image before it and has wait fields of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.lower import lower
from hwgen.network import Network
from hwgen.passes import NIBBLE, ArrayPass, MeanPass, Pass, PoolPass, pad_fields, source_channels_last_group
from hwgen.plan import MemoryPlan, plan_memory
from hwgen.program import Instruction, Program, code_bytes
from hwgen.residency import WeightPart, streamed_needs
from hwgen.words import weight_image

MAX_BANDS = 6
_MAX_WAIT = 255
_SUMS_CYCLES = 4  # bs_sums: least cycles between two beats of a channel group


@dataclass(frozen=True)
class Band:
    """Position tiles [first, first + tiles) of a pass, its row tiles [first_row_tile, first_row_tile + row_tiles).

    weights: the part of the weight buffer that an array pass reads. starts_part, ends_part: no other band reads it
    before or after.
    """

    item: Pass
    layer: int
    first: int
    tiles: int
    first_row_tile: int
    row_tiles: int
    weights: WeightPart | None = None
    starts_part: bool = False
    ends_part: bool = False


@dataclass(frozen=True)
class Schedule:
    """A network on an engine, ready to be assembled.

    bands: in write-back order; each is one write-back instruction, and one execute instruction where its pass is an
    array pass. Tokens needed before the n-th instruction of a stage are in the instructions themselves.
    """

    network: Network
    engine: EngineConfig
    passes: tuple[Pass, ...]
    memory: MemoryPlan
    bands: tuple[Band, ...]
    program: Program

    @property
    def logits_rows(self) -> int:
        """int32 values per image in memory: the classes, rounded up to whole row tiles."""
        return self.memory.words[self.passes[-1].name].row_tiles * self.engine.rows

    @property
    def image_bytes(self) -> int:
        height, width, channels = self.network.tensors[self.network.input].shape
        return height * width * channels


def _waits(needs: Sequence[int], per_image: int) -> list[tuple[int, int]]:
    """(steady, first) wait counts from absolute needs.

    needs[j]: how many tokens of this image's giver instructions must have been given before instruction j starts;
    0 or negative counts reach back into the image before (-n: all but the last n of it).
    """
    first, taken = [], 0
    for need in needs:
        first.append(max(need - taken, 0))
        taken = max(taken, need)
    # From the second image on, what was left over is taken as well; the end state is the same for every image.
    end = taken
    steady, taken = [], end - per_image
    for need in needs:
        steady.append(max(need - taken, 0))
        taken = max(taken, need)
    if taken < end:
        steady[-1] += end - taken
    return list(zip(steady, first, strict=True))


def _bands(passes: Sequence[Pass], weights: Sequence[WeightPart], engine: EngineConfig) -> tuple[Band, ...]:
    limit = engine.program_depth // 8
    for most in range(MAX_BANDS, 0, -1):
        bands = []
        for layer, item in enumerate(passes):
            tiles = item.window.tiles(engine.columns)
            size = -(-tiles // most)
            if item.subsample:
                # A band begins with a kept row, and with a whole row of the byte buffer.
                pair = 2 * item.window.out_width // engine.columns
                size = -(-size // (pair * 2)) * pair * 2
            if item.window.pooled:
                size = -(-size // 4) * 4
            parts = [part for part in weights if part.item is item]
            if not parts:
                row_tiles = -(-item.code.shape[2] // engine.rows)
                bands += [
                    Band(item, layer, first, min(size, tiles - first), 0, row_tiles) for first in range(0, tiles, size)
                ]
            for part in parts:
                bands += [
                    Band(
                        item,
                        layer,
                        first,
                        min(size, tiles - first),
                        part.first,
                        part.row_tiles,
                        part,
                        starts_part=first == 0,
                        ends_part=first + size >= tiles,
                    )
                    for first in range(0, tiles, size)
                ]
        if len(bands) <= limit:
            return tuple(bands)
    raise InputError(
        f"The network has {len(passes)} passes, the engine's program memory holds {limit} instructions per stage;"
        f" use an engine with a larger program_depth.",
        f"engine {engine.name}",
    )


class _Scheduler:
    def __init__(self, network: Network, engine: EngineConfig) -> None:
        self.network = network
        self.engine = engine
        self.passes = lower(network, engine)
        self.memory = plan_memory(self.passes, network.input, engine)
        self.bands = _bands(self.passes, self.memory.weights, engine)
        self.array_passes = [item for item in self.passes if isinstance(item, ArrayPass)]
        self.array_bands = [band for band in self.bands if isinstance(band.item, ArrayPass)]

    # ---------------------------------------------------------------- dependencies
    def _producer(self, name: str, tile: int) -> int:
        """Index of the last write-back instruction that stores some of tile ``tile`` of a tensor."""
        for at, band in reversed(list(enumerate(self.bands))):
            item = band.item
            if any(made.name == name for made in item.tensors):
                # A tile of a subsampled or pooled map holds pixels of four.
                first, end = band.first, band.first + band.tiles
                stored = item.bytes if item.subsample else item.planes if item.window.pooled else None
                if stored is not None and stored.name == name:
                    first, end = first // 4, -(-end // 4)
                if first <= tile < end:
                    return at
        raise AssertionError(f"nothing stores tile {tile} of {name}")

    def _last_tile_read(self, band: Band) -> int:
        window = band.item.window
        position = min((band.first + band.tiles) * window.tile_positions(self.engine.columns), window.positions) - 1
        return window.last_pixel(position) // self.engine.columns

    def _fill_needs(self) -> list[int]:
        """Write-back instructions of this image to be finished before each execute instruction."""
        return [
            0
            if band.item.source.name == self.network.input
            else self._producer(band.item.source.name, self._last_tile_read(band)) + 1
            for band in self.array_bands
        ]

    def _write_back_needs(self) -> list[int]:
        """Fills to be finished before each write-back instruction may overwrite its plane rows."""
        total = len(self.array_bands)
        needs = []
        for band in self.bands:
            need = -total
            if band.item.planes is not None:
                mine = self.memory.planes[band.item.planes.name]
                for at, reader in enumerate(self.array_bands):
                    if self.memory.planes[reader.item.source.name].overlaps(mine):
                        need = max(need, at + 1 if reader.layer < band.layer else at + 1 - total)
            needs.append(need)
        return needs

    def _fence(self, at: int) -> bool:
        """Whether the skip codes of a band may still be in the lanes when it is armed."""
        band = self.bands[at]
        if not isinstance(band.item, ArrayPass) or band.item.skip is None:
            return False
        tile = band.first + band.tiles - 1
        return self._producer(band.item.skip.name, tile) >= at - 2

    # ---------------------------------------------------------------- instructions
    def _geometry(self, band: Band, base: int, pitch: int, row_tiles: int) -> dict[str, int]:
        window = band.item.window
        start = band.first * window.tile_positions(self.engine.columns)
        return {
            "layer": band.layer,
            "in_base": base,
            "in_pitch": pitch,
            "in_width": window.in_width,
            "in_height": window.in_height,
            "kernel_h": window.kernel_h,
            "kernel_w": window.kernel_w,
            "stride": window.stride,
            "pad": window.pad,
            "out_width": window.out_width,
            "out_height": window.out_height,
            "start_x": start % window.out_width,
            "start_y": start // window.out_width,
            "tiles": band.tiles,
            "row_tiles": row_tiles,
        }

    def _store(self, band: Band) -> dict[str, int]:
        item = band.item
        values = {"start_tile": band.first}
        if item.subsample:
            values |= {"subsample": 1, "row_position_tiles": item.window.out_width // self.engine.columns}
        if item.bytes is not None:
            region = self.memory.bytes[item.bytes.name]
            values |= {
                "store_bytes": 1,
                "byte_requant": int(item.bytes_rounded),
                "byte_base": region.base + band.first_row_tile * self.engine.beats * region.pitch,
                "byte_pitch": region.pitch,
            }
        if item.planes is not None:
            region = self.memory.planes[item.planes.name]
            base = region.base + band.first_row_tile // self.engine.rows_per_group * item.planes.bits * region.pitch
            pitch = region.pitch
            if item.window.pooled:
                # Planes are written from the top; rows count modulo the depth of the buffer.
                base, pitch = base + (item.planes.bits - 1) * pitch, -pitch & 0xFFFF
                values["pooled"] = 1
            values |= {
                "store_planes": 1,
                "plane_base": base,
                "plane_pitch": pitch,
                "plane_bits": item.planes.bits,
                "plane_flip": int(item.planes.signed),
            }
        if item.rounding is not None:
            rounding = item.rounding
            values |= {
                "requant": 1,
                "rq_mul": rounding.mul,
                "rq_bias": rounding.bias,
                "rq_shift": rounding.shift,
                "rq_lo": rounding.lo,
                "rq_hi": rounding.hi,
            }
        return values

    def _conv(self, band: Band, values: dict[str, int]) -> Instruction:
        item = band.item
        assert isinstance(item, ArrayPass)
        assert band.weights is not None
        words = self.memory.words[item.name]
        region = self.memory.planes[item.source.name]
        full, planes = pad_fields(item, self.engine)
        return Instruction.make(
            "conv",
            **values,
            **self._geometry(band, region.base, region.pitch, band.row_tiles),
            in_groups=words.groups,
            in_bits=words.planes,
            last_channels=NIBBLE * item.source.shape[2]
            if item.nibbles
            else source_channels_last_group(item.source.shape[2], self.engine.slot_channels),
            pad_full=full,
            pad_planes=planes,
            pooled=int(item.window.pooled),
            weight_base=band.weights.base,
            weight_bits=item.weight_planes,
            weight_pitch=words.weight_pitch,
            merged=int(words.merged),
            nibbles=int(words.nibbles),
            significances=item.weight_planes + item.source.bits - 1,
            column_words=words.column_words,
            plane_words=words.plane_words,
            plane_rest=words.plane_rest,
            column_pitch=words.column_pitch,
            depthwise=int(item.depthwise),
            negative_top=int(item.negative_top),
            tile_cycles=tile_cycles(item, self.engine),
        )

    def _mean(self, band: Band, values: dict[str, int]) -> Instruction:
        item = band.item
        assert isinstance(item, MeanPass)
        return Instruction.make(
            "conv_out",
            layer=band.layer,
            from_sums=1,
            tiles=1,
            row_tiles=-(-item.channels_out // self.engine.rows),
            param_base=self.memory.param_base[item.name],
            shift=item.shift,
            lo=item.code.lo,
            hi=item.code.hi,
            **self._store(band),
            **values,
        )

    def _conv_out(self, band: Band, values: dict[str, int]) -> Instruction:
        item = band.item
        assert isinstance(item, ArrayPass)
        if item.sums:
            positions = item.window.positions - (band.first + band.tiles - 1) * self.engine.columns
            values |= {
                "sums": 1,
                "sums_signed": int(item.code.signed),
                "sums_columns": min(positions, self.engine.columns),
            }
        if item.skip is not None:
            region = self.memory.bytes[item.skip.name]
            # Groups of the band before the skip map's first, and groups of the skip map before the band.
            ahead = item.skip_first_channel // self.engine.lane_rows - band.first_row_tile * self.engine.beats
            behind = max(-ahead, 0)
            values |= {
                "skip_zero_groups": max(ahead, 0),
                "skip_groups": max(-(-item.skip.shape[2] // self.engine.lane_rows) - behind, 0),
                "skip": 1,
                "skip_signed": int(item.skip.signed),
                "skip_mul": item.skip_mul,
                "skip_base": region.base + behind * region.pitch,
                "skip_pitch": region.pitch,
            }
        return Instruction.make(
            "conv_out",
            layer=band.layer,
            tiles=band.tiles,
            row_tiles=band.row_tiles,
            bipolar=int(item.bipolar),
            logits=int(item.logits),
            param_base=self.memory.param_base[item.name] + band.first_row_tile * self.engine.rows,
            shift=item.shift,
            lo=0 if item.logits else item.code.lo,
            hi=0 if item.logits else item.code.hi,
            **self._store(band),
            **values,
        )

    def _pool(self, band: Band, values: dict[str, int]) -> Instruction:
        item = band.item
        assert isinstance(item, PoolPass)
        region = self.memory.bytes[item.source.name]
        lane_rows = self.engine.lane_rows
        return Instruction.make(
            "pool",
            **self._geometry(band, region.base, region.pitch, band.row_tiles),
            in_signed=int(item.source.signed),
            in_groups=-(-item.source.shape[2] // lane_rows),
            zero_groups=item.zero_channels // lane_rows,
            **self._store(band),
            **values,
        )

    def _data(self) -> tuple[bytes, list[int], int]:
        """Weights, resident ones first, then parameters; where each weight part begins, and where the parameters do."""
        order = sorted(range(len(self.memory.weights)), key=lambda at: self.memory.weights[at].streamed)
        images = {
            item.name: weight_image(item, self.memory.words[item.name], self.engine) for item in self.array_passes
        }
        pieces, begins, size = [], [0] * len(order), 0
        for at in order:
            part = self.memory.weights[at]
            first = part.first * self.memory.words[part.item.name].weight_pitch
            pieces.append(images[part.item.name][first : first + part.rows].tobytes())
            begins[at] = size
            size += len(pieces[-1])
        for item in self.passes:
            if not isinstance(item, ArrayPass | MeanPass):
                continue
            table = np.zeros((-(-item.channels_out // self.engine.rows) * self.engine.rows, 2), "<i8")
            # Only 48 bits of a bias count: the lanes wrap, and the sum itself is proven to fit.
            table[: item.channels_out, 0] = item.bias
            table[: item.channels_out, 1] = item.mul
            pieces.append(table.tobytes())
        return b"".join(pieces), begins, size

    def run(self) -> Schedule:
        fill_needs = self._fill_needs()
        fill_waits = _waits(fill_needs, len(self.bands))
        write_back_waits = _waits(self._write_back_needs(), len(self.array_bands))
        image_readers = [at for at, band in enumerate(self.array_bands) if band.item.source.name == self.network.input]
        # Fill reads in order: once it is through with this band, the image's rows are free.
        image_read = max(
            at for at, band in enumerate(self.array_bands) if band.layer <= self.memory.image_free_after
        )
        execute, write_back = [], []
        for at, band in enumerate(self.array_bands):
            steady, first = fill_waits[at]
            assert band.weights is not None
            streamed = int(band.starts_part and band.weights.streamed)
            image = int(at == image_readers[0])
            execute.append(
                self._conv(
                    band,
                    {
                        "wait_write_back": steady,
                        "wait_write_back_first": first,
                        "wait_fetch": image,
                        "wait_fetch_first": image,
                        "wait_weights": streamed,
                        "wait_weights_first": streamed + int(at == 0 and self.memory.resident_rows > 0),
                        "post_weights": int(band.ends_part and band.weights.streamed),
                        "post_write_back": 1,
                        "post_fetch": int(at == image_read),
                    },
                )
            )
        for at, band in enumerate(self.bands):
            steady, first = write_back_waits[at]
            values = {"wait_fill": steady, "wait_fill_first": first, "post_fill": 1}
            if isinstance(band.item, ArrayPass):
                write_back.append(self._conv_out(band, values | {"fence": int(self._fence(at))}))
            elif isinstance(band.item, MeanPass):
                write_back.append(self._mean(band, values))
            else:
                write_back.append(self._pool(band, values))
        fetch, loop, data = self._fetch_instructions(len(execute) + len(write_back))
        program = Program(self.engine.hash, tuple(fetch), tuple(execute), tuple(write_back), loop, data)
        return Schedule(self.network, self.engine, self.passes, self.memory, self.bands, program)

    def _fetch_instructions(self, others: int) -> tuple[list[Instruction], int, bytes]:
        """The fetch stream, where its loop over the images begins, and the data that it loads."""
        data, begins, params_at = self._data()
        resident = self.memory.resident_rows
        streamed = [(at, part) for at, part in enumerate(self.memory.weights) if part.streamed]
        start = code_bytes(others + 1 + int(resident > 0) + 1 + len(streamed))
        once = [
            Instruction.make("load_params", layer=0, offset=start + params_at, channels=self.memory.params),
        ]
        if resident:
            once.append(Instruction.make("load_weights", layer=0, offset=start, rows=resident, post_issue=1))
        reader = next(item for item in self.array_passes if item.source.name == self.network.input)
        region = self.memory.planes[reader.source.name]
        height, width, depth = reader.source.shape
        each = [
            Instruction.make(
                "load_image",
                layer=0,
                wait_fill=1,
                post_fill=1,
                pixels=height * width,
                channels=depth,
                bits=self.memory.words[reader.name].planes,
                nibbles=int(reader.nibbles),
                base=region.base,
                pitch=region.pitch,
            )
        ]
        waits = _waits(streamed_needs(self.memory.weights), len(streamed))
        for (at, part), (steady, first) in zip(streamed, waits, strict=True):
            each.append(
                Instruction.make(
                    "load_weights",
                    layer=next(band.layer for band in self.bands if band.weights is part),
                    wait_issue=steady,
                    wait_issue_first=first,
                    post_issue=1,
                    offset=start + begins[at],
                    rows=part.rows,
                    base=part.base,
                )
            )
        return once + each, len(once), data


def tile_cycles(item: ArrayPass, engine: EngineConfig) -> int:
    """Least cycles between two row tiles: read-out beats, planes to write, or the way through bs_sums."""
    sums = -(-_SUMS_CYCLES // -(-item.channels_out // engine.rows)) if item.sums else 1
    return max(engine.beats, item.planes.bits if item.planes is not None else 1, sums)


def schedule(network: Network, engine: EngineConfig) -> Schedule:
    """Lower, plan and schedule a network for an engine.

    Raises:
        InputError: what the engine cannot run or hold.
    """
    made = _Scheduler(network, engine).run()
    for stream in made.program.streams:
        for item in stream:
            assert all(value <= _MAX_WAIT for name, value in item.values.items() if name.startswith("wait_"))
    return made
