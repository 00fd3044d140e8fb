"""Everything that a step computes lies where its network lies. No GPU is needed: PyTorch's 'meta' device has shapes without values, and
mixes with the CPU's tensors as little as a GPU does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model import choose, dnas, pipeline
from model.nodes import Context, Mode
from model.recipe import read_recipe

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "digits.toml"
SMALL = [
    "model.stem=8", "model.stages=[[8, 1, 1], [16, 1, 2]]", 'search.cost="bitops"', "train.batch=32",
]  # fmt: skip


@pytest.mark.parametrize("weights", ["dorefa", "lsq", "lsq-channel"])
@pytest.mark.parametrize("activations", ["lsq", "pact"])
@pytest.mark.parametrize("method", ["ebs-det", "ebs-sto", "dnas"])
def test_a_step_stays_on_its_device(method: str, activations: str, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        f"search.method={method}",
        f"search.activation_quantiser={activations}",
        f"search.weight_quantiser={weights}",
    ]
    run = pipeline.prepare(read_recipe(RECIPE, [*SMALL, *asked]))
    net = run.net
    if method == "dnas":
        dnas.expand(net)
    net.to("meta")
    # Where a value decides what is done next, a GPU gives one; here it is a usual one.
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: 1.0)
    images, labels = torch.empty((32, 1, 8, 8), device="meta"), torch.empty(32, dtype=torch.long, device="meta")
    noise = torch.Generator().manual_seed(1) if method == "ebs-sto" else None
    branches = method == "dnas"
    for stage in ("float", "search", "retrain", "integer"):
        if stage == "retrain":
            bits = choose.uniform_bits(net, 3, 2)
            dnas.collapse(net, bits)
            choose.fix_bits(net, bits)
        mode = {"float": Mode.FLOAT, "integer": Mode.INTEGER}.get(stage, Mode.QUANTISED)
        searching = stage == "search"
        context = Context(mode, noise=noise if searching else None, branches=branches and searching)
        net.train(stage != "integer")
        loss = F.cross_entropy(net(images, context), labels)
        if stage == "search":
            loss = loss + run.search.pressure(net, 1.0, 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        met = {parameter.grad.device.type for parameter in net.parameters() if parameter.grad is not None}
        assert met == {"meta"} and loss.device.type == "meta", stage
