"""Numbers that are none: training stops before they are stepped or saved, and says where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from short_runs import RECIPE, SHORT

from hwgen.errors import InputError
from model import pipeline
from model.agreement import image_tensor
from model.nodes import Context, Mode
from model.recipe import read_recipe
from model.steps import NoNumberError
from model.train import Trainer


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_gradient_that_is_no_number_stops_before_the_step(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    run.net.weighted()[1].weight.register_hook(lambda grad: grad * float("nan"))  # type: ignore[no-untyped-call]
    before = run.net.weighted()[0].weight.detach().clone()
    with pytest.raises(InputError, match=r"in the gradient of layer 'block1\.conv1'"):
        pipeline.train(run)
    assert torch.equal(before, run.net.weighted()[0].weight) and (tmp_path / "checkpoint.pt").read_bytes() == good


def test_a_held_out_loss_that_is_no_number_stops_before_the_strengths_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.warm=0"]), tmp_path)
    pipeline.train(run, "float")
    before = [item.detach().clone() for item in run.net.strengths()]
    monkeypatch.setattr(run.search, "pressure", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(InputError, match="no longer a number, in the loss itself"):
        pipeline.train(run)
    assert all(torch.equal(a, b) for a, b in zip(before, run.net.strengths(), strict=True))


def test_a_loss_that_leaves_float32_over_a_batch_names_the_layer_of_its_logits() -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT))
    last = run.net.weighted()[-1]
    images, labels = image_tensor(run.data.train.images[:64]), torch.from_numpy(run.data.train.labels[:64])
    context = Context(Mode.FLOAT)
    with torch.no_grad():
        last.weight.mul_(1e37 / run.net(images, context).abs().max())
        assert run.net(images, context).isfinite().all()
    with pytest.raises(NoNumberError, match=f"The loss is no longer a number, first in layer '{last.name}'"):
        run.trainer.steps.check_loss(images, labels, context, learnt=False)


def test_a_search_that_diverges_says_so_in_a_sentence(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "train.quantised_rate=1e30"]), tmp_path)
    pipeline.train(run, "float")
    with pytest.raises(InputError, match=r"the last good checkpoint is kept\. Start again in another folder") as caught:
        pipeline.train(run)
    assert f"train.float_from={tmp_path} and a lower train.quantised_rate" in str(caught.value)
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "train.rate=1e30"]))
    with pytest.raises(InputError, match="Start again in another folder and a lower") as caught:
        pipeline.train(run)
    assert "checkpoint" not in str(caught.value)


LAST = [*SHORT, "train.most_steps=1", "search.epochs=1", "search.warm=0"]  # what is checked is the last step of an epoch


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.quantised_rate=1e30", r"In layer 'stem' a weight has become 1e\+30; .* a lower train\.quantised_rate"),
        ("train.quantised_rate=1e9", r"The loss has become \S+, first in layer '\S+'; .* a lower train\.quantised_rate"),
        ("train.clip_rate=1e30", r"In layer 'stem' a clip has become 1e\+30; .* a lower train\.clip_rate"),
        ("search.strength_rate=1e30", r"In layer 'stem' a strength has become .*; .* a lower search\.strength_rate"),
    ],
)
def test_what_the_last_step_leaves_is_not_saved(setting: str, said: str, tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*LAST, setting]), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=said) as caught:
        pipeline.train(run)
    assert f"the last good checkpoint is kept. Start again in another folder with train.float_from={tmp_path}" in str(
        caught.value
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ("1e30", "In layer 'stem' a weight has become 1e+30. Start again"),
        ("1e10", "The loss is no longer a number, first in layer '"),
        ("10", "The loss has become "),
    ],
)
def test_a_float_network_that_the_last_step_spoils_is_not_searched(rate: str, said: str, tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*LAST, "train.float_epochs=1", f"train.rate={rate}"]), tmp_path)
    with pytest.raises(InputError) as caught:
        pipeline.train(run)
    assert said in str(caught.value) and "a lower train.rate." in str(caught.value)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_statistics_that_lag_behind_end_no_training() -> None:
    """What batch norm has learnt may be far off while a stage goes on: training does not use it. It stays as it is."""
    run = pipeline.prepare(read_recipe(RECIPE, SHORT))
    norms = [item for item in run.net.modules() if isinstance(item, torch.nn.BatchNorm2d)]
    means = []
    for norm in norms:
        assert norm.running_mean is not None
        means.append(norm.running_mean.fill_(-1e9))
    images = image_tensor(run.data.train.images[:64])
    batch = (images, torch.from_numpy(run.data.train.labels[:64]), Context(Mode.FLOAT))
    run.trainer.steps.check_loss(*batch, learnt=False)
    assert all(bool((mean == -1e9).all()) for mean in means) and all(norm.momentum for norm in norms)
    with pytest.raises(NoNumberError, match="The loss has become"):
        run.trainer.steps.check_loss(*batch, learnt=True)


def test_looking_for_numbers_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(Trainer, "_check", lambda *_, **__: None)
        run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.method=ebs-sto"]))
        pipeline.train(run)
        states.append(run.net.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) or name.endswith("num_batches_tracked"), name


def test_logits_of_which_no_loss_can_be_made_name_their_layer() -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SHORT))
    bias = run.net.weighted()[-1].bias
    assert bias is not None
    bias.data[:2] = torch.tensor([3e38, -3e38])  # numbers, but their difference is none
    images = image_tensor(run.data.train.images[:64])
    with pytest.raises(NoNumberError, match="no longer a number, first in layer 'classifier'"):
        run.trainer.steps.weights(images, torch.from_numpy(run.data.train.labels[:64]), Context(Mode.FLOAT), teacher=None)


def test_strengths_that_are_no_numbers_name_their_operand(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.warm=0"]), tmp_path)
    pipeline.train(run, "float")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    choice = run.net.weighted()[1].choice
    choice.strengths.requires_grad_(True)
    choice.strengths.register_hook(lambda grad: grad * float("nan"))  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=r"first those of 'block1\.conv1\.weight'; .* a lower search\.strength_rate"):
        pipeline.train(run)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


@pytest.mark.parametrize("part", ["weight", "quantiser.clip"])
def test_the_integer_stage_diverges_in_a_sentence_too(part: str) -> None:
    """Its integers are made of the numbers of each step, which may be none."""
    run = pipeline.prepare(read_recipe(RECIPE, [*SHORT, "search.method=uniform", "train.norm_batches=0"]))
    pipeline.train(run, "retrain")
    for node in run.net.weighted()[1:3]:  # a skip connection joins behind the second
        node.get_parameter(part).data.fill_(float("nan"))
    with pytest.raises(InputError, match="The loss is no longer a number, first in layer 'block1"):
        pipeline.train(run)
