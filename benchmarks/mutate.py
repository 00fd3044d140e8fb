"""How much the fast tests see: mutants of every RTL module, killed or not. ``make mutate``.

Yosys elaborates the engine, applies some mutations to each module (an inverted bit, a constant, a bit swapped for another), every one
behind a compare with a number that is chosen at run time, and writes the design back: one compilation for all mutants. Each mutant
then runs what the fast tests run, random networks back to back with interrupted runs, until something differs from the golden model or
the registers from their documents. What small networks do not notice meets the bench of its module (:mod:`benchmarks.mutate_benches`); of
what is left Yosys tries to prove that the module computes the same: those mutants are equivalent. The others run large networks and every fault.
Then the mutants of :mod:`benchmarks.mutate_python`. Figures go to build/bench/mutation.json after every module, a list of objects.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.mutate_benches import Benches
from benchmarks.mutate_proofs import proved_equal
from benchmarks.survivors import Known, find, source_line
from hwgen import isa
from hwgen.board import load_board
from hwgen.build import write_rtl
from hwgen.engine import EngineConfig
from hwgen.synth import run_yosys
from sim import verilator
from sim.compiled import HARNESS, PUBLIC, MemoryTiming, RegisterError, SimulationError, compile_engine
from sim.faults import FAULTS, provoke, renumbered, zero_counts
from sim.job import Layout
from sim.random_network import random_images, random_network
from sim.soak import DISTURBANCES, Station, Work, prepare

ENGINE = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=2048, plane_depth=512, byte_depth=512,
    column_depth=512,
)  # fmt: skip
SEED = 1
VARIABLE = "BITSMITH_MUTANT"
NETWORKS = (
    563, 878, 1060, 1381, 926, 1249, 749, 676, 1215, 1376, 854, 415, 319, 945, 340, 188, 1186, 1056, 1096, 445, 126, 248, 999, 737,
    300, 771, 1276, 470, 932, 2300, 490, 1481, 2314, 1553, 1618,
)  # fmt: skip
"""Seeds of random networks, chosen so that a network more brings nothing new (``tests/test_benchmarks_trust.py``)."""
_QUICK = 23
_COUNTERS = ("images_done", "read_beats", "write_beats")
_WATCHDOG = 3000
_PATIENCE = 3
_SELECT = "mutant_select"
_PACKAGE = "bs_mutants"
_CHOOSER = f"""#include <cstdlib>
extern "C" int bs_mutant() {{
    const char* chosen = std::getenv("{VARIABLE}");
    return chosen ? std::atoi(chosen) : 0;
}}
"""


@dataclass
class Target:
    """What became of the mutants of a module.

    equivalent: proved so, or known to be. survivors: the rest of those that nothing noticed. reasons: why, of some of them.
    """

    target: str
    mutants: int = 0
    killed: int = 0
    equivalent: int = 0
    survivors: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def survive(self, mutation: str, rtl: Path) -> None:
        """Count a mutant that nothing noticed and no proof took. rtl: folder of the sources."""
        plain = re.sub(r" -(ctrl \S+ \d+ \d+|src \S+)", "", mutation).replace(f"{rtl}/", "")
        known = known_mutant(mutation, rtl)
        if known is not None and known.equivalent:
            self.equivalent += 1
            return
        self.survivors.append(plain)
        if known is not None:
            self.reasons[plain] = known.reason


def known_mutant(mutation: str, rtl: Path) -> Known | None:
    """What is known of a mutant: by the lines that Yosys made its cell and wire of, and mode, port, bit and wire.

    Where another bit decides whether the bit is inverted, it stands behind a slash.
    """
    facts = dict(re.findall(r"-(mode|port|portbit|ctrlbit|wire) (\S+)", mutation))
    if "ctrlbit" in facts:
        facts["portbit"] += f"/{facts['ctrlbit']}"
    change = " ".join(facts.get(name, "-") for name in ("mode", "port", "portbit", "wire"))
    for file, line in re.findall(r"-src (\S+):(\d+)\.\d+-", mutation):
        for name in (Path(file).name, f"{Path(file).name}.j2"):
            if found := find(f"hls_templates/rtl/{name}", source_line(rtl / Path(file).name, int(line)), change):
                return found
    return None


def plain_names(design: str) -> tuple[str, dict[str, str]]:
    """A design in RTLIL with readable module names, and the module to mutate of each name in the sources."""
    found = re.findall(r"^module (\S+)$", design, re.M)
    by_base: dict[str, list[str]] = defaultdict(list)
    for name in found:
        by_base[re.search(r"\\(bs_\w+)", name)[1]].append(name)  # type: ignore[index]
    new: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for base, names in by_base.items():
        for at, name in enumerate(names):
            new[name] = f"\\{base}" if len(names) == 1 else f"\\{base}__{at}"
        largest = max(names, key=lambda name: len(design.partition(f"module {name}\n")[2].partition("\nmodule ")[0]))
        chosen[base] = new[largest][1:]
    for name in sorted(found, key=len, reverse=True):
        design = design.replace(f"{name}\n", f"{new[name]}\n").replace(f"{name} ", f"{new[name]} ")
    return design, chosen


def drive_select(verilog: str, top: str = "bs_top") -> str:
    """Turn the select port of a top, which Yosys leads to every mutant, into a variable that the test program sets.

    Without the promise that choices exclude each other, which mutants break: values shall tell, not a check that Yosys writes.
    Of a package: signals of the top are public, and one that may change at any time makes the simulation twice as slow.
    """
    head, name, body = verilog.replace("// synopsys parallel_case", "").partition(f"module {top}(")
    ports, rest = body.split(");", 1)
    ports = ", ".join(port for port in re.split(r",\s*", ports) if port.strip() != _SELECT)
    rest, count = re.subn(rf"input \[15:0\] {_SELECT};\n\s*wire \[15:0\] {_SELECT};", "", rest, count=1)
    if not count:
        raise RuntimeError("the mutated top has no select port")
    inside, end, others = rest.partition("endmodule")
    inside = re.sub(rf"(?<!\.)\b{_SELECT}\b", f"{_PACKAGE}::{_SELECT}", inside)
    package = f"""package {_PACKAGE};
  import "DPI-C" function int bs_mutant();
  logic [15:0] {_SELECT} = 16'(bs_mutant());
