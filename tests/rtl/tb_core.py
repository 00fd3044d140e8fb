"""cocotb testbench of bs_core: whole networks without the memory side.

The testbench plays fetch: it loads weights and parameters, cuts the images into planes, and hands out instructions.
"""

import os
import pickle
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from hwgen.schedule import schedule as make_schedule
from sim.monitor import TensorMonitor


class TB:
    def __init__(self, dut, work):
        self.dut = dut
        self.schedule = make_schedule(work["network"], work["engine"])
        self.images = work["images"]
        self.monitor = TensorMonitor(self.schedule, work["golden"])
        self.cycle = 0
        self.first_issue = []
        self.image_free = 0
        self.logit_beats = []
        self.logit_rows = []
        self.stall = work.get("stall", 0.0)

    async def start(self):
        dut = self.dut
        for name in ("execute_valid_i", "write_back_valid_i", "fetch_to_fill_i", "fetch_to_issue_i", "weight_we_i",
                     "param_we_i", "plane_valid_i", "execute_first_i", "write_back_first_i"):
            getattr(dut, name).value = 0
        dut.logits_idle_i.value = 1
        cocotb.start_soon(Clock(dut.clk, 2, unit="ns").start())
        dut.rst.value = 1
        for _ in range(4):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)

    async def load(self):
        dut, engine, program = self.dut, self.schedule.engine, self.schedule.program
        words = np.frombuffer(program.data, "<u8")
        rows = self.schedule.memory.weight_rows
        chunks = engine.row_chunks
        dut.weight_we_i.value = 1
        for row in range(rows):
            for chunk in range(chunks):
                dut.weight_row_i.value = row
                dut.weight_chunk_i.value = chunk
                dut.weight_data_i.value = int(words[row * chunks + chunk])
                await RisingEdge(dut.clk)
        dut.weight_we_i.value = 0
        dut.param_we_i.value = 1
        params = words[rows * chunks :].reshape(-1, 2)
        for channel, pair in enumerate(params):
            for word in range(2):
                dut.param_channel_i.value = channel
                dut.param_word_i.value = word
                dut.param_data_i.value = int(pair[word])
                await RisingEdge(dut.clk)
        dut.param_we_i.value = 0
        dut.fetch_to_issue_i.value = 1
        await RisingEdge(dut.clk)
        dut.fetch_to_issue_i.value = 0

    async def feed(self, stream, valid, ready, instr, first):
        for image in range(len(self.images)):
            for item in stream:
                while random.random() < self.stall:
                    await RisingEdge(self.dut.clk)
                instr.value = int.from_bytes(item.encode(), "little")
                first.value = int(image == 0)
                valid.value = 1
                while True:
                    await ReadOnly()
                    taken = int(ready.value)
                    await RisingEdge(self.dut.clk)
                    if taken:
                        break
                valid.value = 0

    async def feed_images(self):
        dut, engine = self.dut, self.schedule.engine
        load = self.schedule.program.fetch[-1]
        for index, image in enumerate(self.images):
            while self.image_free < index:
                await RisingEdge(dut.clk)
            pixels = image.reshape(load["pixels"], load["channels"]).astype(np.int64)
            group = engine.slot_channels
            for g in range(-(-load["channels"] // group)):
                for plane in range(load["bits"]):
                    for row in range(load["pitch"]):
                        data = 0
                        for position in range(engine.columns):
                            p = row * engine.columns + position
                            if p >= load["pixels"]:
                                continue
                            for j in range(group):
                                c = g * group + j
                                if c < load["channels"]:
                                    data |= int(pixels[p, c] >> plane & 1) << (position * group + j)
                        dut.plane_row_i.value = load["base"] + (g * load["bits"] + plane) * load["pitch"] + row
                        dut.plane_data_i.value = data
                        dut.plane_valid_i.value = 1
                        while True:
                            await ReadOnly()
                            taken = int(dut.plane_ready_o.value)
                            await RisingEdge(dut.clk)
                            if taken:
                                break
                        dut.plane_valid_i.value = 0
            await RisingEdge(dut.clk)
            dut.fetch_to_fill_i.value = 1
            await RisingEdge(dut.clk)
            dut.fetch_to_fill_i.value = 0

    async def watch(self):
        dut = self.dut
        wb, issue = dut.u_write_back, dut.u_issue
        while True:
            await RisingEdge(dut.clk)
            self.cycle += 1
            if int(wb.plane_we_o.value):
                self.monitor.plane_write(int(wb.plane_we_o.value), int(wb.plane_row_o.value), int(wb.plane_data_o.value))
            if int(wb.byte_we_o.value):
                self.monitor.byte_write(int(wb.byte_row_o.value), int(wb.byte_data_o.value))
            if int(dut.fill_to_fetch_o.value):
                self.image_free += 1
            if int(issue.first_word_o.value):
                self.first_issue.append((self.cycle, int(issue.layer_o.value)))
            if int(dut.logits_valid_o.value):
                value = int(dut.logits_o.value)
                for row in range(self.schedule.engine.lane_rows):
                    part = value >> (32 * row) & 0xFFFFFFFF
                    self.logit_beats.append(part - (1 << 32) if part >> 31 else part)
                if int(dut.logits_last_o.value):
                    self.monitor.logits(len(self.logit_rows), np.array(self.logit_beats))
                    self.logit_rows.append(self.logit_beats)
                    self.logit_beats = []


@cocotb.test()
async def run_network(dut):
    with open(os.environ["CORE_WORK"], "rb") as handle:
        work = pickle.load(handle)
    random.seed(work["seed"])
    tb = TB(dut, work)
    await tb.start()
    await tb.load()
    program = tb.schedule.program
    cocotb.start_soon(tb.watch())
    cocotb.start_soon(tb.feed(program.execute, dut.execute_valid_i, dut.execute_ready_o, dut.execute_instr_i, dut.execute_first_i))
    cocotb.start_soon(tb.feed(program.write_back, dut.write_back_valid_i, dut.write_back_ready_o, dut.write_back_instr_i, dut.write_back_first_i))
    cocotb.start_soon(tb.feed_images())
    start = tb.cycle
    while len(tb.logit_rows) < len(tb.images):
        await RisingEdge(dut.clk)
        assert tb.cycle - start < work["limit"], (
            f"no logits after {work['limit']} cycles: image {len(tb.logit_rows)}, {tb.monitor.tally}")
    for _ in range(60):
        await RisingEdge(dut.clk)
    tally = tb.monitor.finish()
    with open(os.environ["CORE_WORK"] + ".out", "w") as handle:
        handle.write(repr({"first_issue": tb.first_issue, "tensors": tally.tensors, "wrong": tally.wrong}))
    assert not tally.wrong, "\n".join(str(item) for item in tally.mismatches)
