"""What bits cost in each layer of a study's network on its engine: where fewer bits save nothing, a search has nothing to trade.

    python -m benchmarks.study_costs benchmarks/study_resnet8.toml

Needs no data and no training. Figures in ``build/bench/study_costs.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.rows import write_rows
from benchmarks.study import HERE, Study, read_study
from hwgen.cycles import cost_table
from hwgen.engine import read_engine
from hwgen.errors import InputError
from model import prepare
from model.choose import fix_bits
from model.export import export
from model.networks import build
from model.pipeline import reference_bits
from model.recipe import read_recipe

SHAPE, CLASSES = (3, 32, 32), 10  # CIFAR-10
PAIRS = ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3), (3, 4), (4, 3), (4, 4))  # of weights, of activations
EDGES = tuple((weights, 8) for weights in range(2, 9))  # of the first and the last layer, which the field leaves at W8A8


def costs(study: Study) -> list[dict[str, Any]]:
    """A row per layer: cycles on the engine by bits of weights and activations ("W2A2"); of the first and last layer by those of
    their weights."""
    recipe = read_recipe(HERE / study.recipe)
    engine = read_engine(HERE / study.engine)
    net = prepare(build(recipe.model.network, SHAPE, CLASSES), SHAPE, name=recipe.model.name)
    pinned = {node.name for node in net.weighted() if len(node.choice.candidates) == 1}
    fix_bits(net, reference_bits(net))
    table = cost_table(export(net, proven=False), engine)
    return [
        {
            "layer": name,
            "engine": engine.name,
            **{f"W{w}A{a}": int(costs[w - 1, a - 1]) for w, a in (EDGES if name in pinned else PAIRS)},
        }
        for name, costs in sorted(table.items(), key=lambda item: item[0] in pinned)
    ]


def by_columns(rows: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that name the same bits, one table each; the engine, which all share, left out."""
    plain = [{name: value for name, value in row.items() if name != "engine"} for row in rows]
    return [list(block) for _, block in groupby(plain, key=list)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figures; 2 where the study is unusable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the study (TOML)")
    options = parser.parse_args(arguments)
    try:
        rows = costs(read_study(options.config))
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for block in by_columns(rows):
        for cells in (list(block[0]), *(list(row.values()) for row in block)):
            print(*(f"{cell:>15}" for cell in cells))
    print(f"Wrote {write_rows('study_costs', rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
