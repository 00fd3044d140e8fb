"""cocotb testbench of a whole engine: program and images in memory, registers over AXI4-Lite, every tensor compared.

Runs the job of the folder in the environment variable BITSMITH_JOB (see :mod:`sim.job`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from hwgen import isa
from sim.axi_memory import AxiMemory, Timing, reader
from sim.axil import AxilMaster
from sim.job import IDLE_CYCLES_AFTER, STATUS_ERROR, Result, Setting, stopped, stuck
from sim.monitor import TensorMonitor

REGISTER = {item.name: item.offset for item in isa.REGISTERS}


class TB:
    """The engine with its memory, its register port and the tensor monitor."""

    def __init__(self, dut: Any, folder: Path) -> None:
        self.dut = dut
        self.folder = folder
        self.setting = Setting(folder)
        job = self.setting.job
        self.monitor = TensorMonitor(self.setting.plan, self.setting.golden, first_image=job.first_image)
        self.memory = AxiMemory(self.setting.memory_bytes, seed=job.seed, beats_per_cycle=job.beats_per_cycle)
        self.setting.fill(self.memory.data)
        timing = Timing(job.latency, job.stall, job.outstanding)
        for prefix in ("m_axi_0", "m_axi_1"):
            self.memory.attach(dut, prefix, timing)
        self.axil = AxilMaster(dut, "s_axil", dut.clk)
        self.first_issue: list[tuple[int, int]] = []
        self.logits_seen = 0
        self.cycle = 0

    async def reset(self) -> None:
        """Clock on, reset for some cycles."""
        Clock(self.dut.clk, 2, unit="ns").start()
        self.dut.rst.value = 1
        for _ in range(8):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self.memory.start(self.dut.clk)

    async def watch(self) -> None:
        """Feed the monitor; a few reads per cycle."""
        core = self.dut.u_core
        plane_we, byte_we = reader(core.u_write_back.plane_we_o), reader(core.u_write_back.byte_we_o)
        plane_row, plane_data = reader(core.u_write_back.plane_row_o), reader(core.u_write_back.plane_data_o)
        byte_row, byte_data = reader(core.u_write_back.byte_row_o), reader(core.u_write_back.byte_data_o)
        first_word, layer = reader(core.layer_first_q), reader(core.layer_index_q)
        logits_last = reader(core.u_write_back.logits_last_o)
        logits_valid = reader(core.u_write_back.logits_valid_o)
        edge = RisingEdge(self.dut.clk)
        monitor = self.monitor
        while True:
            await edge
            self.cycle += 1
            if chunks := plane_we():
                monitor.plane_write(chunks, plane_row(), plane_data(), self.cycle)
            if byte_we():
                monitor.byte_write(byte_we(), byte_row(), byte_data(), self.cycle)
            if first_word():
                self.first_issue.append((self.cycle, layer()))
            if logits_valid() and logits_last():
                self.logits_seen += 1
                (self.folder / "progress").write_text(str(self.logits_seen))

    async def run(self, limit: int) -> str:
        """Run all images; an empty string, or what went wrong."""
        for name, value in self.setting.registers():
            await self.axil.write(REGISTER[name], value)
        cocotb.start_soon(self.watch())
        irq = reader(self.dut.irq_o)
        edge = RisingEdge(self.dut.clk)
        while not irq():
            await edge
            if self.cycle > limit:
                return stuck(limit, self.logits_seen)
        if await self.axil.read(REGISTER["status"]) & STATUS_ERROR:
            return stopped(await self.axil.read(REGISTER["error"]), await self.axil.read(REGISTER["error_info"]))
        for _ in range(IDLE_CYCLES_AFTER):
            await edge
        for index, logits in enumerate(self.setting.logits(self.memory.data)):
            self.monitor.logits(index, logits)
        return ""

    async def counters(self) -> dict[str, int]:
        """The engine's own counters after a run."""
        return {name: await self.axil.read(REGISTER[name]) for name in self.setting.counters}


@cocotb.test()
async def whole_network(dut: Any) -> None:
    """Run the job, compare everything, leave the result."""
    folder = Path(os.environ["BITSMITH_JOB"])
    tb = TB(dut, folder)
    await tb.reset()
    problem = await tb.run(tb.setting.job.limit)
    predictions = tb.setting.predictions(tb.memory.data)
    Result.of(problem, tb.monitor.finish(), tb.first_issue, await tb.counters(), predictions).write(folder)
