"""The trained network and the integer network are one: every tensor, every logit; and a resumed run is the uninterrupted one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from hwgen.errors import InputError
from hwgen.network import Conv
from model import checkpoint, pipeline
from model.agreement import compare, demand_equal
from model.assign import Group, Layer, as_bits, cost_range, options, solve, total_cost
from model.data import digits
from model.export import export
from model.fold import fold
from model.networks import residual_network
from model.nodes import Context, ConvNode, Mode
from model.quantise import normalise_weight, quantise_signed, quantise_unsigned, quantise_weight, round_half_up
from model.quantnet import QuantNet
from model.recipe import read_recipe

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "digits.toml"
SHORT = [
    "train.float_epochs=1", "train.epochs=1", "train.integer_epochs=1", "search.epochs=2", "model.stem=8",
    "model.stages=[[8, 1, 1], [16, 1, 2]]", 'search.cost="bitops"',
]  # fmt: skip


def randomise(net: QuantNet, seed: int) -> None:
    """Bits, batch norm, clips and strengths as after some training."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    for node in net.weighted():
        node.choice.bits = int(rng.integers(1, 9))
        if isinstance(node, ConvNode):
            assert node.norm is not None
            assert node.norm.running_mean is not None and node.norm.running_var is not None
            node.norm.running_mean.copy_(torch.randn(node.norm.running_mean.shape, generator=generator) * 0.2)
            node.norm.running_var.copy_(torch.rand(node.norm.running_var.shape, generator=generator) + 0.3)
            node.norm.weight.data.copy_(torch.randn(node.norm.weight.shape, generator=generator))
            node.norm.bias.data.copy_(torch.randn(node.norm.bias.shape, generator=generator) * 0.3)
        else:
            assert node.bias is not None
            node.bias.data.copy_(torch.randn(node.bias.shape, generator=generator))
    for quantiser in net.quantisers().values():
        if quantiser.choice.searchable:
            quantiser.choice.bits = int(rng.integers(1, 9))
        quantiser.clip.data.fill_(float(rng.uniform(0.5, 4.0)))


@pytest.mark.parametrize("shortcut", ["projection", "a"])
@pytest.mark.parametrize("seed", range(6))
def test_every_code_equals_the_golden_model(shortcut: str, seed: int) -> None:
    torch.manual_seed(seed)
    candidates = tuple(range(1, 9))
    net = residual_network(
        "net",
        (9, 7, 3),
        8,
        5,
        8,
        [(8, 1, 1), (16, 1, 2)],
        shortcut=shortcut,
        weight_bits=candidates,
        activation_bits=candidates,
    )
    randomise(net, seed)
    network = export(net, proven=False)
    images = np.random.default_rng(seed).integers(0, 256, (6, 9, 7, 3)).astype(np.uint8)
    agreement = compare(net, network, images)
    assert agreement.exact and agreement.logits == 1.0 and agreement.top1 == 1.0, agreement.first


def test_a_wrong_multiplier_is_named() -> None:
    torch.manual_seed(1)
    net = residual_network("net", (8, 8, 1), 4, 10, 8, [(8, 1, 1)], shortcut="a", weight_bits=(3,), activation_bits=(3,))
    network = export(net, proven=False)
    broken = tuple(
        dataclasses.replace(node, mul=node.mul * 2) if isinstance(node, Conv) and node.name == "block1.conv1" else node
        for node in network.nodes
    )
    images = digits().test.images[:20]
    agreement = compare(net, dataclasses.replace(network, nodes=broken), images)
    assert agreement.first is not None and agreement.first[0] == "block1.conv1.out"
    with pytest.raises(InputError, match=r"first in layer 'block1\.conv1': \d+\.\d\d% of its codes over 20 images"):
        demand_equal(agreement, network)


def test_rounding_is_half_up() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    assert round_half_up(x).tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]
    code = quantise_signed(torch.tensor([-9.0, -0.5, 0.5, 9.0]), torch.tensor(1.0), 3).code
    assert code is not None and code.tolist() == [-4.0, 0.0, 1.0, 3.0]


