"""cocotb tests of bs_image_planes."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotb.utils import get_sim_time
from numpy.typing import NDArray
from shell_bench import ReadMaster, parameters, reset

BASE_ADDR = 1024
PERIOD_STEPS = 10_000  # 10 ns in steps of 1 ps


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
        values = parameters()
        self.columns, self.group, self.depth = values["D_N"], values["G"], values["PLANE_DEPTH"]

    async def start(self) -> None:
        await reset(self.dut, ("start_i", "plane_ready_i"), clock=not self.clocked)
        self.clocked = True

    async def run(
        self, pixels: int, channels: int, bits: int, planar: bool, base: int, pitch: int, nibbles: bool = False
    ) -> tuple[bool, int]:
        """Whether it ended without an error, and the cycles it took; the rows are checked here."""
        dut = self.dut
        image = np.frombuffer(self.random.randbytes(pixels * channels), np.uint8).reshape(pixels, channels)
        # A part: the image has other pixels behind it, between the channels where it is planar.
        stride = pixels + (self.random.choice([0, 0, 5, 64]) if pixels > 1 else 0)
        whole = np.frombuffer(self.random.randbytes(stride * channels), np.uint8).reshape(stride, channels).copy()
        whole[:pixels] = image
        raw = (whole.T if planar else whole).tobytes()
        content = self.random.randbytes(BASE_ADDR) + raw + self.random.randbytes(64)
        master = ReadMaster(dut, "", content[: len(content) // 8 * 8], self.random, self.stall)
        task = cocotb.start_soon(master.run())
        for name, value in {
            "addr_i": BASE_ADDR, "pixels_i": pixels, "stride_i": stride, "channels_i": channels, "bits_i": bits, "base_i": base,
            "pitch_i": pitch, "planar_i": int(planar), "nibbles_i": int(nibbles),
        }.items():  # fmt: skip
            getattr(dut, name).value = value
        dut.start_i.value = 1
        await RisingEdge(dut.clk)
        dut.start_i.value = 0
        # The inputs are sampled with start.
        dut.pixels_i.value = dut.channels_i.value = dut.bits_i.value = 1
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
        if not failed:
            expected = plane_rows(image, bits, base, pitch, self.columns, self.group, nibbles)
            assert rows == expected, (pixels, channels, bits, planar)
            assert master.idle, "words of the image were left over"
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
    """One pixel may have any number of channels; both orders are the same then."""
    tb = TB(dut, 2, 0.3)
    await tb.start()
    for channels in [1, tb.group, tb.group + 1, 3 * tb.group, 61, 64]:
        bits = tb.random.randint(1, 8)
        ok, _ = await tb.run(1, channels, bits, planar, 5, tb.random.randint(1, 3))
        assert ok


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
    for case in [too_far, too_wide, (4, 1, 9, False, 0, 1)]:
        await tb.start()
        ok, _ = await tb.run(*case)
        assert not ok, case
