"""What prepare refuses: everything unsupported is named at once, with what to use instead."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from modules import SHAPE, PreActivation, Vgg, mlp, shake
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import model
from hwgen.errors import InputError
from model import pipeline
from model.build import build_module
from model.nodes import Context, Mode
from model.recipe import read_recipe
from model.trace import Shortcut

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


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


def head(first: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(first, nn.Flatten(), nn.Linear(features, 5))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (head(nn.Conv2d(3, 4, 3, stride=16), 4), "'0' (Conv2d): strides reach up to 15, and its is 16"),
        (head(nn.Conv2d(3, 4, 3, padding=3), 896), "'0' (Conv2d): its padding 3 must be less than its kernel"),
        (head(nn.LazyConv2d(4, 3), 320), "'0' (LazyConv2d) has no weights yet; run the module once on an image"),
        (nn.LazyLinear(5), "'the network' (LazyLinear) has no weights yet; run the module once on an image"),
        (
            head(nn.Conv2d(3, 4, 3, device="meta"), 320),
            "'0.weight' (of 2 tensors) is on the meta device, without values",
        ),
        (head(nn.Conv2d(3, 4, 3, bias=False, device="meta"), 320), "'0.weight' is on the meta device, without values"),
        (nn.Conv2d, "It is no torch.nn.Module; call what makes the network"),
    ],
    ids=["stride", "padding", "lazy", "lazy alone", "meta", "one meta", "class"],
)
def test_what_no_network_can_hold_is_told_before_training(module: nn.Module, said: str) -> None:
    with pytest.raises(InputError) as caught:
        model.prepare(module, SHAPE)
    assert caught.value.problems[0].startswith(said)


def test_pools_and_shortcuts_that_no_network_can_hold_come_together() -> None:
    class Strides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(36, 5)
            self.longest, self.shortcut = nn.MaxPool2d(2, 16), Shortcut(16, 4)
            self.largest, self.border = nn.AvgPool2d(17, 16, 8), nn.MaxPool2d(40, 1, 16)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            y = (
                self.longest(x)
                + self.shortcut(x)
                + self.largest(x)
                + F.avg_pool2d(x, 2, 16)
                + self.border(x)[:, :, :3, :3]
            )
            logits: Tensor = self.last(y.flatten(1))
            return logits

    with pytest.raises(InputError) as caught:
        model.prepare(Strides(), (3, 40, 40))
    assert [problem.split(";")[0] for problem in caught.value.problems if "up to" in problem] == [
        "'longest' (MaxPool2d): strides reach up to 15, and its is 16",
        "'shortcut' (Shortcut): strides reach up to 15, and its is 16",
        "'largest' (AvgPool2d): kernels reach up to 15x15, or over the whole map",
        "'avg_pool2d' (avg_pool2d): strides reach up to 15, and its is 16",
        "'border' (MaxPool2d): padding reaches up to 15, and its is 16",
    ]


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
        (Lambda(lambda m, x: m.absent(x)), "test_model_refusals.py, line "),
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
