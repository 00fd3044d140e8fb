"""cocotb tests of bs_shell: whole runs through AXI with a played core, every error, and clean restarts."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from shell_bench import parameters, reset
from tb_image_planes import plane_rows

from hwgen import isa
from hwgen.program import Instruction, Program, assemble, code_bytes
from sim.axi_memory import AxiMemory, Timing
from sim.axil import AxilMaster

REG = {register.name: register.offset for register in isa.REGISTERS}
BUSY, DONE, ERROR = 1, 2, 4
PROGRAM, IMAGES, OUTPUT = 0x1000, 0x8000, 0xC000
SIZE = 1 << 16
PIXELS, CHANNELS, BITS, PITCH, PLANE_BASE = 10, 3, 4, 5, 7
IMAGE_STRIDE, OUTPUT_STRIDE = 64, 48
BEATS = 5
WEIGHT_ROWS, WEIGHT_BASE, PARAMS, PARAM_BASE = 20, 11, 9, 4
GUARD = 0xA5
QUIET = (
    "execute_ready_i", "write_back_ready_i", "fill_to_fetch_i", "issue_to_fetch_i", "plane_ready_i",
    "logits_valid_i", "logits_last_i", "fill_active_i", "issue_active_i", "write_back_active_i", "fill_layer_i",
    "issue_layer_i", "write_back_layer_i",
)  # fmt: skip


class Core:
    """Plays the core: takes the instructions, keeps what is written to its buffers, answers with the image's logits."""

    def __init__(self, dut: Any, rng: random.Random, logits: list[list[int]]) -> None:
        self.dut, self.random, self.logits = dut, rng, logits
        self.weights: dict[tuple[int, int], int] = {}
        self.params: dict[tuple[int, int], int] = {}
        self.planes: dict[int, int] = {}
        self.seen: list[dict[int, int]] = []
        self.execute: list[int] = []
        self.write_back: list[int] = []
        self.written = 0
        self.hold = False  # take no instruction
        self._ready_images = self._weights_ready = 0
        self._beats: deque[tuple[int, int]] = deque()
        self._work = 0

    def _clear(self) -> None:
        self.written = 0
        self._ready_images = self._weights_ready = self._work = 0
        self._beats.clear()
        self.planes.clear()
        self.seen.clear()
        self.execute.clear()
        self.write_back.clear()

    async def run(self) -> None:
        dut = self.dut
        plane_ready = execute_ready = write_back_ready = 0
        while True:
            await RisingEdge(dut.clk)
            for name in ("fill_to_fetch_i", "issue_to_fetch_i", "logits_valid_i", "logits_last_i"):
                getattr(dut, name).value = 0
            if int(dut.core_rst_o.value):
                self._clear()
            if int(dut.weight_we_o.value):
                place = int(dut.weight_row_o.value), int(dut.weight_chunk_o.value)
                self.weights[place] = int(dut.weight_data_o.value)
            if int(dut.param_we_o.value):
                place = int(dut.param_channel_o.value), int(dut.param_word_o.value)
                self.params[place] = int(dut.param_data_o.value)
            if plane_ready and int(dut.plane_valid_o.value):
                self.planes[int(dut.plane_row_o.value)] = int(dut.plane_data_o.value)
            self._ready_images += int(dut.fetch_to_fill_o.value)
            self._weights_ready += int(dut.fetch_to_issue_o.value)
            if execute_ready and int(dut.execute_valid_o.value):
                self.execute.append(int(dut.execute_first_o.value))
                self.seen.append(dict(self.planes))
                self.planes.clear()
                self._ready_images -= 1
                dut.fill_to_fetch_i.value = 1
                self._work = self.random.randint(1, 60)
            self.written += int(dut.logits_written_o.value)
            if write_back_ready and int(dut.write_back_valid_o.value):
                values = self.logits[len(self.write_back)]
                self.write_back.append(int(dut.write_back_first_o.value))
                last = len(values) // 2 - 1
                self._beats.extend((values[2 * at] | values[2 * at + 1] << 32, int(at == last)) for at in range(last + 1))
            if self._beats and self.random.random() < 0.7:
                data, last = self._beats.popleft()
                dut.logits_valid_i.value, dut.logits_last_i.value, dut.logits_i.value = 1, last, data
            self._work = max(0, self._work - 1)
            # One image at a time, as the tokens of a real core would have it.
            behind = len(self.write_back) < len(self.execute)
            execute_ready = int(
                self._ready_images > 0 and not behind and not execute_ready and not self._work
                and self._weights_ready >= 2 and not self.hold
            )  # fmt: skip
            write_back_ready = int(
                behind and not write_back_ready and not self._work and not self._beats
                and self.written == len(self.write_back) and not self.hold
            )  # fmt: skip
            plane_ready = int(self.random.random() < 0.8)
            dut.execute_ready_i.value = execute_ready
            dut.write_back_ready_i.value = write_back_ready
            dut.plane_ready_i.value = plane_ready
            dut.core_idle_i.value = int(not self._beats)


