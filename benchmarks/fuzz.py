"""Mutated files for every reader: ``make fuzz N=10000``.

A reader may return something or raise InputError (BundleError on the board) with its sentences; anything else is a finding: another exception, more than a
few seconds, more than 1 GiB of memory, a file opened for writing outside its folder, a process started. Workers run under these
limits; a worker that dies names the input it died of. Figures go to build/bench/fuzz.json, findings to build/bench/fuzz-findings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fuzz_inputs import SEEDS, mutate
from hwgen.build import read_build
from hwgen.bundle import read_bundle
from hwgen.driver.bitsmith_driver.errors import BundleError
from hwgen.engine import EngineConfig, read_engine
from hwgen.errors import InputError
from hwgen.network_file import read_network
from hwgen.program import disassemble
from hwgen.schedule import schedule

ENGINE = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1)
SECONDS = 20
MEMORY_BYTES = 1 << 30
_CHUNK = 250


class TooSlowError(BaseException):
    """Not an Exception: no reader may swallow it."""


def _network(path: Path) -> None:
    schedule(read_network(path), ENGINE)


def _program(path: Path) -> None:
    disassemble((path / "program.bin").read_bytes())


def _bundle(path: Path) -> None:
    bundle = read_bundle(path / "bundle.zip")
    _ = bundle.program, bundle.engine_hash, bundle.virtual, bundle.samples()


def _checkpoint(path: Path) -> None:
    from model import checkpoint

    checkpoint.load(path / "checkpoint.pt")


def _recipe(path: Path) -> None:
    from model.recipe import read_recipe

    read_recipe(path / "recipe.toml")


READERS: dict[str, Callable[[Path], Any]] = {
    "network": _network,
    "build": read_build,
    "program": _program,
    "bundle": _bundle,
    "engine": lambda path: read_engine(path / "engine.json"),
    "recipe": _recipe,
    "checkpoint": _checkpoint,
}


@dataclass
class Watch:
    """Writes and processes that a reader starts outside ``allowed``; Python's audit events tell."""

    allowed: Path
    seen: list[str]

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and isinstance(arguments[0], str | bytes):
            name = os.fsdecode(arguments[0])
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not name.startswith((str(self.allowed), "/dev/null")):
                self.seen.append(f"opened {name} for writing")
        elif event in ("subprocess.Popen", "os.system", "os.exec"):
            self.seen.append(f"{event} {arguments[0]!r}")


def _too_slow(*_: object) -> None:
    raise TooSlowError


def check(kind: str, path: Path, watch: Watch) -> str:
    """Read one input; empty, or what was found."""
    watch.seen.clear()
    signal.alarm(SECONDS)
    try:
        READERS[kind](path)
    except (InputError, BundleError) as error:
        if not str(error).strip():
            return "an InputError without a sentence"
    except TooSlowError:
        return f"it takes more than {SECONDS} s"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return "; ".join(watch.seen)


def _limit_memory() -> None:
    """1 GiB more than what the worker holds already."""
    status = Path("/proc/self/status").read_text()
    held = int(next(line for line in status.splitlines() if line.startswith("VmData")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, held + MEMORY_BYTES))


def work(kind: str, first: int, count: int, folder: Path) -> None:
    """Check some inputs of a kind; a line of JSON for each finding, and the number of the input before each one."""
    if kind in ("recipe", "checkpoint"):
        import model.checkpoint
        import model.recipe  # noqa: F401  what they import is no part of an input's memory
    SEEDS[kind](folder / "seed")
    # The first read imports what is imported late; unchanged inputs must be read.
    READERS[kind](folder / "seed")
    _limit_memory()
    watch = Watch(folder, [])
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, _too_slow)
    for number in range(first, first + count):
        (folder / "number").write_text(str(number))
        made = folder / "input"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(folder / "seed", made)
        mutate(made, random.Random(f"{kind} {number}"))
        problem = check(kind, made, watch)
        if problem:
            print(json.dumps({"kind": kind, "number": number, "problem": problem}), flush=True)


def _spawn(kind: str, first: int, count: int, out: Path) -> list[dict[str, Any]]:
    """Run a worker; its findings, and the input it died of, if it did."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bitsmith-fuzz-") as scratch:
        folder = Path(scratch)
        command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", kind, str(first), str(count), scratch]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        found += [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        if ended.returncode:
            at = folder / "number"
            number = int(at.read_text()) if at.exists() else first
            found.append(
                {
                    "kind": kind,
                    "number": number,
                    "problem": f"the worker ended with {ended.returncode}: {ended.stderr[-1500:]}",
                }
            )
            if (folder / "input").exists():
                shutil.copytree(folder / "input", out / f"{kind}-{number}", dirs_exist_ok=True)
            if at.exists() and number + 1 < first + count:
                found += _spawn(kind, number + 1, first + count - number - 1, out)
    return found


def fuzz(inputs: int, out: Path, first: int = 0, kinds: list[str] | None = None) -> dict[str, Any]:
    """``inputs`` mutated inputs, shared among the readers; writes ``out``/fuzz.json."""
    start = time.perf_counter()
    chosen = kinds or list(READERS)
    share = -(-inputs // len(chosen))
    found: list[dict[str, Any]] = []
    for kind in chosen:
        for at in range(0, share, _CHUNK):
            found += _spawn(kind, first + at, min(_CHUNK, share - at), out / "fuzz-findings")
    figures = {
        "inputs": share * len(chosen),
        "readers": chosen,
        "findings": found,
        "seconds": round(time.perf_counter() - start, 1),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "fuzz.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="mutated inputs in all (10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one: other numbers, other inputs")
    parser.add_argument("--kind", choices=list(READERS), action="append", help="this reader only")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        kind, first, count, folder = given.worker
        work(kind, int(first), int(count), Path(folder))
        return 0
    figures = fuzz(given.inputs, given.out, given.first, given.kind)
    for item in figures["findings"]:
        print(
            f"{item['problem']}\nRepeat it: python -m benchmarks.fuzz --kind {item['kind']} --first {item['number']} --inputs 1\n"
        )
    print(f"{figures['inputs']} inputs, {len(figures['findings'])} findings, {figures['seconds']:.0f} s.")
    return 1 if figures["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
