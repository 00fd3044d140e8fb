"""Fits the area model: synthesises a sweep of engine shapes and writes ``hwgen/data/area.json``.

    python -m benchmarks.fit_area            # all shapes, about 30 minutes; cached ones cost nothing
    python -m benchmarks.fit_area --check    # only compare the model with the cached figures

The fit is least squares on relative error, so that small engines count as much as large ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from benchmarks.bench_engine import ENGINE
from hwgen.area import estimate_area, features
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from hwgen.synth import Resources, synthesise

DATA = Path(__file__).resolve().parent.parent / "hwgen" / "data" / "area.json"
SHAPES = [
    EngineConfig(columns=4, slots=3, lane_rows=1),
    EngineConfig(columns=4, slots=6, lane_rows=1),
    EngineConfig(columns=4, lane_rows=2),
    EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1),
    EngineConfig(rows=4, columns=4, slot_channels=8, lane_rows=2),
    EngineConfig(rows=4, columns=8, lane_rows=1),
    EngineConfig(rows=2, columns=8, slots=6, lane_rows=1, acc_bits=24),
    EngineConfig(columns=8, slots=3, lane_rows=4),
    EngineConfig(columns=8, slots=6, lane_rows=2, acc_bits=24),
    EngineConfig(columns=8, slots=12, lane_rows=1),
    EngineConfig(rows=16, columns=4, slots=6, lane_rows=4),
    EngineConfig(rows=4, columns=16, slots=3, lane_rows=1),
    ENGINE,
]


def measure(shape: EngineConfig) -> Resources:
    """Synthesise one shape, or take it from the cache."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = write_rtl(shape, load_board("pynq-z2"), Path(scratch))
        return synthesise(sources, "bs_top", parameters={"XC7": 1})


def main() -> None:
    """Measure, fit, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="do not fit, only compare")
    check = parser.parse_args().check
    found = []
    for shape in SHAPES:
        found.append(measure(shape))
        print(
            f"{shape.name} lanes {shape.lanes}: {found[-1].lut} LUT, {found[-1].ff} FF, {found[-1].bram36} BRAM36,"
            f" {found[-1].dsp} DSP",
            flush=True,
        )
    if not check:
        names = list(features(SHAPES[0]))
        matrix = np.array([[features(shape)[name] for name in names] for shape in SHAPES])
        coefficients = {}
        for what in ("lut", "ff"):
            target = np.array([getattr(item, what) for item in found], float)
            solution, _ = nnls(matrix / target[:, None], np.ones(len(target)))
            coefficients[what] = {name: round(float(value), 4) for name, value in zip(names, solution, strict=True)}
        measured = [
            {"engine": asdict(shape), "lut": item.lut, "ff": item.ff, "bram36": item.bram36, "dsp": item.dsp}
            for shape, item in zip(SHAPES, found, strict=True)
        ]
        DATA.write_text(
            json.dumps({"coefficients": coefficients, "measured": measured}, indent=2) + "\n", encoding="utf-8"
        )
        estimate_area.__globals__["_coefficients"].cache_clear()
    for shape, item in zip(SHAPES, found, strict=True):
        area = estimate_area(shape)
        print(
            f"{shape.name} lanes {shape.lanes}: LUT {100 * (area.lut / item.lut - 1):+.1f} %, FF {100 * (area.ff / item.ff - 1):+.1f} %,"
            f" BRAM36 {area.bram36 - item.bram36:+d}, DSP {area.dsp - item.dsp:+d}"
        )


if __name__ == "__main__":
    main()