class TB:
    """The shell between a memory and a played core."""

    def __init__(self, dut: Any, seed: int, timing: Timing, images: int = 4) -> None:
        self.dut, self.random = dut, random.Random(seed)
        self.values = parameters()
        self.images = images
        self.memory = AxiMemory(SIZE, seed=seed)
        self.ports = [self.memory.attach(dut, f"m_axi_{index}", timing) for index in range(2)]
        self.axil = AxilMaster(dut, "s_axil", dut.clk, stall=0.1)
        logits = [[self.random.getrandbits(32) for _ in range(2 * BEATS)] for _ in range(images)]
        self.core = Core(dut, self.random, logits)
        generator = np.random.default_rng(seed)
        self.pictures = generator.integers(0, 256, (images, PIXELS, CHANNELS), np.uint8)
        self.chunks = (self.values["D_M"] * self.values["SLOTS"] * self.values["G"] + 63) // 64
        self.weight_words = generator.integers(0, 2**64, WEIGHT_ROWS * self.chunks, np.uint64)
        self.param_words = generator.integers(0, 2**64, PARAMS * 2, np.uint64)

    def program(self, **changes: int) -> bytes:
        """A program of five instructions; ``changes`` are fields of load_weights, or ``hash``."""
        engine_hash = changes.pop("hash", self.values["ENGINE_HASH"])
        data_at = code_bytes(5)
        weights = {"layer": 1, "post_issue": 1, "offset": data_at, "rows": WEIGHT_ROWS, "base": WEIGHT_BASE} | changes
        fetch = (
            Instruction.make("load_weights", **weights),
            Instruction.make(
                "load_params", layer=2, post_issue=1, offset=data_at + self.weight_words.nbytes, channels=PARAMS,
                base=PARAM_BASE,
            ),
            Instruction.make(
                "load_image", layer=3, wait_fill=1, post_fill=1, pixels=PIXELS, image_pixels=PIXELS,
                image_last=1, channels=CHANNELS, bits=BITS, base=PLANE_BASE, pitch=PITCH,
            ),
        )  # fmt: skip
        ones = {op: {field.name: 1 for field in isa.BY_NAME[op].fields if field.positive} for op in ("conv", "conv_out")}
        execute = (Instruction.make("conv", layer=4, **ones["conv"]),)
        write_back = (Instruction.make("conv_out", layer=5, **ones["conv_out"]),)
        data = self.weight_words.tobytes() + self.param_words.tobytes()
        return assemble(Program(engine_hash, fetch, execute, write_back, 2, data))

    async def start(self) -> None:
        self.memory.start(self.dut.clk)
        await reset(self.dut, QUIET)
        cocotb.start_soon(self.core.run())

    async def launch(self, program: bytes | None = None, *, planar: bool = False, watchdog: int = 5000) -> None:
        """Fill the memory and the registers, then start."""
        self.memory.data[:] = GUARD
        self.memory.write(PROGRAM, self.program() if program is None else program)
        for index, picture in enumerate(self.pictures):
            self.memory.write(IMAGES + index * IMAGE_STRIDE, np.ascontiguousarray(picture.T if planar else picture))
        settings = {
            "program_addr": PROGRAM, "image_addr": IMAGES, "image_stride": IMAGE_STRIDE, "output_addr": OUTPUT,
            "output_stride": OUTPUT_STRIDE, "image_count": self.images, "image_planar": int(planar),
            "watchdog": watchdog, "control": 5,
        }  # fmt: skip
        for name, value in settings.items():
            await self.axil.write(REG[name], value)

    async def finish(self, limit: int = 40_000) -> int:
        """Wait for the interrupt; the status."""
        for _ in range(limit):
            await RisingEdge(self.dut.clk)
            if int(self.dut.irq_o.value):
                break
        else:
            raise AssertionError(f"no interrupt after {limit} cycles, {len(self.core.write_back)} images")
        return await self.axil.read(REG["status"])

    async def check_good_run(self, planar: bool = False) -> None:
        """A whole run: every buffer write, every logit, nothing beside them."""
        # Longer than any wait, shorter than the run: progress keeps the watchdog quiet.
        await self.launch(planar=planar, watchdog=300)
        assert await self.finish() == DONE
        core = self.core
        expected = {
            (WEIGHT_BASE + index // self.chunks, index % self.chunks): int(word)
            for index, word in enumerate(self.weight_words)
        }
        assert core.weights == expected
        params = {(PARAM_BASE + index // 2, index % 2): int(word) for index, word in enumerate(self.param_words)}
        assert core.params == params
        assert len(core.seen) == self.images
        for picture, rows in zip(self.pictures, core.seen, strict=True):
            assert rows == plane_rows(picture, BITS, PLANE_BASE, PITCH, self.values["D_N"], self.values["G"], False)
        assert core.execute == core.write_back == [1] + [0] * (self.images - 1)
        size = 8 * BEATS
        for index, logits in enumerate(core.logits):
            want = b"".join(value.to_bytes(4, "little") for value in logits)
            want += bytes([GUARD]) * (OUTPUT_STRIDE - size)
            assert self.memory.read(OUTPUT + index * OUTPUT_STRIDE, OUTPUT_STRIDE) == want
        assert set(self.memory.read(OUTPUT + self.images * OUTPUT_STRIDE, 256)) == {GUARD}
        assert await self.axil.read(REG["images_done"]) == self.images
        assert all(port.idle for port in self.ports)

    async def check_error(self, error: isa.Error, info: int | None = None) -> None:
        """The run ends with ``error``; nothing is in flight; a good run follows."""
        assert await self.finish() == ERROR
        code = int(await self.axil.read(REG["error"]))
        assert code == error, f"{isa.Error(code).name} instead of {error.name}"
        if info is not None:
            assert await self.axil.read(REG["error_info"]) == info
        assert all(port.idle for port in self.ports)
        self.memory.heal()
        self.core.hold = False
        self.core.weights.clear()
        self.core.params.clear()
        await self.check_good_run()
        assert await self.axil.read(REG["error"]) == isa.Error.NONE


@cocotb.test()
@cocotb.parametrize(
    timing=[Timing((1, 1)), Timing((30, 120), stall=0.3), Timing((5, 60), stall=0.6, outstanding=1)], planar=[False, True]
)
async def good_runs(dut: Any, timing: Timing, planar: bool) -> None:
    """Two runs in a row, with counters that start anew."""
    tb = TB(dut, 1, timing)
    await tb.start()
    beats = 0
    for _ in range(2):
        before = [port.counters.read_beats for port in tb.ports]
        await tb.check_good_run(planar)
        reads = sum(port.counters.read_beats for port in tb.ports) - sum(before)
        assert await tb.axil.read(REG["read_beats"]) == reads
        assert await tb.axil.read(REG["write_beats"]) == BEATS * tb.images
        cycles = await tb.axil.read(REG["cycles"])
        assert reads < cycles and 0 < await tb.axil.read(REG["fetch_cycles"]) <= cycles
        beats += reads
    assert beats == sum(port.counters.read_beats for port in tb.ports)


@cocotb.test()
async def program_errors(dut: Any) -> None:
    """What the loader finds reaches the registers."""
    tb = TB(dut, 2, Timing((5, 30), stall=0.2))
    await tb.start()
    good = tb.program()
    await tb.launch(b"\0" * 8 + good[8:])
    await tb.check_error(isa.Error.PROGRAM_MAGIC)
    await tb.launch(tb.program(hash=0x55))
    await tb.check_error(isa.Error.PROGRAM_ENGINE)
    await tb.launch(good[:16] + (99).to_bytes(8, "little") + good[24:])
    await tb.check_error(isa.Error.PROGRAM_LENGTH)
    end = code_bytes(5)
    first = 8 * isa.HEADER_WORDS
    truncated = good[: first + 5 * 64] + bytes(end - first - 5 * 64)
    await tb.launch(truncated)
    await tb.check_error(isa.Error.PROGRAM_END)
    await tb.launch(good[:first] + b"\xee\x07" + good[first + 2 :])
    await tb.check_error(isa.Error.ILLEGAL_OPCODE, 0x000700EE)


@cocotb.test()
async def address_errors(dut: Any) -> None:
    """Rows beyond a buffer stop the run; nothing wraps around."""
    tb = TB(dut, 3, Timing((5, 30)))
    await tb.start()
    depth = tb.values["WEIGHT_DEPTH"]
    await tb.launch(tb.program(base=depth - WEIGHT_ROWS + 1))
    await tb.check_error(isa.Error.ADDRESS, isa.Stage.FETCH << 24 | 1 << 16 | isa.BY_NAME["load_weights"].code)


@cocotb.test()
@cocotb.parametrize(response=[2, 3])
async def memory_errors(dut: Any, response: int) -> None:
    """SLVERR and DECERR on each kind of access stop the run."""
    tb = TB(dut, 4, Timing((5, 60), stall=0.2))
    await tb.start()
    read, write = isa.Error.AXI_READ, isa.Error.AXI_WRITE
    data = PROGRAM + code_bytes(5)
    image = IMAGES + 2 * IMAGE_STRIDE
    logits = OUTPUT + OUTPUT_STRIDE
    for start, error in [(PROGRAM, read), (PROGRAM + 128, read), (data, read), (image, read), (logits, write)]:
        tb.memory.fail(start, start + 8, response)
        await tb.launch()
        await tb.check_error(error)


@cocotb.test()
async def watchdog(dut: Any) -> None:
    """Without progress the run is stopped, naming the stage that waits; 0 turns the watchdog off."""
    tb = TB(dut, 5, Timing((5, 20)))
    await tb.start()
    tb.core.hold = True
    await tb.launch(watchdog=0)
    await ClockCycles(dut.clk, 3000)
    assert await tb.axil.read(REG["status"]) == BUSY
    await tb.axil.write(REG["watchdog"], 500)
    await tb.check_error(isa.Error.WATCHDOG, isa.Stage.FETCH << 24 | 3 << 16)


@cocotb.test()
@cocotb.parametrize(delay=[0, 30, 90, 150, 300, 500])
async def second_start_and_stop(dut: Any, delay: int) -> None:
    """A second start is an error; a stop ends the run without one; both leave a clean engine at any time."""
    tb = TB(dut, delay, Timing((5, 60), stall=0.3))
    await tb.start()
    await tb.launch()
    await ClockCycles(dut.clk, delay)
    await tb.axil.write(REG["control"], 5)
    await tb.check_error(isa.Error.BUSY)
    await tb.launch()
    await ClockCycles(dut.clk, delay)
    await tb.axil.write(REG["control"], 2)
    for _ in range(2000):
        if await tb.axil.read(REG["status"]) == 0:
            break
    assert await tb.axil.read(REG["status"]) == 0
    assert await tb.axil.read(REG["error"]) == isa.Error.NONE
    assert all(port.idle for port in tb.ports)
    await ClockCycles(dut.clk, 50)
    tb.core.weights.clear()
    tb.core.params.clear()
    await tb.check_good_run()


@cocotb.test()
async def interrupt(dut: Any) -> None:
    """The interrupt is a level while done, masked by its enable, and start clears it."""
    tb = TB(dut, 6, Timing((5, 20)))
    await tb.start()
    await tb.check_good_run()
    assert int(dut.irq_o.value)
    await tb.axil.write(REG["control"], 0)
    await ClockCycles(dut.clk, 2)
    assert not int(dut.irq_o.value)
    await tb.axil.write(REG["control"], 4)
    await ClockCycles(dut.clk, 2)
    assert int(dut.irq_o.value)
    await tb.axil.write(REG["control"], 5)
    await ClockCycles(dut.clk, 2)
    assert not int(dut.irq_o.value)
    assert await tb.finish() == DONE
