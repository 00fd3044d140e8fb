"""Any module of supported layers becomes the same network in integers; what is not supported is named at once."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

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
from model.quantnet import QuantNet
from model.recipe import read_recipe
from model.settings import LayerRule

SHAPE = (3, 12, 10)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)


class Vgg(nn.Module):
    """No batch norm; layers as modules, functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding="same")
        self.second = nn.Parameter(torch.randn(8, 8, 3, 3) * 0.2)
        self.shift = nn.Parameter(torch.randn(8) * 0.1)
        self.third = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.4)
        self.hidden = nn.Linear(12 * 3 * 3, 16)
        self.last = nn.Linear(16, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.max_pool2d(F.conv2d(x, self.second, self.shift, padding=1).relu(), (2, 2))
        x = F.relu6(self.third(x)).view(x.size(0), -1)
        y: Tensor = self.last(self.drop(self.hidden(x).clamp(min=0)))
        return y


class PreActivation(nn.Module):
    """Batch norm and ReLU before each convolution; sums without ReLU, identities and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, 2, 1, bias=False)
        self.norm4, self.conv4 = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, 1, 1, bias=False)
        self.project = nn.Conv2d(8, 16, 1, 2, bias=False)
        self.norm5, self.last = nn.BatchNorm2d(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        y = F.relu(self.norm3(x))
        x = torch.add(self.conv4(self.norm4(self.conv3(y)).relu_()), self.project(y))
        z: Tensor = self.last(F.relu(self.norm5(x)).mean((2, 3)))
        return z


class Odd(nn.Module):
    """Depthwise convolution, ReLU6, padded pools, batch norm behind a pool, signed activations, a sum of two pools."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 1),
        )  # fmt: skip
        self.maximum, self.average = nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1)
        self.wide = nn.Conv2d(8, 6, (1, 3))
        self.last = nn.Conv2d(6, 5, (5, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)  # signed
        x = self.maximum(x).add(self.average(x))
        return torch.flatten(self.last(self.wide(x)), 1)


def mlp() -> nn.Module:
    return build("mlp", SHAPE, 5, hidden=[12, 9])


def settle(net: QuantNet, seed: int) -> None:
    """Random batch norms, calibrated clips, random bits."""
    rng = np.random.default_rng(seed)
    shake(net, seed)
    images = rng.integers(0, 256, (32, net.shape[0], net.shape[1], net.shape[2])).astype(np.uint8)
    calibrate(net, images)
    for node in net.weighted():
        node.choice.bits = int(rng.choice(node.choice.candidates))
    for quantiser in net.quantisers().values():
        quantiser.choice.bits = int(rng.choice(quantiser.choice.candidates))


def shake(network: nn.Module, seed: int) -> None:
    """Random batch norms."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.3)
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)


MODULES = {"vgg": Vgg, "pre-activation": PreActivation, "odd": Odd, "mlp": mlp}


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


# -------------------------------------------------------------------------------- what does not work
class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(3, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.act, self.norm = nn.GELU(), nn.GroupNorm(2, 8)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.act(self.grouped(self.dilated(x))))
        x = torch.cat([x, x * 2], 1)
        return F.log_softmax(self.last(F.adaptive_avg_pool2d(x, 1).flatten(1)), 1)


def test_everything_unsupported_is_named_at_once_with_what_to_use() -> None:
    with pytest.raises(InputError) as caught:
        model.prepare(Wrong(), SHAPE)
    text = str(caught.value)
    for part in (
        "'dilated' (Conv2d): dilation must be 1",
        "'grouped' (Conv2d): 2 groups of 8 channels",
        "'act' is GELU, which cannot become integers: use ReLU or ReLU6",
        "'norm' is GroupNorm, which cannot become integers: use batch norm",
        "use addition of maps of equal shape",
        "'log_softmax' is log_softmax, which cannot become integers: return the logits",
    ):
        assert part in text, text
    assert len(caught.value.problems) == 7


class Tail(nn.Module):
    """Behind each refused call, layers that work on the shape that it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.GELU()
        self.up, self.norm = nn.ConvTranspose2d(8, 6, 2, 2), nn.LayerNorm([6, 24, 20])
        self.conv, self.conv_norm = nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.border, self.deep = nn.ReplicationPad2d(1), nn.Conv2d(8, 8, 3)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.hidden, self.hidden_norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.up(self.act(self.stem(x))))
        x = self.deep(self.border(F.relu(self.conv_norm(self.conv(x)))))
        a, b = self.pool(x).chunk(2, 1)
        x = F.relu(self.hidden_norm(self.hidden(torch.flatten(a + b, 1))))
        y: Tensor = self.last(x)
        return y


