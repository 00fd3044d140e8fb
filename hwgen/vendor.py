"""The vendor's tools on a build: what each backend runs, found on PATH, run in the build's folder ``synth``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwgen.build import Build
from hwgen.errors import InputError

_LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Step:
    """One command: the tools that can do it, each with its arguments; the first on PATH does.

    script: in the build. without: how to go on where no tool is there, if there is a way.
    """

    title: str
    tools: tuple[tuple[str, tuple[str, ...]], ...]
    script: str
    without: str = ""


_VIVADO = (("vivado", ("-mode", "batch", "-nojournal", "-log", "vivado_all.log", "-source")),)
# Each backend's steps, in order.
STEPS: dict[str, tuple[Step, ...]] = {
    "hls": (
        Step(
            "Vitis HLS",
            (("vitis-run", ("--mode", "hls", "--tcl")), ("vitis_hls", ("-f",))),
            "hls/hls.tcl",
        ),
        Step("Vivado", _VIVADO, "vivado/build.tcl"),
    ),
    "rtl": (
        Step(
            "Vivado",
            _VIVADO,
            "vivado/build.tcl",
            " Or take the build folder to a machine that has it; 'bitsmith bundle {build} --virtual' and 'bitsmith synth {build}"
            " --open' need none.",
        ),
    ),
}


def plan_vendor(build: Build) -> list[tuple[str, list[str]]]:
    """Title and command of each step.

    Raises:
        InputError: the backend has no vendor script, or tools are not on PATH; all of them are named.
    """
    steps = STEPS.get(build.backend)
    if steps is None:
        raise InputError(f"There is no vendor script for backend {build.backend} yet.", str(build.path))
    problems, commands = [], []
    for step in steps:
        script = (build.path / step.script).resolve()
        found = next(((path, arguments) for tool, arguments in step.tools if (path := shutil.which(tool))), None)
        if found is None:
            names = " or ".join(tool for tool, _ in step.tools)
            problems.append(
                f"{step.title} is missing: no {names} on PATH; source its settings64.sh, then run this again."
                + step.without.format(build=build.path)
            )
        else:
            commands.append((step.title, [found[0], *found[1], str(script)]))
        if not script.is_file():
            problems.append(f"{step.script} is missing; generate the build again.")
    if problems:
        raise InputError(problems, str(build.path))
    return commands


def run_vendor(
    build: Build, progress: Callable[[str, int, int], None], say: Callable[[str], None] | None = None
) -> list[list[str]]:
    """Run every step; the commands that were run.

    Args:
        say: called with each line that the tools print; they print into a log in any case.

    Raises:
        InputError: as :func:`plan_vendor`, or a tool failed; the sentences are its errors, or the end of its output.
    """
    commands = plan_vendor(build)
    folder = build.path / "synth"
    folder.mkdir(exist_ok=True)
    for index, (title, command) in enumerate(commands):
        progress("vendor tools", index, len(commands))
        _run(title, command, folder, say)
    progress("vendor tools", len(commands), len(commands))
    return [command for _, command in commands]


def _run(title: str, command: list[str], folder: Path, say: Callable[[str], None] | None) -> None:
    log = folder / f"{Path(command[0]).name}.log"
    lines: list[str] = []
    with (
        log.open("w", encoding="utf-8") as out,
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace",
        ) as run,
    ):  # fmt: skip
        assert run.stdout is not None
        for line in run.stdout:
            out.write(line)
            lines.append(line.rstrip())
            if say is not None:
                say(lines[-1])
    if run.returncode:
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        what = f"{title} failed with exit code {run.returncode}; its log is {log}:"
        raise InputError([what, *errors[-_LOG_TAIL_LINES:]])
