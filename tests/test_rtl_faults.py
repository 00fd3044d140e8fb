"""Everything that can go wrong at run time, on a whole engine: the documented code, no hang, and then a right run.

docs/verification.md has the table; each fault is followed by the run of another network, on the same engine, that nobody cleans.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_sim_random import SHAPES, fitting

from hwgen import isa
from hwgen.board import load_board
from hwgen.build import write_rtl
from sim.compiled import MemoryTiming, compile_engine
from sim.faults import FAULTS, provoke, renumbered, zero_counts
from sim.job import Layout
from sim.random_network import random_images, random_network
from sim.soak import Station, Work, prepare

SHAPE = SHAPES["4x24x4"]


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    library = compile_engine(write_rtl(SHAPE, load_board("pynq-z2"), tmp_path_factory.mktemp("rtl")), quick=True)
    with Station(library, 3, MemoryTiming((5, 40), 0.1, seed=3)) as made:
        yield made


@pytest.fixture(scope="module")
def works() -> list[Work]:
    seeds = fitting(SHAPE, 8, 100)
    made = [prepare(random_network(seed), random_images(random_network(seed), 2, seed), SHAPE, seed) for seed in seeds]
    # The longest one goes wrong: something is still to come wherever it is interrupted.
    return sorted(made, key=lambda work: len(work.plan.passes), reverse=True)


@pytest.mark.parametrize("name", FAULTS)
def test_fault(station: Station, works: list[Work], name: str) -> None:
    assert provoke(station, works[0], FAULTS[name]) == ""
    result = station.run(works[1])
    assert not result.problem and not result.wrong, result.mismatches
    assert station.engine.read_register("error") == isa.Error.NONE


def test_layer_numbers_are_shown_as_they_are(station: Station, works: list[Work]) -> None:
    for work in (works[1], renumbered(works[1])):
        result = station.run(work)
        assert not result.problem and not result.wrong, (result.problem, result.mismatches)


def test_every_count_of_zero_is_refused(station: Station, works: list[Work]) -> None:
    faults = dict(zero_counts(works[0]))
    assert {"conv.tiles = 0", "conv.row_tiles = 0", "conv_out.tiles = 0"} <= set(faults)
    for name, fault in faults.items():
        assert provoke(station, works[0], fault) == "", name
    result = station.run(works[1])
    assert not result.problem and not result.wrong, result.mismatches


def test_stop_and_reset_in_the_middle(station: Station, works: list[Work]) -> None:
    for delay in (0, 37, 411, 1503):
        for kind in ("stop", "reset"):
            layout = Layout(works[0].plan, works[0].program, works[0].images, delay)
            layout.fill(station.engine.memory)
            for name, value in layout.registers():
                station.engine.write_register(name, value)
            station.engine.step(delay)
            if kind == "stop":
                station.engine.write_register("control", 2)
                station.engine.step(1000)
            else:
                station.engine.reset()
            assert station.engine.read_register("status") == 0
            assert station.engine.read_register("error") == isa.Error.NONE
            result = station.run(works[1])
            assert not result.problem and not result.wrong, (kind, delay, result.mismatches)


def test_every_error_has_a_fault() -> None:
    assert {fault.error for fault in FAULTS.values()} == set(isa.Error) - {isa.Error.NONE}
