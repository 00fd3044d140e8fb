"""What the fast tests reach: lines and toggles of the RTL, branches of ``hwgen`` and ``sim``. ``make coverage``.

Two runs of pytest in which coverage.py follows all processes, those inside cocotb's simulations too. In the first one, of the tests of
the RTL, every Verilator build counts (``sim.verilator.COVERAGE``); the second one takes builds as they are. What each simulation left is merged by file and line: the same module in many engines is one
module. Figures and gaps go to build/bench/coverage.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import write_rows
from sim.verilator import COVERAGE

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "coverage"
PACKAGES = ("hwgen", "sim")
RTL_TESTS = (
    "test_rtl_core_modules",
    "test_rtl_shell_*",
    "test_rtl_faults",
    "test_rtl_xc7",
    "test_sim_random",
    "test_sim_compiled",
)
OTHER_TESTS = (
    "test_rtl_proofs", "test_rtl_lint", "test_rtl_yosys", "test_sim_axi_memory", "test_sim_fst", "test_sim_golden", "test_sim_verilator",
    "test_hwgen_*", "test_hls_*", "test_network_file", "test_build_assemble", "test_cli_*", "test_board_*", "test_benchmarks_*", "test_docs*",
)  # fmt: skip
LEAST = {"rtl lines": 0.95, "hwgen branches": 0.9, "sim branches": 0.9}
"""Shares that the project promises."""
_POINT = re.compile(r"^C '(.*)' (\d+)$")
_SETTINGS = f"""[run]
branch = true
parallel = true
patch = subprocess
source = {",".join(PACKAGES)}
data_file = {WORK}/python/data
disable_warnings = no-data-collected,module-not-measured,module-not-imported,couldnt-parse
[report]
exclude_also =
    if __name__ == .__main__.:
    raise NotImplementedError
    \\.\\.\\.$
"""


@dataclass
class Share:
    """How much of one thing was reached; gaps: file:line, with a name where there is one."""

    target: str
    reached: int = 0
    all: int = 0
    gaps: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.reached / self.all if self.all else 1.0

    def row(self) -> dict[str, Any]:
        return {**vars(self), "share": round(self.share, 4), "least": LEAST.get(self.target)}


def points(text: Iterable[str]) -> Iterable[tuple[dict[str, str], int]]:
    """The points of one of Verilator's coverage files: keys (f file, l line, page, o, S lines) and count."""
    for line in text:
        if found := _POINT.match(line.rstrip("\n")):
            pairs = (item.partition("\2") for item in found[1].split("\1") if item)
            yield {key: value for key, _, value in pairs}, int(found[2])


def _numbers(lines: str) -> Iterable[int]:
    for part in lines.split(","):
        if part:
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)


class Merged:
    """Counts of all simulations by file and line; a rendered file of several engines is one file."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, int], int] = defaultdict(int)
        self.toggles: dict[tuple[str, int, str], int] = defaultdict(int)

    def add(self, path: Path) -> None:
        with path.open(encoding="utf-8", errors="replace") as text:
            for point, count in points(text):
                file, kind = Path(point["f"]).name, point.get("page", "")
                if kind.startswith("v_toggle"):
                    self.toggles[file, int(point["l"]), point.get("o", "")] += count
                elif kind.startswith(("v_line", "v_branch")):
                    for line in _numbers(point.get("S", "")) or [int(point["l"])]:
                        self.lines[file, line] += count

    def shares(self, files: set[str]) -> tuple[Share, Share]:
        """Lines and toggles of these files."""
        lines, toggles = Share("rtl lines"), Share("rtl toggles")
        for (file, line), count in sorted(self.lines.items()):
            if file in files:
                _count(lines, count, f"{file}:{line}")
        for (file, line, name), count in sorted(self.toggles.items()):
            if file in files:
                _count(toggles, count, f"{file}:{line} {name}")
        return lines, toggles


def _count(share: Share, count: int, place: str) -> None:
    share.all += 1
    share.reached += count > 0
    if not count:
        share.gaps.append(place)


def python_shares(report: Mapping[str, Any]) -> list[Share]:
    """Branches by package, of coverage.py's JSON report; a gap is a line that a branch never went to."""
    shares = {name: Share(f"{name} branches") for name in PACKAGES}
    for file, facts in sorted(report["files"].items()):
        share, summary = shares[Path(file).parts[0]], facts["summary"]
        share.all += summary["num_branches"]
        share.reached += summary["covered_branches"]
        share.gaps += [
            f"{file}:{here} to {there if there > 0 else 'its end'}" for here, there in facts["missing_branches"]
        ]
    return list(shares.values())


