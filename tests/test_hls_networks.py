"""Networks on the HLS kernel in C simulation: every tensor of every image equals the golden model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwgen.board import load_board
from hwgen.build import generate
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from sim.random_network import random_network
from sim.verify import verify

SHAPES = {
    "4x24x4": EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=8192, plane_depth=2048,
                           byte_depth=2048, column_depth=1024),
    "8x144x4": EngineConfig(rows=8, columns=4, slots=9, lane_rows=4, weight_depth=2048, plane_depth=2048, byte_depth=2048,
                            column_depth=512),
    "16x48x8": EngineConfig(rows=16, columns=8, slots=3, lane_rows=2, weight_depth=4096, plane_depth=1024, byte_depth=2048,
                            column_depth=1024),
}  # fmt: skip
NETWORKS_PER_SHAPE = 8


@pytest.mark.parametrize("name", SHAPES)
def test_random_networks_are_exact(name: str, tmp_path: Path) -> None:
    done, seed = 0, 100
    while done < NETWORKS_PER_SHAPE:
        seed += 1
        try:
            build = generate(
                random_network(seed), SHAPES[name], load_board("pynq-z2"), tmp_path / str(seed), backend="hls"
            )
        except InputError:
            continue
        figures = verify(build.path, count=3, processes=1)
        assert figures["problem"] == "", seed
        assert figures["mismatches"] == 0, (seed, figures["first_mismatches"])
        assert figures["tensors_compared"] >= 3
        done += 1


def test_a_simulator_of_the_other_backend_is_refused(tmp_path: Path) -> None:
    build = generate(random_network(1), SHAPES["8x144x4"], load_board("pynq-z2"), tmp_path / "b", backend="hls")
    with pytest.raises(InputError, match=r"backend is hls, which simulator 'cocotb' does not run"):
        verify(build.path, count=1, simulator="cocotb")


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no backend 'vhdl'; there are rtl and hls\."):
        generate(random_network(1), SHAPES["8x144x4"], load_board("pynq-z2"), tmp_path / "b", backend="vhdl")
