"""cocotb tests of bs_shell: whole runs through AXI with a played core, every error, and clean restarts."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotb.utils import get_sim_time
from shell_bench import ATTRIBUTES, parameters, reset
from shell_core import QUIET, STAGES, Core
from tb_image_planes import plane_rows

from hwgen import isa
from hwgen.program import Instruction, Program, assemble, code_bytes
from sim.axi_memory import AxiMemory, Timing, reader
from sim.axil import AxilMaster

REG = {register.name: register.offset for register in isa.REGISTERS}
BUSY, DONE, ERROR = 1, 2, 4
SIZE = 1 << 16
IMAGES, OUTPUT = 0x8000, 0xC000  # from the memory's base, where the program lies
PIXELS, CHANNELS, BITS, PITCH, PLANE_BASE = 10, 3, 4, 5, 7
BEATS = 9
WEIGHT_BASE, PARAMS, PARAM_BASE = 11, 9, 4
GUARD = 0xA5


def now() -> int:
    """Cycles since the simulation began."""
    return int(get_sim_time("ns")) // 10


def random_instruction(rng: random.Random, name: str) -> int:
    """Random bits behind the opcode, used or not: the shell passes them on. Counts that the loader checks are not zero."""
    op = isa.BY_NAME[name]
    word = rng.getrandbits(isa.INSTRUCTION_BITS) >> 8 << 8 | op.code
    for field, lsb in op.layout():
        if field.positive:
            word |= 1 << lsb
    return word


class TB:
    """The shell between a memory, anywhere among the addresses, and a played core.

    Args:
        counts: instructions of fetch (three at least), execute and write-back.
        rows: of weights.
        beats: of the logits of an image.
    """

    def __init__(
        self, dut: Any, seed: int, timing: Timing, images: int = 4, *, counts: tuple[int, int, int] | None = None,
        rows: int = 20, beats: int = BEATS, slow: bool = False,
    ) -> None:  # fmt: skip
        self.dut, self.random = dut, random.Random(seed)
        rng = self.random
        self.values = parameters()
        self.images = images
        self.counts = counts or (3, rng.randint(1, 3), rng.randint(1, 3))
        self.memory = AxiMemory(SIZE, SIZE * rng.randrange((1 << 32) // SIZE), seed=seed)
        self.ports = [self.memory.attach(dut, f"m_axi_{index}", timing) for index in range(2)]
        self.axil = AxilMaster(dut, "s_axil", dut.clk, stall=0.1)
        lanes = self.values["LANE_ROWS"]
        logits = [[rng.getrandbits(32) for _ in range(lanes * beats)] for _ in range(images)]
        self.words = (lanes * beats + 1) // 2  # of an image's logits
        self.core = Core(dut, rng, logits, *self.counts[1:], slow)
        generator = np.random.default_rng(seed)
        self.pictures = generator.integers(0, 256, (images, PIXELS, CHANNELS), np.uint8)
        self.chunks = (self.values["D_M"] * self.values["SLOTS"] * self.values["G"] + 63) // 64
        self.rows = rows
        self.weight_words = generator.integers(0, 2**64, rows * self.chunks, np.uint64)
        self.param_words = generator.integers(0, 2**64, PARAMS * 2, np.uint64)
        self.layers = {name: rng.randrange(256) for name in ("load_weights", "load_params", "load_image")}
        self.execute = [random_instruction(rng, "conv") for _ in range(self.counts[1])]
        self.write_back = [random_instruction(rng, rng.choice(["conv_out", "pool"])) for _ in range(self.counts[2])]
        self.program_at = self.memory.base
        self.images_at = self._places(IMAGES, 8 * -(-PIXELS * CHANNELS // 8))
        self.output_at = self._places(OUTPUT, 8 * self.words)

    def _places(self, offset: int, size: int) -> list[int]:
        """Where something of each image lies: upwards or downwards, with gaps or without."""
        first, stride = self.memory.base + offset + 8 * self.random.randrange(64), size + 8 * self.random.randrange(5)
        places = [first + index * stride for index in range(self.images)]
        return places[::-1] if self.random.randrange(2) else places

    def program(self, **changes: int) -> bytes:
        """The program; ``changes`` are fields of load_weights, or ``hash``."""
        engine_hash = changes.pop("hash", self.values["ENGINE_HASH"])
        data_at, row_bytes = code_bytes(sum(self.counts)), 8 * self.chunks
        single = self.counts[0] - 3  # rows that have an instruction of their own
        loads = [(row, 1) for row in range(single)] + [(single, self.rows - single)]
        layer = self.layers["load_weights"]
        fetch = [
            Instruction.make(
                "load_weights", **{"layer": layer, "post_issue": int(row == single), "offset": data_at + row * row_bytes,
                "rows": rows, "base": WEIGHT_BASE + row} | changes
            )
            for row, rows in loads
        ]  # fmt: skip
        fetch += [
            Instruction.make(
                "load_params", layer=self.layers["load_params"], wait_issue=1, post_issue=1,
                offset=data_at + self.weight_words.nbytes, channels=PARAMS, base=PARAM_BASE,
            ),
            Instruction.make(
                "load_image", layer=self.layers["load_image"], wait_fill=1, post_fill=1, pixels=PIXELS, image_pixels=PIXELS,
                image_last=1, channels=CHANNELS, bits=BITS, base=PLANE_BASE, pitch=PITCH,
            ),
        ]  # fmt: skip
        execute, write_back = (
            (Instruction.make(name),) * count for name, count in zip(("conv", "pool"), self.counts[1:], strict=True)
        )
        data = self.weight_words.tobytes() + self.param_words.tobytes()
        image = assemble(Program(engine_hash, tuple(fetch), execute, write_back, self.counts[0] - 2, data))
        # The other stages' instructions, all of their bits.
        start = 8 * isa.HEADER_WORDS + self.counts[0] * isa.INSTRUCTION_BITS // 8
        raw = b"".join(word.to_bytes(isa.INSTRUCTION_BITS // 8, "little") for word in self.execute + self.write_back)
        return image[:start] + raw + image[start + len(raw) :]

    async def start(self) -> None:
        self.memory.start(self.dut.clk)
        await reset(self.dut, QUIET)
        cocotb.start_soon(self.core.run())
        cocotb.start_soon(self._attributes())

    async def _attributes(self) -> None:
        """Every address of every port has the attributes of a plain access."""
        channels = [
            (
                reader(getattr(self.dut, f"{channel}valid")),
                {name: (reader(getattr(self.dut, f"{channel}{name}")), value) for name, value in ATTRIBUTES.items()},
            )
            for channel in ("m_axi_0_ar", "m_axi_0_aw", "m_axi_1_ar")
        ]
        while True:
            await RisingEdge(self.dut.clk)
            for valid, pins in channels:
                if valid():
                    assert {name: read() for name, (read, _) in pins.items()} == ATTRIBUTES

    async def launch(self, program: bytes | None = None, *, planar: bool = False, watchdog: int = 5000) -> None:
        """Fill the memory and the registers, then start."""
        self.memory.data[:] = GUARD
        self.memory.write(self.program_at, self.program() if program is None else program)
        for place, picture in zip(self.images_at, self.pictures, strict=True):
            self.memory.write(place, np.ascontiguousarray(picture.T if planar else picture))
        self.before = self.memory.data.copy()
        strides = [
            (places[1] - places[0]) % 2**32 if self.images > 1 else 0 for places in (self.images_at, self.output_at)
        ]
        settings = {
            "program_addr": self.program_at, "image_addr": self.images_at[0], "image_stride": strides[0],
            "output_addr": self.output_at[0], "output_stride": strides[1], "image_count": self.images,
            "image_planar": int(planar), "watchdog": watchdog, "control": 5,
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
            raise AssertionError(f"no interrupt after {limit} cycles, {self.core.written} images")
        idle = int(self.dut.core_idle_i.value)
        status = await self.axil.read(REG["status"])
        assert status != DONE or idle, "done before the core is"
        return status

    async def check_good_run(self, planar: bool = False, watchdog: int = 300) -> None:
        """A whole run: every instruction, every buffer write, every logit, nothing beside them."""
        # The watchdog: longer than any wait, shorter than the run; progress keeps it quiet.
        await self.launch(planar=planar, watchdog=watchdog)
        assert await self.finish() == DONE
        core = self.core
        expected = {
            (WEIGHT_BASE + index // self.chunks, index % self.chunks): int(word)
            for index, word in enumerate(self.weight_words)
        }
        assert core.weights == expected
        params = {(PARAM_BASE + index // 2, index % 2): int(word) for index, word in enumerate(self.param_words)}
        assert len(core.seen) == self.images
        for picture, (planes, seen) in zip(self.pictures, core.seen, strict=True):
            assert planes == plane_rows(picture, BITS, PLANE_BASE, PITCH, self.values["D_N"], self.values["G"], False)
            assert seen == params
        assert not core.planes and not core.params
        assert core.execute == [(word, int(image == 0)) for image in range(self.images) for word in self.execute]
        assert core.write_back == [(word, int(image == 0)) for image in range(self.images) for word in self.write_back]
        memory = self.before
        for place, logits in zip(self.output_at, core.logits, strict=True):
            want = np.zeros(2 * self.words, "<u4")
            want[: len(logits)] = logits
            memory[place - self.memory.base :][: want.nbytes] = want.view(np.uint8)
        assert np.array_equal(self.memory.data, memory)
        assert await self.axil.read(REG["images_done"]) == self.images
        assert [await self.axil.read(REG[f"{name}_cycles"]) for name in STAGES] == core.active
        # The loads of the last image, for which the parameters come last: they wait for a token that is given later.
        layers = await self.axil.read(REG["layer"])
        assert list(layers.to_bytes(4, "little")) == [self.layers["load_params"], *core.layers]
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
        self.core.hold.clear()
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
        begin = now()
        before = [port.counters.read_beats for port in tb.ports]
        await tb.check_good_run(planar)
        reads = sum(port.counters.read_beats for port in tb.ports) - sum(before)
        assert await tb.axil.read(REG["read_beats"]) == reads
        assert await tb.axil.read(REG["write_beats"]) == tb.words * tb.images
        cycles = await tb.axil.read(REG["cycles"])
        assert max(reads, *tb.core.active) < cycles < now() - begin
        assert 0 < await tb.axil.read(REG["fetch_cycles"]) <= cycles
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
    count = sum(tb.counts)
    end = code_bytes(count)
    first = 8 * isa.HEADER_WORDS
    truncated = good[: first + count * 64] + bytes(end - first - count * 64)
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
    await tb.launch(tb.program(base=depth - tb.rows + 1))
    layer, opcode = tb.layers["load_weights"], isa.BY_NAME["load_weights"].code
    await tb.check_error(isa.Error.ADDRESS, isa.Stage.FETCH << 24 | layer << 16 | opcode)


@cocotb.test()
@cocotb.parametrize(response=[2, 3])
async def memory_errors(dut: Any, response: int) -> None:
    """SLVERR and DECERR on each kind of access stop the run."""
    tb = TB(dut, 4, Timing((5, 60), stall=0.2))
    await tb.start()
    read, write = isa.Error.AXI_READ, isa.Error.AXI_WRITE
    program, image, logits = tb.program_at, tb.images_at[2], tb.output_at[1]
    data = program + code_bytes(sum(tb.counts))
    for start, error in [(program, read), (program + 128, read), (data, read), (image, read), (logits, write)]:
        tb.memory.fail(start, start + 8, response)
        await tb.launch()
        await tb.check_error(error)


@cocotb.test()
async def watchdog(dut: Any) -> None:
    """Without progress the run is stopped, naming the stage that waits; 0 turns the watchdog off."""
    tb = TB(dut, 5, Timing((5, 20)))
    await tb.start()
    tb.core.hold.add("execute")
    await tb.launch(watchdog=0)
    await ClockCycles(dut.clk, 3000)
    assert await tb.axil.read(REG["status"]) == BUSY
    await tb.axil.write(REG["watchdog"], 500)
    await tb.check_error(isa.Error.WATCHDOG, isa.Stage.FETCH << 24 | tb.layers["load_image"] << 16)


@cocotb.test()
@cocotb.parametrize(held=["execute", "write_back"])
async def watchdog_names_the_stage(dut: Any, held: str) -> None:
    """With one image fetch has been given everything: it is another stage that waits."""
    tb = TB(dut, 7, Timing((5, 20)), images=1)
    await tb.start()
    tb.core.hold.add(held)
    await tb.launch(watchdog=200)
    assert await tb.finish() == ERROR
    stage, layer = {"execute": (isa.Stage.EXECUTE, "issue"), "write_back": (isa.Stage.WRITE_BACK, "write_back")}[held]
    assert await tb.axil.read(REG["error"]) == isa.Error.WATCHDOG
    assert await tb.axil.read(REG["error_info"]) == stage << 24 | tb.core.layers[STAGES.index(layer)] << 16


@cocotb.test()
async def slow_progress(dut: Any) -> None:
    """Whatever moves keeps the watchdog quiet, even where for a long time nothing else moves."""
    values = parameters()
    beats = min(values["LOGIT_DEPTH"], 32 // values["LANE_ROWS"])
    tb = TB(dut, 8, Timing((1, 1), stall=0.92), images=2, counts=(3, 5, 5), rows=40, beats=beats, slow=True)
    await tb.start()
    await tb.check_good_run(watchdog=150)


@cocotb.test()
async def full_program(dut: Any) -> None:
    """As many instructions of each stage as the engine holds."""
    most = parameters()["PROGRAM_DEPTH"] // isa.WORDS
    tb = TB(dut, 9, Timing((5, 20), stall=0.1), images=2, counts=(most, most, most), rows=most + 5)
    await tb.start()
    await tb.check_good_run()


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
