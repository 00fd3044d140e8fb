"""bs_axi3_bridge: bursts of a general-purpose port against a register file that pauses, with IDs and errors."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from shell_bench import reset

BASE = 0x43C00000
OKAY, SLVERR, DECERR = 0, 2, 3
BAD = 0x40  # the register that answers with SLVERR
INPUTS = (
    "s_axi_arvalid", "s_axi_rready", "s_axi_awvalid", "s_axi_wvalid", "s_axi_bready", "m_axil_arready", "m_axil_rvalid",
    "m_axil_awready", "m_axil_wready", "m_axil_bvalid", "s_axi_awlen",
)  # fmt: skip


class Bench:
    """Drives the port; ``registers`` are those behind the bridge."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.rng = dut, random.Random(seed)
        self.registers = {address: self.rng.getrandbits(32) for address in range(0, 256, 4)}
        self.bad_addresses = 0

    def pause(self) -> int:
        return int(self.rng.random() < 0.6)

    async def edge_with(self, valid: str, ready: str) -> None:
        """Until both are high at a clock edge; the one that is an input pauses at random."""
        mine = getattr(self.dut, valid if valid.startswith("s_axi") and valid[6] not in "rb" else ready)
        while True:
            await RisingEdge(self.dut.clk)
            if int(getattr(self.dut, valid).value) and int(getattr(self.dut, ready).value):
                mine.value = 0
                return
            if not int(mine.value):
                mine.value = self.pause()

    async def serve_reads(self) -> None:
        dut = self.dut
        while True:
            await RisingEdge(dut.clk)
            if int(dut.m_axil_arready.value) and int(dut.m_axil_arvalid.value):
                dut.m_axil_arready.value = 0
                address = int(dut.m_axil_araddr.value)
                while not self.pause():
                    await RisingEdge(dut.clk)
                dut.m_axil_rdata.value = self.registers[address]
                dut.m_axil_rresp.value = SLVERR if address == BAD else OKAY
                dut.m_axil_rvalid.value = 1
                await RisingEdge(dut.clk)
                while not int(dut.m_axil_rready.value):
                    await RisingEdge(dut.clk)
                dut.m_axil_rvalid.value = 0
            else:
                dut.m_axil_arready.value = self.pause()

    async def serve_writes(self) -> None:
        """Address and data come in any order."""
        dut = self.dut
        address: int | None = None
        data: tuple[int, int] | None = None
        while True:
            await RisingEdge(dut.clk)
            if int(dut.m_axil_awready.value) and int(dut.m_axil_awvalid.value):
                assert address is None, "an address was given twice"
                address = int(dut.m_axil_awaddr.value)
            if int(dut.m_axil_wready.value) and int(dut.m_axil_wvalid.value):
                assert data is None, "data were given twice"
                data = int(dut.m_axil_wdata.value), int(dut.m_axil_wstrb.value)
            dut.m_axil_awready.value = self.pause() if address is None else 0
            dut.m_axil_wready.value = self.pause() if data is None else 0
            if address is None or data is None:
                continue
            mask = sum(0xFF << 8 * lane for lane in range(4) if data[1] >> lane & 1)
            self.registers[address] = self.registers[address] & ~mask | data[0] & mask
            while not self.pause():
                await RisingEdge(dut.clk)
            dut.m_axil_bresp.value = SLVERR if address == BAD else OKAY
            dut.m_axil_bvalid.value = 1
            await RisingEdge(dut.clk)
            while not int(dut.m_axil_bready.value):
                await RisingEdge(dut.clk)
            dut.m_axil_bvalid.value = 0
            address = data = None

    def burst(self) -> tuple[int, int, bool]:
        """Address, beats and whether the address stays."""
        beats = self.rng.choice([1, 1, 2, 5, 16])
        offset = 4 * self.rng.randrange(64 - beats + 1)
        inside = self.rng.random() < 0.85
        return (BASE if inside else self.rng.choice([0, BASE + 256, BASE - 256])) + offset, beats, self.rng.random() < 0.2

    def expected(self, address: int, beat: int, fixed: bool) -> int | None:
        """The register of a beat, None outside the window."""
        place = address + (0 if fixed else 4 * beat) - BASE
        return place if 0 <= place < 256 else None

    async def read(self) -> None:
        dut, (address, beats, fixed), name = self.dut, self.burst(), self.rng.randrange(1 << 12)
        for pin, value in (
            ("arid", name),
            ("araddr", address),
            ("arlen", beats - 1),
            ("arsize", 2),
            ("arburst", 0 if fixed else 1),
        ):
            getattr(dut, f"s_axi_{pin}").value = value
        await self.edge_with("s_axi_arvalid", "s_axi_arready")
        dut.s_axi_arid.value = ~name & 0xFFF
        for beat in range(beats):
            await self.edge_with("s_axi_rvalid", "s_axi_rready")
            place = self.expected(address, beat, fixed)
            assert int(dut.s_axi_rid.value) == name
            assert int(dut.s_axi_rlast.value) == (beat == beats - 1)
            assert int(dut.s_axi_rresp.value) == (DECERR if place is None else SLVERR if place == BAD else OKAY)
            assert int(dut.s_axi_rdata.value) == (0 if place is None else self.registers[place])

    async def write(self) -> None:
        dut, (address, beats, fixed), name = self.dut, self.burst(), self.rng.randrange(1 << 12)
        for pin, value in (("awid", name), ("awaddr", address), ("awsize", 2), ("awburst", 0 if fixed else 1)):
            getattr(dut, f"s_axi_{pin}").value = value
        model, worst = dict(self.registers), OKAY
        await self.edge_with("s_axi_awvalid", "s_axi_awready")
        dut.s_axi_awid.value = ~name & 0xFFF
        for beat in range(beats):
            data, strobe = self.rng.getrandbits(32), self.rng.choice([15, 15, 0, 5, 8])
            dut.s_axi_wdata.value, dut.s_axi_wstrb.value, dut.s_axi_wlast.value = data, strobe, int(beat == beats - 1)
            place = self.expected(address, beat, fixed)
            if place is not None:
                mask = sum(0xFF << 8 * lane for lane in range(4) if strobe >> lane & 1)
                model[place] = model[place] & ~mask | data & mask
            worst |= DECERR if place is None else SLVERR if place == BAD else OKAY
            await self.edge_with("s_axi_wvalid", "s_axi_wready")
        await self.edge_with("s_axi_bvalid", "s_axi_bready")
        assert int(dut.s_axi_bid.value) == name and int(dut.s_axi_bresp.value) == worst
        assert self.registers == model
        self.bad_addresses += worst == DECERR


@cocotb.test()
async def bursts(dut: Any) -> None:
    """Reads and writes in turn, each checked on its own."""
    bench = Bench(dut, 1)
    await reset(dut, INPUTS)
    cocotb.start_soon(bench.serve_reads())
    cocotb.start_soon(bench.serve_writes())
    for _ in range(60):
        await bench.write()
        await bench.read()
    assert bench.bad_addresses > 3


@cocotb.test()
async def both_directions_at_once(dut: Any) -> None:
    """A read that waits does not hold up a write."""
    bench = Bench(dut, 2)
    await reset(dut, INPUTS)
    cocotb.start_soon(bench.serve_writes())  # nobody answers reads
    for pin, value in (("arid", 1), ("araddr", BASE), ("arlen", 0), ("arsize", 2), ("arburst", 1)):
        getattr(dut, f"s_axi_{pin}").value = value
    await bench.edge_with("s_axi_arvalid", "s_axi_arready")
    for _ in range(10):
        await bench.write()
    cocotb.start_soon(bench.serve_reads())
    await bench.edge_with("s_axi_rvalid", "s_axi_rready")
    assert int(dut.s_axi_rdata.value) == bench.registers[0]
