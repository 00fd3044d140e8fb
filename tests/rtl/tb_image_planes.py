"""cocotb tests of bs_image_planes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotb.utils import get_sim_time
from numpy.typing import NDArray
from shell_bench import Everywhere, ReadMaster, parameters, random_base, reset

PERIOD_STEPS = 10_000  # 10 ns in steps of 1 ps
SAMPLED = ("addr_i", "pixels_i", "stride_i", "channels_i", "bits_i", "base_i", "pitch_i", "planar_i", "nibbles_i")


def commands(
    address: int, pixels: int, stride: int, channels: int, planar: bool, columns: int
) -> Iterator[tuple[int, int]]:
    """(address, words) of every command for an image or a part: whole words around the bytes, a block of a channel at a time."""
    if not planar or stride == 1:
        yield address, -(-pixels * channels // 8)
        return
    for block in range(0, pixels, columns):
        for channel in range(channels):
            first = address + channel * stride + block
            past = first + min(columns, pixels - block)
            yield first // 8 * 8, -(-past // 8) - first // 8


def plane_rows(
    image: NDArray[np.uint8], bits: int, base: int, pitch: int, columns: int, group: int, nibbles: bool
) -> dict[int, int]:
    """The rows that an image (pixels, channels) fills, from the definition of the layout."""
    rows: dict[int, int] = {}
    pixels, channels = image.shape
    if nibbles:
        for pixel in range(pixels):
            for plane in range(bits):
                row = base + plane * pitch + pixel // columns
                for channel in range(channels):
                    nibble = int(image[pixel, channel]) >> 4 * plane & 15
                    rows[row] = rows.get(row, 0) | nibble << (pixel % columns) * group + 4 * channel
        return rows
    for pixel in range(pixels):
        for channel in range(channels):
            for plane in range(bits):
                row = base + (channel // group * bits + plane) * pitch + pixel // columns
                bit = (pixel % columns) * group + channel % group
                rows[row] = rows.get(row, 0) | (int(image[pixel, channel]) >> plane & 1) << bit
    return rows


class TB:
    """Runs images through the module and compares every row that is written, each exactly once."""

    def __init__(self, dut: Any, seed: int, stall: float) -> None:
        self.dut, self.random, self.stall = dut, random.Random(seed), stall
        self.clocked = False
        self.content = Everywhere(seed)
        values = parameters()
        self.columns, self.group, self.depth = values["D_N"], values["G"], values["PLANE_DEPTH"]

    async def start(self) -> None:
        await reset(self.dut, ("start_i", "plane_ready_i"), clock=not self.clocked)
        self.clocked = True

    def place(self, size: int) -> int:
        """A multiple of 8 anywhere in 4 GiB, with room for ``size`` bytes."""
        room = 2 << max(size, 4096).bit_length()
        return random_base(self.random, room) + 8 * self.random.randrange((room - size) // 8)

    def begin(self, values: Mapping[str, int]) -> None:
        """Drive the inputs and start; call :meth:`begun` a cycle later."""
        for name, value in values.items():
            getattr(self.dut, name).value = value
        self.dut.start_i.value = 1

    def begun(self) -> None:
        """End the pulse of start; the inputs are sampled with it and mean nothing from now on."""
        self.dut.start_i.value = 0
        for name in SAMPLED:
            pin = getattr(self.dut, name)
            pin.value = self.random.getrandbits(len(pin))

    async def run(
        self, pixels: int, channels: int, bits: int, planar: bool, base: int, pitch: int, nibbles: bool = False
    ) -> tuple[bool, int]:
        """Whether it ended without an error, and the cycles it took; the rows are checked here."""
        dut = self.dut
        # A part: the image has other pixels behind it, between the channels where it is planar.
        stride = pixels + self.random.choice(
            [0, 0, 5, 64, self.random.randrange(min(1 << 20, (1 << 28) // channels) - pixels)]
        )
        address = self.place(stride * channels)
        if planar:
            raw = b"".join(self.content[at : at + pixels] for at in range(address, address + stride * channels, stride))
            image = np.frombuffer(raw, np.uint8).reshape(channels, pixels).T
        else:
            image = np.frombuffer(self.content[address : address + pixels * channels], np.uint8).reshape(pixels, channels)
        master = ReadMaster(dut, "", self.content, self.random, self.stall)
        task = cocotb.start_soon(master.run())
        self.begin({
            "addr_i": address, "pixels_i": pixels, "stride_i": stride, "channels_i": channels, "bits_i": bits, "base_i": base,
            "pitch_i": pitch, "planar_i": int(planar), "nibbles_i": int(nibbles),
        })  # fmt: skip
        await RisingEdge(dut.clk)
        self.begun()
        rows: dict[int, int] = {}
        ready = 0
        failed = False
        begin = get_sim_time("step")
        for _ in range(20 * pixels * channels + 2000):
            await RisingEdge(dut.clk)
            if ready and int(dut.plane_valid_o.value):
                row = int(dut.plane_row_o.value)
                assert row not in rows, f"row {row} written twice"
                rows[row] = int(dut.plane_data_o.value)
            failed = bool(int(dut.error_o.value))
            if int(dut.done_o.value) or failed:
                break
            ready = int(self.random.random() >= self.stall)
            dut.plane_ready_i.value = ready
        else:
            raise AssertionError(f"no end: {pixels} pixels, {channels} channels, {bits} bits, planar {planar}")
        cycles = int(get_sim_time("step") - begin) // PERIOD_STEPS
        dut.plane_ready_i.value = 0
        await ClockCycles(dut.clk, 2)
        task.cancel()
        expected = plane_rows(image, bits, base, pitch, self.columns, self.group, nibbles)
        assert rows.items() <= expected.items(), (pixels, channels, bits, planar)
        if not failed:
            assert rows == expected, (pixels, channels, bits, planar)
            assert master.idle, "words of the image were left over"
            assert master.commands == list(commands(address, pixels, stride, channels, planar, self.columns))
            assert not int(dut.busy_o.value)
        return not failed, cycles


@cocotb.test()
@cocotb.parametrize(planar=[False, True], stall=[0.0, 0.5])
async def maps(dut: Any, planar: bool, stall: float) -> None:
    """Maps of all channel counts of one group, all bits, sizes around the rows' width."""
    tb = TB(dut, 1, stall)
    await tb.start()
    sizes = [2, 3, tb.columns - 1, tb.columns, tb.columns + 1, 3 * tb.columns, 49, 64, 81]
    for index, channels in enumerate([1, 2, 3, 5, tb.group - 1, tb.group]):
        for pixels in {sizes[index], tb.random.choice(sizes), tb.random.randint(2, 90)} - {1}:
            bits = tb.random.randint(1, 8)
            pitch = -(-pixels // tb.columns) + tb.random.randint(0, 3)
            ok, _ = await tb.run(pixels, channels, bits, planar, tb.random.randint(0, 20), pitch)
            assert ok


@cocotb.test()
@cocotb.parametrize(planar=[False, True])
async def vectors(dut: Any, planar: bool) -> None:
    """One pixel, alone or cut out of an image, may have any number of channels."""
    tb = TB(dut, 2, 0.3)
    await tb.start()
    for channels in [1, tb.group, tb.group + 1, 3 * tb.group, 61, 64]:
        bits = tb.random.randint(1, 8)
        ok, _ = await tb.run(1, channels, bits, planar, 5, tb.random.randint(1, 3))
        assert ok
    most = min(4095, tb.group * tb.depth)
    for channels in [most, most, tb.random.randint(1025, most), tb.random.randint(1025, most)]:
        ok, _ = await tb.run(1, channels, 1, planar, 0, 1)
        assert ok


@cocotb.test()
@cocotb.parametrize(planar=[False, True])
async def many_pixels(dut: Any, planar: bool) -> None:
    """An image that fills the buffer, up to some size."""
    tb = TB(dut, 6, 0.1)
    await tb.start()
    pixels = min(tb.columns * tb.depth, 4096) - tb.random.randrange(tb.columns)
    ok, _ = await tb.run(pixels, 1, 1, planar, tb.depth - -(-pixels // tb.columns), 1)
    assert ok


@cocotb.test()
@cocotb.parametrize(planar=[False, True])
async def sizes(dut: Any, planar: bool) -> None:
    """Commands for images of all sizes. Their bytes do not come: the commands do not wait for them."""
    tb = TB(dut, 7, 0.0)
    for bit in 4 * [*range(2, 20)]:
        await tb.start()
        pixels = min((1 << bit) + tb.random.randrange(3 * tb.columns), (1 << 20) - 1)
        channels, stride = tb.random.randint(1, tb.group), tb.random.randrange(pixels, 1 << 20)
        address = tb.place(stride * channels)
        dut.cmd_ready_i.value = dut.data_valid_i.value = 0
        tb.begin({
            "addr_i": address, "pixels_i": pixels, "stride_i": stride, "channels_i": channels, "bits_i": 1, "base_i": 0,
            "pitch_i": 1, "planar_i": int(planar), "nibbles_i": 0,
        })  # fmt: skip
        await RisingEdge(dut.clk)
        tb.begun()
        # Enough of them that an image whose size has lost a bit is over.
        expected = list(islice(commands(address, pixels, stride, channels, planar, tb.columns), 5 * tb.group))
        seen = []
        ready = 0
        for _ in range(4 * len(expected) + 50):
            await RisingEdge(dut.clk)
            if ready and int(dut.cmd_valid_o.value):
                seen.append((int(dut.cmd_addr_o.value), int(dut.cmd_words_o.value)))
            ready = tb.random.randint(0, 1)
            dut.cmd_ready_i.value = ready
        assert seen[: len(expected)] == expected, (pixels, channels)
        assert len(seen) == len(expected) or len(expected) == 5 * tb.group


@cocotb.test()
@cocotb.parametrize(planar=[False, True])
async def nibbles(dut: Any, planar: bool) -> None:
    """Four bits of a channel side by side, for images of few channels; more channels or planes are an error."""
    tb = TB(dut, 5, 0.3)
    await tb.start()
    for channels in range(1, tb.group // 4 + 1):
        for bits in (1, 2):
            pixels = tb.random.randint(1, 70)
            ok, _ = await tb.run(pixels, channels, bits, planar, 3, -(-pixels // tb.columns), True)
            assert ok
    for channels, bits in ((tb.group // 4 + 1, 2), (1, 3)):
        await tb.start()
        ok, _ = await tb.run(9, channels, bits, planar, 0, 9, True)
        assert not ok


@cocotb.test()
@cocotb.parametrize(planar=[False, True])
async def rate(dut: Any, planar: bool) -> None:
    """About one byte per cycle when nothing stalls."""
    tb = TB(dut, 3, 0.0)
    await tb.start()
    _, cycles = await tb.run(128, 3, 4, planar, 0, 64)
    assert cycles < 128 * 3 * 1.1 + (128 // tb.columns) * (4 + 4) + 60


@cocotb.test()
async def beyond_the_buffer(dut: Any) -> None:
    """A row beyond the buffer and a shape that is not allowed are errors, and nothing wraps around."""
    tb = TB(dut, 4, 0.2)
    await tb.start()
    rows = -(-40 // tb.columns)
    ok, _ = await tb.run(40, 2, 3, False, tb.depth - 3 * rows, rows)
    assert ok
    too_far, too_wide = (40, 2, 3, False, tb.depth - 3 * rows + 1, rows), (2, tb.group + 1, 2, False, 0, 4)
    too_long = (tb.columns + 1, 1, 1, False, tb.depth - 1, 0)
    for case in [too_far, too_wide, too_long, (4, 1, 9, False, 0, 1)]:
        await tb.start()
        ok, _ = await tb.run(*case)
        assert not ok, case
