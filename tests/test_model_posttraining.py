"""Calibration-only quantisation: useful at 8 bits, worse at fewer, exact in integers, and honest about what it lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from bitsmith import run
from hwgen.errors import InputError
from hwgen.network_file import read_network
from model import pipeline
from model.posttraining import quantise
from model.recipe import read_recipe

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "digits.toml"
SMALL = ["model.stem=8", "model.stages=[[8, 1, 1], [16, 1, 2]]", 'search.cost="bitops"', "search.pinned=8"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("float")
    made = pipeline.prepare(read_recipe(RECIPE, [*SMALL, "train.float_epochs=10"]), folder)
    pipeline.train(made, "float")
    return folder


def test_eight_bits_keep_the_float_accuracy_and_fewer_lose_some(trained: Path) -> None:
    recipe = read_recipe(RECIPE, SMALL)
    found = {bits: quantise(recipe, bits, bits, trained).metrics for bits in (8, 4, 1)}
    plain = found[8]["float_accuracy"]
    assert plain > 0.9
    assert found[8]["quantised_accuracy"] > plain - 0.01
    assert found[4]["quantised_accuracy"] > plain - 0.1
    assert found[1]["quantised_accuracy"] < found[4]["quantised_accuracy"]
    assert all(item["logit_agreement"] == 1.0 and item["checked_images"] == 1000 for item in found.values())
    assert all(abs(item["integer_accuracy"] - item["quantised_accuracy"]) < 0.02 for item in found.values())


def test_bits_are_those_asked_for_but_in_pinned_layers(trained: Path) -> None:
    made = quantise(read_recipe(RECIPE, SMALL), 3, 5, trained)
    assert [node.weight_bits for node in made.net.weighted()] == [8, *[3] * 5, 8]
    assert made.network.tensors["block1.conv1.out"].bits == 5


def test_layers_with_a_rule_get_the_nearest_bits_that_it_allows(trained: Path) -> None:
    rules = {
        "block1.*": "weight_bits=[1, 2]",
        "block2.conv1": "activation_range=[6, 8]",  # beyond what the search would try
        "*": "weight_range=[2, 8]",  # pinned layers keep to theirs
    }
    recipe = read_recipe(RECIPE, [*SMALL, *(f'search.layers."{name}".{rule}' for name, rule in rules.items())])
    made = quantise(recipe, 4, 4, trained)
    bits = {row["layer"]: (row["weight"], row["activation"]) for row in made.metrics["bits"]}
    assert bits == {
        "stem": (8, 4), "block1.conv1": (2, 4), "block1.conv2": (2, 4), "block2.conv1": (4, 6), "block2.project": (4, 6),
        "block2.conv2": (4, 4), "classifier": (8, 8),
    }  # fmt: skip
    assert {node.name: node.weight_bits for node in made.net.weighted()} == {name: pair[0] for name, pair in bits.items()}
    assert made.metrics["logit_agreement"] == 1.0


def test_rules_that_match_nothing_are_errors(trained: Path) -> None:
    rules = ["search.layers.nope.weight_bits=[1]", "search.layers.stem.activation_bits=[2]"]
    with pytest.raises(InputError, match="'nope' matches no layer; the layers are stem,") as caught:
        quantise(read_recipe(RECIPE, [*SMALL, *rules]), 4, 4, trained)
    assert "'search.layers.stem': layer 'stem' reads the image" in str(caught.value)


def test_the_network_is_written_and_nothing_is_replaced_unasked(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "w4a4"
    metrics = run.quantise(RECIPE, out, 4, 4, trained, overrides=SMALL)
    assert metrics["weight_bits"] == 4 and read_network(out / "network").samples is not None
    with pytest.raises(InputError, match="--force"):
        run.quantise(RECIPE, out, 4, 4, trained, overrides=SMALL)
    run.quantise(RECIPE, out, 5, 4, trained, overrides=SMALL, force=True)


def test_a_full_disk_leaves_the_result_that_was_there(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "w4a4"
    run.quantise(RECIPE, out, 4, 4, trained, overrides=SMALL)
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write does, which knows no name

    for where, name in (("zipfile.ZipFile.writestr", "network"), ("bitsmith.run.write_network", ".")):
        with monkeypatch.context() as patch:
            patch.setattr(where, full)
            with pytest.raises(OSError, match="No space left") as caught:
                run.quantise(RECIPE, out, 5, 4, trained, overrides=SMALL, force=True)
        assert caught.value.filename == str(out / name)
        assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["w4a4"]


def test_without_a_float_network_it_says_where_to_get_one(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no float network to quantise"):
        quantise(read_recipe(RECIPE, SMALL), 4, 4)
    with pytest.raises(InputError, match="another shape"):
        quantise(read_recipe(RECIPE, [*SMALL, "model.stem=4"]), 4, 4, trained)
    with pytest.raises(InputError, match="Cannot read it"):
        quantise(read_recipe(RECIPE, SMALL), 4, 4, tmp_path)