endpackage
"""
    return f"{package}{head}{name}{ports});{inside}{end}{others}"


def mutated_engine(
    sources: list[Path], folder: Path, mutants: int, only: list[str]
) -> tuple[Path, dict[str, list[tuple[int, str]]], Benches]:
    """The compiled engine with all mutants, their numbers and mutations by module, and the benches of its modules."""
    design = folder / "design.il"
    run_yosys(
        [
            f"read_verilog -sv {' '.join(map(str, sources))}", "hierarchy -top bs_top", "proc", "memory_collect", "wreduce",
            "setattr -set keep 1 */w:layer_first_q */w:layer_index_q", "opt_clean",
            f"write_rtlil {design}",
        ],
        "bs_top",
    )  # fmt: skip
    text, chosen = plain_names(design.read_text(encoding="utf-8"))
    design.write_text(text, encoding="utf-8")
    targets = {base: name for base, name in sorted(chosen.items()) if not only or base in only}
    lists = [
        f"mutate -list {mutants} -seed {SEED} -ctrl {_SELECT} 16 {1 + at * mutants} -o {folder}/{base}.mutants {name}"
        for at, (base, name) in enumerate(targets.items())
    ]
    run_yosys([f"read_rtlil {design}", *lists], "bs_top")
    apply, numbers = [], {}
    for base in targets:
        lines = (folder / f"{base}.mutants").read_text(encoding="utf-8").splitlines()
        apply += lines
        numbers[base] = [(int(re.search(r"-ctrl \S+ 16 (\d+)", line)[1]), line) for line in lines]  # type: ignore[index]
    netlist = folder / "bs_top.v"
    run_yosys([f"read_rtlil {design}", *apply, f"write_verilog -noattr {netlist}"], "bs_top")
    made = folder / "bs_top.sv"
    made.write_text(drive_select(netlist.read_text(encoding="utf-8")), encoding="utf-8")
    chooser = folder / "chooser.cpp"
    chooser.write_text(_CHOOSER, encoding="utf-8")
    harness = [*HARNESS, chooser]
    benches = Benches(netlist, design, chosen, drive_select, chooser, VARIABLE)
    return verilator.build_library([made], "bs_top", harness, public=PUBLIC, optimise="-O1"), numbers, benches


class ImpatientLayout(Layout):
    """A hanging mutant is to be found soon."""

    def registers(self) -> list[tuple[str, int]]:
        return [(name, _WATCHDOG if name == "watchdog" else value) for name, value in super().registers()]


def works() -> list[Work]:
    """What the engine must run: networks that between them use every kind of pass, code, window and instruction, small ones first.

    Each gets an image all of the highest code and two random ones, every second network after a run that ended badly.
    """
    made = []
    for at, seed in enumerate(NETWORKS):
        network = random_network(seed)
        disturbance = DISTURBANCES[at // 2 % len(DISTURBANCES)] if at % 2 else ""
        made.append(prepare(network, random_images(network, 4, seed)[1:], ENGINE, seed, disturbance))
    return sorted(made, key=lambda work: len(work.program))


def _registers_wrong(station: Station) -> str:
    """Registers keep what they are given, each its own."""
    names = [item.name for item in isa.REGISTERS if item.access == "rw" and item.name not in ("control", "image_planar")]
    for turn in (0, 0xFFFFFFFF):
        given = {name: (0x9E3779B1 * (at + 3) & 0xFFFFFFF8) ^ turn & 0xFFFFFFF8 for at, name in enumerate(names)}
        for name, value in given.items():
            station.engine.write_register(name, value)
        if any(station.engine.read_register(name) & 0xFFFFFFF8 != value for name, value in given.items()):
            return "registers"
    return ""


def _faults_wrong(station: Station, todo: list[Work]) -> str:
    """Every fault has its code, and the run after it, with other layer numbers, is right."""
    work, other = todo[len(todo) // 2], todo[0]
    for name, fault in [*FAULTS.items(), *zero_counts(work)]:
        if wrong := provoke(station, work, fault):
            return f"{name}: {wrong}"
    result = station.run(renumbered(other))
    return result.problem or "".join(result.mismatches[:1])


def killed(library: Path, mutant: int, todo: list[Work], *, faults: bool = True) -> str:
    """How the fast tests notice a mutant; empty if they do not. faults: provoke those too."""
    os.environ[VARIABLE] = str(mutant)
    try:
        with Station(
            library, 5, MemoryTiming((3, 40), 0.2, seed=5), layout=ImpatientLayout, patience=_PATIENCE
        ) as station:
            if station.engine.read_register("engine") != ENGINE.hash:
                return "engine register"
            for work in todo:
                result = station.run(work)
                if result.problem or result.wrong:
                    return result.problem or result.mismatches[0]
                counters = {name: result.counters[name] for name in _COUNTERS}
                if counters != EXPECTED.setdefault(work.seed, counters):
                    return f"counters {counters}"
            return (faults and (_registers_wrong(station) or _faults_wrong(station, todo))) or ""
    except (SimulationError, RegisterError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


EXPECTED: dict[int, dict[str, int]] = {}
"""Counters of the engine without a mutation, by the network's seed."""


