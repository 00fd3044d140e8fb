"""The scheduler: passes become bands, bands become instructions, dependencies become tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwgen.bands import Band, make_bands
from hwgen.batch import make_batch
from hwgen.engine import EngineConfig
from hwgen.lower import lower
from hwgen.network import Network
from hwgen.passes import NIBBLE, ArrayPass, MeanPass, Pass, PoolPass, pad_fields, source_channels_last_group
from hwgen.plan import MemoryPlan, Region, plan_memory
from hwgen.program import Instruction, Program, code_bytes
from hwgen.residency import streamed_needs
from hwgen.tokens import Dependencies, waits
from hwgen.words import weight_image

_MAX_WAIT = 255
_ROW = 0xFFFF  # rows count modulo 65536
_SUMS_CYCLES = 4  # bs_sums: least cycles between two beats of a channel group


@dataclass(frozen=True)
class Schedule:
    """A network on an engine, ready to be assembled.

    bands: in write-back order; each is one write-back instruction, and one execute instruction where its pass is an
    array pass. Tokens needed before the n-th instruction of a stage are in the instructions themselves. lowered: the
    passes of one image; ``passes`` are those of a batch.
    """

    network: Network
    engine: EngineConfig
    passes: tuple[Pass, ...]
    lowered: tuple[Pass, ...]
    memory: MemoryPlan
    bands: tuple[Band, ...]
    program: Program

    @property
    def batch(self) -> int:
        """Images that run together."""
        return self.memory.batch.size

    @property
    def logits_rows(self) -> int:
        """int32 values per image in memory: the classes, rounded up to whole row tiles."""
        return self.memory.words[self.passes[-1].name].row_tiles * self.engine.rows

    @property
    def channels_last(self) -> bool:
        """Whether images must lie as (H, W, C): a linear layer that reads one as a single long pixel takes its bytes in order."""
        reader = next(item for item in self.passes if item.source.name == self.network.input)
        image = self.network.tensors[self.network.input]
        return reader.source.shape != image.shape and image.shape[2] > 1

    @property
    def image_bytes(self) -> int:
        height, width, channels = self.network.tensors[self.network.input].shape
        return height * width * channels


class _Scheduler:
    def __init__(self, network: Network, engine: EngineConfig, batch: int) -> None:
        self.network = network
        self.engine = engine
        self.lowered = lower(network, engine)
        self.passes, self.batch = make_batch(self.lowered, batch, engine.columns)
        self.memory = plan_memory(self.passes, network.input, engine, self.batch)
        self.bands = make_bands(self.passes, self.memory, engine)
        self.needs = Dependencies(network, engine, self.memory, self.bands)
        self.array_passes = [item for item in self.passes if isinstance(item, ArrayPass)]
        self.array_bands = [band for band in self.bands if isinstance(band.item, ArrayPass)]

    # ---------------------------------------------------------------- instructions
    def _geometry(self, band: Band, region: Region, row_tiles: int) -> dict[str, int]:
        window = band.item.window
        start = band.first * window.tile_positions(self.engine.columns)
        if band.layer > self.batch.turn:
            start += band.copy  # logits, an image a position
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
        values = {"start_tile": self.batch.stack_tile(band.layer, band.copy) + band.first}
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
            region = self.memory.plane_region(item.planes.name, band.copy)
            base = (
                _base(region, band) + band.first_row_tile // self.engine.rows_per_group * item.planes.bits * region.pitch
            )
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
        region = self.memory.plane_region(item.source.name, band.copy)
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
            logits_last=int(
                item.logits and band.first_row_tile + band.row_tiles == self.memory.words[item.name].row_tiles
            ),
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
        images = {item.name: weight_image(item, self.memory.words[item.name], self.engine) for item in self.array_passes}
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
        fill_needs = self.needs.fill_needs()
        fill_waits = waits(fill_needs, len(self.bands))
        write_back_waits = waits(self.needs.write_back_needs(), len(self.array_bands))
        image_waits = waits(self.needs.image_needs(), len(self.needs.image_parts()) * self.batch.size)
        image_posts = self.needs.image_posts()
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
                write_back.append(self._conv_out(band, values | {"fence": int(self.needs.fence(at))}))
            elif isinstance(band.item, MeanPass):
                write_back.append(self._mean(band, values))
            else:
                write_back.append(self._pool(band, values))
        fetch, loop, data = self._fetch_instructions(len(execute) + len(write_back))
        program = Program(self.engine.hash, tuple(fetch), tuple(execute), tuple(write_back), loop, data, self.batch.size)
        return Schedule(self.network, self.engine, self.passes, self.lowered, self.memory, self.bands, program)

    def _fetch_instructions(self, others: int) -> tuple[list[Instruction], int, bytes]:
        """The fetch stream, where its loop over the images begins, and the data that it loads."""
        data, begins, params_at = self._data()
        resident = self.memory.resident_rows
        streamed = [(at, part) for at, part in enumerate(self.memory.weights) if part.streamed]
        parts = self.needs.image_parts() * self.batch.size
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
        load_waits = waits(self.needs.load_needs(), len(self.needs.image_posts()))
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
        part_waits = waits(streamed_needs(self.memory.weights), len(streamed))
        for (at, part), (steady, first) in zip(streamed, part_waits, strict=True):
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


def schedule(network: Network, engine: EngineConfig, batch: int = 1) -> Schedule:
    """Lower, plan and schedule a network for an engine.

    Args:
        batch: images that run together.

    Raises:
        InputError: what the engine cannot run or hold.
    """
    made = _Scheduler(network, engine, batch).run()
    for stream in made.program.streams:
        for item in stream:
            assert all(value <= _MAX_WAIT for name, value in item.values.items() if name.startswith("wait_"))
    return made
