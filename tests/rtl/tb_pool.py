"""cocotb tests of bs_pool: maxima, copies and zero channels against windows written out."""

from __future__ import annotations

import itertools
import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from core_bench import Banks, pack, signed, unpack
from shell_bench import parameters, reset

from hwgen.program import Instruction

DRAIN = 13  # cycles after the last read; write-back starts a pool only once nothing is on its way
LARGE = (
    (1030, 1),
    (515, 1),
    (1, 1023),
    (2, 257),
)  # tiles and row tiles of the first ones: counters that lose a bit end late
OPERATIONS = 2000  # of another one, at most
NEAR = 32  # rows whose bytes resemble each other


def draw(rng: random.Random, values: dict[str, int], size: tuple[int, int] | None = None) -> Instruction:
    """A pool instruction whose source fits the byte buffer, whole or a ring of its rows. size: one of LARGE."""
    columns, depth, beats = values["D_N"], values["BYTE_DEPTH"], values["D_M"] // values["LANE_ROWS"]
    while True:
        kernel_h, kernel_w, stride, pad = rng.choice(
            [(1, 1, 1, 0), (1, 1, 2, 0), (2, 2, 2, 0), (3, 3, 2, 1), (3, 3, 1, 1), (2, 3, 3, 1), (4, 1, 1, 2)]
        )
        if rng.random() < 0.3:
            kernel_h, kernel_w, stride = rng.randint(1, 15), rng.randint(1, 15), rng.choice([1, 1, 2, 2, 3, 15])
            pad = rng.randrange(min(max(kernel_h, kernel_w), 4))
        width, height = rng.randint(1, 2 * columns), rng.randint(1, 8)
        if rng.random() < 0.3:
            # Narrow ones fit the buffer whole: in a small ring, rows of the map that are far apart lie in the same place.
            width, height = rng.choice([width, rng.randint(1, 3), rng.randint(1, 1023)]), rng.randint(1, 1023)
        if size is not None:
            kernel_h, kernel_w, stride, pad, width, height = 1, 1, 1, 0, rng.randint(columns, 1023), rng.randint(1, 1023)
        if width + 2 * pad < kernel_w or height + 2 * pad < kernel_h:
            continue
        out_width, out_height = (width + 2 * pad - kernel_w) // stride + 1, (height + 2 * pad - kernel_h) // stride + 1
        if max(out_width, out_height) > 1023:
            continue
        all_tiles = -(-out_width * out_height // columns)
        start = rng.randrange(all_tiles)
        start_y, start_x = divmod(start * columns, out_width)
        tiles, row_tiles = rng.randint(1, min(4, all_tiles - start)), rng.choice([1, 2, 3, rng.randint(1, 150)])
        if size is not None:
            tiles, row_tiles = size
        elif tiles * row_tiles * beats * kernel_h * kernel_w * (1 if stride == 1 else columns) > OPERATIONS:
            continue
        if start + tiles > all_tiles:
            continue
        pitch = -(-width * height // columns) + rng.randrange(3)
        ring = rng.choice([0, 0, 1, rng.randint(1, 4), rng.randint(1, 8)])
        pitch = 1 << ring if ring else pitch
        channels = row_tiles * beats
        zero = rng.choice([0, 0, rng.randint(0, beats + 1), rng.randint(0, channels)])
        groups = rng.randint(0, min(channels, (depth - 2) // pitch))
        if pitch + 2 > depth:
            continue
        base = rng.randrange(depth - pitch * groups)
        return Instruction.make(
            "pool", layer=rng.randrange(256), tiles=tiles, row_tiles=row_tiles,
            in_base=base - base % pitch if ring else base, in_pitch=pitch, ring=ring, in_width=width, in_height=height,
            kernel_h=kernel_h, kernel_w=kernel_w, stride=stride, pad=pad, out_width=out_width, out_height=out_height,
            start_x=start_x, start_y=start_y, in_signed=rng.getrandbits(1), in_groups=groups, zero_groups=zero,
            plane_bits=rng.randint(1, 8),
        )  # fmt: skip


def pixel(rng: random.Random, lanes: int, usual: int) -> int:
    """Bytes, many a usual one or a single bit away from it: which of two is the larger hangs on any of their bits."""
    return pack(
        [
            usual ^ rng.choice((0, 1 << rng.randrange(8))) if rng.random() < 0.8 else rng.getrandbits(8)
            for _ in range(lanes)
        ],
        8,
    )


def beats_of(instruction: Instruction, rows: list[list[int]], values: dict[str, int]) -> list[list[dict[int, int]]]:
    """Per beat and channel of the beat, the code of every column that exists."""
    get, columns, lanes = instruction.values, values["D_N"], values["LANE_ROWS"]
    found = []
    for tile in range(get["tiles"]):
        for beat in range(get["row_tiles"] * values["D_M"] // lanes):
            group = beat - get["zero_groups"]
            codes: list[dict[int, int]] = [{} for _ in range(lanes)]
            for column in range(columns):
                position = get["start_y"] * get["out_width"] + get["start_x"] + tile * columns + column
                oy, ox = divmod(position, get["out_width"])
                if oy >= get["out_height"]:
                    continue
                for lane in range(lanes):
                    if not 0 <= group < get["in_groups"]:
                        codes[lane][column] = 0
                        continue
                    taps = [-128 if get["in_signed"] else 0]
                    for y in range(oy * get["stride"] - get["pad"], oy * get["stride"] - get["pad"] + get["kernel_h"]):
                        for x in range(
                            ox * get["stride"] - get["pad"], ox * get["stride"] - get["pad"] + get["kernel_w"]
                        ):
                            if 0 <= y < get["in_height"] and 0 <= x < get["in_width"]:
                                row, bank = divmod(y * get["in_width"] + x, columns)
                                row %= get["in_pitch"]
                                byte = rows[bank][get["in_base"] + group * get["in_pitch"] + row] >> 8 * lane & 255
                                taps.append(signed(byte, 8) if get["in_signed"] else byte)
                    codes[lane][column] = max(taps)
            found.append(codes)
    return found


@cocotb.test()
async def random_program(dut: Any) -> None:
    """Every beat in its order, row tiles far enough apart for the packer."""
    values, rng = parameters(), random.Random(13)
    columns, lanes, beats = values["D_N"], values["LANE_ROWS"], values["D_M"] // values["LANE_ROWS"]
    usual = [rng.getrandbits(8) for _ in range(0, values["BYTE_DEPTH"], NEAR)]
    rows = [[pixel(rng, lanes, usual[row // NEAR]) for row in range(values["BYTE_DEPTH"])] for _ in range(columns)]
    banks = Banks(rows, 8 * lanes, (values["BYTE_DEPTH"] - 1).bit_length())
    await reset(dut, ("start_i", "instr_i", "bank_data_i"))
    closest = 100
    for size in [*LARGE, *[None] * 300]:
        instruction = draw(rng, values, size)
        wanted = beats_of(instruction, rows, values)
        dut.instr_i.value = int.from_bytes(instruction.encode(), "little")
        dut.start_i.value = 1
        got: list[int] = []
        quiet = cycle = 0
        ends: list[int] = []
        while quiet < DRAIN:
            await RisingEdge(dut.clk)
            busy = int(dut.busy_o.value)
            if int(dut.valid_o.value):
                got.append(int(dut.code_o.value))
                if len(got) % beats == 0:
                    ends.append(cycle)
            quiet = 0 if busy or cycle == 0 else quiet + 1
            cycle += 1
            dut.start_i.value = 0
            dut.instr_i.value = rng.getrandbits(len(dut.instr_i))
            dut.bank_data_i.value = banks.step(int(dut.bank_addr_o.value))
            assert cycle < 20_000 + 8 * len(wanted), "the pool does not come to an end"
        assert len(got) == len(wanted), instruction.text()
        for index, (word, codes) in enumerate(zip(got, wanted, strict=True)):
            flat = unpack(word, 9, lanes * columns)
            for lane in range(lanes):
                for column, code in codes[lane].items():
                    assert signed(flat[lane * columns + column], 9) == code, (instruction.text(), index, lane, column)
        for before, here in itertools.pairwise(ends):
            assert here - before >= instruction["plane_bits"], instruction.text()
            closest = min(closest, here - before - instruction["plane_bits"])
    assert closest <= 1
