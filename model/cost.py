"""What bits cost: cycles of the run's engine, bit operations, or bytes of weights.

A cost has a table per layer (what the search descends on) and a total of a whole network (what the budget holds): for
cycles the table is each layer on its own, and the total that of the assembled program with its dependences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwgen.board import Board
from hwgen.cycles import cost_table, time_program
from hwgen.engine import EngineConfig
from hwgen.explore import choose_engine, fit_board
from hwgen.network import Network, Weighted
from hwgen.schedule import Schedule, schedule

Table = Mapping[str, NDArray[np.int64]]


class Cost(Protocol):
    """One way to count. name: as in recipes. unit: for people, with a leading space. additive: every total is the table's sum."""

    name: str
    unit: str
    additive: bool

    def table(self, network: Network) -> Table:
        """Cost of each weighted node by [weight bits - 1][activation bits - 1], int64 (8, 8); the network's bits do not matter."""

    def total(self, network: Network) -> int:
        """Cost of the network at its own bits."""

    def adapt(self, network: Network) -> bool:
        """Change what can be changed in favour of the network at its bits (an engine's shape); whether anything was."""

    def settle(self, network: Network) -> None:
        """Make sure that the network at its final bits can run."""


def _summed(network: Network, table: Table) -> int:
    return sum(
        int(table[node.name][node.weight_bits - 1, network.tensors[node.inputs[0]].bits - 1])
        for node in network.nodes
        if isinstance(node, Weighted)
    )


class BitOperations:
    """MAC x weight bits x activation bits."""

    name, unit, additive = "bitops", " bit operations", True

    def table(self, network: Network) -> Table:
        steps = np.arange(1, 9, dtype=np.int64)
        made = {}
        for node in network.nodes:
            if isinstance(node, Weighted):
                height, width, _ = network.tensors[node.output].shape
                made[node.name] = node.weight.size * height * width * np.outer(steps, steps)
        return made

    def total(self, network: Network) -> int:
        return _summed(network, self.table(network))

    def adapt(self, network: Network) -> bool:
        return False

    def settle(self, network: Network) -> None:
        pass


class WeightBytes:
    """Bytes of all weights, each layer's rounded up to a whole byte."""

    name, unit, additive = "bytes", " bytes of weights", True

    def table(self, network: Network) -> Table:
        steps = np.arange(1, 9, dtype=np.int64)
        return {
            node.name: np.repeat((node.weight.size * steps + 7)[:, None] // 8, 8, axis=1)
            for node in network.nodes
            if isinstance(node, Weighted)
        }

    def total(self, network: Network) -> int:
        return _summed(network, self.table(network))

    def adapt(self, network: Network) -> bool:
        return False

    def settle(self, network: Network) -> None:
        pass


class Cycles:
    """Cycles per image of an engine. With a ``board``, its buffers may grow as far as the board holds them (weights that find no
    room are streamed, which the cycles count), and another shape can be chosen (``search.joint``); without one the engine is as
    given.
    """

    name, unit, additive = "cycles", " cycles", False

    def __init__(self, engine: EngineConfig, board: Board | None = None) -> None:
        self.engine, self.board = engine, board

    def table(self, network: Network) -> Table:
        return cost_table(network, self.engine)

    def total(self, network: Network) -> int:
        return time_program(self._schedule(network)).cycles_per_image

    def adapt(self, network: Network) -> bool:
        if self.board is None:
            return False
        before, self.engine = self.engine, choose_engine(network, self.board).engine
        return self.engine != before

    def settle(self, network: Network) -> None:
        """Grow the engine's buffers to those that :meth:`total` times the network with."""
        self.engine = self._schedule(network).engine

    def _schedule(self, network: Network) -> Schedule:
        return schedule(network, self.engine) if self.board is None else fit_board(network, self.engine, self.board)
