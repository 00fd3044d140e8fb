"""What bits cost in each layer of a study's network on its engine: where fewer bits save nothing, a search has nothing to trade.

    python -m benchmarks.study_costs benchmarks/study_resnet8.toml

Needs no data and no training. Figures in ``build/bench/study_costs.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
PAIRS = (
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 2),
    (2, 3),
    (3, 2),
    (3, 3),
    (3, 4),
    (4, 3),
    (4, 4),
)  # bits of weights and activations


def costs(study: Study) -> list[dict[str, Any]]:
    """A row per layer that is searched: cycles on the engine by bits of weights and activations ("W2A2")."""
    recipe = read_recipe(HERE / study.recipe)
    engine = read_engine(HERE / study.engine)
    net = prepare(build(recipe.model.network, SHAPE, CLASSES), SHAPE, name=recipe.model.name)
    searched = [node.name for node in net.weighted() if len(node.choice.candidates) > 1]
    fix_bits(net, reference_bits(net))
    table = cost_table(export(net, proven=False), engine)
    return [
        {
            "layer": name,
            "engine": engine.name,
            **{f"W{weights}A{maps}": int(table[name][weights - 1, maps - 1]) for weights, maps in PAIRS},
        }
        for name in searched
    ]


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
    print(*(f"{name:>15}" for name in rows[0] if name != "engine"))
    for row in rows:
        print(*(f"{value:>15}" for name, value in row.items() if name != "engine"))
    print(f"Wrote {write_rows('study_costs', rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
