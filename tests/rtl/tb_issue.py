"""cocotb tests of bs_issue: every word, its addresses and its controls against the loop nest written out."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge
from shell_bench import parameters, reset

from hwgen.program import Instruction

ADDRESS, DATA = 1, 3  # cycles from the decision to send a word to its address and pulses, and to its controls


class Word(NamedTuple):
    """What leaves with one word: addresses, controls, and the pulses that belong to it."""

    weight: int
    column: int
    clear: int
    shift: int
    negative: int
    count: int  # type: ignore[assignment]  # hides the method of tuples
    last: int
    released: int
    post: int
    first: int


def merged_words(instruction: Instruction, significance: int, slots: int) -> list[int]:
    """The words in which a slot's plane has a weight plane as its partner at this significance."""
    step = 4 if instruction["nibbles"] else 1
    plane_slots = instruction["plane_words"] * slots + instruction["plane_rest"]
    source_bits = instruction["significances"] + 1 - instruction["weight_bits"]
    found = set()
    for plane in range(source_bits):
        if 0 <= significance - plane < instruction["weight_bits"]:
            at = (instruction["in_bits"] - 1 - plane // step) * plane_slots
            found |= {slot // slots for slot in range(at, at + plane_slots)}
    return sorted(found)


def nest(instruction: Instruction, first_word: int, values: dict[str, int]) -> Iterator[Word]:
    """The words of a conv instruction whose first position tile begins ``first_word`` words after the first of all."""
    get = instruction.values
    weight_bits, in_bits, words = get["weight_bits"], get["in_bits"], get["plane_words"]
    source_bits = get["significances"] + 1 - weight_bits
    for tile in range(get["tiles"]):
        start = first_word + tile * get["column_words"]
        for row in range(get["row_tiles"]):
            base = get["weight_base"] + row * get["weight_pitch"]
            group = row // values["ROWS_G"] * words if get["depthwise"] else 0
            # Weight row, column word, first of its significance, top weight plane, with its count.
            places: list[tuple[int, int, bool, bool, bool]] = []
            for significance in reversed(range(weight_bits + source_bits - 1)):
                pairs = [(significance - plane, plane) for plane in reversed(range(in_bits))]
                pairs = [(weight, plane) for weight, plane in pairs if 0 <= weight < weight_bits]
                if get["merged"]:
                    own = merged_words(instruction, significance, values["SLOTS"])
                    places += [
                        (len(places) + at, word, at == 0, False, significance < weight_bits and word == own[-1])
                        for at, word in enumerate(own)
                    ]
                    continue
                for weight, plane in pairs:
                    for word in range(words):
                        row_place = (weight_bits - 1 - weight) * words + word
                        column = group + (in_bits - 1 - plane) * get["column_pitch"] + word
                        fresh = word == 0 and (weight, plane) == pairs[0]
                        places.append((row_place, column, fresh, weight == weight_bits - 1, True))
            for index, (place, column, fresh, top, count) in enumerate(places):
                last = index == len(places) - 1
                row_last = last and row == get["row_tiles"] - 1
                done = row_last and tile == get["tiles"] - 1
                yield Word(
                    base + place, (start + column) % values["COLUMN_DEPTH"], int(index == 0), int(fresh and index > 0),
                    int(top and get["negative_top"]), int(count), int(last), get["column_words"] if row_last else 0, int(done and get["post_weights"]),
                    int(index == 0 and row == 0 and tile == 0),
                )  # fmt: skip


def draw(
    rng: random.Random, weight_bits: int, source_bits: int, merged: bool, values: dict[str, int], wide: bool = False
) -> Instruction:
    """A conv instruction whose words fit the column buffer; wide: a single tile, which may take up all of it."""
    depthwise = not merged and rng.random() < (0.6 if wide else 0.3)
    nibbles = merged and rng.random() < 0.5
    in_bits = -(-source_bits // 4) if nibbles else source_bits
    most_groups = min(32, values["COLUMN_DEPTH"] // 4) if wide else 2
    row_tiles = rng.randint(1, most_groups * values["ROWS_G"] if depthwise else 3)
    slots = values["SLOTS"]
    groups = -(-row_tiles // values["ROWS_G"]) if depthwise else 1
    fields = {"weight_bits": weight_bits, "in_bits": in_bits, "significances": weight_bits + source_bits - 1}
    most = values["COLUMN_DEPTH"] // (in_bits * groups) if wide else 3  # words of a plane
    while True:
        least = rng.choice([1, 2 * most // 3 * slots + 1]) if wide else 1
        plane_slots = rng.randint(least, most * slots)
        if merged:
            plane_words, rest = divmod(plane_slots, slots)
            fields |= {"merged": 1, "nibbles": int(nibbles), "plane_words": plane_words, "plane_rest": rest}
            column_words = -(-plane_slots * in_bits // slots)
            draft = Instruction.make("conv", **fields)
            pitch = sum(len(merged_words(draft, s, slots)) for s in range(fields["significances"]))
        else:
            plane_words = -(-plane_slots // slots)
            column_words, pitch = plane_words * groups * in_bits, weight_bits * plane_words
            fields |= {"plane_words": plane_words, "column_pitch": plane_words * groups}
        if column_words <= values["COLUMN_DEPTH"] and row_tiles * pitch <= values["WEIGHT_DEPTH"]:
            break
    return Instruction.make(
        "conv", **fields, layer=rng.randrange(256), tiles=1 if wide else rng.randint(1, 3), row_tiles=row_tiles,
        weight_base=rng.randint(0, values["WEIGHT_DEPTH"] - row_tiles * pitch), weight_pitch=pitch,
        column_words=column_words, depthwise=int(depthwise), negative_top=int(not merged and rng.random() < 0.5),
        tile_cycles=rng.choice([1, 2, 8, 17, 60]), post_weights=rng.getrandbits(1), wait_weights=rng.randint(0, 3),
        wait_weights_first=rng.randint(0, 3),
    )  # fmt: skip


def crowd(rng: random.Random, values: dict[str, int]) -> Instruction:
    """More tiles than the column buffer holds, of a word each."""
    return Instruction.make(
        "conv", layer=rng.randrange(256), weight_bits=1, in_bits=1, significances=1, plane_words=1, column_pitch=1,
        column_words=1, row_tiles=1, weight_pitch=1, tile_cycles=1, tiles=values["COLUMN_DEPTH"] + rng.randint(1, 80),
        weight_base=rng.randrange(values["WEIGHT_DEPTH"]), post_weights=rng.getrandbits(1),
    )  # fmt: skip


class TB:
    """Plays fill, write-back and the token counter; records what leaves, cycle by cycle."""

    OUTPUTS = (
        "weight_addr_o", "column_addr_o", "clear_o", "shift_o", "negative_o", "count_o", "last_o", "released_words_o",
        "post_weights_o", "first_word_o", "valid_o", "take_o",
    )  # fmt: skip

    def __init__(self, dut: Any, seed: int, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, random.Random(seed), stall
        self.values = parameters()
        self.history: list[dict[str, int]] = []
        self.filled: list[int] = []  # tiles filled before each cycle
        self.tokens = self.given = self.done = 0
        self.fullest = 0  # most tiles that ever waited

    async def start(self) -> None:
        quiet = ("instr_valid_i", "enough_weights_i", "write_back_armed_i", "tile_filled_i", "first_image_i", "instr_i")
        await reset(self.dut, quiet)

    async def run(self, program: list[tuple[Instruction, int]]) -> None:
        """Give the instructions as they are taken, until everything has left."""
        dut, rng = self.dut, self.rng
        waiting, fills, released, before = list(program), 0, 0, 0
        tiles: list[int] = []  # words of each tile of the instructions that were taken
        words = 0  # of the tiles that are filled and not released
        total = sum(instruction["tiles"] for instruction, _ in program)
        rate = 1.0  # probability, per cycle, that a tile is filled
        held = False  # the next instruction has to wait until the column buffer takes no more
        quiet = 0
        need, took = 1 << 30, [False] * 2  # of the cycle before; whether the last two cycles took tokens
        while quiet < 8:
            offer = bool(waiting) and rng.random() >= self.stall
            if offer:
                dut.instr_i.value = int.from_bytes(waiting[0][0].encode(), "little")
                dut.first_image_i.value = waiting[0][1]
            dut.instr_valid_i.value = int(offer)
            room = fills < len(tiles) and words + tiles[fills] <= self.values["COLUMN_DEPTH"]
            fill = room and rng.random() < rate
            dut.tile_filled_i.value = int(fill)
            held = held and (room or released < before or rng.random() < 0.5)
            dut.write_back_armed_i.value = int(not held and rng.random() >= self.stall)
            self.tokens += int(self.tokens < 6 and rng.random() < 0.2)
            await FallingEdge(dut.clk)
            dut.enough_weights_i.value = int(self.tokens >= need and not any(took))
            next_need = int(dut.need_weights_o.value)
            await RisingEdge(dut.clk)
            sample = {name: int(getattr(dut, name).value) for name in self.OUTPUTS}
            self.history.append(sample)
            self.filled.append(fills)
            if offer and int(dut.instr_ready_o.value):
                instruction = waiting.pop(0)[0]
                tiles += [instruction["column_words"]] * instruction["tiles"]
            if sample["take_o"]:
                assert self.tokens >= need and int(dut.write_back_armed_i.value)
                assert int(dut.need_weights_o.value) == need  # the tokens that are taken
                instruction, first = program[self.done]
                assert need == instruction["wait_weights_first" if first else "wait_weights"]
                assert int(dut.layer_o.value) == instruction["layer"]
                self.tokens -= need
                self.done += 1
                before += instruction["tiles"]
                rate = rng.choice([0.02, 0.2, 1.0] if self.stall else [0.01, 0.2, 1.0, 1.0])
                behind = program[self.done][0]["tiles"] if self.done < len(program) else 0
                held = behind > self.values["COLUMN_DEPTH"] or (behind > 0 and rng.random() < 0.3)
            need, took = next_need, [took[1], bool(sample["take_o"])]
            fills += int(fill)
            released += int(sample["released_words_o"] > 0)
            words += (tiles[fills - 1] if fill else 0) - sample["released_words_o"]
            self.fullest = max(self.fullest, fills - released)
            quiet = quiet + 1 if released == total and not waiting else 0
            assert len(self.history) < 200_000, "issue does not come to an end"
        assert int(dut.idle_o.value)

    def words(self) -> list[tuple[int, Word]]:
        """The words that left with the cycle of their decision."""
        found = []
        for cycle, sample in enumerate(self.history):
            if sample["valid_o"]:
                sent = cycle - DATA
                place = self.history[sent + ADDRESS]
                word = Word(
                    place["weight_addr_o"], place["column_addr_o"], sample["clear_o"], sample["shift_o"],
                    sample["negative_o"], sample["count_o"], sample["last_o"], place["released_words_o"], place["post_weights_o"],
                    place["first_word_o"],
                )  # fmt: skip
                found.append((sent, word))
        return found


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5])
async def random_program(dut: Any, stall: float) -> None:
    """Plain, merged and depthwise instructions of all widths, some wide and some with many tiles."""
    tb = TB(dut, 10, stall)
    rng = tb.rng
    kinds = [(w, a, merged, False) for w in range(1, 10) for a in range(1, 9) for merged in (False, True)]
    # Of few weight planes and many of the source: with every significance its words move on.
    kinds += [(rng.randint(1, 2), rng.randint(3, 8), True, False) for _ in range(30)]
    kinds += [(rng.randint(1, 2), rng.choice([1, 1, 2]), rng.random() < 0.4, True) for _ in range(24)]
    conv = [draw(rng, w, a, merged, tb.values, wide) for w, a, merged, wide in kinds]
    if not stall:
        conv += [crowd(rng, tb.values) for _ in range(4)]
    rng.shuffle(conv)
    program = [(instruction, rng.getrandbits(1)) for instruction in conv]
    await tb.start()
    await tb.run(program)
    assert stall or tb.fullest == tb.values["COLUMN_DEPTH"]
    got = tb.words()
    wanted: list[Word] = []
    spacing: list[int] = []  # per word, least cycles after the row tile before
    tiles_of_word: list[int] = []
    tile = first_word = 0
    for instruction, _ in program:
        start = tile
        for word in nest(instruction, first_word, tb.values):
            wanted.append(word)
            tiles_of_word.append(start)
            spacing.append(instruction["tile_cycles"])
            start += int(word.released > 0)
        tile = start
        first_word += instruction["tiles"] * instruction["column_words"]
    for index, ((_, have), want) in enumerate(zip(got, wanted, strict=False)):
        assert have == want, (index, have, want)
    assert len(got) == len(wanted)
    for name in ("released_words_o", "post_weights_o", "first_word_o"):
        field = {"released_words_o": "released", "post_weights_o": "post", "first_word_o": "first"}[name]
        assert sum(sample[name] for sample in tb.history) == sum(getattr(word, field) for word in wanted), name
    # Nothing of a tile leaves before it is filled.
    for (sent, _), index in zip(got, tiles_of_word, strict=True):
        assert tb.filled[sent] > index, (sent, index)
    # Row tiles keep their distance, and lose nothing to it within a tile.
    ends = [index for index, word in enumerate(wanted) if word.last]
    exact = held = 0
    for before, here in itertools.pairwise(ends):
        distance = got[here][0] - got[before][0]
        assert distance >= spacing[before], (before, distance)
        if not wanted[before].released:
            assert distance == max(here - before, spacing[before]), (before, distance)
            exact, held = exact + 1, held + (spacing[before] > here - before)
    assert exact > 20 and held > 3
