"""The soak finds what is wrong, shrinks it and says how to see it again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import soak
from hwgen.network import Network, Weighted
from hwgen.network_check import check
from hwgen.network_file import read_network
from sim.job import Result
from sim.random_engine import random_engines
from sim.random_network import random_images, random_network
from sim.shrink import shrink
from sim.soak import Work, words_read


def depthwise(network: Network) -> bool:
    return any(isinstance(node, Weighted) and node.depthwise for node in network.nodes)


class BrokenStation:
    """An engine that fails on depthwise layers, or after having run anything at all."""

    def __init__(self, library: Path, seed: int) -> None:
        self.dirty = False

    def __enter__(self) -> BrokenStation:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, work: Work) -> Result:
        wrong = self.dirty if SETTING["stateful"] else depthwise(work.network)
        self.dirty = True
        return Result("", 7, int(wrong), ["image 0, here"] if wrong else [], {}, {}, [], {})


SETTING = {"stateful": False}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "Station", BrokenStation)
    monkeypatch.setattr(soak, "compile_engine", lambda rtl, quick: Path("none.so"))
    monkeypatch.setattr(soak, "compile_kernel", lambda sources: Path("none"))
    monkeypatch.setattr(soak, "simulate_hls", lambda kernel, layout, monitor: Result("", 2, 0, [], {}, {}, [], {}))
    monkeypatch.setitem(SETTING, "stateful", False)


def test_a_failure_is_shrunk_and_its_command_repeats_it(
    broken: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = random_engines(2)
    figures = soak.soak(engines, 60, 500, tmp_path)
    written = json.loads((tmp_path / "soak.json").read_text())
    assert written["mismatches"] == figures.mismatches > 0
    assert written["networks"] == figures.networks >= 60 and written["shapes"] == 2
    assert written["tensors"] == (7 + 2) * figures.networks
    command = figures.failures[0].splitlines()[-1].partition("Repeat it: python -m benchmarks.soak ")[2].split()
    found = next((tmp_path / "soak-failures").iterdir())
    network = read_network(found / "network")
    assert len(network.nodes) <= 4 and depthwise(network) and len(np.load(found / "images.npy")) == 1
    monkeypatch.setattr("sys.argv", ["soak", *command, "--out", str(tmp_path / "again")])
    assert soak.main() == 1
    assert "image 0, here" in capsys.readouterr().err


def test_a_failure_of_dirty_state_keeps_the_run_before(
    broken: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTING, "stateful", True)
    figures = soak.soak(random_engines(1), 2, 500, tmp_path)
    seeds = figures.failures[0].splitlines()[-1].rpartition(" ")[2]
    assert len(seeds.split(",")) == 2


def test_a_failure_of_the_hls_kernel_is_one(broken: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrokenStation, "run", lambda self, work: Result("", 3, 0, [], {}, {}, [], {}))
    wrong = Result("", 2, 1, ["image 0, there"], {}, {}, [], {})
    monkeypatch.setattr(soak, "simulate_hls", lambda kernel, layout, monitor: wrong)
    figures = soak.soak(random_engines(1), 2, 500, tmp_path)
    assert figures.mismatches > 0 and "The HLS kernel fails.\nimage 0, there" in figures.failures[0]


def test_nothing_wrong_is_said_to_be_so(broken: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrokenStation, "run", lambda self, work: Result("", 3, 0, [], {}, {}, [], {}))
    monkeypatch.setattr("sys.argv", ["soak", "--networks", "5", "--shapes", "1", "--out", str(tmp_path)])
    assert soak.main() == 0
    assert json.loads((tmp_path / "soak.json").read_text())["failures"] == []


@pytest.mark.parametrize("seed", range(6))
def test_every_step_of_shrinking_is_a_legal_network(seed: int) -> None:
    network = random_network(seed)
    seen = []

    def fails(candidate: Network, images: NDArray[np.uint8]) -> bool:
        assert check(candidate) == [] and images.dtype == np.uint8
        seen.append(len(candidate.nodes))
        return len(seen) % 3 == 0

    small, images = shrink(network, random_images(network, 3, seed), fails)
    assert len(small.nodes) <= len(network.nodes) and len(images) >= 1


def test_read_errors_hit_words_that_are_read() -> None:
    engine = random_engines(1).popitem()[1]
    for work in next(soak.groups(engine, 1, soak.Figures())):
        program = np.frombuffer(work.program, "<u8")
        read = words_read(work)
        assert len(read) == len(set(read)) and max(read) < len(work.program)
        padding = set(range(0, len(work.program), 8)) - set(read)
        assert not any(program[at // 8] for at in padding)


def test_random_engines_are_many_and_the_same_each_time() -> None:
    engines = random_engines(32)
    assert len(engines) == 32 and engines == random_engines(32)
    assert list(random_engines(5)) == list(engines)[:5]
    for field in ("rows", "columns", "slots", "slot_channels", "lane_rows"):
        assert len({getattr(engine, field) for engine in engines.values()}) >= 2, field
