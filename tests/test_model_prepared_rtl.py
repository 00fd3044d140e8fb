"""Networks of one's own in RTL: what ``prepare`` makes of a plain module computes the same codes in PyTorch and in hardware."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from modules import MODULES, SHAPE, settle
from test_sim_random import SHAPES

import model
from hwgen.board import load_board
from hwgen.build import write_rtl
from model.agreement import compare, image_tensor
from model.export import export
from model.nodes import Context, Mode
from sim.compiled import MemoryTiming, compile_engine
from sim.soak import Station, prepare

ENGINE = SHAPES["4x24x4"]
IMAGES = 2


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """One engine for all of them, which nobody cleans in between."""
    library = compile_engine(write_rtl(ENGINE, load_board("pynq-z2"), tmp_path_factory.mktemp("rtl")), quick=True)
    with Station(library, 1, MemoryTiming((1, 60), 0.2, seed=1)) as made:
        yield made


@pytest.mark.parametrize(
    ("name", "weights"), list(zip(MODULES, ["dorefa", "lsq", "lsq-channel", "lsq-channel"], strict=True))
)
def test_a_module_of_ones_own_in_rtl(name: str, weights: str, station: Station) -> None:
    torch.manual_seed(3)
    net = model.prepare(MODULES[name](), SHAPE, name=name, weights=weights)
    settle(net, 5)
    images = np.random.default_rng(2).integers(0, 256, (IMAGES, SHAPE[1], SHAPE[2], SHAPE[0])).astype(np.uint8)
    network = export(net, proven=False)
    assert compare(net, network, images).exact
    work = prepare(network, images, ENGINE)
    assert len(work.bit_pairs()) > 1
    result = station.run(work)
    assert not result.problem and not result.wrong, (result.problem, result.mismatches[:3])
    with torch.no_grad():
        logits = net.eval()(image_tensor(images), Context(Mode.INTEGER))
    assert np.array_equal(result.predictions, logits.argmax(1).numpy())
    assert result.tensors >= IMAGES * len({item.code.name for item in work.plan.passes if item.planes})
