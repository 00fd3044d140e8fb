"""cocotb tests of bs_fetch: both units, tokens, bounds."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from shell_bench import Everywhere, ReadMaster, parameters, reset, wait_until
from tb_image_planes import plane_rows

from hwgen import isa
from hwgen.program import Instruction

END = 1 << 32  # of addresses, which wrap there


class TB:
    """Fetch with two played read masters and token counters; ``events`` keeps writes and posts in their order."""

    def __init__(self, dut: Any, seed: int, stall: float, planar: bool = False) -> None:
        self.dut, self.random, self.planar = dut, random.Random(seed), planar
        values = parameters()
        self.values = values
        self.chunks = (values["D_M"] * values["D_K"] + 63) // 64
        self.content = Everywhere(seed)
        self.program, self.images, self.stride = (8 * self.random.randrange(END // 8) for _ in range(3))
        self.masters = [ReadMaster(dut, prefix, self.content, self.random, stall) for prefix in ("image_", "load_")]
        self.stall = stall
        self.tokens = {"issue": 0, "fill": 0}
        self.events: list[tuple[Any, ...]] = []
        self.taken: list[int] = []
        self.asked = self.image = 0  # images whose last part is in an instruction; of those that are expected

    async def start(self) -> None:
        dut = self.dut
        dut.program_addr_i.value, dut.image_addr_i.value = self.program, self.images
        dut.image_stride_i.value, dut.image_planar_i.value = self.stride, int(self.planar)
        await reset(dut, ("instr_valid_i", "enough_issue_i", "enough_fill_i", "plane_ready_i"))
        for task in (self.masters[0].run(), self.masters[1].run(), self._watch(), self._count()):
            cocotb.start_soon(task)

    async def _watch(self) -> None:
        dut = self.dut
        ready = 0
        while True:
            await RisingEdge(dut.clk)
            if int(dut.weight_we_o.value):
                place = int(dut.weight_row_o.value), int(dut.weight_chunk_o.value)
                self.events.append(("weight", *place, int(dut.weight_data_o.value)))
            if int(dut.param_we_o.value):
                place = int(dut.param_channel_o.value), int(dut.param_word_o.value)
                self.events.append(("param", *place, int(dut.param_data_o.value)))
            if ready and int(dut.plane_valid_o.value):
                self.events.append(("plane", int(dut.plane_row_o.value), int(dut.plane_data_o.value)))
            for name in ("issue", "fill"):
                if int(getattr(dut, f"post_{name}_o").value):
                    self.events.append(("post", name))
            ready = int(self.random.random() >= self.stall)
            dut.plane_ready_i.value = ready

    async def give(self, instruction: Instruction, image: int, limit: int = 5000) -> bool:
        """Offer an instruction until it is taken; False after ``limit`` cycles."""
        dut = self.dut
        dut.instr_i.value = int.from_bytes(instruction.encode(), "little")
        dut.first_image_i.value = int(image == 0)
        await RisingEdge(dut.clk)
        dut.instr_valid_i.value = 1
        for _ in range(limit):
            await RisingEdge(dut.clk)
            if int(dut.instr_ready_o.value):
                dut.instr_valid_i.value = 0
                return True
        dut.instr_valid_i.value = 0
        return False

    async def _count(self) -> None:
        """The token counters: they answer a need within the cycle."""
        dut = self.dut
        while True:
            await FallingEdge(dut.clk)
            needs = {name: int(getattr(dut, f"need_{name}_o").value) for name in self.tokens}
            for name, need in needs.items():
                getattr(dut, f"enough_{name}_i").value = int(self.tokens[name] >= need)
            await RisingEdge(dut.clk)
            for name, need in needs.items():
                if int(getattr(dut, f"take_{name}_o").value):
                    assert self.tokens[name] >= need
                    self.tokens[name] -= need

    async def settle(self) -> None:
        """Until fetch is idle, then a few cycles more."""
        for _ in range(20_000):
            await RisingEdge(self.dut.clk)
            if int(self.dut.idle_o.value):
                break
        else:
            raise AssertionError("fetch does not become idle")
        await ClockCycles(self.dut.clk, 4)

    def word(self, address: int) -> int:
        return int.from_bytes(self.content[address : address + 8], "little")

    def expected(self, instruction: Instruction) -> list[tuple[Any, ...]]:
        """The events of one instruction, from its meaning."""
        events: list[tuple[Any, ...]] = []
        name = instruction.op.name
        if name == "load_weights":
            address = (self.program + instruction["offset"]) % END
            for row in range(instruction["rows"]):
                for chunk in range(self.chunks):
                    word = self.word(address + 8 * (row * self.chunks + chunk))
                    events.append(("weight", instruction["base"] + row, chunk, word))
        elif name == "load_params":
            address = (self.program + instruction["offset"]) % END
            for index in range(2 * instruction["channels"]):
                word = self.word(address + 8 * index)
                events.append(("param", instruction["base"] + index // 2, index % 2, word))
        else:
            pixels, channels = instruction["pixels"], instruction["channels"]
            address = self.images + self.image * self.stride
            if self.planar:
                address += instruction["first_pixel"]
                starts = [(address + channel * instruction["image_pixels"]) % END for channel in range(channels)]
                raw = b"".join(self.content[start : start + pixels] for start in starts)
                picture = np.frombuffer(raw, np.uint8).reshape(channels, pixels).T
            else:
                address = (address + instruction["offset"]) % END
                raw = self.content[address : address + pixels * channels]
                picture = np.frombuffer(raw, np.uint8).reshape(pixels, channels)
            self.image += instruction["image_last"]
            bits, base, pitch = instruction["bits"], instruction["base"], instruction["pitch"]
            rows = plane_rows(picture, bits, base, pitch, self.values["D_N"], self.values["G"], False)
            events += [("plane", row, data) for row, data in sorted(rows.items())]
        post = "fill" if name == "load_image" else "issue"
        if instruction[f"post_{post}"]:
            events.append(("post", post))
        return events

    def offset(self, base: int) -> int:
        """A random one, with which nothing lies at the very end of memory."""
        return (8 * self.random.randrange((END >> 3) - 4096) - base) % END

    def random_instruction(self) -> Instruction:
        values, rng = self.values, self.random
        kind = rng.choice(["load_weights", "load_params", "load_image"])
        if kind == "load_weights":
            rows = rng.choice([0, 1, 2, rng.randint(1, 30)])
            return Instruction.make(
                kind, layer=rng.randrange(256), post_issue=rng.randrange(2), offset=self.offset(self.program), rows=rows,
                base=rng.randint(0, values["WEIGHT_DEPTH"] - rows),
            )  # fmt: skip
        if kind == "load_params":
            channels = rng.randint(0, 30)
            return Instruction.make(
                kind, layer=rng.randrange(256), post_issue=rng.randrange(2), offset=self.offset(self.program),
                channels=channels, base=rng.randint(0, values["PARAM_DEPTH"] - channels),
            )  # fmt: skip
        pixels = rng.randint(2, 25)
        first_pixel = 8 * rng.randrange(1 << 16)
        made = Instruction.make(
            kind, layer=rng.randrange(256), post_fill=rng.randrange(2), pixels=pixels,
            channels=rng.randint(1, values["G"]), bits=rng.randint(1, 8),
            base=rng.randrange(values["PLANE_DEPTH"] - 64), pitch=-(-pixels // values["D_N"]),
            first_pixel=first_pixel, offset=self.offset(self.images + self.asked * self.stride),
            image_pixels=first_pixel + pixels + rng.randrange(1 << 18), image_last=rng.randrange(2),
        )  # fmt: skip
        self.asked += made["image_last"]
        return made


def split(events: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Events of the image unit and of the load unit, each in order; planes of one image in the order of their rows."""
    image: list[tuple[Any, ...]] = []
    load: list[tuple[Any, ...]] = []
    for event in events:
        (image if event[0] == "plane" or event[1] == "fill" else load).append(event)
    return image, load


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4], planar=[False, True])
async def random_program(dut: Any, stall: float, planar: bool) -> None:
    """Every word lands where it belongs, posts come after the last write, order is kept within each unit."""
    tb = TB(dut, 1, stall, planar)
    await tb.start()
    tb.tokens = {"issue": 1000, "fill": 1000}
    for image in range(12):
        program = [tb.random_instruction() for _ in range(tb.random.randint(1, 6))]
        tb.events.clear()
        for instruction in program:
            assert await tb.give(instruction, image)
            assert int(dut.error_o.value) == 0
        await tb.settle()
        want_image: list[tuple[Any, ...]] = []
        want_load: list[tuple[Any, ...]] = []
        for instruction in program:
            part_image, part_load = split(tb.expected(instruction))
            want_image += part_image
            want_load += part_load
        got_image, got_load = split(tb.events)
        assert got_load == want_load
        assert sorted(map(str, got_image)) == sorted(map(str, want_image))
        assert not got_image or (got_image[-1][0] == "post") == (want_image[-1][0] == "post")
        # The last instruction that started: of either unit.
        images = [item["layer"] for item in program if item.op.name == "load_image"]
        loads = [item["layer"] for item in program if item.op.name != "load_image"]
        assert int(dut.layer_o.value) in images[-1:] + loads[-1:]


