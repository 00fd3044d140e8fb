"""Proofs by Yosys' sat: primitives and portable twins for every input, buffer and semaphore for every short history."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwgen.render import render_popcount, template_folder
from hwgen.synth import run_yosys
from sim.xc7_models import primitives

PROOFS = Path(__file__).parent / "rtl" / "proofs.sv"
# Every history of so many cycles after a reset, from any state of the registers.
HISTORY = "-seq {} -prove-skip 1 -set-at 1 rst 1"


def prove(
    folder: Path,
    proof: str,
    units: list[str],
    options: str = "",
    *,
    sources: dict[str, str] | None = None,
    **parameters: int,
) -> None:
    """Prove that ``bad`` of a module of proofs.sv stays 0.

    Args:
        options: of Yosys' sat. sources: texts instead of the templates' own, by module.

    Raises:
        RuntimeError: there is a counterexample; the message holds it.
    """
    files = [primitives(folder, ["LUT6", "LUT6_2", "CARRY4"])]
    for name in units:
        text = (sources or {}).get(name) or template_folder().joinpath("rtl", f"{name}.sv").read_text(encoding="utf-8")
        files.append(folder / f"{name}.sv")
        files[-1].write_text(text, encoding="utf-8")
    values = [f"chparam -set {name} {value} {proof}" for name, value in parameters.items()]
    run_yosys(
        [
            "read_verilog -sv " + " ".join(map(str, [*files, PROOFS])),
            *values, f"hierarchy -check -top {proof}", "rename -top proof", "proc", "flatten", "memory -nomap", "memory_map", "opt -full", "async2sync", "dffunmap",
            f"sat -verify -prove bad 0 {options} proof",
        ],
        proof,
    )  # fmt: skip


def test_full_adder(tmp_path: Path) -> None:
    prove(tmp_path, "proof_full_adder", ["bs_full_adder_xc7"])


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_counter(tmp_path: Path, levels: int) -> None:
    prove(tmp_path, "proof_counter", ["bs_counter_xc7"], LEVELS=levels)


@pytest.mark.parametrize("pairs", range(2, 16))
def test_pairs(tmp_path: Path, pairs: int) -> None:
    prove(tmp_path, "proof_pairs", ["bs_pairs_xc7"], PAIRS=pairs)


@pytest.mark.parametrize("width", [2, 4, 9])
def test_adder3(tmp_path: Path, width: int) -> None:
    prove(tmp_path, "proof_adder3", ["bs_adder3_xc7"], WIDTH=width)


def test_less(tmp_path: Path) -> None:
    prove(tmp_path, "proof_less", ["bs_less"])


@pytest.mark.parametrize("bits", [12, 28])
def test_value(tmp_path: Path, bits: int) -> None:
    prove(tmp_path, "proof_value", ["bs_value"], ACC_BITS=bits)


@pytest.mark.parametrize("bits", [14, 28])
def test_accumulator(tmp_path: Path, bits: int) -> None:
    prove(tmp_path, "proof_accumulator", ["bs_accumulator"], "-seq 1 -set-at 1 rst 1 -tempinduct -maxsteps 4", WIDTH=bits)


@pytest.mark.parametrize("width", [8, 12, 16])
def test_popcount(tmp_path: Path, width: int) -> None:
    units = ["bs_full_adder_xc7", "bs_counter_xc7", "bs_pairs_xc7", "bs_adder3_xc7", "bs_popcount", "bs_popcount_xc7"]
    sources = {"bs_popcount_xc7": render_popcount(width)}
    prove(tmp_path, "proof_popcount", units, "-seq 5 -prove-skip 4", sources=sources, D_K=width)


def test_burst(tmp_path: Path) -> None:
    prove(tmp_path, "proof_burst", ["bs_burst"])


def test_fifo(tmp_path: Path) -> None:
    prove(tmp_path, "proof_fifo", ["bs_fifo"], HISTORY.format(14))


@pytest.mark.parametrize("ahead", [0, 1])
def test_tokens(tmp_path: Path, ahead: int) -> None:
    prove(tmp_path, "proof_tokens", ["bs_tokens"], HISTORY.format(20), AHEAD=ahead)


@pytest.mark.parametrize(
    ("proof", "unit", "old", "new", "options"),
    [
        ("proof_full_adder", "bs_full_adder_xc7", "96969696", "96969697", ""),
        ("proof_counter", "bs_counter_xc7", "177e7ee8", "177e7ee9", ""),
        ("proof_pairs", "bs_pairs_xc7", "78887888", "78887889", ""),
        ("proof_adder3", "bs_adder3_xc7", "17e817e8", "17e817e9", ""),
        ("proof_less", "bs_less", "84218421", "84218422", ""),
        ("proof_fifo", "bs_fifo", "!valid_q || ready_i;", "!valid_q || !ready_i;", HISTORY.format(14)),
        ("proof_fifo", "bs_fifo", "!promised_q[3];", "!(promised_q[3] && read_valid_q);", HISTORY.format(14)),
        ("proof_burst", "bs_burst", "reach[3:0] != '0", "reach[3:1] != '0", ""),
        ("proof_tokens", "bs_tokens", "count_q >= need", "count_q > need", HISTORY.format(20)),
    ],
)
def test_a_spoilt_unit_has_a_counterexample(
    tmp_path: Path, proof: str, unit: str, old: str, new: str, options: str
) -> None:
    text = template_folder().joinpath("rtl", f"{unit}.sv").read_text(encoding="utf-8")
    assert text.count(old) == 1
    with pytest.raises(RuntimeError, match=r"proof did fail"):
        prove(tmp_path, proof, [unit], options, sources={unit: text.replace(old, new)})
