"""Recorded buffer writes through the tensor monitor, a whole batch of images at a time.

A right batch is recognised by comparing all its writes with the expected ones at once. A wrong one goes through the
monitor write by write, so that both paths of the simulation tell mistakes in the same words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.compiled import NO_CYCLE, Events, Writes
from sim.monitor import Port, TensorMonitor


class Replay:
    """Feeds the events of a run to a monitor."""

    def __init__(self, monitor: TensorMonitor) -> None:
        self._ports = (_PortReplay(monitor, monitor.planes), _PortReplay(monitor, monitor.bytes))

    def feed(self, events: Events) -> None:
        """Compare every batch that is complete; keep the rest for later."""
        for port, writes in zip(self._ports, (events.planes, events.bytes), strict=True):
            port.feed(writes)

    def finish(self) -> None:
        """Compare what is left of a batch that never became complete."""
        for port in self._ports:
            port.finish()


class _PortReplay:
    def __init__(self, monitor: TensorMonitor, port: Port) -> None:
        self._monitor, self._port = monitor, port
        self._waiting: list[Writes] = []
        self._tensors = {want.key: want.made for want in port.order}
        self._rows = np.array([want.row for want in port.order], np.uint32)
        self._enables = np.array([want.enables or 0 for want in port.order], np.uint32)
        self._any_enables = np.array([want.enables is None for want in port.order])
        self._shifts = np.array([want.plane for want in port.order], np.uint8)
        self._cells = self._places()

    def _places(self) -> NDArray[np.int32]:
        """For each write and each cell of its row: index into the batch's codes of all tensors; -1: any value."""
        starts, size = {}, 0
        for key, made in self._tensors.items():
            starts[key], size = size, size + int(np.prod(made.shape))
        port, columns = self._port, self._monitor.engine.columns
        order = port.order

        def facts(values: list[int]) -> NDArray[np.int64]:
            return np.array(values, np.int64)[:, None, None]

        column = np.arange(columns)[None, :, None] - facts([want.bank for want in order])
        pixel = column + facts([want.first for want in order])
        channel = np.arange(port.width)[None, None, :] + facts([want.channel for want in order])
        depth = facts([want.made.shape[2] for want in order])
        inside = (column >= 0) & (column < facts([want.pixels for want in order]))
        inside = inside & (pixel < facts([want.made.shape[0] * want.made.shape[1] for want in order])) & (channel < depth)
        places = facts([starts[want.key] for want in order]) + pixel * depth + channel
        for index, want in enumerate(order):
            if (matters := self._monitor.matters.get(want.key)) is not None:
                inside[index] &= matters[np.minimum(pixel[index], len(matters) - 1)]
        return np.where(inside, places, -1).astype(np.int32).reshape(len(order), columns * port.width)

    def _right(self, writes: Writes) -> bool:
        """Whether these are the next batch's writes, all as expected."""
        if not np.array_equal(writes.rows, self._rows):
            return False
        if not np.all(self._any_enables | (writes.enables == self._enables)):
            return False
        batch, bits = self._port.batch, self._port is self._monitor.planes
        codes = np.concatenate(
            [
                (np.asarray(self._monitor.golden[key][batch], np.int64).ravel() - (made.lo if bits else 0)).astype(
                    np.uint8
                )
                for key, made in self._tensors.items()
            ]
        )
        expected, matters = codes[self._cells], self._cells >= 0
        found = np.ascontiguousarray(writes.data)
        if bits:
            expected = expected >> self._shifts[:, None] & 1
            found = np.unpackbits(found, axis=1, bitorder="little")
        return not bool(((found != expected) & matters).any())

    def feed(self, writes: Writes) -> None:
        if len(writes.rows):
            self._waiting.append(writes)
        need = len(self._port.order)
        if sum(len(part.rows) for part in self._waiting) < max(need, 1):
            return
        merged = _merge(self._waiting)
        at = 0
        while self._port.batch < self._monitor.batches and need and len(merged.rows) - at >= need:
            part = _part(merged, at, at + need)
            if self._right(part):
                self._monitor.accept(self._port)
            else:
                self._one_by_one(part)
            at += need
        if self._port.batch >= self._monitor.batches:
            self._one_by_one(_part(merged, at, len(merged.rows)))
            at = len(merged.rows)
        self._waiting = [_part(merged, at, len(merged.rows))]

    def finish(self) -> None:
        if self._waiting:
            self._one_by_one(_merge(self._waiting))
            self._waiting = []

    def _one_by_one(self, writes: Writes) -> None:
        planes = self._port is self._monitor.planes
        facts = zip(writes.cycles.tolist(), writes.rows.tolist(), writes.enables.tolist(), writes.data, strict=True)
        for cycle, row, enables, data in facts:
            value = int.from_bytes(data.tobytes(), "little")
            if planes:
                self._monitor.plane_write(enables, row, value, None if cycle == NO_CYCLE else cycle)
            else:
                self._monitor.byte_write(enables, row, value, None if cycle == NO_CYCLE else cycle)


def _merge(parts: list[Writes]) -> Writes:
    if len(parts) == 1:
        return parts[0]
    return Writes(
        np.concatenate([part.cycles for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.enables for part in parts]),
        np.concatenate([part.data for part in parts]),
    )


def _part(writes: Writes, start: int, stop: int) -> Writes:
    chosen = slice(start, stop)
    return Writes(writes.cycles[chosen], writes.rows[chosen], writes.enables[chosen], writes.data[chosen])
