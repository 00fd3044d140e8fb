"""Recipes and checkpoints that cannot work are sentences; those that can are read as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hwgen.errors import InputError
from model import checkpoint, pipeline
from model.data import hold_out, load_data
from model.recipe import Recipe, read_recipe

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "digits.toml"
SMALL = ["model.stem=4", "model.stages=[[8, 1, 1]]", 'search.cost="bitops"']


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# -------------------------------------------------------------------------------- recipes
def test_overrides_change_what_they_name_and_nothing_else() -> None:
    plain = read_recipe(RECIPE)
    changed = read_recipe(RECIPE, ["search.budget=0.3", "seed=7", "model.name=other", "search.weight_bits=[2, 8]"])
    expected = plain.model_dump()
    expected["seed"], expected["model"]["name"] = 7, "other"
    expected["search"] |= {"budget": 0.3, "weight_bits": [2, 8]}
    assert changed.model_dump() == expected
    assert changed.digest != plain.digest == read_recipe(RECIPE).digest


@pytest.mark.parametrize("network", ["mlp", "mine.nets:make"])
def test_overrides_go_into_the_model_that_is_written_short(network: str, tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(f'model = "{network}"\n')
    plain = read_recipe(path)
    changed = read_recipe(path, ["model.options.hidden=[8, 4]", "model.options.bias=true"])
    expected = plain.model_dump()
    expected["model"]["options"] = {"hidden": [8, 4], "bias": True}
    assert changed.model_dump() == expected and changed.model.network == network
    assert read_recipe(path, ["model=resnet20", "model.shortcut=a"]).model.network == "resnet20"
    with pytest.raises(InputError, match="'network' is no section"):
        read_recipe(path, ["model.network.x=1"])


def test_overrides_of_layers_are_toml_keys() -> None:
    overrides = [
        'search.layers."block1.*".weight_bits=[2]',
        "search . layers.'block2.conv1'.activation_range = [1, 2]",
        "search.layers.stem.weight_bits=[8]",
        'search.layers."block1.*".activation_bits=[3]',
    ]
    rules = read_recipe(RECIPE, overrides).search.layers
    assert {name: rule.model_dump(exclude_none=True) for name, rule in rules.items()} == {
        "block1.*": {"weight_bits": [2], "activation_bits": [3]},
        "block2.conv1": {"activation_range": [1, 2]},
        "stem": {"weight_bits": [8]},
    }


def test_a_recipe_survives_its_own_dump() -> None:
    plain = read_recipe(RECIPE)
    assert Recipe.model_validate(plain.model_dump(mode="json")) == plain


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.batch", "'train.batch' is not an override"),
        ("seed.x=1", "'seed.x' is not a setting: 'seed' is no section"),
        ("speed=1", "'speed': is not a setting"),
        (
            "search.layers.block1.*.weight_bits=[2]",
            "'search.layers.block1.*.weight_bits' is not a setting's name; a part",
        ),
        ("=3", "'' is not a setting's name"),
        ("seed\nspeed=1", "'seed\nspeed' is not a setting's name"),
        ('search.layers."stem=[2]', "'search.layers.\"stem' is not a setting's name"),
        (
            "search.layers.block1.conv1.weight_bits=[2]",
            "'search.layers.block1.conv1': is not a setting of a recipe; a layer's name that has dots stands in double quotes.",
        ),
        ("search.method=magic", "'search.method'"),
        ("search.cost=joules", "'search.cost'"),
        ("search.budget=nan", "'search.budget'"),
        ("search.weight_bits=[]", "'search.weight_bits'"),
        ("search.activation_bits=[0]", "'search.activation_bits.0'"),
        ("search.uniform=[3]", "'search.uniform'"),
        ("search.pinned=9", "'search.pinned'"),
        ("search.hold_out=1", "'search.hold_out'"),
        ("model.name=../x", "'model.name'"),
        ("model.stages=[]", "'model.stages'"),
        ("model.stages=[[8, 1]]", "'model.stages.0"),
        ("train.shift=9", "'train.shift'"),
        ("train.epochs=1.5", "'train.epochs'"),
        ("seed=4294967296", "'seed'"),  # one more than scikit-learn's split takes
        ("train.rate=1e300", "'train.rate'"),
        ("train.clip_rate=1e39", "'train.clip_rate'"),
        ("search.strength_rate=1e300", "'search.strength_rate'"),
        ("search.temperature=[1e-40, 1e-40]", "'search.temperature.0'"),
        ("search.cost_weight=1e300", "'search.cost_weight'"),
        ("search.budget=1e300", "'search.budget'"),
        ("model.mean=[nan]", "'model.mean.0'"),
        ("model.std=[1e-300]", "'model.std.0'"),
    ],
)
def test_wrong_settings_are_named(override: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(RECIPE, [override, "train.decay=-1"])
    assert caught.value.subject == str(RECIPE)
    assert any(problem.startswith(part) for problem in caught.value.problems), caught.value.problems
    assert any("'train.decay'" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("model.stages=[[0, 1, 1]]", "model.stages"),
        ("model.stages=[[-8, 1, 1]]", "model.stages"),
        ("model.stages=[[8, 1, 0]]", "model.stages"),
        ("model.stages=[[8, 1, 16]]", "model.stages"),
        ("model.stages=[[99999, 1, 1]]", "model.stages"),
        ("search.budget=inf", "search.budget"),
        ("seed=99999999999999999999999", "seed"),
        ("train.batch=2000", "train.batch"),  # more than the training images
        ("search.hold_out=0.001", "search.hold_out"),  # fewer images than classes
        ("search.hold_out=0.02", "search.hold_out"),  # fewer images than a batch
    ],
)
def test_values_that_cannot_work_are_sentences(override: str, field: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=field):
        pipeline.prepare(read_recipe(RECIPE, [*SMALL, override]), tmp_path)


def test_the_largest_seed_splits_the_data() -> None:
    seed = read_recipe(RECIPE, ["seed=4294967295"]).seed
    rest, held = hold_out(load_data("digits").train, 0.3, seed)
    assert len(rest) > len(held) > 400


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        (["model=mlp", "model.stem=999"], ["model.stem"]),
        (["model=resnet20", "model.stages=[[8, 1, 1]]", "model.shortcut=a"], ["model.stages"]),
        (["model=cnv", "model.shortcut=a", "model.stem=8"], ["model.stem", "model.shortcut"]),
        (["model=resnets:make", "model.shortcut=a"], ["model.shortcut"]),  # a factory's own options are model.options
        (["search.method=uniform", "search.budget=0.3"], ["search.budget"]),
        (["search.method=uniform", "search.target=900"], ["search.target"]),
        (["search.method=uniform", "search.joint=2"], ["search.joint"]),
        (["search.method=random", "search.joint=1"], ["search.joint"]),
        (["search.method=uniform"], []),  # the recipe states a budget, as it states everything
        (["search.budget=0.3", "model.stem=999", "model.shortcut=a"], []),
        (["model=mlp"], []),
    ],
)
def test_settings_that_would_do_nothing_are_refused(overrides: list[str], fields: list[str]) -> None:
    if not fields:
        read_recipe(RECIPE, overrides)
        return
    with pytest.raises(InputError) as caught:
        read_recipe(RECIPE, overrides)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [f"'{field}'" for field in fields]
    assert all("leave" in problem for problem in caught.value.problems)


def test_a_network_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(
        InputError, match=r"'model\.network': there is no such network; there are resnet, .*, mlp, and package"
    ):
        read_recipe(RECIPE, ["model=resnet99"])
    with pytest.raises(InputError) as caught:
        read_recipe(RECIPE, ["model=my/net"])  # whose name is none either
    assert len(caught.value.problems) == 1


# -------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_holds_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    state: dict[str, Any] = {"stage": 2, "tensor": torch.arange(5.0), "list": [1, {"a": "b"}]}
    checkpoint.save(path, state, "me")
    back = checkpoint.load(path, "me")
    assert torch.equal(back.pop("tensor"), state.pop("tensor")) and back == state
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"stage": 1}, "me")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.checkpoint.os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"stage": 2}, "me")
    assert checkpoint.load(path, "me") == {"stage": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        checkpoint.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_checkpoints(tmp_path: Path, share: float) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"tensor": torch.arange(1000.0)}, "me")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="damaged, cut short"):
        checkpoint.load(path, "me")


class Bomb:
    fired = False

    @staticmethod
    def fire() -> int:
        Bomb.fired = True
        return 1

    def __reduce__(self) -> Any:
        return Bomb.fire, ()


def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": checkpoint.FORMAT, "recipe": "me", "state": {"stage": Bomb()}}, path)
    Bomb.fired = False
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(path, "me")
    assert not Bomb.fired
    torch.load(path, weights_only=False)
    assert Bomb.fired  # the bomb works where it is loaded


@pytest.mark.parametrize(
    "data",
    [[1], {"a": 1}, {"format": "bitsmith-checkpoint-0"}, {"format": checkpoint.FORMAT},
     {"format": checkpoint.FORMAT, "recipe": "me"}],
)  # fmt: skip
def test_other_torch_files(tmp_path: Path, data: Any) -> None:
    torch.save(data, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError):
        checkpoint.load(tmp_path / "checkpoint.pt", "me")


def test_a_checkpoint_without_its_fields(tmp_path: Path) -> None:
    run = pipeline.prepare(read_recipe(RECIPE, SMALL), tmp_path)
    checkpoint.save(tmp_path / "checkpoint.pt", {"stage": 0}, run.recipe.digest)
    with pytest.raises(InputError):
        run.trainer.resume()


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    """Even where the recipe's identity was edited to match."""
    run = pipeline.prepare(read_recipe(RECIPE, SMALL), tmp_path)
    run.trainer.save()
    other = pipeline.prepare(read_recipe(RECIPE, [*SMALL, "model.stem=5"]), tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        other.trainer.resume()
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    checkpoint.save(tmp_path / "checkpoint.pt", state, other.recipe.digest)
    with pytest.raises(InputError, match="network of another shape"):
        other.trainer.resume()
