"""The CIFAR-10 study: rows of equal cycles, finished rows kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import results, study_cifar, study_costs, study_rtl, study_tables
from benchmarks.networks import resnet8
from benchmarks.study import HERE, Row, Study, read_study
from hwgen.cycles import cost_table, time_program
from hwgen.engine import read_engine
from hwgen.errors import InputError
from hwgen.schedule import schedule
from model.data import DataSet, Split
from model.recipe import read_recipe

REST = 'recipe = "r"\nboard = "b"\nengine = "study_engine.json"\nseeds = [1]\n'
CONFIGS = sorted(HERE.glob("study_*.toml"))


def write_study(folder: Path, rows: str, rest: str = REST) -> Path:
    config = folder / "small.toml"
    config.write_text(f"{rest}row = [{rows}]\n")
    return config


def problems(folder: Path, rows: str, rest: str = REST) -> list[str]:
    with pytest.raises(InputError) as error:
        read_study(write_study(folder, rows, rest))
    return error.value.problems


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_make_recipes(path: Path, tmp_path: Path) -> None:
    study = read_study(path)
    read_engine(HERE / study.engine)
    for row in study.row:
        (tmp_path / f"{row.name}-7.json").write_text('{"cycles": 1234, "bit_operations": 5678}')
    finals: list[dict[str, Any]] = []
    epochs: dict[int, list[Row]] = {}
    for row in study.row:
        recipe = read_recipe(HERE / study.recipe, study_cifar.overrides(row, 7, study, tmp_path, "some/where"))
        assert recipe.data_path == "some/where"
        whole = 1234 if row.cycles_of else 5678 if row.bitops_of else None
        assert recipe.search.target == (whole if whole is None else int(row.share * whole))
        assert recipe.search.cost == ("bitops" if row.bitops_of else "cycles")
        assert recipe.train.float_from == (None if row.name == "float" else str(tmp_path / "float-7.pt"))
        if row.name != "float":
            finals.append(recipe.train.model_dump(exclude={"start", "epochs"}))
            epochs.setdefault(recipe.train.epochs, []).append(row)
        assert recipe.seed % 1000 == 7
    assert all(train == finals[0] for train in finals)  # every quantised row has the same final training
    usual, *more = sorted(epochs)
    assert all(
        row.method == "uniform" for longer in more for row in epochs[longer]
    )  # only controls have more epochs of it
    assert len(epochs[usual]) > len(study.row) // 2


def test_rows_that_another_needs_are_named(tmp_path: Path) -> None:
    study = read_study(HERE / "study_resnet8.toml")
    row = next(row for row in study.row if row.cycles_of == "uniform-w3a3")
    for needed in ("float", "uniform-w3a3"):
        with pytest.raises(
            InputError, match=f"Row '{row.name}' needs '{needed}' with seed 2, which is not finished; name it in --rows"
        ):
            study_cifar.overrides(row, 2, study, tmp_path, "data")
        (tmp_path / f"{needed}-2.json").write_text('{"cycles": 1234}')
    assert "search.target=1234" in study_cifar.overrides(row, 2, study, tmp_path, "data")


def finished(row: Row, study: Study) -> dict[str, Any]:
    """What a trained row leaves, as far as the study reads it."""
    return {
        "row": row.name,
        "accuracy": 0.5 if row.name == "u" else 0.75,
        "settings": study.settings(row),
        "data": "original",
    }


U = '{ name = "float" }, { name = "u", method = "uniform", uniform = [2, 2] }'


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        ('{ name = "a", method = "random", cycles_of = "u" }, ' + U,
         ["The first row is 'a'", "'a' takes the cost of 'u', which does not come before it"]),
        (U + ", " + U, ["two rows 'float'", "two rows 'u'"]),
        (U + ', { name = "a", method = "ebs-det", cycles_of = "u", share = 85 }', ["'row.2.share'"]),
        (U + ', { name = "a", method = "ebs-det", cycles_of = "u", share = "most" }', ["'row.2.share'"]),
        (U + ', { name = "a", method = "ebs-det", share = 0.85 }', ["'a' takes the share 0.85 of no cost"]),
        (U + ', { name = "a", method = "ebs-det", cycles_of = "u", bitops_of = "u" }', ["a search has one budget"]),
        (U + ', { name = "a" }', ["'a' has no 'method'"]),
        (U + ', { name = "a", method = "uniform" }', ["'a': 'uniform' gives the bits"]),
        (U + ', { name = "a", method = "random", uniform = [2, 2] }', ["'a': 'uniform' gives the bits"]),
        (U + ', { name = "a", methods = "random" }', ["'row.2.methods': is not a setting of a study"]),
        ('{ name = "float", seeds = [1, 2] }, { name = "u", method = "uniform", uniform = [2, 2], seeds = [1, 3] },'
         ' { name = "a", method = "ebs-det", cycles_of = "u", seeds = [1, 2] }',
         ["'u' has seeds that 'float', which it needs, has not: 3", "'a' has seeds that 'u', which it needs, has not: 2"]),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_together_are_named(tmp_path: Path, rows: str, sentences: list[str]) -> None:
    found = problems(tmp_path, rows)
    assert len(found) == len(sentences)
    for problem, sentence in zip(found, sentences, strict=True):
        assert sentence in problem


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, U, f"{REST}quantized = []\n") == ["'quantized': is not a setting of a study."]


def test_rows_have_seeds_of_their_own(tmp_path: Path) -> None:
    rows = '{ name = "float", seeds = [2, 1] }, { name = "u", method = "uniform", uniform = [2, 2] }, '
    rows += '{ name = "a", method = "ebs-sto", cycles_of = "u", share = 0.5, seeds = [1] }'
    study = read_study(write_study(tmp_path, rows))
    assert [(row.name, seed) for row, seed in study.jobs()] == [("float", 1), ("u", 1), ("a", 1), ("float", 2)]
    assert study.settings(study.row[2]) == ["method=ebs-sto", "cycles_of=u", "share=0.5"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "No such file"),
        ("row = [", "some.toml:\n  It is not TOML"),
        ('seeds = [1]\nrow = [{ name = "float" }]\n', "'recipe': field required"),
        (f'{REST}row = [{{ method = "uniform" }}]\n', "'row.0.name': field required"),
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
    config = write_study(tmp_path, U, REST.replace("[1]", "[1, 2]"))
    worked: list[tuple[str, int]] = []
    written: list[list[dict[str, Any]]] = []
    most = 1

    def work(row: Row, seed: int, study: Study, folder: Path, options: Any) -> None:
        if len(worked) == most:
            raise KeyboardInterrupt
        worked.append((row.name, seed))
        (folder / f"{row.name}-{seed}.json").write_text(json.dumps(finished(row, study)))

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
    config = write_study(tmp_path, U, f'{REST}set = ["a=1"]\nquantised = ["b=2"]\n')
    ways: list[list[str]] = []

    def work(row: Row, seed: int, study: Study, folder: Path, options: Any) -> None:
        ways.append(study.settings(row))
        (folder / f"{row.name}-{seed}.json").write_text(json.dumps(finished(row, study)))

    monkeypatch.setattr(study_cifar, "work", work)
    monkeypatch.setattr(study_cifar, "load_data", lambda *_: None)
    monkeypatch.setattr(study_cifar, "write_rows", lambda *_: pytest.fail("a trial's rows were written as the study's"))
    tried = ["--trial", "tuning_share=0.2", "b=3"]
    with pytest.raises(SystemExit):
        study_cifar.main([str(config), "--data", "x", *tried])
    assert "--trial needs --out" in capsys.readouterr().err
    arguments = [str(config), "--data", "x", "--out", str(tmp_path / "out"), *tried]
    assert study_cifar.main([*arguments, "--rows", "u"]) == 0 == study_cifar.main(arguments)
    assert ways == [
        ["a=1", "b=2", "tuning_share=0.2", "b=3", "method=uniform", "uniform=[2, 2]"],
        ["a=1", "tuning_share=0.2", "b=3"],
    ]
    assert capsys.readouterr().out.splitlines() == ["u, seed 1: 50.00 %", "float, seed 1: 75.00 %"]
    assert study_cifar.main([*arguments, "b=4"]) == 2
    assert "rows of other settings, another engine or other data: float, u. Remove their files" in capsys.readouterr().err


def test_kept_rows_are_taken_where_their_settings_are_the_same(tmp_path: Path) -> None:
    study = read_study(
        write_study(tmp_path, U + ', { name = "v", method = "random", cycles_of = "u" }', f'{REST}set = ["a=1"]\n')
    )
    kept, folder = tmp_path / "kept", tmp_path / "out"
    kept.mkdir()
    folder.mkdir()
    engine = read_engine(HERE / study.engine).name
    for row in (study.trying(["a=2"]).row[0], study.row[1]):
        known = {"settings": study.settings(row), "data": "original", "engine": engine}
        (kept / f"{row.name}-1.json").write_text(json.dumps(known))
        (kept / f"{row.name}-1.pt").write_bytes(b"weights")
    assert study_cifar.take_kept(kept, folder, study, "some/cifar10.npz") == []
    assert study_cifar.take_kept(kept, folder, study, "some/batches") == ["u-1"]
    assert sorted(path.name for path in folder.iterdir()) == ["u-1.json", "u-1.pt"]
    assert study_cifar.take_kept(kept, folder, study, "some/batches") == []  # already there
    other = {"settings": study.settings(study.row[2]), "data": "original", "engine": "8x8x8"}
    (kept / "v-1.json").write_text(json.dumps(other))
    assert study_cifar.take_kept(kept, folder, study, "some/batches") == []


def test_the_published_table_is_that_of_the_kept_rows() -> None:
    config = HERE / "study_resnet8.toml"
    study = read_study(config)
    kept = study_cifar.collect(config.with_suffix(""), study)
    known = {row.name: study.settings(row) for row in study.row}
    assert kept[0]["row"] == "float" and all(row["settings"] == known[row["row"]] for row in kept)
    assert study_tables.accuracies(kept) in results.DOC.read_text()
    assert study_tables.trials(kept) in results.DOC.read_text()
    assert study_tables.seeds(kept) in results.DOC.read_text()
    assert study_tables.bits(kept) in results.DOC.read_text()
    assert study_tables.costs(study_costs.costs(study)) in results.DOC.read_text()


def test_rows_of_three_seeds_have_means_and_errors() -> None:
    rows: list[dict[str, Any]] = [
        {"row": name, "seed": seed, "accuracy": accuracy, "cycles": cycles}
        for name, cycles, found in (("u", 200, (0.7, 0.8, 0.9)), ("s", 170, (0.72, 0.80, 0.94)), ("v", 200, (0.7, 0.8)))
        for seed, accuracy in zip((1, 2, 3), found, strict=False)
    ]
    for row in rows:
        if row["row"] == "s":
            row["cycles_of"] = "u"
    # differences 2, 0, 4: mean 2, deviation 2, error 2 / sqrt(3)
    assert study_tables.seeds(rows).splitlines()[2:] == [
        "| u | 3 | 80.00 ± 5.77 |  |  |  |",
        "| s | 3 | 82.00 ± 6.43 | u | +2.00 ± 1.15 | -15.0 % |",
    ]


def test_costs_of_a_study_are_those_of_its_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(HERE / "study_resnet8.toml")
    rows = {row["layer"]: row for row in study_costs.costs(study)}
    assert len(rows) == 10 and list(rows)[-2:] == ["stem", "classifier"]
    assert list(rows["stem"])[2:] == [f"W{bits}A8" for bits in range(2, 9)]
    table = cost_table(resnet8(4, 4), read_engine(HERE / study.engine))
    assert rows["block2.conv2"]["W3A2"] == table["s2.conv2"][2, 1] > rows["block2.conv2"]["W2A2"]
    assert rows["stem"]["W3A8"] == table["stem"][2, 7]
    assert study_costs.main([str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err


def test_rows_in_rtl_stay_beside_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_rtl, "FOLDER", tmp_path)
    assert study_rtl.other_rows("a", 1) == []
    rows = [{"row": "a", "seed": 1}, {"row": "a", "seed": 2}, {"row": "b", "seed": 1}]
    (tmp_path / "study_rtl.json").write_text(json.dumps(rows))
    assert study_rtl.other_rows("a", 1) == rows[1:]


def test_a_kept_row_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = HERE / "study_resnet8.toml"
    study = read_study(config)
    rng = np.random.default_rng(1)
    noise = Split(rng.integers(0, 256, (40, 32, 32, 3), np.uint8), rng.integers(0, 10, 40))
    enough = Split(np.zeros((1000, 32, 32, 3), np.uint8), np.zeros(1000, np.int64))  # for the recipe; nothing is trained
    monkeypatch.setattr("model.pipeline.load_data", lambda *_: DataSet(enough, noise, 8, 10))
    row = next(item for item in study.row if item.name == "ebs-at-w4a4")
    network = study_rtl.rebuild(row, 1, study, config.with_suffix(""), tmp_path / "run", "nowhere")
    figures = json.loads((config.with_suffix("") / "ebs-at-w4a4-1.json").read_text())
    engine = read_engine(HERE / study.engine)
    assert time_program(schedule(network, engine)).cycles_per_image == figures["cycles"]


def test_the_picture_has_one_point_for_all_seeds_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(study_tables, "draw_comparison", lambda rows, *_: drawn.extend(rows))
    floats = [{"row": "float", "method": "float", "seed": seed, "accuracy": 0.5 + seed / 10} for seed in (1, 2)]
    rows = [
        {"row": name, "method": "uniform", "seed": seed, "accuracy": seed / 10, "cycles": 100}
        for name, seed in (("u", 1), ("u", 3), ("v", 4))
    ]
    study_tables.draw([*floats, *rows], tmp_path / "study.png")
    assert [point["name"] for point in drawn] == ["u (mean of 2)", "v"]
    assert [point["accuracy"] for point in drawn] == pytest.approx([0.2, 0.4])
    assert drawn[0]["cost"] == 100 and drawn[0]["float"] == pytest.approx(0.65)