def test_rounding_of_folded_scales_is_half_up() -> None:
    mul, bias, skip = 1 / 3, -5 / 7, 2 / 3
    folded = fold(torch.tensor([mul], dtype=torch.float64), torch.tensor([bias], dtype=torch.float64), skip)
    shift = 18  # 2**19 / 3 does not fit 17 bits, 2**18 / 3 does
    assert folded.shift == shift and folded.skip_mul == math.floor(Fraction(skip) * 2**shift + Fraction(1, 2))
    assert int(folded.mul) == math.floor(Fraction(mul) * 2**shift + Fraction(1, 2))
    assert int(folded.bias) == math.floor(Fraction(bias) * 2**shift + Fraction(1, 2)) + 2 ** (shift - 1)
    codes = [int(folded.apply(torch.full((1, 1, 1, 1), float(acc)), -99, 99)) for acc in range(-20, 21)]
    assert codes == [math.floor(Fraction(acc, 3) - Fraction(5, 7) + Fraction(1, 2)) for acc in range(-20, 21)]


def test_pact_gradients() -> None:
    alpha = torch.tensor(2.0, requires_grad=True)
    x = torch.tensor([-1.0, 0.7, 5.0], requires_grad=True)
    quantised = quantise_unsigned(x, alpha, 2)
    quantised.value.backward(torch.tensor([1.0, 1.0, 1.0]))  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 0.0]
    u = 0.7 / 2
    assert alpha.grad is not None and alpha.grad.item() == pytest.approx((np.floor(u * 3 + 0.5) / 3 - u) + 1.0)


def test_zero_weights_are_no_nan() -> None:
    t, gamma = normalise_weight(torch.zeros(4))
    assert t.tolist() == [0.5] * 4 and float(gamma) == 1.0
    assert torch.isfinite(quantise_weight(torch.zeros(4), 1).value).all()


def random_groups(rng: np.random.Generator) -> list[Group]:
    groups = []
    for index in range(3):
        layers = tuple(
            Layer(f"l{index}{at}", (1, 2, 4), tuple(rng.dirichlet(np.ones(3))), rng.integers(1, 60, (8, 8)))
            for at in range(int(rng.integers(1, 3)))
        )
        groups.append(Group((2, 3), tuple(rng.dirichlet(np.ones(2))), layers))
    return groups


@pytest.mark.parametrize("seed", range(20))
def test_knapsack_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng)
    least, most = cost_range(groups)
    budget = int(rng.integers(least, most + 1))
    best = max(
        (choice for choice in itertools.product(*(list(options(group)) for group in groups))
         if sum(option.cost for option in choice) <= budget),
        key=lambda choice: sum(option.score for option in choice),
    )  # fmt: skip
    found = solve(groups, budget)
    assert sum(option.score for option in found) == pytest.approx(sum(option.score for option in best))
    table = {layer.name: layer.cost for group in groups for layer in group.layers}
    assert total_cost(as_bits(groups, found), table) <= budget


def test_an_impossible_budget_says_what_can_be_reached() -> None:
    groups = random_groups(np.random.default_rng(1))
    least, most = cost_range(groups)
    with pytest.raises(InputError, match=f"reach from {least} to {most}"):
        solve(groups, least - 1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Runs are compared bit by bit, so all of them use the same number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Run:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path_factory.mktemp("whole"))
    pipeline.train(run)
    return run


@pytest.mark.parametrize("stage", ["float", "search", "retrain"])
def test_a_resumed_run_is_the_uninterrupted_one(whole: pipeline.Run, stage: str, tmp_path: Path) -> None:
    recipe = read_recipe(RECIPE, SHORT)
    pipeline.train(pipeline.prepare(recipe, tmp_path), stage)
    again = pipeline.prepare(recipe, tmp_path)
    pipeline.train(again, resume=True)
    assert again.trainer.state.bits == whole.trainer.state.bits
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name]), name


