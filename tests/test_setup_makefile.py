"""The Makefile: what it offers, and the one sentence it says where the machine lacks something."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGETS = ("setup", "demo", "test", "lint", "check", "clean")
# What the recipes themselves call.
BASICS = ("bash", "sh", "sed", "expand", "env", "rm")


def make(*arguments: str, path: Path | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program, "these tests need make"
    environment = {"PATH": str(path), "HOME": str(cwd)} if path else None
    return subprocess.run(
        [program, "--no-print-directory", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with a shell and little else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


def program(folder: Path, name: str, text: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def sentences(result: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said, less make's own line about the failed recipe."""
    return [line for line in result.stderr.splitlines() if not line.startswith("make")]


def test_help_lists_the_targets() -> None:
    result = make("help")
    assert result.returncode == 0 and result.stderr == ""
    listed = dict(re.findall(r"^  make ([\w-]+) +(\S.*)$", result.stdout, re.MULTILINE))
    assert set(TARGETS) <= set(listed)
    assert make().stdout == result.stdout


def test_every_listed_target_exists() -> None:
    for name in re.findall(r"^  make ([\w-]+)", make("help").stdout, re.MULTILINE):
        assert make("--dry-run", name, f"PYTHON={sys.executable}").returncode == 0, name


def test_folders_are_no_targets() -> None:
    """``make tests`` says that there is no rule, not that the folder is up to date."""
    result = make("--dry-run", "docs")
    assert "up to date" not in result.stdout


def test_nothing_is_missing_here() -> None:
    result = make("tools", f"PYTHON={sys.executable}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_no_python(bare: Path) -> None:
    for result in (make("tools", "PYTHON="), make("tools", path=bare)):
        assert result.returncode == 2
        (said,) = sentences(result)
        assert "install the package python3" in said and said.endswith(".")


def test_a_python_that_is_too_old_is_not_taken(bare: Path) -> None:
    program(bare, "python3", "exit 1")
    (said,) = sentences(make("tools", path=bare))
    assert "Python 3.11 to 3.14" in said


def test_the_newest_supported_python_is_taken_first(bare: Path) -> None:
    for name in ("python3", "python3.12", "python3.14"):
        program(bare, name)
    for tool in ("g++", "perl"):
        program(bare, tool)
    result = make("--dry-run", "tools", path=bare)
    assert result.returncode == 0 and "python3.12 -c 'import ensurepip, venv'" in result.stdout


def test_a_python_without_venv(bare: Path) -> None:
    program(bare, "python3.12", 'case "$2" in *ensurepip*) exit 1;; esac')
    result = make("tools", path=bare)
    assert result.returncode == 2
    (said,) = sentences(result)
    assert "install the package python3.12-venv" in said


@pytest.mark.parametrize("missing", [("g++",), ("perl",), ("g++", "perl")], ids="-".join)
def test_missing_tools(bare: Path, missing: tuple[str, ...]) -> None:
    program(bare, "python3.12")
    for tool in {"g++", "perl"} - set(missing):
        program(bare, tool)
    result = make("tools", path=bare)
    assert result.returncode == 2
    said = sentences(result)
    assert len(said) == len(missing)
    for tool, line in zip(missing, said, strict=True):
        assert f"bitsmith needs {tool}, which is not on PATH: install the package {tool}" in line and line.endswith(".")


def test_setup_stops_before_it_creates_anything(bare: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, copy / name)
    program(bare, "python3.12", 'case "$1" in -m) touch created;; esac')
    program(bare, "make", f'exec {shutil.which("make")} "$@"')
    result = make("setup", path=bare, cwd=copy)
    assert result.returncode == 2
    assert any("install the package g++" in line for line in sentences(result))
    assert sorted(item.name for item in copy.iterdir()) == ["Makefile", "constraints.txt", "pyproject.toml"]


def test_clean_removes_builds_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    for name in ("build", ".mypy_cache", ".venv", "runs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    assert make("clean", cwd=tmp_path).returncode == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == [".venv", "Makefile", "runs"]


def test_the_readme_s_commands_exist() -> None:
    """Every ``make`` target that the README tells people to type is one."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert told and told <= targets
