"""A small network trained on JPEG files in class folders, as ImageNet is, by the command line, and told layer by layer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bitsmith.cli import app
from hwgen.engine import EngineConfig, write_engine
from hwgen.network_file import read_network

ENGINE = EngineConfig(rows=8, columns=4, slots=15, slot_channels=16, lane_rows=8, weight_depth=512, column_depth=512,
                      plane_depth=16384, byte_depth=512)  # fmt: skip
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))
NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=8), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )
"""
RECIPE = """
data = "imagenet"
model = "net_of_colours:make"

[search]
cost = "bitops"
budget = 0.5
pinned = 0
weight_bits = [2, 3]
activation_bits = [2, 3]
epochs = 2

[train]
threads = 1
batch = 6
float_epochs = 12
epochs = 2
integer_epochs = 1
rate = 0.02
norm_batches = 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of ``bitsmith search`` on 24 images of three colours."""
    folder = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(1)
    for part, count in (("train", 8), ("val", 3)):
        for number, colour in enumerate(COLOURS):
            (folder / part / f"n{number}").mkdir(parents=True)
            for at in range(count):
                pixels = np.array(colour) + rng.integers(-40, 40, (60, 70 + at, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"n{number}" / f"{at}.JPEG")
    (folder / "net_of_colours.py").write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    write_engine(ENGINE, folder / "engine.json")
    words = ["search", folder / "recipe.toml", "--out", folder / "run", "--engine", folder / "engine.json", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        result = CliRunner().invoke(app, [*map(str, words), "--set", f"data_path={folder}"])
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_training_on_class_folders_learns_and_is_exact(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["images"] == 9 and metrics["logit_agreement"] == 1
    assert metrics["float_accuracy"] == metrics["integer_accuracy"] == 1  # a third by chance
    assert metrics["final_cost"] <= metrics["budget"]
    network = read_network(run / "network")
    assert network.samples is not None and network.samples.images.shape == (9, 224, 224, 3)
    assert network.samples.labels is not None and network.samples.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_evaluate_tells_every_layer(run: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(run), "--layers", "--json", str(run / "layers.json")],
                                env={"COLUMNS": "200"})  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json.loads((run / "layers.json").read_text())["layers"]
    assert [row["layer"] for row in rows] == [node.name for node in read_network(run / "network").nodes]
    shown = [line.split() for line in result.stdout[result.stdout.index("Layer by layer") :].splitlines()]
    for row in rows:
        assert [row["layer"], str(row["bits"]), f"{row['quantisation_db']:.1f}"] in [words[:3] for words in shown]
    assert "Layer by layer" not in CliRunner().invoke(app, ["evaluate", str(run)]).stdout
