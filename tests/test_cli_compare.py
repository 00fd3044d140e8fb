"""``bitsmith compare`` and the pictures of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from bitsmith import compare, pictures
from bitsmith.cli import app
from hwgen.errors import InputError

matplotlib.use("Agg")
METRICS = {
    "method": "ebs-det", "integer_accuracy": 0.91, "float_accuracy": 0.93, "final_cost": 900, "cost": "cycles", "budget": 1000,
    "cycles": 900, "engine": "small",
}  # fmt: skip


def finished(folder: Path, name: str, **changes: object) -> Path:
    (folder / name).mkdir()
    (folder / name / "metrics.json").write_text(json.dumps(METRICS | changes))
    return folder / name


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, still open."""
    figures: list[Any] = []
    save = pictures._save

    def keep(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(pictures, "_save", keep)
    return figures


def test_runs_are_told_by_cost(tmp_path: Path, drawn: list[Any]) -> None:
    dear = finished(tmp_path, "uniform", method="uniform", integer_accuracy=0.9, final_cost=1000)
    cheap = finished(tmp_path, "searched")
    result = CliRunner().invoke(
        app,
        ["compare", str(dear), str(cheap), "--json", str(tmp_path / "rows.json"), "--png", str(tmp_path / "new/a.png")],
    )
    assert result.exit_code == 0, result.output
    assert result.output.index("searched") < result.output.index("uniform")
    assert "91.00" in result.output and "1000" in result.output
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["name"], row["accuracy"], row["cost"]) for row in rows] == [
        ("searched", 0.91, 900),
        ("uniform", 0.9, 1000),
    ]
    (figure,) = drawn
    points = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}
    assert points["ebs-det"] == [[900, 91.0]]
    assert points["uniform"] == [[1000, 90.0]]
    assert figure.axes[0].get_xlabel() == "cycles per image"
    assert imread(tmp_path / "new/a.png").shape[2] == 4
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["a.png"]


def test_names_of_near_runs_do_not_lie_on_one_another(tmp_path: Path, drawn: list[Any]) -> None:
    near = [
        {"name": f"a-long-name-{at}", "method": "uniform", "accuracy": 0.78 + at * 1e-4, "cost": 900, "float": 0.8}
        for at in range(4)
    ]
    far = [{"name": "far", "method": "ebs-sto", "accuracy": 0.7, "cost": 2000, "float": 0.8, "error": 0.01}]
    pictures.draw_comparison([*near, *far], "cycles", tmp_path / "a.png")
    axis = drawn[0].axes[0]
    drawn[0].canvas.draw()
    boxes = [item.get_window_extent() for item in axis.texts]
    assert len(boxes) == 5 and not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
    (bar,) = axis.containers
    assert bar.lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([69, 71])


def test_different_costs_are_compared_by_their_cycles(tmp_path: Path) -> None:
    folders = [finished(tmp_path, "a", cost="bitops", final_cost=5, cycles=2000), finished(tmp_path, "b")]
    assert [(row["name"], row["cost"], row["unit"]) for row in compare.read_runs(folders)] == [
        ("b", 900, "cycles"),
        ("a", 2000, "cycles"),
    ]
    folders.append(finished(tmp_path, "c", cost="bytes", cycles=None))
    with pytest.raises(InputError, match="count different costs and have none in common"):
        compare.read_runs(folders)


def test_a_network_quantised_without_training_is_compared_by_bit_operations(tmp_path: Path) -> None:
    trained = finished(tmp_path, "trained", bit_operations=70)
    first_look = tmp_path / "w4a4"
    first_look.mkdir()
    figures = {"method": "calibration", "integer_accuracy": 0.8, "float_accuracy": 0.93, "bit_operations": 60}
    (first_look / "quantised.json").write_text(json.dumps(figures))
    assert [(row["name"], row["cost"], row["unit"]) for row in compare.read_runs([trained, first_look])] == [
        ("w4a4", 60, "bitops"),
        ("trained", 70, "bitops"),
    ]


def test_a_picture_has_the_format_of_its_suffix(tmp_path: Path) -> None:
    run = finished(tmp_path, "searched")
    for name, begins in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("plain", b"\x89PNG")):
        compare.compare([run], tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begins)
    with pytest.raises(InputError, match=r"not written as '\.toml'; give it one of .*png"):
        compare.compare([run], tmp_path / "a.toml")
    assert not list(tmp_path.glob("*a.toml*"))


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    lacking = finished(tmp_path, "lacking")
    (lacking / "metrics.json").write_text(json.dumps({"method": "uniform", "cost": "cycles"}))
    broken = finished(tmp_path, "broken")
    (broken / "metrics.json").write_text("{")
    result = CliRunner().invoke(app, ["compare", str(lacking), str(broken), str(tmp_path / "none")])
    assert result.exit_code == 2
    for part in ("lacking: its metrics lack integer_accuracy", "broken: no readable metrics.json", "none: no readable"):
        assert part in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_the_bits_of_each_layer(tmp_path: Path, drawn: list[Any]) -> None:
    rows = [{"layer": "stem", "weight": 8, "activation": 8}, {"layer": "conv", "weight": 2, "activation": 3}]
    pictures.draw_bits(rows, tmp_path / "bits.png", "a title")
    axis = drawn[0].axes[0]
    assert [bar.get_height() for bar in axis.patches] == [8, 2, 8, 3]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["stem", "conv"]
    assert axis.get_title() == "a title"


def test_strengths_over_the_search(tmp_path: Path, drawn: list[Any]) -> None:
    strengths = [
        {"epoch": at + 1, **{f"conv{n} weights": {"2": 0.5 + at / 4, "5": 0.5 - at / 4} for n in range(7)}}
        for at in range(3)
    ]
    history = [{"stage": "float", "entropy": 9.0}, *({"stage": "search", "entropy": 1.0 - at / 2} for at in range(3))]
    pictures.draw_strengths(strengths, history, tmp_path / "strengths.png")
    axes = drawn[0].axes
    assert [list(line.get_ydata()) for line in axes[6].get_lines()] == [[0.5, 0.75, 1.0], [0.5, 0.25, 0.0]]
    assert axes[6].get_title() == "conv6 weights"
    assert list(axes[7].get_lines()[0].get_ydata()) == [1.0, 0.5, 0.0]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["2 bits", "5 bits"]
    assert (drawn[0].get_supxlabel(), drawn[0].get_supylabel()) == ("epoch of the search", "probability")
    drawn[0].canvas.draw()
    assert all(tick == round(tick) for tick in axes[6].get_xticks())
    # Epochs stand below every column.
    assert [axes[at].xaxis.get_tick_params()["labelbottom"] for at in (0, 1, 2, 5)] == [False, False, True, True]


def test_a_picture_that_fails_leaves_nothing(tmp_path: Path) -> None:
    figure = pictures._pyplot().figure()

    def savefig(path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    figure.savefig = savefig
    with pytest.raises(OSError, match="No space"):
        pictures._save(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
