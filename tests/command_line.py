"""The command line as tests call it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from bitsmith.cli import app
from hwgen.engine import EngineConfig

ENGINE = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=1024, plane_depth=512, byte_depth=512,
    column_depth=512,
)  # fmt: skip


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def fails(code: int, *arguments: object) -> str:
    """What the command says on standard error; it must end with ``code`` and show no traceback."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return str(result.stderr)
