"""docs/verification.md names tests that exist, and the workflow in examples/ci commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitsmith.cli import app
from hwgen import isa
from sim.faults import FAULTS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / "examples" / "ci" / "bitsmith-verify.yml").read_text(encoding="utf-8")


def test_every_fault_in_the_table_is_tested_and_every_tested_fault_is_in_the_table() -> None:
    rows = re.findall(r"^\| [^|]+ \| (\w+) \| `tests/test_rtl_faults.py::test_fault\[([^`]+)` \|$", TEXT, re.M)
    assert sorted(rows) == sorted((fault.error.name, name) for name, fault in FAULTS.items())
    assert {error.name for error in isa.Error} == {row[0] for row in rows} | {"NONE"}


def test_every_named_test_exists() -> None:
    for file, name in re.findall(r"(tests/\w+\.py)(?:::(\w+))?", TEXT):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_every_named_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", TEXT):
        assert f"\n{target}: " in makefile, target


@pytest.mark.parametrize("command", ["generate", "verify"])
def test_the_workflow_uses_options_that_exist(command: str) -> None:
    line = re.findall(rf"run: bitsmith {command} (.*)", WORKFLOW)[0]
    told = CliRunner().invoke(app, [command, "--help"]).output
    for option in re.findall(r"--[a-z]+", line):
        assert option in told, option
