"""cocotb testbench of a whole engine: program and images in memory, registers over AXI4-Lite, every tensor compared.

Run by :mod:`sim.verify`, which leaves a job folder: ``job.json``, ``images.npy``, ``golden.npz``. The result goes to
``result.json`` there; ``progress`` holds the number of images whose logits are complete.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from hwgen import isa
from hwgen.build import read_build
from sim.axi_memory import AxiMemory, Timing, reader
from sim.axil import AxilMaster
from sim.monitor import TensorMonitor

REGISTER = {item.name: item.offset for item in isa.REGISTERS}
STATUS_BUSY, STATUS_DONE, STATUS_ERROR = 1, 2, 4
_IDLE_CYCLES_AFTER = 64


class TB:
    """The engine with its memory, its register port and the tensor monitor."""

    def __init__(self, dut: Any, job: dict[str, Any], folder: Path) -> None:
        self.dut = dut
        self.folder = folder
        self.build = read_build(Path(job["build"]))
        self.plan = self.build.schedule
        self.images = np.load(folder / "images.npy")
        golden = np.load(folder / "golden.npz", allow_pickle=False)
        self.monitor = TensorMonitor(self.plan, {name: golden[name] for name in golden.files})
        self.program = self.build.program.read_bytes()
        self.image_stride = -(-self.plan.image_bytes // 8) * 8
        self.output_stride = -(-self.plan.logits_rows * 4 // 8) * 8
        self.image_addr = -(-len(self.program) // 4096) * 4096
        self.output_addr = self.image_addr + -(-self.image_stride * len(self.images) // 4096) * 4096
        size = self.output_addr + self.output_stride * len(self.images) + 4096
        self.memory = AxiMemory(size, seed=job["seed"])
        self.memory.data[:] = np.random.default_rng(job["seed"]).integers(0, 256, size, np.uint8)
        timing = Timing(latency=tuple(job["latency"]), stall=job["stall"])
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
        first_word, layer = reader(core.u_issue.first_word_o), reader(core.u_issue.layer_o)
        logits_last = reader(core.u_write_back.logits_last_o)
        logits_valid = reader(core.u_write_back.logits_valid_o)
        edge = RisingEdge(self.dut.clk)
        monitor = self.monitor
        while True:
            await edge
            self.cycle += 1
            if chunks := plane_we():
                monitor.plane_write(chunks, plane_row(), plane_data())
            if byte_we():
                monitor.byte_write(byte_row(), byte_data())
            if first_word():
                self.first_issue.append((self.cycle, layer()))
            if logits_valid() and logits_last():
                self.logits_seen += 1
                (self.folder / "progress").write_text(str(self.logits_seen))

    async def run(self, limit: int) -> str:
        """Run all images; an empty string, or what went wrong."""
        self.memory.write(0, self.program)
        for index, image in enumerate(self.images):
            self.memory.write(self.image_addr + index * self.image_stride, image.tobytes())
        for name, value in (
            ("watchdog", 1 << 16),
            ("program_addr", 0),
            ("image_addr", self.image_addr),
            ("image_stride", self.image_stride),
            ("output_addr", self.output_addr),
            ("output_stride", self.output_stride),
            ("image_count", len(self.images)),
            ("image_planar", 0),
            ("control", 5),
        ):
            await self.axil.write(REGISTER[name], value)
        cocotb.start_soon(self.watch())
        irq = reader(self.dut.irq_o)
        edge = RisingEdge(self.dut.clk)
        while not irq():
            await edge
            if self.cycle > limit:
                return f"The engine has not finished after {limit} cycles; {self.logits_seen} images are done."
        status = await self.axil.read(REGISTER["status"])
        if status & STATUS_ERROR:
            code = isa.Error(await self.axil.read(REGISTER["error"]))
            info = await self.axil.read(REGISTER["error_info"])
            return f"The engine stopped with error {code.name}: {isa.ERROR_MEANING[code]} (information {info:#010x})."
        for _ in range(_IDLE_CYCLES_AFTER):
            await edge
        for index in range(len(self.images)):
            raw = self.memory.read(self.output_addr + index * self.output_stride, self.plan.logits_rows * 4)
            self.monitor.logits(index, np.frombuffer(raw, "<i4"))
        return ""

    async def counters(self) -> dict[str, int]:
        """The engine's own counters after a run."""
        names = (
            "images_done",
            "cycles",
            "fetch_cycles",
            "fill_cycles",
            "issue_cycles",
            "write_back_cycles",
            "read_beats",
            "write_beats",
        )
        return {name: await self.axil.read(REGISTER[name]) for name in names}

    def predictions(self) -> list[int]:
        """Arg-max of the logits in memory, the lowest index of equal ones."""
        classes = self.plan.passes[-1].code.shape[2]
        rows = [
            np.frombuffer(self.memory.read(self.output_addr + at * self.output_stride, classes * 4), "<i4")
            for at in range(len(self.images))
        ]
        return [int(row.argmax()) for row in rows]


@cocotb.test()
async def whole_network(dut: Any) -> None:
    """Run the job, compare everything, leave the result."""
    folder = Path(os.environ["BITSMITH_JOB"])
    job = json.loads((folder / "job.json").read_text())
    tb = TB(dut, job, folder)
    await tb.reset()
    problem = await tb.run(job["limit"])
    tally = tb.monitor.finish()
    result = {
        "problem": problem,
        "tensors": tally.tensors,
        "wrong": tally.wrong,
        "mismatches": [str(item) for item in tally.mismatches],
        "compared": dict(tally.compared),
        "wrong_by_tensor": dict(tally.wrong_by_tensor),
        "first_issue": tb.first_issue,
        "counters": await tb.counters(),
        "predictions": [] if problem else tb.predictions(),
    }
    (folder / "result.json").write_text(json.dumps(result))
