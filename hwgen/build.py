"""Build folders: everything that one network on one engine for one board needs, written once, deterministically."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from hwgen.board import Board, load_board
from hwgen.engine import EngineConfig, read_engine, write_engine
from hwgen.errors import InputError
from hwgen.network import Network
from hwgen.network_file import read_network, write_network
from hwgen.output import check_output, whole_folder
from hwgen.program import assemble, disassemble
from hwgen.render import render_sources
from hwgen.render_hls import render_hls, write_test_data
from hwgen.schedule import Schedule, schedule
from hwgen.vivado import HLS_CORE, render_project, render_script
from hwgen.zynq import render_chip

FORMAT = "bitsmith-build"
FORMAT_VERSION = 1
BACKENDS = ("rtl", "hls")
_LISTS = {"rtl": "rtl/files.f", "hls": "hls/files.txt"}  # sources of each backend


@dataclass(frozen=True)
class Build:
    """A build folder that has been read and checked."""

    path: Path
    board: Board
    engine: EngineConfig
    network: Network
    backend: str = "rtl"
    batch: int = 1

    @cached_property
    def schedule(self) -> Schedule:
        """The program's schedule, made again from network and engine."""
        return schedule(self.network, self.engine, self.batch)

    @property
    def rtl(self) -> list[Path]:
        """The RTL sources, package first."""
        return [self.path / "rtl" / name for name in (self.path / "rtl" / "files.f").read_text().split()]

    @property
    def hls(self) -> dict[str, str]:
        """The C++ sources of the HLS kernel by file name."""
        names = (self.path / "hls" / "files.txt").read_text(encoding="utf-8").split()
        return {name: (self.path / "hls" / name).read_text(encoding="utf-8") for name in names}

    @property
    def program(self) -> Path:
        return self.path / "program.bin"


def tool_version() -> str:
    """The installed version of bitsmith."""
    try:
        return package_version("bitsmith")
    except PackageNotFoundError:
        return "0"


