"""Pictures of runs: bits by layer, strengths over the search, accuracy against cost of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwgen.errors import InputError
from hwgen.output import whole_file

_BLUE, _ORANGE = "#31688e", "#fd9a44"
_MARKS = "os^Dv<>PX*"
_FEW_RUNS = 10  # whose names have room in a small picture
_LETTER, _LINE = 4.2, 9.5  # points that a letter and a line of a run's name take


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    """The whole picture or none of it, in the format of its suffix."""
    form, known = path.suffix[1:].lower() or "png", sorted(figure.canvas.get_supported_filetypes())
    try:
        if form not in known:
            raise InputError(
                f"Pictures are not written as '{path.suffix}'; give it one of {', '.join(known)}.", str(path)
            )
        with whole_file(path) as part:
            figure.savefig(part, dpi=120, format=form)
    finally:
        _pyplot().close(figure)


def draw_bits(bits: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Weight and activation bits of every layer; rows with ``layer``, ``weight`` and ``activation``."""
    pyplot = _pyplot()
    place = range(len(bits))
    figure, axis = pyplot.subplots(figsize=(max(5.0, 0.5 * len(bits) + 2), 3.2), layout="constrained")
    axis.bar([at - 0.2 for at in place], [row["weight"] for row in bits], 0.4, label="weights", color=_BLUE)
    axis.bar([at + 0.2 for at in place], [row["activation"] for row in bits], 0.4, label="activations", color=_ORANGE)
    axis.set_xticks(list(place), [row["layer"] for row in bits], rotation=45, ha="right", fontsize=8)
    axis.set_ylabel("bits")
    axis.set_ylim(0, max(max(row["weight"], row["activation"]) for row in bits) + 1.5)
    axis.legend(loc="upper right", ncols=2, frameon=False)
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_strengths(strengths: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Probabilities of every operand's candidates over the search's epochs, and their mean entropy.

    Args:
        strengths: per search epoch the probabilities by operand and bits. history: figures by epoch of all stages.
    """
    pyplot = _pyplot()
    operands = [name for name in strengths[0] if name != "epoch"]
    columns = 6
    rows = -(-(len(operands) + 1) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(2.2 * columns, 1.6 * rows + 0.5), layout="constrained", sharex=True, squeeze=False
    )
    every = sorted({int(bits) for name in operands for bits in strengths[0][name]})
    colours = dict(zip(every, pyplot.cm.viridis([at / max(len(every) - 1, 1) for at in range(len(every))]), strict=True))
    epochs = [row["epoch"] for row in strengths]
    for axis, name in zip(axes.flat, operands, strict=False):
        for bits in strengths[0][name]:
            axis.plot(epochs, [row[name][bits] for row in strengths], color=colours[int(bits)], lw=1.2)
        axis.set_ylim(0, 1)
        axis.set_title(name, fontsize=7)
        axis.tick_params(labelsize=6)
    last = axes.flat[len(operands)]
    last.plot(epochs, [row["entropy"] for row in history if row["stage"] == "search"], color="black", lw=1.2)
    last.set_title("mean entropy (bits)", fontsize=7)
    last.tick_params(labelsize=6)
    for axis in list(axes.flat)[len(operands) + 1 :]:
        axis.set_axis_off()
    for axis in list(axes.flat)[max(len(operands) + 1 - columns, 0) : (rows - 1) * columns]:  # with nothing below them
        axis.tick_params(labelbottom=True)
    axes[0, 0].xaxis.set_major_locator(pyplot.MaxNLocator(integer=True))  # of all, which share it
    figure.supxlabel("epoch of the search", fontsize=8)
    figure.supylabel("probability", fontsize=8)
    lines = [pyplot.Line2D([], [], color=colours[bits]) for bits in every]
    figure.legend(
        lines,
        [f"{bits} bit{'s' * (bits > 1)}" for bits in every],
        loc="outside upper center",
        ncols=len(every),
        frameon=False,
        fontsize=8,
    )
    _save(figure, path)


def draw_comparison(runs: Sequence[Mapping[str, Any]], cost: str, path: Path) -> None:
    """Accuracy against cost; rows with ``name``, ``method``, ``accuracy``, ``cost``, and ``float`` accuracy; ``error``, where a row has
    one, is drawn as a bar."""
    pyplot = _pyplot()
    many = len(runs) > _FEW_RUNS
    figure, axis = pyplot.subplots(figsize=(10, 6.5) if many else (6.4, 4.2), layout="constrained")
    for at, method in enumerate(dict.fromkeys(row["method"] for row in runs)):
        rows = sorted((row for row in runs if row["method"] == method), key=lambda row: row["cost"])
        costs = [row["cost"] for row in rows]
        shares = [100 * row["accuracy"] for row in rows]
        axis.plot(costs, shares, _MARKS[at % len(_MARKS)], label=method, color=f"C{at}")
        spread = [100 * row.get("error", 0) for row in rows]
        if any(spread):
            axis.errorbar(costs, shares, spread, fmt="none", ecolor=f"C{at}", elinewidth=0.8, capsize=2)
    best = max(row["float"] for row in runs)
    axis.axhline(100 * best, color="grey", lw=0.8, ls="--", label="float", zorder=0)
    axis.set_xlabel(f"{cost} per image" if cost != "bytes" else "bytes of weights")
    axis.set_ylabel("test accuracy of the integer network (%)")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.1)
    _label(axis, runs)
    _save(figure, path)


def _label(axis: Any, runs: Sequence[Mapping[str, Any]]) -> None:
    """Names beside their points, moved up where they would lie on those of points below."""
    names: dict[tuple[float, float], list[str]] = {}
    for row in runs:
        names.setdefault((row["cost"], 100 * row["accuracy"]), []).append(row["name"])
    points = 72 / axis.figure.dpi
    taken: list[tuple[float, float, float]] = []  # left, right and height of the labels so far, in points
    for place, there in sorted(names.items(), key=lambda item: item[0][1]):  # runs of the same bits lie on one another
        text = ", ".join(there)
        left, low = axis.transData.transform(place) * points + (6, 2)
        right, height = left + _LETTER * len(text), low
        for start, end, at in taken:
            if start < right and left < end and abs(height - at) < _LINE:
                height = at + _LINE
        taken.append((left, right, height))
        axis.annotate(text, place, textcoords="offset points", xytext=(6, 2 + height - low), fontsize=7)
