"""cocotb tests of bs_fill: the column words and their counts against im2col written out."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge
from core_bench import Banks, unpack
from shell_bench import parameters, reset

from hwgen import isa
from hwgen.program import Instruction


def slots_of_words(instruction: Instruction) -> list[list[list[tuple[int, int, int, int]]]]:
    """Slots (plane, group, ky, kx) in their order, cut where a new word must begin: one list per such stretch."""
    get = instruction.values
    taps = [(ky, kx) for ky in range(get["kernel_h"]) for kx in range(get["kernel_w"])]
    stretches: list[list[tuple[int, int, int, int]]] = []
    planes = list(reversed(range(get["in_bits"])))
    if get["merged"]:
        stretches.append([(plane, group, *tap) for plane in planes for group in range(get["in_groups"]) for tap in taps])
    else:
        for plane in planes:
            by_group = [[(plane, group, *tap) for tap in taps] for group in range(get["in_groups"])]
            stretches += by_group if get["depthwise"] else [[slot for part in by_group for slot in part]]
    slots = parameters()["SLOTS"]
    return [
        [stretch[start : start + slots] for start in range(0, len(stretch), slots)] for stretch in stretches
    ]  # fmt: skip


def draw(rng: random.Random, values: dict[str, int]) -> Instruction:
    """A conv instruction whose words fit the column buffer and whose source fits the plane buffer."""
    columns, depth = values["D_N"], values["PLANE_DEPTH"]
    while True:
        kernel_h, kernel_w = rng.choice([(1, 1), (3, 3), (5, 5), (1, 7), (2, 4), (rng.randint(1, 4), rng.randint(1, 8))])
        stride, pad = rng.choice([1, 1, 2, 2, 3]), rng.randint(0, 3)
        width, height = rng.randint(1, 2 * columns), rng.randint(1, 9)
        if rng.random() < 0.3:
            width, height = rng.choice([width, rng.randint(1, 3), rng.randint(1, 1023)]), rng.randint(1, 1023)
        if min(width - kernel_w, height - kernel_h) + 2 * pad < 0:
            continue
        out_width, out_height = (width + 2 * pad - kernel_w) // stride + 1, (height + 2 * pad - kernel_h) // stride + 1
        if max(out_width, out_height) > 1023:
            continue
        all_tiles = -(-out_width * out_height // columns)
        start = rng.randrange(all_tiles)
        start_y, start_x = divmod(start * columns, out_width)
        bits, groups, pitch = rng.randint(1, 8), rng.randint(1, 3), -(-width * height // columns) + rng.randrange(3)
        ring = rng.choice([0, 0, rng.randint(1, 3), rng.randint(1, 6)])
        pitch = 1 << ring if ring else pitch
        rows = pitch * bits * groups
        if rows + 2 > depth:
            continue
        merged = rng.random() < 0.5
        nibbles = merged and rng.random() < 0.5
        if nibbles:
            bits, groups = min(bits, 2), 1
        base = rng.randrange(depth - rows)
        made = Instruction.make(
            "conv", layer=rng.randrange(256), tiles=rng.randint(1, min(rng.choice([3, 3, 9]), all_tiles - start)), in_bits=bits,
            in_base=base - base % pitch if ring else base, in_pitch=pitch, ring=ring, in_width=width, in_height=height, kernel_h=kernel_h,
            kernel_w=kernel_w, stride=stride, pad=pad, out_width=out_width, out_height=out_height, start_x=start_x,
            start_y=start_y, in_groups=groups, last_channels=rng.randint(1, values["G"]), pad_full=rng.getrandbits(8),
            pad_planes=rng.getrandbits(8 * isa.PAD_PLANE_BITS), weight_bits=rng.randint(1, 9), row_tiles=1,
            merged=int(merged), nibbles=int(nibbles), depthwise=int(not merged and rng.random() < 0.3),
            wait_fetch=rng.randint(0, 3),
            wait_fetch_first=rng.randint(0, 3), wait_write_back=rng.randint(0, 3),
            wait_write_back_first=rng.randint(0, 3), post_fetch=rng.getrandbits(1), post_write_back=rng.getrandbits(1),
        )  # fmt: skip
        words = sum(len(stretch) for stretch in slots_of_words(made))
        if words <= min(40, values["COLUMN_DEPTH"]):
            return Instruction.make("conv", **{**made.values, "column_words": words, "opcode": 0x20})


class TB:
    """Plays the plane buffer, the column buffer, the token counters and issue."""

    def __init__(self, dut: Any, seed: int, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, random.Random(seed), stall
        values = self.values = parameters()
        self.depth = values["COLUMN_DEPTH"]
        self.rows = [
            [self.rng.getrandbits(values["G"]) for _ in range(values["PLANE_DEPTH"])] for _ in range(values["D_N"])
        ]
        bits = (values["PLANE_DEPTH"] - 1).bit_length()
        self.banks, self.halo = Banks(self.rows, values["G"], bits), Banks(self.rows, values["G"], bits)
        self.words: list[list[int | None]] = [[None] * values["D_N"] for _ in range(self.depth)]
        self.counts: list[list[int | None]] = [[None] * values["D_N"] for _ in range(self.depth)]
        self.tokens = {"fetch": 0, "write_back": 0}
        self.tiles = 0
        self.base = 0  # first word of the tile that is being filled
        self.claimed: list[int] = []  # words of the tiles that are filled and not released
        self.hold = True  # nothing is released before the column buffer is full

    def expected(self, instruction: Instruction, tile: int) -> dict[int, list[int]]:
        """Per column of the tile that exists, its words."""
        get, values = instruction.values, self.values
        columns, channels = values["D_N"], values["G"]
        found = {}
        for column in range(columns):
            position = get["start_y"] * get["out_width"] + get["start_x"] + tile * columns + column
            oy, ox = divmod(position, get["out_width"])
            if oy >= get["out_height"]:
                continue
            words = []
            for stretch in slots_of_words(instruction):
                for word in stretch:
                    total = 0
                    for index, (plane, group, ky, kx) in enumerate(word):
                        y, x = oy * get["stride"] + ky - get["pad"], ox * get["stride"] + kx - get["pad"]
                        last = group == get["in_groups"] - 1
                        if 0 <= y < get["in_height"] and 0 <= x < get["in_width"]:
                            row, bank = divmod(y * get["in_width"] + x, columns)
                            row %= get["in_pitch"]
                            row += get["in_base"] + (group * get["in_bits"] + plane) * get["in_pitch"]
                            value = self.rows[bank][row] & ((1 << (get["last_channels"] if last else channels)) - 1)
                        elif last:
                            value = get["pad_planes"] >> isa.PAD_PLANE_BITS * plane & ((1 << channels) - 1)
                        else:
                            value = ((1 << channels) - 1) * (get["pad_full"] >> plane & 1)
                        total |= value << index * channels
                    words.append(total)
            found[column] = words
        return found

    def check_tile(self, instruction: Instruction, tile: int) -> None:
        expected = self.expected(instruction, tile)
        for column, words in expected.items():
            for index, word in enumerate(words):
                where = (instruction.text(), tile, column, index)
                row = (self.base + index) % self.depth
                assert self.words[row][column] == word, where
                if not instruction["merged"]:
                    assert self.counts[row][column] == word.bit_count(), where
            if instruction["merged"]:
                assert self.counts[row][column] == self.total(instruction, words) % (1 << self.values["COUNT_BITS"]), (
                    where
                )
        for index in range(instruction["column_words"]):
            row = (self.base + index) % self.depth
            used = sum(word is not None for word in self.words[row])
            assert used == len(expected), "a column beyond the map was written"
            self.words[row] = [None] * self.values["D_N"]
            self.counts[row] = [None] * self.values["D_N"]
        self.base = (self.base + instruction["column_words"]) % self.depth
        self.claimed.append(instruction["column_words"])

    def total(self, instruction: Instruction, words: list[int]) -> int:
        """The sum of all codes in merged words."""
        slots, channels = self.values["SLOTS"], self.values["G"]
        plane_slots = instruction["in_groups"] * instruction["kernel_h"] * instruction["kernel_w"]
        total = 0
        for plane in range(instruction["in_bits"]):
            for at in range(plane_slots):
                word, slot = divmod((instruction["in_bits"] - 1 - plane) * plane_slots + at, slots)
                bits = words[word] >> slot * channels & ((1 << channels) - 1)
                if instruction["nibbles"]:
                    total += sum(bits >> 4 * index & 15 for index in range(channels // 4)) << 4 * plane
                else:
                    total += bits.bit_count() << plane
        return total

    async def run(self, program: list[tuple[Instruction, int]]) -> None:
        dut, rng, values = self.dut, self.rng, self.values
        quiet = (
            "instr_valid_i", "enough_fetch_i", "enough_write_back_i", "issue_ready_i",
            "released_words_i", "bank_data_i", "halo_data_i", "instr_i", "first_image_i",
        )  # fmt: skip
        await reset(dut, quiet)
        waiting = list(program)
        running: list[tuple[Instruction, int]] = []  # taken instructions and their tiles that are complete
        released = cycles = fulls = layer = 0
        count_bits = values["COUNT_BITS"]
        while waiting or running:
            cycles += 1
            assert cycles < 100_000, "fill does not come to an end"
            offer = bool(waiting) and rng.random() >= self.stall
            if waiting:
                dut.instr_i.value = int.from_bytes(waiting[0][0].encode(), "little")
                dut.first_image_i.value = waiting[0][1]
            dut.instr_valid_i.value = int(offer)
            ready = rng.random() >= self.stall
            dut.issue_ready_i.value = int(ready)
            # Until a tile finds no room, and then some time, so that a tile that does not wait for it is seen.
            ahead = running[0] if running else waiting[0]
            full = sum(self.claimed) + ahead[0]["column_words"] > self.depth
            self.hold ^= rng.random() < 0.001
            chance = 0.02 * full if self.hold else 0.02 if self.stall else 0.5
            release = released < self.tiles and rng.random() < chance
            fulls += full
            dut.released_words_i.value = self.claimed[0] if release else 0
            needs = {}
            await FallingEdge(dut.clk)
            for name in self.tokens:
                self.tokens[name] += int(self.tokens[name] < 6 and rng.random() < 0.2)
                needs[name] = int(getattr(dut, f"need_{name}_o").value)
                getattr(dut, f"enough_{name}_i").value = int(self.tokens[name] >= needs[name])
            await RisingEdge(dut.clk)
            taken = bool(int(dut.take_o.value))
            assert taken == (offer and bool(int(dut.instr_ready_o.value)))
            if taken:
                assert ready
                instruction, first = waiting.pop(0)
                for name, need in needs.items():
                    assert need == instruction[f"wait_{name}_first" if first else f"wait_{name}"]
                    assert self.tokens[name] >= need
                    self.tokens[name] -= need
                running.append((instruction, 0))
                layer = instruction["layer"]
            for kind, store, bits in (
                ("column", self.words, values["SLOTS"] * values["G"]), ("count", self.counts, count_bits),
            ):  # fmt: skip
                enable = int(getattr(dut, f"{kind}_we_o").value)
                if enable:
                    row = int(getattr(dut, f"{kind}_addr_o").value)
                    # Nothing that waits is overwritten.
                    assert (row - self.base) % self.depth < self.depth - sum(self.claimed)
                    data = unpack(int(getattr(dut, f"{kind}_data_o").value), bits, values["D_N"])
                    for column in range(values["D_N"]):
                        if enable >> column & 1:
                            store[row][column] = data[column]
            posts = {name: int(getattr(dut, f"post_{name}_o").value) for name in self.tokens}
            if int(dut.tile_filled_o.value):
                instruction, tile = running[0]
                self.check_tile(instruction, tile)
                self.tiles += 1
                end = tile == instruction["tiles"] - 1
                running[0] = instruction, tile + 1
                assert posts == {name: instruction[f"post_{name}"] * int(end) for name in self.tokens}
                if end:
                    running.pop(0)
            else:
                assert not any(posts.values())
            if running:
                assert not int(dut.idle_o.value) or taken
            if int(dut.active_o.value):
                assert int(dut.layer_o.value) == layer  # of the instruction taken last
            if release:
                released += 1
                self.claimed.pop(0)
            dut.bank_data_i.value = self.banks.step(int(dut.bank_addr_o.value))
            dut.halo_data_i.value = self.halo.step(int(dut.halo_addr_o.value))
        await RisingEdge(dut.clk)
        assert int(dut.idle_o.value) and not int(dut.active_o.value)
        assert fulls > 20


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def random_program(dut: Any, stall: float) -> None:
    """Plain, merged and depthwise instructions over maps, windows, strides and bands of many kinds."""
    tb = TB(dut, 12, stall)
    await tb.run([(draw(tb.rng, tb.values), tb.rng.getrandbits(1)) for _ in range(150)])