def test_a_run_stopped_inside_a_stage_goes_on(whole: pipeline.Run, tmp_path: Path) -> None:
    recipe = read_recipe(RECIPE, SHORT)

    def stop(stage: str, done: int, *_: object) -> None:
        if (stage, done) == ("search", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.train(pipeline.prepare(recipe, tmp_path, progress=stop))
    again = pipeline.prepare(recipe, tmp_path)
    pipeline.train(again, resume=True)
    assert all(torch.equal(value, again.net.state_dict()[name]) for name, value in whole.net.state_dict().items())


def test_the_run_is_exact_and_within_its_budget(whole: pipeline.Run) -> None:
    network = pipeline.export_run(whole)
    metrics = pipeline.evaluate(whole, network)
    assert metrics["agreement"] == metrics["logit_agreement"] == 1.0
    assert metrics["checked_images"] == 1000 and metrics["first_difference"] is None
    layers = pipeline.compare_layers(whole, network, 40)
    assert [row["layer"] for row in layers] == [node.name for node in network.nodes]
    # Batch norm folded into 18 bits moves few codes, and those by one step; quantisation is what changes values.
    assert all(row["changed"] < 0.02 and row["most"] <= 1 for row in layers[:1])
    assert all(-60 < row["quantisation_db"] < 60 for row in layers)
    assert metrics["quantised_accuracy"] == metrics["integer_accuracy"]
    assert metrics["final_table_cost"] <= metrics["budget"]
    assert whole.folder is not None
    assert (whole.folder / "network" / "network.json").exists() and (whole.folder / "curves.csv").exists()
    assert all(0 < metrics[f"{key}_accuracy"] <= 1 for key in ("mixed", "arg_max", "chosen"))


@pytest.mark.parametrize("method", ["ebs-det", "uniform"])
def test_one_candidate_leaves_nothing_to_search(method: str) -> None:
    settings = [
        f"search.method={method}",
        "search.weight_bits=[3]",
        "search.activation_bits=[2]",
        "search.uniform=[3, 2]",
    ]
    run = pipeline.prepare(read_recipe(RECIPE, SHORT + settings))
    pipeline.train(run)
    assert {weight for weight, _ in run.trainer.state.bits.values()} == {3}
    assert pipeline.evaluate(run, pipeline.export_run(run))["logit_agreement"] == 1.0


def test_a_budget_out_of_reach_is_known_before_training() -> None:
    with pytest.raises(InputError, match="candidates reach from"):
        pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.budget=0.001"]))


def test_checkpoints_of_others_are_refused(whole: pipeline.Run, tmp_path: Path) -> None:
    assert whole.trainer.path is not None
    data = whole.trainer.path.read_bytes()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(data)
    with pytest.raises(InputError, match="another recipe"):
        checkpoint.load(path, "0" * 16)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(path)
    marker = tmp_path / "unpickled"

    class Bomb:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (marker,)

    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(InputError):
        checkpoint.load(path)
    assert not marker.exists()


def test_recipe_errors_come_together(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[model]\nname = "x"\nstem = 0\nstages = [[8, 1, 1]]\n[search]\nepochz = 3\nweight_bits = [9]\n')
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    text = str(caught.value)
    assert "'model.stem'" in text and "'search.epochz': is not a setting" in text and "'search.weight_bits.0'" in text
    with pytest.raises(InputError, match="not TOML"):
        path.write_text("[model")
        read_recipe(path)


def test_a_loss_that_is_no_number_names_the_layer(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path)
    run.net.weighted()[1].weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"first in layer 'block1\.conv1'"):
        pipeline.train(run)


def test_modes_agree_on_shapes() -> None:
    net = residual_network(
        "net", (8, 8, 1), 4, 10, 8, [(8, 1, 1)], shortcut="a", weight_bits=(2, 3), activation_bits=(2, 3)
    )
    images = torch.zeros(2, 1, 8, 8)
    assert net(images, Context(Mode.FLOAT)).shape == net(images, Context(Mode.QUANTISED)).shape == (2, 10)