def test_what_stands_behind_an_unsupported_layer_is_not_blamed() -> None:
    with pytest.raises(InputError) as caught:
        model.prepare(Tail(), SHAPE)
    assert [problem.split(", which cannot become integers: ") for problem in caught.value.problems] == [
        ["'act' is GELU", "use ReLU or ReLU6."],
        ["'up' is ConvTranspose2d", "maps can only shrink, by strides and pools."],
        ["'norm' is LayerNorm", "use batch norm, which folds into integers."],
        [
            "'border' is ReplicationPad2d",
            "use the padding of the layer behind it, or model.trace.Shortcut for an option-A shortcut.",
        ],
        ["'pool' is AdaptiveMaxPool2d", "use MaxPool2d with a fixed kernel, or AdaptiveAvgPool2d(1)."],
        ["'chunk' is chunk", "use addition of maps of equal shape."],
    ]
    pools = nn.Sequential(nn.MaxPool2d(5, 3, ceil_mode=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    with pytest.raises(InputError) as caught:
        model.prepare(pools, SHAPE)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["'0' (MaxPool2d)", "'1' (AdaptiveAvgPool2d)"]


class Lambda(nn.Module):
    """A convolution to maps of 8x12x10, what ``call`` makes of them, and a linear layer."""

    def __init__(self, call: Callable[[Any, Tensor], Any], inputs: int = 960) -> None:
        super().__init__()
        self.call = call
        self.stem, self.conv, self.pixel = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
        )
        self.norm, self.pool = nn.BatchNorm1d(8), nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(inputs, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.call(self, self.stem(x)))
        return y


@pytest.mark.parametrize(
    ("call", "inputs", "given"),
    [
        (lambda m, x: m.conv(x.view(-1, 8, 6, 20)).mean((2, 3)), 8, "(N, 8, 6, 20)"),
        (lambda m, x: m.pool(m.conv(x.flatten(2).reshape(-1, 8, 10, 12))).flatten(1), 8, "(N, 8, 10, 12)"),
        (lambda m, x: m.pixel(x.view(-1, 8, 10, 12)).flatten(1), 960, "(N, 8, 10, 12)"),
        (lambda m, x: F.max_pool2d(x.view(-1, 8, 6, 20), 2).flatten(1), 240, "(N, 8, 6, 20)"),
        (lambda m, x: x.flatten(1).view(-1, 960, 1, 1).mean((2, 3)), 960, "(N, 960, 1, 1)"),
        (lambda m, x: x.view(-1, 32, 6, 5).mean((2, 3)), 32, "(N, 32, 6, 5)"),
        (lambda m, x: m.pixel(m.pool(x).view(-1, 2, 2, 2).reshape(-1, 8, 1, 1)).flatten(1), 8, "(N, 2, 2, 2)"),
    ],
)
def test_a_view_that_reshapes_the_map_is_named(call: Any, inputs: int, given: str) -> None:
    """The network holds (C, H, W) of the convolution before; most of these were another network, without a word."""
    with pytest.raises(InputError) as caught:
        model.prepare(Lambda(call, inputs), SHAPE)
    assert f"it makes {given} of maps (C, H, W) = (8, " in caught.value.problems[0]
    assert "a view may only flatten the map of each image" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        (lambda m, x: F.max_pool2d(x.flatten(1).view(-1, 8, 12, 10), 2).reshape(x.size(0), -1), 240),
        (lambda m, x: F.relu(m.norm(x.flatten(2))).flatten(1), 960),
        (lambda m, x: m.pixel(m.pool(x).squeeze(-1).squeeze(-1).view(-1, 8, 1, 1)).squeeze(), 8),
        (lambda m, x: (lambda y: F.relu(y) + y)(x.flatten(1)), 960),
    ],
)
def test_a_view_that_keeps_the_order_of_the_values_works(call: Any, inputs: int) -> None:
    module = Lambda(call, inputs).eval()
    net = model.prepare(module, SHAPE).eval()
    codes = torch.randint(0, 256, (3, *SHAPE)).float()
    with torch.no_grad():
        assert torch.allclose(module(codes / 255), net(codes, Context(Mode.FLOAT)), atol=1e-5)


def test_what_stands_behind_a_refused_view_is_not_blamed() -> None:
    def shuffle(m: Any, x: Tensor) -> Any:
        y = m.conv(x.view(-1, 2, 4, 12, 10).transpose(1, 2).reshape(-1, 8, 12, 10))
        return y.tanh().flatten(1) + x.flatten(1)

    with pytest.raises(InputError) as caught:
        model.prepare(Lambda(shuffle), SHAPE)
    assert [problem.split()[0] for problem in caught.value.problems] == ["'view'", "'transpose'", "'tanh'"]