@cocotb.test()
async def tokens(dut: Any) -> None:
    """An instruction waits for its tokens, other counts hold for the first image, and all of them are taken."""
    tb = TB(dut, 2, 0.0)
    await tb.start()
    cases = [
        ("issue", {"op": "load_weights", "rows": 1}), ("issue", {"op": "load_params", "channels": 1}),
        ("fill", {"op": "load_image", "pixels": 4, "channels": 1, "bits": 1, "pitch": 1}),
    ]  # fmt: skip
    for image in (0, 1):
        for kind, fields in cases:
            waits: dict[str, int] = {f"wait_{kind}": 3, f"wait_{kind}_first": 5}
            instruction = Instruction.make(**fields, **waits)  # type: ignore[arg-type]
            need = 5 if image == 0 else 3
            other = "fill" if kind == "issue" else "issue"
            tb.tokens = {kind: need - 1, other: 100}
            tb.events.clear()
            # An image waits before it is taken, a load in its queue.
            assert await tb.give(instruction, image, limit=40) == (kind == "issue"), (kind, image)
            await ClockCycles(dut.clk, 40)
            assert tb.tokens == {kind: need - 1, other: 100} and not tb.events
            tb.tokens[kind] = need + 1
            if kind == "fill":
                assert await tb.give(instruction, image), (kind, image)
            await tb.settle()
            assert tb.tokens == {kind: 1, other: 100} and tb.events


