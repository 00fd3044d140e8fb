"""A waveform of the cycles around a failure: the run again, on a model that records, only as far as it went wrong.

Left in a folder: ``failure.fst``, ``failure.gtkw`` (GTKWave's save file: ``gtkwave failure.gtkw``) and ``failure.sucl`` (Surfer's
command file: ``surfer failure.fst -c failure.sucl``), both with the signals that the tensor monitor looks at and a marker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hwgen.build import Build
from sim.compiled import compile_engine
from sim.fst import read_declared
from sim.job import Job, Result

BEFORE, AFTER = 600, 60
"""Cycles of the window before and behind the wrong write."""
SIGNALS = (
    "clk", "rst", "irq_o", "layer_first_q", "layer_index_q", "plane_we_o", "plane_row_o", "plane_data_o", "byte_we_o",
    "byte_row_o", "byte_data_o", "logits_valid_o", "logits_last_o", "error_q", "state_q",
)  # fmt: skip
"""Last parts of the names to list, in this order."""
_SCOPES = ("bs_top", "bs_top.u_core", "bs_top.u_core.u_write_back", "bs_top.u_shell.u_control")


def window(result: Result) -> tuple[int, int, int] | None:
    """First and last cycle to record and the one that matters; None where nothing failed in simulated time.

    It is the first wrong write of a buffer; else (a fault, an engine that hangs, logits alone) the end of the run.
    """
    matters = result.first_wrong if result.first_wrong is not None else result.ended
    if matters is None or not (result.problem or result.wrong):
        return None
    return max(matters - BEFORE, 1), matters + AFTER, matters


def record(build: Build, folder: Path, result: Result, out: Path, run: Callable[[Path], str]) -> Path | None:
    """Run the job of ``folder`` again up to its failure, and leave the window in ``out``; the FST file.

    Args:
        run: runs a job folder in a process of its own.

    Raises:
        sim.verilator.BuildError: the model with waves does not compile.
    """
    if (span := window(result)) is None:
        return None
    first, last, matters = span
    out.mkdir(parents=True, exist_ok=True)
    waves = out.resolve() / "failure.fst"
    waves.unlink(missing_ok=True)
    job = replace(
        Job.read(folder),
        library=str(compile_engine(build.rtl, trace="fst", quick=True)),
        waves=str(waves),
        window=(first, last),
        limit=last,
    )
    job.rewrite(folder)
    told = run(folder)
    if not waves.exists():
        raise RuntimeError(f"the simulation ended without a waveform:\n{told}")
    write_lists(waves, matters)
    return waves


def write_lists(waves: Path, matters: int) -> list[str]:
    """Write the signal lists of both viewers beside ``waves``; the signals, as the file names them."""
    declared = read_declared(waves)
    chosen = []
    for scope in _SCOPES:
        for signal in SIGNALS:
            for name in declared.signals:
                plain = name.partition(" ")[0].partition("[")[0]
                if plain.endswith(f"{scope}.{signal}") and name not in chosen:
                    chosen.append(name)
    edge = 2 * matters - 1
    lines = [
        f'[dumpfile] "{waves.name}"', f"[timestart] {max(declared.first, edge - 60)}",
        "*-3.0 " + " ".join([str(edge), *["-1"] * 26]), "[signals_width] 260", "@22",
        *(name.replace(" ", "") for name in chosen),
    ]  # fmt: skip
    waves.with_suffix(".gtkw").write_text("\n".join(lines) + "\n", encoding="utf-8")
    commands = [
        *(f"variable_add {name.partition(' ')[0].partition('[')[0]}" for name in chosen),
        f"cursor_set {edge}",
        "goto_cursor",
    ]
    waves.with_suffix(".sucl").write_text("\n".join(commands) + "\n", encoding="utf-8")
    return chosen
