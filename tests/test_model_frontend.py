"""Any module of supported layers becomes the same network in integers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from modules import MODULES, SHAPE, Odd, PreActivation, Vgg, settle, shake
from torch import nn

import model
from hwgen.errors import InputError
from hwgen.network import Conv, MaxPool, Requant
from model import pipeline
from model.agreement import compare
from model.build import build_module
from model.calibrate import calibrate
from model.choose import apply_rules, uniform_bits
from model.export import export
from model.networks import build
from model.nodes import AffineNode, Context, Mode
from model.recipe import read_recipe
from model.settings import LayerRule


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)


@pytest.mark.parametrize("weights", ["dorefa", "lsq", "lsq-channel"])
@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_ones_own_is_the_same_in_float_and_exact_in_integers(name: str, weights: str) -> None:
    module = MODULES[name]()
    shake(module, 7)
    net = model.prepare(module, SHAPE, weights=weights, pinned=None, weight_bits=range(1, 9), activation_bits=range(1, 9))
    images = np.random.default_rng(1).integers(0, 256, (8, 12, 10, 3)).astype(np.uint8)
    codes = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()
    module.eval()
    net.eval()
    with torch.no_grad():
        assert torch.allclose(module(codes / 255), net(codes, Context(Mode.FLOAT)), atol=1e-5)
    for seed in range(3):
        settle(net, seed)
        agreement = compare(net, export(net, proven=False), images)
        assert agreement.exact and agreement.logits == 1.0, agreement.first


@pytest.mark.parametrize("name", MODULES)
def test_it_trains_while_searching(name: str) -> None:
    net = model.prepare(MODULES[name](), SHAPE, pinned=None)
    images = np.random.default_rng(1).integers(0, 256, (8, 12, 10, 3)).astype(np.uint8)
    calibrate(net, images)
    net.train()
    codes = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()
    F.cross_entropy(net(codes, Context(Mode.QUANTISED)), torch.arange(8) % 5).backward()  # type: ignore[no-untyped-call]
    for parameter in [*net.strengths(), *net.meta_weights()]:
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    assert sum(float(parameter.grad.abs().sum()) > 0 for parameter in net.strengths() if parameter.grad is not None) > 3


def test_the_module_is_left_as_it_was() -> None:
    module = Vgg()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    net = model.prepare(module, SHAPE)
    net.weighted()[0].weight.data.zero_()
    assert module.training and all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_convolution_norm_sum_and_relu_are_one_node() -> None:
    net = model.prepare(build("resnet8", (3, 32, 32), 10), (3, 32, 32), weight_bits=[2], activation_bits=[2])
    assert [node.name for node in net.weighted()] == [
        "stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.project", "block2.conv2", "block3.conv1",
        "block3.project", "block3.conv2", "classifier",
    ]  # fmt: skip
    network = export(net, proven=False)
    joins = [node for node in network.nodes if isinstance(node, Conv) and len(node.inputs) == 2]
    assert [node.inputs[1] for node in joins] == ["stem.out", "block2.project.out", "block3.project.out"]
    # A join is rounded once, to 8 bits; what reads it has its code from there.
    assert all(network.tensors[node.output].bits == 8 for node in joins)
    assert sum(isinstance(node, Requant) for node in network.nodes) == 3


def test_a_batch_norm_behind_a_pool_or_a_sum_is_a_node_of_its_own() -> None:
    net = model.prepare(Odd(), SHAPE)
    assert [node.name for node in net if isinstance(node, AffineNode)] == ["body.2", "add"]
    net = model.prepare(PreActivation(), SHAPE)
    assert [node.name for node in net if isinstance(node, AffineNode)] == ["norm1", "norm3", "norm5"]


def test_a_relu_behind_a_max_pool_moves_before_it() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 4, 3))
    network = export(model.prepare(module, SHAPE, weight_bits=[3], activation_bits=[2]), proven=False)
    assert [type(node) for node in network.nodes[:2]] == [Conv, MaxPool] and len(network.nodes) == 3
    assert not network.tensors["0.out"].signed


@pytest.mark.parametrize(
    "relu",
    [lambda x: x.clamp_(min=0), lambda x: x.clamp_min(0), lambda x: x.clamp_min_(0), lambda x: torch.clamp_(x, 0),
     lambda x: torch.clamp_min(x, 0), lambda x: x.clip(min=0), lambda x: torch.clip_(x, 0)],
    ids=["clamp_", "clamp_min", "clamp_min_", "torch.clamp_", "torch.clamp_min", "clip", "torch.clip_"],
)  # fmt: skip
def test_clips_at_zero_are_relus(relu: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Clips(nn.Module):
        def __init__(self, clip: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.conv, self.last, self.clip = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), clip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.last(self.clip(self.conv(x)).mean((2, 3)))
            return y

    module, usual = Clips(relu), Clips(F.relu)
    usual.load_state_dict(module.state_dict())
    net, same = model.prepare(module, SHAPE), model.prepare(usual, SHAPE)
    assert [quantiser.signed for quantiser in net.quantisers().values()] == [False, False]
    codes = torch.randint(0, 256, (4, *SHAPE)).float()
    for mode in (Mode.FLOAT, Mode.QUANTISED):
        assert torch.equal(net.eval()(codes, Context(mode)), same.eval()(codes, Context(mode)))


def test_signed_activations_have_two_bits_and_more() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 8 * 6, 3))
    net = model.prepare(module, SHAPE, activation_bits=[1, 2, 4], pinned=None)
    assert [quantiser.choice.candidates for quantiser in net.quantisers().values()] == [(2, 4), (2, 4)]
    assert all(activation == 2 for _, activation in list(uniform_bits(net, 1, 1).values())[1:])
    with pytest.raises(InputError, match="no activation bits are left for layer '1'"):
        apply_rules(net, {"1": LayerRule(activation_bits=[1])})


def test_first_and_last_layer_are_pinned() -> None:
    net = model.prepare(Vgg(), SHAPE, weight_bits=[2, 3], activation_bits=[2, 3])
    assert [node.choice.candidates for node in net.weighted()] == [(8,), (2, 3), (2, 3), (2, 3), (8,)]
    inputs = [choice.candidates for node in net.weighted() if (choice := net.source_choice(node)) is not None]
    assert inputs == [(2, 3), (2, 3), (2, 3), (8,)]
    for none in (0, None):  # as search.pinned of a recipe
        net = model.prepare(Vgg(), SHAPE, weight_bits=[2, 3], activation_bits=[2, 3], pinned=none)
        assert {node.choice.candidates for node in net.weighted()} == {(2, 3)}


def test_bits_that_are_no_candidates_come_together() -> None:
    with pytest.raises(InputError) as caught:
        model.prepare(Vgg(), SHAPE, input_bits=12, weight_bits=[], activation_bits=[0, 9], pinned=11)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "'weight_bits'", "'activation_bits'", "'pinned'", "'input_bits'",
    ]  # fmt: skip


def test_mean_and_deviation_fold_into_the_first_layer() -> None:
    """The padded border is the mean's nearest code: equal to padding with zeros where the mean is a code."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 120, 3)).eval()
    mean, std = [51 / 255, 102 / 255, 0.0], [0.2, 0.3, 0.25]
    net = model.prepare(module, SHAPE, mean=mean, std=std, weight_bits=[4], activation_bits=[4]).eval()
    codes = torch.randint(0, 256, (5, *SHAPE)).float()
    normal = (codes / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(module(normal), net(codes, Context(Mode.FLOAT)), atol=1e-4)
    images = codes.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    calibrate(net, images)
    network = export(net, proven=False)
    assert network.nodes[0].pad_codes == (51, 102, 0)  # type: ignore[attr-defined]
    assert compare(net, network, images).exact


def test_dropout_drops_codes_in_training_alone() -> None:
    net = model.prepare(Vgg(), SHAPE, weight_bits=[3], activation_bits=[3])
    codes = torch.randint(0, 256, (4, *SHAPE)).float()
    context = Context(Mode.QUANTISED)
    assert torch.equal(net.eval()(codes, context), net(codes, context))
    assert not torch.equal(net.train()(codes, context), net(codes, context))
    assert net.weighted()[-1].dropout == pytest.approx(0.4)


# -------------------------------------------------------------------------------- recipes
RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_makes_its_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(RECIPES.parent.parent)
    recipe = read_recipe(path)
    shape = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "imagenet": (3, 224, 224)}[recipe.data]
    section = recipe.model
    module = build_module(section, shape, 10)
    layers = sum(isinstance(item, nn.Conv2d | nn.Linear) for item in module.modules())
    if depth := re.fullmatch(r"resnet(\d+)", section.network):
        projections = {"8": 2, "18": 3, "34": 3}.get(depth[1], 0)
        assert layers == int(depth[1]) + projections
    if recipe.data != "imagenet":  # whose shapes take seconds
        assert len(model.prepare(module, shape).weighted()) == layers


def test_a_resumed_run_with_dropout_is_the_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(RECIPES.parent.parent)
    settings = ['search.cost="bitops"', "train.float_epochs=2", "train.most_steps=4", "model.options={width = 4}"]
    recipe = read_recipe(RECIPES / "own-network.toml", settings)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = pipeline.prepare(recipe, tmp_path / "whole")
    pipeline.train(whole, "float")
    assert whole.net.weighted()[-1].dropout > 0

    def stop(stage: str, done: int, *_: Any) -> None:
        if (stage, done) == ("float", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.train(pipeline.prepare(recipe, tmp_path / "parts", progress=stop), "float")
    torch.manual_seed(99)  # what another process would have
    again = pipeline.prepare(recipe, tmp_path / "parts")
    pipeline.train(again, "float", resume=True)
    assert all(torch.equal(value, again.net.state_dict()[name]) for name, value in whole.net.state_dict().items())