@cocotb.test()
async def waiting_loads_do_not_hold_up_an_image(dut: Any) -> None:
    """As many loads as the queue holds wait for tokens; an image behind them is loaded; they run in their order then."""
    tb = TB(dut, 5, 0.0)
    await tb.start()
    loads = [Instruction.make("load_weights", wait_issue=1, wait_issue_first=1, rows=1, base=row) for row in range(16)]
    tb.tokens = {"issue": 0, "fill": 1}
    for load in loads:
        assert await tb.give(load, 0)
    assert await tb.give(Instruction.make("load_image", wait_fill_first=1, pixels=4, channels=1, bits=1, pitch=1), 0)
    await ClockCycles(dut.clk, 100)
    assert {event[0] for event in tb.events} == {"plane"}
    assert not await tb.give(loads[0], 0, limit=20), "more loads wait than the queue holds"
    tb.tokens["issue"] = 16
    await tb.settle()
    rows = [event[1] for event in tb.events if event[0] == "weight" and event[2] == 0]
    assert rows == list(range(16)) and tb.tokens["issue"] == 0


@cocotb.test()
async def units_overlap(dut: Any) -> None:
    """A load starts while an image is being cut, and the next load asks for its data before the last has ended."""
    tb = TB(dut, 3, 0.0)
    await tb.start()
    image = Instruction.make("load_image", pixels=200, channels=1, bits=8, pitch=60)
    load = Instruction.make("load_weights", rows=20, post_issue=1)
    assert await tb.give(image, 0)
    assert await tb.give(load, 0)
    assert await tb.give(load, 0)
    await ClockCycles(dut.clk, 8)
    assert len(tb.masters[1].commands) == 2
    assert ("post", "issue") not in tb.events
    await tb.settle()
    kinds = [event[0] for event in tb.events]
    assert kinds.index("weight") < len(kinds) - 1 - kinds[::-1].index("plane")


