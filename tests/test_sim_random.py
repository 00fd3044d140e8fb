"""Random networks from network file to RTL: every tensor of every image equals the golden model's, on awkward shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hwgen.board import load_board
from hwgen.build import generate, write_rtl
from hwgen.cycles import time_program
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network import AvgPool, MaxPool, Network, Requant, ShortcutA, Weighted
from hwgen.network_check import check
from hwgen.schedule import schedule
from sim import bitplanes, golden
from sim.compiled import MemoryTiming, compile_engine
from sim.random_network import FEATURES, random_images, random_network
from sim.soak import DISTURBANCES, Station, prepare, spoil_clashes
from sim.verify import steady_cycles, verify

# Small and awkward: one lane row and several, words of 24 to 144 bits, row tiles of 2 to 16 channels, both slot widths.
SHAPES = {
    "4x24x4": EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=8192, plane_depth=2048,
                           byte_depth=2048, column_depth=1024),
    "2x48x8": EngineConfig(rows=2, columns=8, slots=6, slot_channels=8, lane_rows=2, weight_depth=8192, plane_depth=2048,
                           byte_depth=2048, column_depth=1024),
    "8x144x4": EngineConfig(rows=8, columns=4, slots=9, lane_rows=4, weight_depth=2048, plane_depth=2048, byte_depth=2048,
                            column_depth=512),
    "16x48x8": EngineConfig(rows=16, columns=8, slots=3, lane_rows=2, weight_depth=4096, plane_depth=1024, byte_depth=2048,
                            column_depth=1024),
    "4x96x16": EngineConfig(rows=4, columns=16, slots=6, lane_rows=1, weight_depth=4096, plane_depth=1024,
                            byte_depth=1024, column_depth=1024),
    "8x72x8": EngineConfig(rows=8, columns=8, slots=9, slot_channels=8, lane_rows=8, weight_depth=256, plane_depth=512,
                           byte_depth=512, column_depth=1024),
}  # fmt: skip
NETWORKS_PER_SHAPE = 6


@pytest.mark.parametrize("seed", range(12))
def test_generator_makes_legal_networks_that_use_their_range(seed: int) -> None:
    network = random_network(seed)
    assert check(network) == []
    tensors = golden.run(network, random_images(network, 4, seed))
    spread = [len(np.unique(codes)) for name, codes in tensors.items() if network.tensors[name].bits > 1]
    assert max(spread) > 2


def test_generator_is_deterministic() -> None:
    one, two = random_network(5), random_network(5)
    assert [node.name for node in one.nodes] == [node.name for node in two.nodes]
    for a, b in zip(one.nodes, two.nodes, strict=True):
        if isinstance(a, Weighted):
            assert isinstance(b, Weighted) and np.array_equal(a.weight, b.weight)


@pytest.mark.parametrize("seed", range(8))
def test_bit_planes_equal_the_golden_sums(seed: int) -> None:
    network = random_network(seed)
    values = {
        name: codes.astype(np.int64) for name, codes in golden.run(network, random_images(network, 2, seed)).items()
    }
    for node in network.nodes:
        if isinstance(node, Weighted) and node.weight.size * network.tensors[node.output].shape[0] < 4000:
            x, source = values[node.inputs[0]], network.tensors[node.inputs[0]]
            assert np.array_equal(bitplanes.accumulate(node, x, source), golden.accumulate(node, x, source)), node.name


def fitting(shape: EngineConfig, count: int, start: int) -> list[int]:
    """The first ``count`` seeds from ``start`` whose network fits the shape."""
    seeds: list[int] = []
    seed = start
    while len(seeds) < count:
        try:
            schedule(random_network(seed), shape)
            seeds.append(seed)
        except InputError:
            pass
        seed += 1
    return seeds


@pytest.mark.parametrize("name", SHAPES)
def test_random_networks_in_rtl(name: str, tmp_path: Path) -> None:
    """Back to back on one engine that nobody cleans, each run but the first after one that ended badly."""
    shape, at = SHAPES[name], list(SHAPES).index(name)
    library = compile_engine(spoil_clashes(write_rtl(shape, load_board("pynq-z2"), tmp_path)), quick=True)
    with Station(library, at, MemoryTiming((1, 90), 0.3, seed=at)) as station:
        seeds = fitting(shape, NETWORKS_PER_SHAPE, 100 * (1 + at))
        for seed, disturbance in zip(seeds, ("", *DISTURBANCES), strict=True):
            network = random_network(seed)
            work = prepare(network, random_images(network, 3, seed), shape, seed, disturbance)
            result = station.run(work)
            told = f"random_network({seed}) on {name}: {result.problem} {result.mismatches[:3]}"
            assert not result.problem and not result.wrong, told
            assert result.tensors >= 3 * len({item.code.name for item in work.plan.passes if item.planes}), told
            program = work.plan.program
            if any(item.op.name == "load_weights" for item in program.fetch[program.fetch_loop :]):
                continue  # weights that stream wait for this slow memory, which the model knows nothing of
            modelled = time_program(work.plan, images=3)
            if modelled.cycles_per_image < 3 * work.plan.image_bytes + 600:
                continue  # too short to hide the loading of the next image behind slow memory
            _, layers = steady_cycles(work.plan, result.first_issue)
            simulated = {layer["name"]: layer["cycles"] for layer in layers}
            for layer in modelled.layers:
                assert abs(layer.cycles - simulated[layer.name]) <= max(8, 0.02 * simulated[layer.name]), (
                    told,
                    layer,
                    simulated,
                )


@pytest.mark.parametrize("seed", [1031, 1275])
def test_option_a_on_a_map_with_an_odd_number_of_rows(seed: int, tmp_path: Path) -> None:
    shape = SHAPES["4x24x4"]
    library = compile_engine(write_rtl(shape, load_board("pynq-z2"), tmp_path), quick=True)
    network = random_network(seed)
    source = next(network.tensors[node.inputs[0]] for node in network.nodes if isinstance(node, ShortcutA))
    assert source.shape[0] % 2 and source.shape[1] % shape.columns == 0
    with Station(library, seed) as station:
        result = station.run(prepare(network, random_images(network, 3, seed), shape))
    assert not result.problem and not result.wrong, result.mismatches


def test_a_wrong_bit_in_golden_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES["4x24x4"]
    network = random_network(fitting(shape, 1, 100)[0])
    build = generate(network, shape, load_board("pynq-z2"), tmp_path / "build")
    right = golden.run

    def wrong(net: Network, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int32]]:
        tensors = right(net, images)
        name = next(item.planes.name for item in build.schedule.passes if item.planes is not None)
        tensors[name][1, 0, 0, 0] ^= 1
        return tensors

    monkeypatch.setattr(golden, "run", wrong)
    result = verify(build.path, images=random_images(network, 2, 1), junit=tmp_path / "report.xml")
    assert result["mismatches"] == 1
    assert "image 1" in result["first_mismatches"][0] and "y 0, x 0, channel 0" in result["first_mismatches"][0]
    assert 'failures="1"' in (tmp_path / "report.xml").read_text()


def test_every_feature_occurs() -> None:
    seen = set()
    for seed in range(100, 160):
        for node in random_network(seed).nodes:
            seen.add(type(node).__name__)
            if isinstance(node, Weighted):
                seen |= {"depthwise"} if node.depthwise else set()
                seen |= {node.encoding.value, f"W{node.weight_bits}"}
                seen |= {"pad_codes"} if node.pad_codes else set()
    expected = {
        "Conv",
        "Logits",
        "Requant",
        "MaxPool",
        "AvgPool",
        "ShortcutA",
        "depthwise",
        "twos",
        "bipolar",
        "pad_codes",
    }
    assert expected | {f"W{bits}" for bits in range(1, 9)} <= seen, json.dumps(sorted(seen))


def found_features(network: Network) -> set[str]:
    """Which of FEATURES a network shows ("extreme" and linear layers cannot be told from chance)."""
    seen = {"signed"} if any(tensor.signed and tensor.bits <= 8 for tensor in network.tensors.values()) else set()
    pools = {node.output for node in network.nodes if isinstance(node, MaxPool | AvgPool)}
    for node in network.nodes:
        seen |= {type(node).__name__.lower()} & {"maxpool", "avgpool"}
        seen |= {"pool_code"} if isinstance(node, Requant) and node.inputs[0] in pools else set()
        seen |= {"shortcut_a"} if isinstance(node, ShortcutA) else set()
        seen |= {"residual"} if len(node.inputs) > 1 else set()
        if isinstance(node, Weighted):
            seen |= {"depthwise"} if node.depthwise else set()
            seen |= {"pad_codes"} if node.pad_codes else set()
            seen |= {"twos"} if node.encoding.value == "twos" else set()
    return seen


@pytest.mark.parametrize("feature", sorted(FEATURES - {"extreme", "linear", "linear_image"}))
def test_a_feature_can_be_switched_on_and_off(feature: str) -> None:
    needs = frozenset({"shortcut_a": {"residual"}, "pool_code": {"maxpool"}}.get(feature, ()))
    assert any(feature in found_features(random_network(seed, needs | {feature})) for seed in range(40))
    for seed in range(40):
        assert feature not in found_features(random_network(seed, FEATURES - {feature})), seed