def _files(names: Iterable[str]) -> list[str]:
    return sorted({str(path.relative_to(ROOT)) for name in names for path in (ROOT / "tests").glob(f"{name}.py")})


def run_tests(workers: int, names: Iterable[str]) -> int:
    """The fast tests, counted; pytest's exit code, or that of the first run that failed. names: of files in ``tests``, with wildcards."""
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "rtl").mkdir(parents=True)
    (WORK / "python").mkdir()
    (WORK / "settings.ini").write_text(_SETTINGS, encoding="utf-8")
    chosen, counting = _files(names), set(_files(RTL_TESTS))
    command = [
        sys.executable, "-m", "coverage", "run", f"--rcfile={WORK}/settings.ini", "-m", "pytest", "-n", str(workers),
        "--dist", "loadscope", "-p", "no:cacheprovider",
    ]  # fmt: skip
    codes = []
    for env, files in (
        (os.environ | {COVERAGE: str(WORK / "rtl")}, [file for file in chosen if file in counting]),
        (os.environ, [file for file in chosen if file not in counting]),
    ):
        if files:
            codes.append(subprocess.run([*command, *files], cwd=ROOT, env=env, check=False).returncode)
    return next((code for code in codes if code), 0)


def measured() -> list[Share]:
    """The shares of what the last run left."""
    merged = Merged()
    for path in sorted((WORK / "rtl").glob("*.dat")):
        merged.add(path)
    templates = (ROOT / "hls_templates" / "rtl").glob("bs_*.sv*")
    shares = list(merged.shares({path.name.removesuffix(".j2") for path in templates}))
    settings, report = f"--rcfile={WORK}/settings.ini", WORK / "python.json"
    if any((WORK / "python").glob("data.*")):
        subprocess.run([sys.executable, "-m", "coverage", "combine", "--quiet", settings], cwd=ROOT, check=True)
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "--quiet", settings, "-o", str(report)], cwd=ROOT, check=True
    )
    return shares + python_shares(json.loads(report.read_text(encoding="utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes of pytest (2)")
    parser.add_argument("--report", action="store_true", help="the figures of the last run again, without a run")
    parser.add_argument(
        "--tests",
        nargs="+",
        default=RTL_TESTS + OTHER_TESTS,
        metavar="NAME",
        help="these test files only, such as test_rtl_xc7",
    )
    given = parser.parse_args()
    start = time.perf_counter()
    failed = 0 if given.report else run_tests(given.workers, given.tests)
    shares = measured()
    path = write_rows("coverage", [share.row() | {"seconds": round(time.perf_counter() - start, 1)} for share in shares])
    table = Table("target", "reached", "of", "share", "least", title="Coverage by the fast tests")
    short = []
    for share in shares:
        least = LEAST.get(share.target)
        table.add_row(
            share.target,
            f"{share.reached:,}",
            f"{share.all:,}",
            f"{100 * share.share:.1f} %",
            f"{100 * least:.0f} %" if least else "",
        )
        if least and share.share < least:
            short.append(f"{share.target} are covered to {100 * share.share:.1f} %, not {100 * least:.0f} %.")
    Console().print(table)
    print(f"Gaps, file by file: {path}")
    for sentence in short:
        print(sentence, file=sys.stderr)
    return 1 if failed or short else 0


if __name__ == "__main__":
    sys.exit(main())