def hooked(hang: Callable[[nn.Module], Any], name: str) -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(320, 5))
    hang(module.get_submodule(name))
    return module


def double(module: nn.Module, inputs: Any, output: Tensor | None = None) -> Any:
    return inputs[0] * 2 if output is None else output * 2


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (hooked(lambda m: m.register_forward_hook(double), "0"), "'0' (Conv2d) has hooks (double)"),
        (hooked(lambda m: m.register_forward_pre_hook(double), "3"), "'3' (Linear) has hooks (double)"),
        (hooked(lambda m: m.register_forward_hook(double), ""), "'the network' (Sequential) has hooks (double)"),
        (hooked(lambda m: m.register_full_backward_hook(double), "0"), "'0' (Conv2d) has hooks (double)"),
    ],
)
def test_hooks_are_named_with_all_else(module: nn.Module, said: str) -> None:
    with pytest.raises(InputError) as caught:
        model.prepare(module, SHAPE)
    assert caught.value.problems[0].startswith(f"{said}, which the network cannot keep: remove them")
    assert [problem.split(",")[0] for problem in caught.value.problems[1:]] == ["'1' is GELU"]


def test_pruning_and_parametrizations_are_told_how_to_go() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(320, 5))
    prune.l1_unstructured(module[0], "weight", 0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(
        InputError, match=r"'0' \(Conv2d\) has hooks \(L1Unstructured\).*the remove functions of torch.nn.utils"
    ):
        model.prepare(module, SHAPE)
    prune.remove(module[0], "weight")  # type: ignore[no-untyped-call]
    model.prepare(module, SHAPE)
    parametrizations.weight_norm(module[2])
    with pytest.raises(InputError, match=r"'2' is ParametrizedLinear.*remove_parametrizations"):
        model.prepare(module, SHAPE)


def test_a_parameter_of_two_layers_is_named() -> None:
    module = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Flatten(), nn.Linear(360, 5))
    module[1].weight, module[2].bias = module[0].weight, module[1].bias
    with pytest.raises(InputError) as caught:
        model.prepare(module, SHAPE)
    assert caught.value.problems == [
        "'1' (Conv2d): its weight is that of '0'; give each layer parameters of its own.",
        "'2' (Conv2d): its bias is that of '1'; give each layer parameters of its own.",
    ]
    with pytest.raises(InputError, match=r"'conv2d' \(conv2d\): its weight is that of 'conv'"):
        model.prepare(Lambda(lambda m, x: F.conv2d(m.conv(x), m.conv.weight, padding=1).flatten(1)), SHAPE)


def test_a_layer_of_two_names_is_one_layer() -> None:
    module = Lambda(lambda m, x: x.flatten(1))
    module.again, module.filters = module.stem, module.stem.weight
    assert len(model.prepare(module, SHAPE).weighted()) == 2


def test_a_forward_that_is_not_what_was_recorded_is_named() -> None:
    calls = itertools.count()
    with pytest.raises(
        InputError, match=r"On random images its own logits .* its forward does what torch.fx does not record"
    ):
        model.prepare(Lambda(lambda m, x: (x + x if next(calls) == 0 else x).flatten(1)), SHAPE)


def test_a_network_built_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.frontend, "_copy_norm", lambda node, norm: None)
    module = PreActivation()
    model.prepare(module, SHAPE)  # fresh statistics are those that a node begins with
    shake(module, 7)
    with pytest.raises(InputError, match="On random images"):
        model.prepare(module, SHAPE)


def test_weights_that_are_not_finite_are_named() -> None:
    module = Vgg()
    module.third.weight.data[0] = torch.nan
    with pytest.raises(InputError, match=r"'third\.weight' holds nan"):
        model.prepare(module, SHAPE)


def test_a_plain_tensor_is_a_weight_too() -> None:
    """It stays float32 where the module computes in float64."""
    plain = torch.randn(8, 8, 3, 3)
    net = model.prepare(Lambda(lambda m, x: F.conv2d(x, plain, padding=1).flatten(1)), SHAPE)
    assert torch.equal(net.weighted()[1].weight, plain)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class AddsSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.size(1)


class GivesSize(nn.Module):
    def forward(self, x: Tensor) -> int:
        return x.size(0)


