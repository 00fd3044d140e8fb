"""cocotb tests of bs_packer: planes, their rows and the end of each row tile."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from core_bench import pack, unpack
from shell_bench import parameters, reset

TILES = 300
NAMES = (
    "valid_i", "last_i", "store_i", "flip_i", "pooled_i", "quarter_i", "bits_i", "row_i", "pitch_i", "chunk_i", "done_i", "code_i",
)  # fmt: skip


def drive(dut: Any, rng: random.Random, inputs: dict[str, int]) -> None:
    """Set these inputs and all others to anything, but no beat that is not asked for."""
    for name in NAMES:
        port = getattr(dut, name)
        port.value = inputs[name] if name in inputs else rng.getrandbits(len(port)) if name != "valid_i" else 0


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.3])
async def random_row_tiles(dut: Any, gap: float) -> None:
    """Row tiles as close as their planes allow, stored or not; what earlier beats say about the row tile is ignored."""
    values, rng = parameters(), random.Random(8)
    rows, columns, lanes, chunks = values["D_M"], values["D_N"], values["LANE_ROWS"], values["ROWS_G"]
    depth, beats = 1 << values["ROW_BITS"], values["D_M"] // values["LANE_ROWS"]
    await reset(dut, NAMES)
    wanted: list[tuple[Any, ...]] = []
    got: list[tuple[Any, ...]] = []
    waiting = 0  # events that row tiles that have ended still owe
    silent = 0  # cycles for which a row tile that owes nothing keeps the packer busy

    async def cycle(**inputs: int) -> None:
        nonlocal waiting, silent
        drive(dut, rng, inputs)
        await RisingEdge(dut.clk)
        enable = int(dut.we_o.value)
        assert int(dut.write_o.value) == int(enable > 0), "write_o"
        if enable:
            data = tuple(unpack(int(dut.data_o.value), rows, columns))
            got.append((enable, int(dut.quarters_o.value), int(dut.row_o.value), data))
            waiting -= 1
        if int(dut.done_o.value):
            got.append(("done", bool(enable)))
            waiting -= 1
        # Not in the cycle in which the last plane or pulse is there.
        assert int(dut.busy_o.value) == int(waiting > 0 or silent > 0), "busy_o"
        silent = max(silent - 1, 0)

    since, previous = 100, 8
    for _ in range(TILES):
        codes = [[rng.getrandbits(8) for _ in range(columns)] for _ in range(rows)]
        store, done, flip, bits = rng.random() < 0.8, rng.random() < 0.4, rng.getrandbits(1), rng.randint(1, 8)
        pooled, quarter = rng.random() < 0.4, rng.randrange(4)
        row, pitch, chunk = rng.randrange(depth), rng.randrange(depth), rng.randrange(chunks)
        for beat in range(beats):
            last = beat == beats - 1
            # The planes of the row tile before must be out.
            while rng.random() < gap or (last and since < previous):
                await cycle(valid_i=0)
                since += 1
            fields = {"store_i": int(store), "flip_i": flip, "bits_i": bits, "row_i": row, "pitch_i": pitch}
            fields |= {"chunk_i": chunk, "done_i": int(done), "pooled_i": int(pooled), "quarter_i": quarter}
            part = codes[beat * lanes : (beat + 1) * lanes]
            code = pack([value for line in part for value in line], 8)
            await cycle(valid_i=1, last_i=int(last), code_i=code, **(fields if last else {}))
            since += 1
        since, previous = 1, bits if store else 1
        before = len(wanted)
        stored = [[code ^ flip << bits - 1 & ((1 << bits) - 1) for code in line] for line in codes]
        if pooled:
            mask, half = (1 << bits) - 1, columns // 2
            stored = [
                [
                    max(line[at] & mask for at in (2 * i, 2 * i + 1, half + 2 * i, half + 2 * i + 1))
                    for i in range(columns // 4)
                ] * 4
                for line in stored
            ]  # fmt: skip
        for plane in range(bits if store else 0):
            at = bits - 1 - plane if pooled else plane
            data = tuple(sum((stored[m][n] >> at & 1) << m for m in range(rows)) for n in range(columns))
            wanted.append((1 << chunk, 1 << quarter if pooled else 15, (row + plane * pitch) % depth, data))
        if done:
            wanted.append(("done", store))
        waiting += len(wanted) - before
        silent = 2 if len(wanted) == before else 0
    for _ in range(20):
        await cycle(valid_i=0)
    assert not int(dut.busy_o.value)
    assert got == wanted


@cocotb.test()
async def reset_ends(dut: Any) -> None:
    """A reset of a single cycle, at any time, leaves nothing of the row tile: no plane, no pulse, not busy."""
    values, rng = parameters(), random.Random(9)
    beats = values["D_M"] // values["LANE_ROWS"]
    await reset(dut, NAMES)
    ended = 0  # resets while it was busy
    for chunk in range(values["ROWS_G"]):
        for wait in range(12):
            fields = {"store_i": 1, "bits_i": 8, "chunk_i": chunk, "done_i": 1, "valid_i": 1}
            for beat in range(beats):
                drive(dut, rng, fields | {"last_i": int(beat == beats - 1)})
                await RisingEdge(dut.clk)
            for _ in range(wait):
                drive(dut, rng, {})
                await RisingEdge(dut.clk)
            drive(dut, rng, {})
            dut.rst.value = 1
            await RisingEdge(dut.clk)
            ended += int(dut.busy_o.value)
            dut.rst.value = 0
            for _ in range(12):
                drive(dut, rng, {})
                await RisingEdge(dut.clk)
                for name in ("write_o", "we_o", "done_o", "busy_o"):
                    assert not int(getattr(dut, name).value), (name, chunk, wait)
    assert ended > 5 * values["ROWS_G"]