def write_rtl(engine: EngineConfig, board: Board, folder: Path) -> list[Path]:
    """Render the RTL of an engine into ``folder``; the sources in compile order."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = render_sources(engine, board.name, tool_version())
    for name, text in sources.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "files.f").write_text("\n".join(sources) + "\n", encoding="utf-8")
    return [folder / name for name in sources]


def write_hls(engine: EngineConfig, board: Board, folder: Path) -> None:
    """Render the Vitis HLS project of an engine into ``folder``; files.txt names its C++ sources."""
    folder.mkdir(parents=True, exist_ok=True)
    project = render_hls(engine, board, tool_version())
    for name, text in project.items():
        (folder / name).write_text(text, encoding="utf-8")
    sources = [name for name in project if name.endswith((".h", ".cpp"))]
    (folder / "files.txt").write_text("\n".join(sources) + "\n", encoding="utf-8")


def write_flows(engine: EngineConfig, board: Board, build: Path, backend: str) -> None:
    """Write how to make a chip of the sources in ``build``: with Vivado (``vivado``); the RTL also with open tools (``zynq``)."""
    version = tool_version()
    if backend == "hls":
        flows = {"vivado": {"build.tcl": render_script(engine, board, HLS_CORE, [], version)}}
    else:
        rtl = (build / "rtl" / "files.f").read_text(encoding="utf-8").split()
        flows = {
            "vivado": render_project(engine, board, rtl, version),
            "zynq": render_chip(engine, board.name, rtl, version),
        }
    for folder, files in flows.items():
        (build / folder).mkdir()
        for name, text in files.items():
            (build / folder / name).write_text(text, encoding="utf-8")


def generate(
    network: Network,
    engine: EngineConfig,
    board: Board,
    out: Path,
    *,
    force: bool = False,
    notes: Mapping[str, str] | None = None,
    backend: str = "rtl",
    batch: int = 1,
) -> Build:
    """Plan, schedule, assemble and render into ``out``; nothing is left behind where that fails.

    Args:
        notes: more text files for the folder, by name. batch: images that run together.

    Raises:
        InputError: ``out`` exists and ``force`` is not set, or the engine cannot run or hold the network.
    """
    if backend not in BACKENDS:
        raise InputError(f"There is no backend '{backend}'; there are {' and '.join(BACKENDS)}.")
    check_output(out, "build.json", force=force)
    return _write(schedule(network, engine, batch), board, out, None, notes or {}, backend)


def assemble_for(network: Network, hardware: Build, out: Path, *, force: bool = False, batch: int = 1) -> Build:
    """A build of another network for the engine of ``hardware``: same RTL, same engine hash, another program.

    Args:
        batch: images that run together.

    Raises:
        InputError: ``out`` exists and ``force`` is not set, it holds ``hardware``, or the network does not fit the
            engine: which buffers and limits are exceeded, and by how much.
    """
    check_output(out, "build.json", force=force, reads=hardware.path)
    problems: list[str] = []
    # Accumulators are checked before memory is planned: with wide ones, the buffers are heard as well.
    for engine in (hardware.engine, replace(hardware.engine, acc_bits=32)):
        try:
            plan = schedule(network, engine, batch)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        if not problems:
            folder = hardware.path / hardware.backend
            return _write(plan, hardware.board, out, folder, {}, hardware.backend)
    raise InputError(problems, f"network '{network.name}' on engine {hardware.engine.name} of {hardware.path}")


def _write(
    plan: Schedule, board: Board, out: Path, sources: Path | None, notes: Mapping[str, str], backend: str
) -> Build:
    """Write a build folder; ``sources``: to copy, None renders them."""
    network, engine = plan.network, plan.engine
    with whole_folder(out) as scratch:
        write_network(network, scratch / "network")
        write_engine(engine, scratch / "engine.json")
        image = assemble(plan.program)
        if sources is not None:
            shutil.copytree(sources, scratch / backend)
        elif backend == "rtl":
            write_rtl(engine, board, scratch / "rtl")
        else:
            write_hls(engine, board, scratch / "hls")
        write_flows(engine, board, scratch, backend)
        if backend == "hls":
            write_test_data(plan, image, scratch / "hls" / "data")
        for name, text in notes.items():
            (scratch / name).write_text(text, encoding="utf-8")
        (scratch / "program.bin").write_bytes(image)
        from hwgen.inspect import describe_memory, describe_program

        (scratch / "program.txt").write_text(describe_program(plan.program) + "\n", encoding="utf-8")
        (scratch / "memory.txt").write_text(describe_memory(plan) + "\n", encoding="utf-8")
        facts = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "backend": backend,
            "board": board.name,
            "network": network.name,
            "engine": engine.name,
            "engine_hash": f"{engine.hash:08x}",
            "program_sha256": hashlib.sha256(image).hexdigest(),
        }
        (scratch / "build.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Build(out, board, engine, network, backend, plan.batch)


def read_build(path: Path) -> Build:
    """Read a build folder.

    Raises:
        InputError: not a build, another format version, or files that do not belong together.
    """
    try:
        facts = json.loads((path / "build.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InputError(
            "It is not a build folder: no readable build.json; 'bitsmith generate' makes one.", str(path)
        ) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f'Its build.json does not say "format": "{FORMAT}".', str(path))
    if facts.get("version") != FORMAT_VERSION:
        raise InputError(
            f"Its format version is {facts.get('version')!r}; this bitsmith reads {FORMAT_VERSION}.", str(path)
        )
    engine = read_engine(path / "engine.json")
    network = read_network(path / "network")
    board = load_board(str(facts.get("board")))
    problems = []
    try:
        image = (path / "program.bin").read_bytes()
        program = disassemble(image)
        if program.engine_hash != engine.hash:
            problems.append(f"program.bin is for engine {program.engine_hash:08x}, engine.json is {engine.hash:08x}.")
        if hashlib.sha256(image).hexdigest() != facts.get("program_sha256"):
            problems.append("program.bin was changed after it was generated; generate the build again.")
    except OSError:
        problems.append("program.bin is missing; generate the build again.")
    except InputError as error:
        problems += [f"program.bin: {problem}" for problem in error.problems]
    backend = str(facts.get("backend", "rtl"))
    if backend not in BACKENDS:
        problems.append(f"Its backend is '{backend}'; this bitsmith knows {' and '.join(BACKENDS)}.")
    elif not (path / _LISTS[backend]).is_file():
        problems.append(f"{_LISTS[backend]} is missing; generate the build again.")
    if problems:
        raise InputError(problems, str(path))
    return Build(path, board, engine, network, backend, program.batch)