@pytest.mark.parametrize(
    ("module", "part"),
    [
        (AddsSize(), "'add': it adds something that is no tensor"),
        (GivesSize(), "output: it must be one tensor"),
        (Branching(), "torch.fx cannot trace its forward"),
        (Lambda(lambda m, x: x.shape), "does not run on images of (C, H, W) = (3, 12, 10): it failed at "),
        (Lambda(lambda m, x: m.absent(x)), "test_model_frontend.py, line "),
        (Lambda(lambda m, x: m.absent(x)), "with AttributeError: 'Lambda' object has no attribute 'absent'."),
        (
            nn.Sequential(nn.Conv2d(4, 8, 3)),
            "does not run on images of (C, H, W) = (3, 12, 10): it failed with RuntimeError",
        ),
        (Lambda(lambda m, x: F.dropout(x, 0.5).flatten(1)), "it drops in evaluation too; give it training=self.training"),
        (
            Lambda(lambda m, x: (x + m.norm.bias.view(1, -1, 1, 1)).flatten(1)),
            "'add': it adds something that is no tensor",
        ),
        (
            Lambda(lambda m, x: F.conv2d(x, m.conv.weight * 2, padding=1).flatten(1)),
            "'conv2d' (conv2d): its weight must be a parameter or a number, not computed in forward",
        ),
        (Lambda(lambda m, x: F.max_pool2d(x.flatten(2), 2).flatten(1), 240), "it must read maps (N, C, H, W)"),
        (Lambda(lambda m, x: x.clamp(min=m.norm.bias.view(-1, 1, 1)).flatten(1)), "must be a parameter or a number"),
        (Lambda(lambda m, x: x.clamp(min=m.norm.bias[0]).flatten(1)), "must be a parameter or a number"),
        (Lambda(lambda m, x: x.clamp(min=m.pixel.bias).flatten(1)), "RuntimeError: The size of tensor"),
        (
            Lambda(lambda m, x: x.mean((2, 3)).clamp(min=m.pixel.bias), 8),
            "it must clip at 0 below and at one number above",
        ),
        (
            nn.Sequential(nn.AvgPool2d(3, 1, 1, divisor_override=3), nn.Flatten(), nn.Linear(360, 5)),
            "leave divisor_override off",
        ),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "the last layer must be a linear layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(360, 5), nn.BatchNorm1d(5)), "the last layer must be a linear layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(360, 5), nn.ReLU()), "the last layer must be a linear layer"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(360), nn.Linear(360, 5)), "put it before flatten"),
        (nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(), nn.Linear(90, 5)), "ceil_mode must be off"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)), "works to 1x1 only"),
        (
            nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Flatten(), nn.Linear(360, 5)),
            "leave count_include_pad on",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, (3, 2), padding=(1, 0)), nn.Flatten(), nn.Linear(432, 5)), "must be the same"),
    ],
)
def test_modules_that_cannot_work_are_sentences(module: nn.Module, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as caught:
        model.prepare(module, SHAPE)
    assert part in str(caught.value)
    assert capsys.readouterr().err == ""


def test_a_layer_called_twice_is_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(360, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.same(F.relu(self.same(x))).flatten(1))
            return y

    with pytest.raises(InputError, match=r"'same' \(Conv2d\): it is called twice"):
        model.prepare(Twice(), SHAPE)


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits"])
def test_no_candidates_is_a_sentence(name: str) -> None:
    none: dict[str, Any] = {name: []}
    with pytest.raises(InputError, match=f"'{name}'"):
        model.prepare(Vgg(), SHAPE, **none)


def test_weights_that_are_no_numbers_are_named_before_training(tmp_path: Path) -> None:
    """All of them, whether they come with the module or from a recipe's file."""
    module = mlp()
    state = module.state_dict()
    names = [next(name for name in state if name.endswith(end)) for end in ("weight", "running_var")]
    for name, value in zip(names, (float("nan"), 1e30), strict=True):
        state[name].view(-1)[0] = value
    with pytest.raises(InputError) as caught:
        model.prepare(module, SHAPE)
    assert [problem.split(",")[0] for problem in caught.value.problems] == [
        f"'{names[0]}' holds nan",
        f"'{names[1]}' holds 1e+30",
    ]
    plain = read_recipe(RECIPES / "digits-mlp.toml", ['search.cost="bitops"'])
    weights = build_module(plain.model, (1, 8, 8), 10).state_dict()
    next(iter(weights.values()))[0, 0] = float("inf")
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="holds inf, which nothing can be computed with"):
        pipeline.prepare(
            read_recipe(RECIPES / "digits-mlp.toml", ['search.cost="bitops"', f"model.weights={tmp_path}/weights.pt"])
        )


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
