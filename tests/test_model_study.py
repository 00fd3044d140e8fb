"""The CIFAR-10 study: rows of equal cycles, finished rows kept."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import results, study_cifar, study_rtl
from hwgen.cycles import time_program
from hwgen.engine import read_engine
from hwgen.schedule import schedule
from model.data import DataSet, Split
from model.recipe import read_recipe

REST = {"recipe": "r", "board": "b", "engine": "e", "seeds": [1]}
CONFIGS = sorted(study_cifar.HERE.glob("study_*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_make_recipes(path: Path, tmp_path: Path) -> None:
    study = tomllib.loads(path.read_text())
    assert study_cifar.problems(study) == []
    read_engine(study_cifar.HERE / study["engine"])
    for row in study["row"]:
        (tmp_path / f"{row['name']}-7.json").write_text('{"cycles": 1234, "bit_operations": 5678}')
    finals = []
    for row in study["row"]:
        recipe = read_recipe(
            study_cifar.HERE / study["recipe"], study_cifar.overrides(row, 7, study, tmp_path, "some/where")
        )
        assert recipe.data_path == "some/where"
        whole = 1234 if "cycles_of" in row else 5678 if "bitops_of" in row else None
        assert recipe.search.target == (whole if whole is None else int(row.get("share", 1) * whole))
        assert recipe.search.cost == ("bitops" if "bitops_of" in row else "cycles")
        assert recipe.train.float_from == (None if row["name"] == "float" else str(tmp_path / "float-7.pt"))
        if row["name"] != "float":
            finals.append(recipe.train)
        assert recipe.seed % 1000 == 7
    assert len({train.model_dump_json() for train in finals}) == 1  # every quantised row has the same final training


def finished(row: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """What a trained row leaves, as far as the study reads it."""
    accuracy = 0.5 if row["name"] == "u" else 0.75
    return {"row": row["name"], "accuracy": accuracy, "settings": study_cifar.settings(row, study)}


def test_rows_in_a_wrong_order_are_named() -> None:
    found = study_cifar.problems(REST | {"row": [{"name": "a", "cycles_of": "b"}, {"name": "b"}]})
    assert len(found) == 2
    assert "The first row is 'a'" in found[0]
    assert "'a' takes the cost of 'b'" in found[1]


def test_a_share_above_the_whole_is_named() -> None:
    rows = [{"name": "float"}, {"name": "u"}, {"name": "a", "cycles_of": "u", "share": 85}]
    found = study_cifar.problems(REST | {"row": rows})
    assert len(found) == 1
    assert "'a' takes the share 85" in found[0]


def test_a_misspelt_setting_is_named() -> None:
    found = study_cifar.problems(REST | {"row": [{"name": "float"}], "quantized": []})
    assert len(found) == 1
    assert "'quantized'" in found[0]
    assert "quantised" in found[0].partition("there are")[2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "No such file"),
        ("row = [", "some.toml is not TOML"),
        ('seeds = [1]\nrow = [{ name = "float" }]\n', "'recipe' is missing"),
        (
            'recipe = "r"\nboard = "b"\nengine = "e"\nseeds = [1]\nrow = [{ method = "uniform" }]\n',
            "Rows without a 'name': 1",
        ),
        (f"{CONFIGS[0].read_text()}\n", "nowhere"),
    ],
)
def test_what_is_unusable_is_told_in_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    config = tmp_path / "some.toml"
    if text is not None:
        config.write_text(text)
    assert study_cifar.main([str(config), "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    if sentence != "nowhere":  # a study's kept row needs no data before it is rebuilt
        assert study_rtl.main([str(config), "--row", "u", "--data", "x"]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_finished_rows_are_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        'recipe = "r"\nboard = "b"\nengine = "e"\nseeds = [1, 2]\nrow = [{ name = "float" }, { name = "u", method = "uniform" }]\n'
    )
    worked: list[tuple[str, int]] = []
    written: list[list[dict[str, Any]]] = []
    most = 1

    def work(row: Any, seed: int, study: Any, folder: Path, options: Any) -> None:
        if len(worked) == most:
            raise KeyboardInterrupt
        worked.append((row["name"], seed))
        (folder / f"{row['name']}-{seed}.json").write_text(json.dumps(finished(row, study)))

    monkeypatch.setattr(study_cifar, "work", work)
    monkeypatch.setattr(study_cifar, "load_data", lambda *_: None)
    monkeypatch.setattr(study_cifar, "write_rows", lambda name, rows: written.append(rows))
    arguments = [str(config), "--data", "x", "--out", str(tmp_path / "out")]
    with pytest.raises(KeyboardInterrupt):
        study_cifar.main(arguments)
    assert worked == [("float", 1)]
    most = 4
    assert study_cifar.main(arguments) == 0
    assert worked == [("float", 1), ("u", 1), ("float", 2), ("u", 2)]
    assert [len(rows) for rows in written] == [1, 1, 2, 3, 4]  # those that a start finds, then one more each


def test_a_trial_is_kept_apart_from_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        'recipe = "r"\nboard = "b"\nengine = "e"\nseeds = [1]\nset = ["a=1"]\nquantised = ["b=2"]\n'
        'row = [{ name = "float" }, { name = "u", method = "uniform" }]\n'
    )
    ways: list[list[str]] = []

    def work(row: Any, seed: int, study: Any, folder: Path, options: Any) -> None:
        ways.append(study_cifar.settings(row, study))
        (folder / f"{row['name']}-{seed}.json").write_text(json.dumps(finished(row, study)))

    monkeypatch.setattr(study_cifar, "work", work)
    monkeypatch.setattr(study_cifar, "load_data", lambda *_: None)
    monkeypatch.setattr(study_cifar, "write_rows", lambda *_: pytest.fail("a trial's rows were written as the study's"))
    tried = ["--trial", "tuning_share=0.2", "b=3"]
    with pytest.raises(SystemExit):
        study_cifar.main([str(config), "--data", "x", *tried])
    assert "--trial needs --out" in capsys.readouterr().err
    arguments = [str(config), "--data", "x", "--out", str(tmp_path / "out"), *tried]
    assert study_cifar.main([*arguments, "--rows", "u"]) == 0 == study_cifar.main(arguments)
    assert ways == [["a=1", "b=2", "tuning_share=0.2", "b=3", "method=uniform"], ["a=1", "tuning_share=0.2", "b=3"]]
    assert capsys.readouterr().out.splitlines() == ["u, seed 1: 50.00 %", "float, seed 1: 75.00 %"]
    assert study_cifar.main([*arguments, "b=4"]) == 2
    assert "rows of other settings: float, u. Remove their files" in capsys.readouterr().err


def test_kept_rows_are_taken_where_their_settings_are_the_same(tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "seeds": [1],
        "set": ["a=1"],
        "row": [{"name": "float"}, {"name": "u", "uniform": [3, 3]}, {"name": "v"}],
    }
    kept, folder = tmp_path / "kept", tmp_path / "out"
    kept.mkdir()
    folder.mkdir()
    for row in study["row"][:2]:
        known = study_cifar.settings(row, study | ({"set": ["a=2"]} if row["name"] == "float" else {}))
        (kept / f"{row['name']}-1.json").write_text(json.dumps({"settings": known}))
        (kept / f"{row['name']}-1.pt").write_bytes(b"weights")
    assert study_cifar.take_kept(kept, folder, study) == ["u-1"]
    assert sorted(path.name for path in folder.iterdir()) == ["u-1.json", "u-1.pt"]
    assert study_cifar.take_kept(kept, folder, study) == []  # already there


def test_the_published_table_is_that_of_the_kept_rows() -> None:
    config = study_cifar.HERE / "study_resnet8.toml"
    study = tomllib.loads(config.read_text())
    kept = study_cifar.collect(config.with_suffix(""), study)
    known = {row["name"]: study_cifar.settings(row, study) for row in study["row"]}
    assert kept[0]["row"] == "float" and all(row["settings"] == known[row["row"]] for row in kept)
    assert results.study(kept) in results.DOC.read_text()
    assert results.study_trials(kept) in results.DOC.read_text()


def test_a_kept_row_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = study_cifar.HERE / "study_resnet8.toml"
    study = tomllib.loads(config.read_text())
    rng = np.random.default_rng(1)
    noise = Split(rng.integers(0, 256, (40, 32, 32, 3), np.uint8), rng.integers(0, 10, 40))
    enough = Split(np.zeros((1000, 32, 32, 3), np.uint8), np.zeros(1000, np.int64))  # for the recipe; nothing is trained
    monkeypatch.setattr("model.pipeline.load_data", lambda *_: DataSet(enough, noise, 8, 10))
    row = next(item for item in study["row"] if item["name"] == "ebs-at-w4a4")
    network = study_rtl.rebuild(row, 1, study, config.with_suffix(""), tmp_path / "run", "nowhere")
    figures = json.loads((config.with_suffix("") / "ebs-at-w4a4-1.json").read_text())
    engine = read_engine(study_cifar.HERE / study["engine"])
    assert time_program(schedule(network, engine)).cycles_per_image == figures["cycles"]
