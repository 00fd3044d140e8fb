"""Spoilt files: every reader answers with sentences, and the fuzzer itself sees what it must see."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_inputs import SEEDS, mutate
from hwgen.errors import InputError

INPUTS = {"network": 60, "build": 25, "program": 150, "bundle": 40, "engine": 150, "recipe": 60, "checkpoint": 100}


@pytest.fixture
def watch(tmp_path: Path) -> fuzz.Watch:
    return fuzz.Watch(tmp_path, [])


@pytest.mark.parametrize("kind", fuzz.READERS)
def test_spoilt_files_are_answered_with_sentences(kind: str, tmp_path: Path, watch: fuzz.Watch) -> None:
    SEEDS[kind](tmp_path / "seed")
    assert fuzz.check(kind, tmp_path / "seed", watch) == ""
    seed = {
        path.relative_to(tmp_path / "seed"): path.read_bytes()
        for path in (tmp_path / "seed").rglob("*")
        if path.is_file()
    }
    for number in range(INPUTS[kind]):
        made = tmp_path / f"input-{number}"
        for name, data in seed.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(data)
        mutate(made, random.Random(f"{kind} {number}"))
        assert fuzz.check(kind, made, watch) == "", f"python -m benchmarks.fuzz --kind {kind} --first {number} --inputs 1"


def test_a_value_is_never_put_into_itself(tmp_path: Path) -> None:
    for at in ("one", "two"):  # nor does what is put in change on the way
        SEEDS["engine"](tmp_path / at)
        mutate(tmp_path / at, random.Random("engine 1035"))
    one, two = (sorted((tmp_path / at).rglob("*.json")) for at in ("one", "two"))
    assert one and [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_mutation_changes_something_and_is_repeatable(tmp_path: Path) -> None:
    for at in ("one", "two"):
        SEEDS["engine"](tmp_path / at)
        before = (tmp_path / at / "engine.json").read_bytes()
        mutate(tmp_path / at, random.Random("engine 3"))
        assert (tmp_path / at / "engine.json").read_bytes() != before
    assert (tmp_path / "one" / "engine.json").read_bytes() == (tmp_path / "two" / "engine.json").read_bytes()


def test_tracebacks_silence_slowness_and_writes_are_found(
    tmp_path: Path, watch: fuzz.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(reader: Callable[[Path], object]) -> str:
        monkeypatch.setitem(fuzz.READERS, "engine", reader)
        return fuzz.check("engine", tmp_path, watch)

    def raises(error: Exception) -> NoReturn:
        raise error

    def swallows(_path: Path) -> None:
        with contextlib.suppress(Exception):
            time.sleep(5)

    assert found(lambda _path: raises(InputError("It is bad."))) == ""
    assert "without a sentence" in found(lambda _path: raises(InputError("")))
    assert "KeyError" in found(lambda _path: raises(KeyError("name")))
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    before = signal.signal(signal.SIGALRM, fuzz._too_slow)
    try:
        assert "more than 1 s" in found(swallows)
    finally:
        signal.signal(signal.SIGALRM, before)
    watch("open", (str(tmp_path / "inside"), "w", 0o101))
    watch("open", ("/etc/hosts", "r", 0))
    assert watch.seen == []
    watch("open", ("/tmp/outside", "w", 0o101))
    watch("subprocess.Popen", ("sh", [], None, None))
    assert len(watch.seen) == 2


def test_a_worker_that_dies_names_its_input_and_the_rest_is_run(tmp_path: Path) -> None:
    """Memory over the limit, in a process of its own."""
    program = (
        "import sys; from benchmarks import fuzz\n"
        "def reader(path):\n"
        "    if (path.parent / 'number').exists() and (path.parent / 'number').read_text() == '2': bytearray(3 << 30)\n"
        "fuzz.READERS['engine'] = reader\n"
        "from pathlib import Path; fuzz.work('engine', 0, 4, Path(sys.argv[1]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert "MemoryError" in ended.stdout and '"number": 2' in ended.stdout, ended.stderr
    assert ended.stdout.count("\n") == 1 and (tmp_path / "number").read_text() == "3"
