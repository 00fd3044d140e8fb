"""cocotb tests of bs_beats: the place of every beat computed from its number, in every cycle of random instructions."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from core_bench import layout, pack_struct, unpack_struct
from shell_bench import parameters, reset

INSTRUCTIONS = 400
LARGE = ((4401, 1), (2, 1023), (2, 513), (2, 257))  # tiles and row tiles of the first ones, which run to their end
SIZES = [
    *LARGE,
    *(((1 << bit) + more, 1) for bit in range(16) for more in range(4)),
    *((2, (1 << bit) + more) for bit in range(10) for more in range(4) if (1 << bit) + more < 1024),
]  # of the next ones: a counter that loses its one high bit ends at once
LONGEST = 1500  # beats of another one; what is longer is reset away once its first counts are seen
INPUTS = ("next_valid_i", "work_valid_i", "start_i", "pool_fire_i", "next_i", "work_i")


def near(rng: random.Random, bits: int, low: int = 0) -> int:
    """A small count, or little more than a power of two: whoever loses its one high bit takes it for the last or for none."""
    if rng.random() < 0.4:
        return rng.randint(low, low + 4)
    return min((1 << rng.randrange(bits)) + rng.choice([0, 1, 1, 2, 3]), (1 << bits) - 1)


@dataclass(frozen=True)
class Work:
    """An instruction: members of work_t and of its beat_t; the value of next_i, and that of work_i."""

    work: dict[str, int]
    beat: dict[str, int]
    beats: int
    whole: bool  # runs to its end, as a rule

    @property
    def kind(self) -> str:
        return "pool" if self.work["is_pool"] else "sums" if self.beat["from_sums"] else "array"

    @property
    def next_word(self) -> int:
        return pack_struct("work_t", {**self.work, "beat": pack_struct("beat_t", self.beat)})

    @property
    def work_word(self) -> int:
        """Multiplier and bias are shifted on the way."""
        shifted = {name: self.beat[name] << self.work["rq_bits"] for name in ("rq_mul", "rq_bias")}
        return pack_struct("work_t", {**self.work, "beat": pack_struct("beat_t", {**self.beat, **shifted})})


def draw(rng: random.Random, values: dict[str, int], kind: str, size: tuple[int, int] | None) -> Work:
    """An instruction with any place in the buffers; counts now and then as large as their fields. size: one of SIZES."""
    beats = values["BEATS"]
    work = {name: rng.getrandbits(width) for name, (_, width) in layout("work_t").items() if name != "beat"}
    beat = {name: rng.getrandbits(width) for name, (_, width) in layout("beat_t").items()}
    beat["from_sums"] = int(kind == "sums")
    beat["store_bytes"] |= beat["subsample"]
    beat["store_planes"] |= beat["pooled"]
    beat["plane_bits"] = rng.randint(1, 8) if beat["store_planes"] else 0
    work |= {"is_pool": int(kind == "pool"), "alone": int(kind != "array")}
    tiles, row_tiles = rng.choice(
        [
            (rng.randint(1, 3), rng.randint(1, 2 * values["ROWS_G"] + 1)),
            (rng.randint(1, 12), rng.randint(1, 2)),
            (rng.randint(1, 140), 1),  # several rows of a map
            (rng.randint(1, 2), rng.randint(1, min(1100 // beats, 1023))),  # several groups of channels of a skip map
            (near(rng, 16, 1), rng.randint(1, 2)),
            (rng.randint(1, 3), near(rng, 10, 1)),
        ]
    )
    work["tiles"], work["row_tiles"] = 1 if kind == "sums" else tiles, row_tiles
    beat["skip"] |= rng.getrandbits(1)
    work["skip_zero_groups"] = rng.choice(
        [0, 1 << rng.randrange(10), near(rng, 10), rng.randrange(row_tiles * beats + 1) % 1024]
    )
    work["skip_groups"] = rng.choice([near(rng, 10), near(rng, 10), rng.randrange(row_tiles * beats + 1) % 1024])
    work["row_position_tiles"] = rng.choice([near(rng, 6, 1), near(rng, 6, 1), rng.randint(1, 63)])
    work["start_tile"] = rng.choice([0, 0, 1 << rng.randrange(16), rng.getrandbits(16)])
    if beat["pooled"] or beat["subsample"]:
        work["start_tile"] &= ~3  # such a band begins with a whole row
    if size is not None:
        work["tiles"], work["row_tiles"] = size
    if size in LARGE:
        beat |= {"skip": 1, "store_bytes": 1}
        work |= {"skip_zero_groups": 1023, "skip_groups": 1023, "row_position_tiles": 63}
    total = work["tiles"] * work["row_tiles"] * beats
    return Work(work, beat, total, size in LARGE or total <= LONGEST)


def beat_of(work: Work, at: int, values: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Members of the beat of number ``at`` that somebody reads, and the rows beside it that somebody reads."""
    get, given, beats = work.work, work.beat, values["BEATS"]
    row_tiles, tiles, start = get["row_tiles"], get["tiles"], get["start_tile"]
    tile, group = divmod(at, row_tiles * beats)  # group: of LANE_ROWS channels
    row_tile = group // beats
    plane_group, chunk = divmod(row_tile, values["ROWS_G"])
    skip_group = group - get["skip_zero_groups"]
    skip = given["skip"] and 0 <= skip_group < get["skip_groups"]
    last = at == work.beats - 1
    beat = given | {
        "valid": 1, "row_tile_last": int(group % beats == beats - 1), "instr_last": int(last),
        "skip": int(skip), "post": int(given["post"] and last),
        "rq_mul": given["rq_mul"] << get["rq_bits"], "rq_bias": given["rq_bias"] << get["rq_bits"],
    }  # fmt: skip
    for name in ("sums_first", "sums_columns", "group", "halves", "byte_row", "plane_row", "chunk", "quarter"):
        del beat[name]
    sum_group = (get["sum_group"] + group) % (1 << values["GROUP_BITS"])
    if given["sums"]:
        beat |= {
            "sums_first": int(start == 0 and tile == 0),
            "sums_columns": given["sums_columns"] if tile == tiles - 1 else values["D_N"],
            "group": sum_group,
        }
    if given["store_bytes"]:
        row, halves = start + tile, 3
        if given["subsample"]:
            # Of every second map row, two tiles fill a row of the buffer.
            length = get["row_position_tiles"]
            map_row, x = divmod(tile, length)
            kept = (map_row + 1) // 2 * length + (x if map_row % 2 == 0 else 0)
            row, halves = start // 4 + kept // 2, 0 if map_row % 2 else 2 if kept % 2 else 1
        beat["halves"] = halves
        if halves:
            beat["byte_row"] = (get["byte_base"] + row + group * get["byte_pitch"]) % (1 << values["BYTE_ROW_BITS"])
    if given["store_planes"]:
        row = (start + tile) // 4 if given["pooled"] else start + tile
        pitch = given["plane_pitch"] * given["plane_bits"] * (-1 if given["pooled"] else 1)
        beat["plane_row"] = (get["plane_base"] + row + plane_group * pitch) % (1 << values["PLANE_ROW_BITS"])
        beat["chunk"] = chunk
        if given["pooled"]:
            beat["quarter"] = tile % 4
    rows = {}
    if skip and work.kind != "pool":
        rows["skip_row_o"] = get["skip_base"] + start + tile + skip_group * get["skip_pitch"]
        rows["skip_row_o"] %= 1 << values["BYTE_ROW_BITS"]
    if work.kind != "pool":
        rows["param_row_o"] = (get["param_base"] // values["LANE_ROWS"] + group) % (1 << values["PARAM_BITS"])
    if work.kind == "sums":
        rows["group_o"] = sum_group
    return beat, rows


class TB:
    """Plays write-back around the module: which instruction runs, which one waits behind it, and who makes beats."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.rng, self.values = dut, random.Random(seed), parameters()
        self.behind: Work | None = None
        self.running: Work | None = None
        self.at = 0  # beats of the running instruction that were
        self.open = 0  # beats of the array's row tile that are to come
        self.pause = 0  # cycles until the next row tile of sums
        self.first_sum = 0  # the cycle before had the first beat of an instruction on sums
        self.drawn = self.ended = 0
        self.haste = 0.5  # probability, per cycle, that what may happen does
        self.limit = 0  # beats of the running instruction before the reset that cuts it short

    def chance(self) -> bool:
        return self.rng.random() < self.haste

    def bring(self) -> None:
        """Let an instruction come, if it is time. Pools and sums begin once all else has ended, and have nothing behind."""
        if self.behind or (self.running and self.running.kind != "array") or not self.chance():
            return
        if self.drawn == INSTRUCTIONS:
            return
        size = SIZES[self.drawn] if self.drawn < len(SIZES) else None
        kind = "array" if self.running or size else self.rng.choice(["array", "sums", "pool"])
        self.behind = draw(self.rng, self.values, kind, size)
        self.drawn += 1
        self.dut.next_i.value = self.behind.next_word

    async def restart(self) -> None:
        await reset(self.dut, ("next_valid_i", "work_valid_i", "start_i", "pool_fire_i"), clock=False)
        self.drawn -= int(self.behind is not None)  # its size comes again
        self.behind = self.running = None
        self.open = self.first_sum = 0

    async def cycle(self) -> None:
        """One cycle: drive, compare all outputs, and find out what the next one begins with."""
        dut, rng, running = self.dut, self.rng, self.running
        self.bring()
        behind = self.behind
        sums = running is not None and running.kind == "sums" and self.pause == 0
        pool = running is not None and running.kind == "pool" and self.chance()
        fire = self.open > 0 or sums or pool
        done = running is not None and fire and self.at == running.beats - 1
        load = behind is not None and (running is None or done)
        # A row tile of the array begins behind the one before it, for the instruction that runs a cycle later.
        later = behind if load else None if done else running
        start = self.open <= 1 and later is not None and later.kind == "array" and self.chance()
        dut.next_valid_i.value, dut.work_valid_i.value = int(behind is not None), int(running is not None)
        dut.start_i.value, dut.pool_fire_i.value = int(start), int(pool)
        await RisingEdge(dut.clk)
        about = (self.drawn, self.at, running)
        want = {
            "load_o": load, "done_o": done, "conv_fire_o": self.open > 0 or sums, "fire_o": fire,
            "first_sum_o": self.first_sum, "open_o": self.open > 0,
        }  # fmt: skip
        for name, value in want.items():
            assert int(getattr(dut, name).value) == int(value), (name, value, about)
        if running is not None and fire:
            beat, rows = beat_of(running, self.at, self.values)
            for name, row in rows.items():
                assert int(getattr(dut, name).value) == row, (name, row, about)
            word = int(dut.beat_o.value)
            wrong = (word ^ pack_struct("beat_t", beat)) & pack_struct("beat_t", dict.fromkeys(beat, -1))
            assert not wrong, (unpack_struct("beat_t", word), beat, about)

        self.first_sum = int(sums and self.at == 0)
        self.at += int(fire)
        if sums and running is not None and self.at % self.values["BEATS"] == 0:
            self.pause = running.beat["plane_bits"]  # the packer is busy so long
        else:
            self.pause = max(0, self.pause - 1)
        self.open = self.values["BEATS"] if start else max(0, self.open - 1)
        if load or done:
            self.ended += int(done)
            self.running, self.at, self.pause = behind if load else None, 0, 0
            # Nobody may look at an instruction that is not valid.
            dut.work_i.value = self.running.work_word if self.running else rng.getrandbits(len(dut.work_i))
        if load:
            assert behind is not None
            self.behind = None
            dut.next_i.value = rng.getrandbits(len(dut.next_i))
            self.haste = rng.choice([1.0, 0.9, 0.9, 0.3]) if behind.beats < 100 else 0.9
            if not behind.whole:
                self.limit = rng.randint(6, 20) * self.values["BEATS"] + rng.randrange(self.values["BEATS"])
            else:
                short = behind.beats <= LONGEST and rng.random() < 0.05
                self.limit = rng.randint(0, 14 * self.values["BEATS"]) if short else behind.beats


@cocotb.test()
async def random_instructions(dut: Any) -> None:
    """All outputs in every cycle; the largest instructions, and some others, end with a reset."""
    bench = TB(dut, 11)
    await reset(dut, INPUTS)
    resets = 0
    while bench.drawn < INSTRUCTIONS or bench.running or bench.behind:
        await bench.cycle()
        if bench.running and bench.at >= bench.limit < bench.running.beats:
            await bench.restart()
            resets += 1
    for _ in range(20):
        await bench.cycle()
    assert bench.ended > INSTRUCTIONS // 2 and resets > INSTRUCTIONS // 20, (bench.ended, resets)