@cocotb.test()
@cocotb.parametrize(kind=["load_weights", "load_params", "load_image"])
async def bounds(dut: Any, kind: str) -> None:
    """The last row of a buffer may be written, the one beyond it is an error."""
    depth = {
        "load_weights": parameters()["WEIGHT_DEPTH"], "load_params": parameters()["PARAM_DEPTH"],
        "load_image": parameters()["PLANE_DEPTH"],
    }[kind]  # fmt: skip
    fields = {
        "load_weights": {"rows": 3}, "load_params": {"channels": 3},
        "load_image": {"pixels": 2, "channels": 1, "bits": 3, "pitch": 1},
    }[kind]  # fmt: skip
    tb = TB(dut, 4, 0.0)
    await tb.start()
    assert await tb.give(Instruction.make(kind, layer=9, base=depth - 3, **fields), 0)
    await tb.settle()
    assert not int(dut.error_o.value)
    # One row too much, then so many that a single bit of where they end says so, whichever of base and count brings it.
    counted = {"load_weights": "rows", "load_params": "channels"}.get(kind)
    beyond = [fields | {"base": depth - 2}]
    if counted:
        for bit in range(17):
            end = depth + (1 << bit)
            if end < 1 << 17:
                base = tb.random.randint(max(0, end - 0xFFFF), min(0xFFFF, end - 1))
                beyond.append({counted: end - base, "base": base})
    else:
        for pixels in range(2, 20):
            shape = {"pixels": pixels, "channels": 1, "bits": 3}
            beyond.append(shape | {"base": tb.random.randint(depth, 0xFFFF), "pitch": 1})
            beyond.append(shape | {"base": tb.random.randrange(depth), "pitch": tb.random.randint(depth, 0xFFFF)})
    for more in beyond:
        layer = tb.random.randrange(256)
        await reset(dut, clock=False)
        tb.events.clear()
        assert await tb.give(Instruction.make(kind, layer=layer, **more), 0)
        await ClockCycles(dut.clk, 100)
        assert int(dut.error_o.value), more
        info = isa.Stage.FETCH << 24 | layer << 16 | isa.BY_NAME[kind].code
        assert int(dut.error_info_o.value) == info
        assert all(event[1] < depth for event in tb.events)
        assert not await tb.give(Instruction.make("load_params", channels=1), 0, limit=50)


@cocotb.test()
@cocotb.parametrize(kind=["load_weights", "load_image"])
async def nothing_starts_after_an_error(dut: Any, kind: str) -> None:
    """Loads that wait for tokens when another instruction fails wait until reset."""
    tb = TB(dut, 6, 0.0)
    await tb.start()
    for load in ("load_weights", "load_params"):
        counted = "rows" if load == "load_weights" else "channels"
        assert await tb.give(Instruction.make(load, wait_issue_first=1, post_issue=1, **{counted: 2}), 0)
    shape = {"rows": 1} if kind == "load_weights" else {"pixels": 4, "channels": 1, "bits": 1, "pitch": 1}
    assert await tb.give(Instruction.make(kind, base=0xFFFF, **shape), 0)
    await wait_until(dut, "error_o")
    await ClockCycles(dut.clk, 4)
    tb.tokens = {"issue": 2, "fill": 2}
    await ClockCycles(dut.clk, 200)
    assert not tb.events and not tb.masters[1].commands and tb.tokens["issue"] == 2