@dataclass(frozen=True)
class Judge:
    """What decides about a mutant: the engine with all of them, the design for proofs, and what the engine must run."""

    library: Path
    design: Path
    todo: list[Work]
    benches: Benches

    def verdict(self, base: str, number: int, mutation: str) -> str:
        """``killed``, ``equivalent`` or ``survived``."""
        # Most fall over the first networks; what is seen at the module's ports alone takes less time than a proof.
        if killed(self.library, number, self.todo[:_QUICK], faults=False) or self.benches.fails(base, number):
            return "killed"
        if proved_equal(self.design, mutation):
            return "equivalent"
        return "killed" if killed(self.library, number, self.todo) else "survived"


_judge: Judge


def _begin(judge: Judge) -> None:
    """In each worker, once: the networks are inherited, not sent with every mutant."""
    global _judge
    _judge = judge


def _verdict(mutant: tuple[str, int, str]) -> str:
    """What became of a mutant; else how the checks themselves fell over it, which must not cost the other verdicts."""
    try:
        return _judge.verdict(*mutant)
    except Exception:
        return traceback.format_exc()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def python_rows(library: Path, mutants: int, out: Path) -> list[dict[str, Any]]:
    """The rows of the Python targets, from a process that has imported nothing of bitsmith.

    Raises:
        subprocess.CalledProcessError: their tests fail without a mutation.
    """
    command = [sys.executable, "-m", "benchmarks.mutate_python", str(library), str(out), "--mutants", str(mutants)]
    subprocess.run(command, check=True)
    rows: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=50, help="per module (50)")
    parser.add_argument("--module", action="append", default=[], help="this module only; may be given again")
    parser.add_argument("--python-mutants", type=int, default=30, help="per Python target (30); 0: RTL alone")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    given = parser.parse_args()
    start = time.perf_counter()
    todo = works()
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bitsmith-mutate-"))
        sources = write_rtl(ENGINE, load_board("pynq-z2"), Path(scratch) / "rtl")
        library, numbers, benches = mutated_engine(sources, Path(scratch), given.mutants, given.module)
        if seen := killed(library, 0, todo):
            print(f"The engine without a mutation fails: {seen}", file=sys.stderr)
            return 1
        # Forked, so that workers have the counters of the engine without a mutation; before the bar has a thread.
        pool = stack.enter_context(
            ProcessPoolExecutor(
                given.workers,
                multiprocessing.get_context("fork"),
                _begin,
                (Judge(library, Path(scratch) / "design.il", todo, benches),),
            )
        )
        verdicts = pool.map(_verdict, [(base, *mutant) for base, mutants in numbers.items() for mutant in mutants])
        bar = stack.enter_context(Progress(transient=True))
        task = bar.add_task("mutants", total=sum(map(len, numbers.values())))
        for base, mutants in numbers.items():
            target = Target(base)
            for _, mutation in mutants:
                match next(verdicts):
                    case "killed":
                        target.killed += 1
                    case "equivalent":
                        target.equivalent += 1
                    case "survived":
                        target.survive(mutation, Path(scratch) / "rtl")
                    case broken:
                        target.survive(mutation, Path(scratch) / "rtl")
                        failures.append(f"{mutation}\n{broken}")
                target.mutants += 1
                bar.advance(task)
            facts = {"engine": ENGINE.name, "seed": SEED, "seconds": round(time.perf_counter() - start, 1)}
            rows.append(asdict(target) | facts)
            write(given.out / "mutation.json", rows)
            print(
                f"{base:<20} {target.killed:>3} of {target.mutants - target.equivalent} that are not equivalent",
                flush=True,
            )
        if given.python_mutants:
            plain_library = compile_engine(sources, quick=True)
            rows += python_rows(plain_library, given.python_mutants, Path(scratch) / "python.json")
            write(given.out / "mutation.json", rows)
    if failures:
        print("The checks themselves fail on these mutants:", *failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
