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
from hwgen.plan import MemoryPlan, Region, plan_memory
from hwgen.program import Instruction, Program, code_bytes
from hwgen.residency import WeightPart, streamed_needs
from hwgen.words import weight_image

MAX_BANDS = 6
_MAX_WAIT = 255
_ROW = 0xFFFF  # rows count modulo 65536
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


def _bands(passes: Sequence[Pass], memory: MemoryPlan, engine: EngineConfig) -> tuple[Band, ...]:
    limit = engine.program_depth // 8
    weights = memory.weights
    strips = memory.strips
    together = strips.passes if strips is not None else 0
    for most in range(MAX_BANDS, 0, -1):
        bands = []
        for stretch in strips.order if strips is not None else ():
            if stretch.index >= 0:
                item = passes[stretch.index]
                part = next((part for part in weights if part.item is item), None)
                row_tiles = -(-item.code.shape[2] // engine.rows)
                bands.append(Band(item, stretch.index, stretch.first, stretch.tiles, 0, row_tiles, part))
        for layer, item in enumerate(passes[together:], together):
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
        self.bands = _bands(self.passes, self.memory, engine)
        self.array_passes = [item for item in self.passes if isinstance(item, ArrayPass)]
        self.array_bands = [band for band in self.bands if isinstance(band.item, ArrayPass)]

    # ---------------------------------------------------------------- dependencies
    def _producer(self, name: str, tile: int) -> int:
        """Index of the last write-back instruction that stores some of tile ``tile`` of a tensor."""
        for at, band in reversed(list(enumerate(self.bands))):
            item = band.item
            if any(made.name == name for made in item.tensors):
                first, end = band.first, band.first + band.tiles
                if item.subsample and item.bytes is not None and item.bytes.name == name:
                    # Every second row, the last one of an odd number too, and half of its pixels.
                    rows = -(-end * self.engine.columns // item.window.out_width)
                    first, end = first // 4, -(-(-(-rows // 2) * (item.window.out_width // 2)) // self.engine.columns)
                elif item.window.pooled and item.planes is not None and item.planes.name == name:
                    first, end = first // 4, -(-end // 4)  # a tile of a pooled map holds pixels of four
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
        before = 0  # array bands
        for band in self.bands:
            need = -total
            if band.item.planes is not None:
                mine = self.memory.planes[band.item.planes.name]
                for at, reader in enumerate(self.array_bands):
                    if self.memory.planes[reader.item.source.name].overlaps(mine):
                        need = max(need, at + 1 if at < before else at + 1 - total)
            needs.append(need)
            before += isinstance(band.item, ArrayPass)
        return needs

    def _image_parts(self) -> list[tuple[int, int]]:
        """Position tiles of the image, first and count, in the order in which they are loaded."""
        strips = self.memory.strips
        if strips is not None:
            return [(stretch.first, stretch.tiles) for stretch in strips.order if stretch.index < 0]
        height, width, _ = self.network.tensors[self.network.input].shape
        return [(0, -(-height * width // self.engine.columns))]

    def _image_needs(self) -> list[int]:
        """Parts of the image to be loaded before each execute instruction."""
        parts = self._image_parts()
        needs = []
        for band in self.array_bands:
            last = self._last_tile_read(band) if band.item.source.name == self.network.input else -1
            needs.append(sum(first <= last for first, _ in parts))
        return needs

    def _image_posts(self) -> list[int]:
        """Execute instructions after which fill tells fetch that rows of the image are free."""
        # Fill reads in order: once it is through with the last of them, all of the image's rows are.
        last = max(at for at, band in enumerate(self.array_bands) if band.layer <= self.memory.image_free_after)
        readers = [at for at, band in enumerate(self.array_bands) if band.item.source.name == self.network.input]
        return sorted({*readers, last}) if self.memory.strips is not None else [last]

    def _load_needs(self) -> list[int]:
        """Posts of this image before each part of it is loaded; 0: all those of the image before."""
        region = self.memory.planes[self.network.input]
        needs = []
        for first, tiles in self._image_parts():
            freed = first + tiles - region.ring  # tiles before this one are overwritten
            reading = [
                count
                for count, at in enumerate(self._image_posts(), 1)
                if region.ring and self._reads_image_before(self.array_bands[at], freed)
            ]
            needs.append(max(reading, default=0))
        return needs

    def _reads_image_before(self, band: Band, tile: int) -> bool:
        window = band.item.window
        if band.item.source.name != self.network.input:
            return False
        row = band.first * self.engine.columns // window.out_width * window.stride - window.pad
        return max(row, 0) * window.in_width // self.engine.columns < tile

    def _fence(self, at: int) -> bool:
        """Whether the skip codes of a band may still be in the lanes when it is armed."""
        band = self.bands[at]
        if not isinstance(band.item, ArrayPass) or band.item.skip is None:
            return False
        tile = band.first + band.tiles - 1
        return self._producer(band.item.skip.name, tile) >= at - 2

    # ---------------------------------------------------------------- instructions
    def _geometry(self, band: Band, region: Region, row_tiles: int) -> dict[str, int]:
        window = band.item.window
        start = band.first * window.tile_positions(self.engine.columns)
        return {
            "layer": band.layer,
            "in_base": region.base,
            "in_pitch": region.pitch,
            "ring": region.ring.bit_length() - 1 if region.ring else 0,
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
                "byte_base": _base(region, band) + band.first_row_tile * self.engine.beats * region.pitch & _ROW,
                "byte_pitch": region.pitch,
            }
        if item.planes is not None:
            region = self.memory.planes[item.planes.name]
            base = _base(region, band) + band.first_row_tile // self.engine.rows_per_group * item.planes.bits * region.pitch
            pitch = region.pitch
            if item.window.pooled:
                # Planes are written from the top; rows count modulo the depth of the buffer.
                base, pitch = base + (item.planes.bits - 1) * pitch, -pitch & _ROW
                values["pooled"] = 1
            values |= {
                "store_planes": 1,
                "plane_base": base & _ROW,
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
            **self._geometry(band, region, band.row_tiles),
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
                "sum_group": band.first_row_tile * self.engine.beats,
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
                "skip_base": _base(region, band) + behind * region.pitch & _ROW,
                "skip_pitch": region.pitch,
            }
        return Instruction.make(
            "conv_out",
            layer=band.layer,
            tiles=band.tiles,
            row_tiles=band.row_tiles,
            bipolar=int(item.bipolar),
            logits=int(item.logits),
            logits_last=int(item.logits and band.first_row_tile + band.row_tiles == self.memory.words[item.name].row_tiles),
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
            **self._geometry(band, region, band.row_tiles),
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
        image_waits = _waits(self._image_needs(), len(self._image_parts()))
        image_posts = self._image_posts()
        execute, write_back = [], []
        for at, band in enumerate(self.array_bands):
            steady, first = fill_waits[at]
            assert band.weights is not None
            streamed = int(band.starts_part and band.weights.streamed)
            execute.append(
                self._conv(
                    band,
                    {
                        "wait_write_back": steady,
                        "wait_write_back_first": first,
                        "wait_fetch": image_waits[at][0],
                        "wait_fetch_first": image_waits[at][1],
                        "wait_weights": streamed,
                        "wait_weights_first": streamed + int(at == 0 and self.memory.resident_rows > 0),
                        "post_weights": int(band.ends_part and band.weights.streamed),
                        "post_write_back": 1,
                        "post_fetch": int(at in image_posts),
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
        parts = self._image_parts()
        start = code_bytes(others + 1 + int(resident > 0) + len(parts) + len(streamed))
        once = [
            Instruction.make("load_params", layer=0, offset=start + params_at, channels=self.memory.params),
        ]
        if resident:
            once.append(Instruction.make("load_weights", layer=0, offset=start, rows=resident, post_issue=1))
        reader = next(item for item in self.array_passes if item.source.name == self.network.input)
        region = self.memory.planes[reader.source.name]
        height, width, depth = reader.source.shape
        each = []
        load_waits = _waits(self._load_needs(), len(self._image_posts()))
        for (first, tiles), (steady, once_wait) in zip(parts, load_waits, strict=True):
            before = first * self.engine.columns
            each.append(
                Instruction.make(
                    "load_image",
                    layer=0,
                    wait_fill=steady,
                    wait_fill_first=once_wait,
                    post_fill=1,
                    pixels=min(tiles * self.engine.columns, height * width - before),
                    first_pixel=before,
                    offset=before * depth,
                    image_pixels=height * width,
                    image_last=int(before + tiles * self.engine.columns >= height * width),
                    channels=depth,
                    bits=self.memory.words[reader.name].planes,
                    nibbles=int(reader.nibbles),
                    base=region.base + region.row(first),
                    pitch=region.pitch,
                )
            )
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


def _base(region: Region, band: Band) -> int:
    """What the band's first tile is added to, for its row in the region."""
    return region.base + region.row(band.first) - band.first


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
