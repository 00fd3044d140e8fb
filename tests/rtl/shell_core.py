"""The core as the shell's bench plays it."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from cocotb.triggers import RisingEdge

PACE = 40  # cycles from one step of a slow core to the next
STAGES = ("fill", "issue", "write_back")  # of the core, in the order of the registers' bits
QUIET = (
    "execute_ready_i", "write_back_ready_i", "fill_to_fetch_i", "issue_to_fetch_i", "plane_ready_i",
    "logits_valid_i", "logits_last_i", "fill_active_i", "issue_active_i", "write_back_active_i", "fill_layer_i",
    "issue_layer_i", "write_back_layer_i",
)  # fmt: skip


class Core:
    """Plays the core: takes the instructions, keeps what is written to its buffers, answers with the image's logits.

    One image at a time, as the tokens of a real core would have it: its ``execute`` instructions, some work, its ``write_back``
    instructions, its logits. A slow core does one thing at a time, with ``PACE`` cycles between its steps.
    """

    def __init__(
        self, dut: Any, rng: random.Random, logits: list[list[int]], execute: int, write_back: int, slow: bool
    ) -> None:
        self.dut, self.random, self.logits, self.slow = dut, rng, logits, slow
        self.each_execute, self.each_write_back = execute, write_back
        self.weights: dict[tuple[int, int], int] = {}
        self.params: dict[tuple[int, int], int] = {}
        self.planes: dict[int, int] = {}
        self.seen: list[tuple[dict[int, int], dict[tuple[int, int], int]]] = []  # planes and parameters of each image
        self.execute: list[tuple[int, int]] = []  # instruction, whether it is for the first image
        self.write_back: list[tuple[int, int]] = []
        self.active = [0, 0, 0]  # cycles
        self.layers = [0, 0, 0]
        self.written = 0
        self.hold: set[str] = set()  # instructions of these stages are not taken
        self._clear()

    def _clear(self) -> None:
        self.written = self._ready_images = self._weights_ready = self._work = self._rest = self._linger = 0
        self._beats: deque[tuple[int, int]] = deque()
        self.active = [0, 0, 0]
        for kept in (self.weights, self.params, self.planes, self.seen, self.execute, self.write_back):
            kept.clear()

    def _give(self, stage: str) -> None:
        getattr(self.dut, f"{stage}_to_fetch_i").value = 1

    def _take_execute(self) -> None:
        dut = self.dut
        if len(self.execute) % self.each_execute == 0:
            self.seen.append((dict(self.planes), dict(self.params)))
            self.planes.clear()
            self.params.clear()
            self._ready_images -= 1
            self._weights_ready -= 1 if self.execute else 2
            if not self.slow:
                self._give("fill")
            self.layers = [self.random.randrange(256) for _ in STAGES]
            for name, layer in zip(STAGES, self.layers, strict=True):
                getattr(dut, f"{name}_layer_i").value = layer
        self.execute.append((int(dut.execute_instr_o.value), int(dut.execute_first_o.value)))
        if len(self.execute) % self.each_execute == 0:
            self._work = 15 * PACE if self.slow else self.random.randint(20, 60)
        self._rest = PACE if self.slow else self.random.choice([0, 0, 1, 5])

    def _take_write_back(self) -> None:
        dut = self.dut
        self.write_back.append((int(dut.write_back_instr_o.value), int(dut.write_back_first_o.value)))
        image, left = divmod(len(self.write_back), self.each_write_back)
        if not left:
            values, lanes = self.logits[image - 1], len(dut.logits_i) // 32
            for at in range(0, len(values), lanes):
                beat = sum(value << 32 * lane for lane, value in enumerate(values[at : at + lanes]))
                self._beats.append((beat, int(at + lanes == len(values))))
        self._rest = PACE if self.slow else self.random.choice([0, 0, 1, 5])

    def _do_work(self) -> None:
        """One cycle of work: who is active in it."""
        if not self._work:
            active = [0, 0, 0]
        elif self.slow:
            # One stage after the other, now and then.
            active = [int(self._work % PACE == 0 and (self._work - 1) // (5 * PACE) == at) for at in range(3)]
        else:
            active = [int(self.random.random() < likely) for likely in (0.3, 0.5, 0.8)]
        for at, name in enumerate(STAGES):
            getattr(self.dut, f"{name}_active_i").value = active[at]
            self.active[at] += active[at]
        if self._work == 1:
            self._give("issue")
        if self.slow and self._work == PACE // 2:
            self._give("fill")
        self._work = max(0, self._work - 1)
        self._rest = max(0, self._rest - 1)
        self._linger = max(0, self._linger - 1)

    async def run(self) -> None:
        dut = self.dut
        plane_ready = execute_ready = write_back_ready = cycle = 0
        while True:
            await RisingEdge(dut.clk)
            cycle += 1
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
                self._take_execute()
            if int(dut.logits_written_o.value):
                self.written += 1
                self._linger = self.random.randint(0, 40)
            if write_back_ready and int(dut.write_back_valid_o.value):
                self._take_write_back()
            if self._beats and self.random.random() < 0.7:
                data, last = self._beats.popleft()
                dut.logits_valid_i.value, dut.logits_last_i.value, dut.logits_i.value = 1, last, data
            self._do_work()
            begun, inside = divmod(len(self.execute), self.each_execute)
            ended = len(self.write_back) // self.each_write_back
            free = not self._work and not self._rest and not self._beats and self.written == ended
            ready = inside or (self._ready_images > 0 and self._weights_ready >= (1 if begun else 2))
            execute_ready = int(
                bool(free and begun == ended and ready and not execute_ready and "execute" not in self.hold)
            )
            write_back_ready = int(free and begun > ended and not write_back_ready and "write_back" not in self.hold)
            plane_ready = int(cycle % (2 * PACE) == 0 if self.slow else self.random.random() < 0.8)
            dut.execute_ready_i.value = execute_ready
            dut.write_back_ready_i.value = write_back_ready
            dut.plane_ready_i.value = plane_ready
            # It may have something to finish once its last logits are in memory.
            dut.core_idle_i.value = int(begun == ended == self.written and not inside and not self._linger)
