"""How bitsmith talks to people: progress bars, tables, errors as sentences, JSON for machines."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from hwgen.errors import InputError, ToldError
from hwgen.output import whole_file

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

NOTHING_LEFT = "Interrupted; nothing half-written was left."
_LINE = 30.0  # seconds between lines of progress in a log
_TELLING = 1.0  # seconds in which the first process has told; once one has ended, torchrun ends all
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class Bars:
    """Progress bars by stage name; call it as ``bars(stage, done, total)``. Where there is no terminal, a line now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if not self._progress.disable and not err.is_terminal and now - self._told >= _LINE:
            self._told = now
            err.print(f"{stage} {done}/{total} {note}".rstrip(), markup=False)
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note="")
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)


@contextmanager
def bars(quiet: bool) -> Iterator[Bars]:
    """Progress bars on standard error; a log that is no terminal gets a line every half a minute, and the bars at the end."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, disable=quiet) as progress:
        yield Bars(progress)


@contextmanager
def sentences(interrupted: Callable[[], str] = lambda: NOTHING_LEFT) -> Iterator[None]:
    """Turn what users do wrong into sentences and exit codes; ``interrupted`` is what Ctrl-C is answered with."""
    try:
        yield
    except ToldError:
        time.sleep(_TELLING)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except InputError as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        err.print(f"{where}{error.strerror or error}.", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except KeyboardInterrupt:
        err.print(interrupted(), style="yellow", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def tell_steps(verbose: bool) -> bool:
    """Print what bitsmith's own modules log, above the progress bars: all of it, or warnings alone."""
    for package in ("bitsmith", "hwgen", "model", "sim"):
        logger = logging.getLogger(package)
        logger.handlers = [RichHandler(console=err, show_time=False, show_path=False, show_level=False)]
        logger.setLevel(logging.INFO if verbose else logging.WARNING)
        logger.propagate = False
    return verbose


def percent(value: float | None) -> str:
    """An accuracy for people."""
    return "-" if value is None else f"{100 * value:.2f} %"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table; the first column is text, the others are right-aligned."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(head):
        made.add_column(name, justify="left" if at == 0 else "right", no_wrap=True)
    for row in rows:
        made.add_row(*[str(cell) for cell in row])
    return made


def write_json(path: Path | None, data: Any) -> None:
    """Write ``data`` to the file of ``--json``; "-" is standard output."""
    if path is None:
        return
    text = json.dumps(data, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def resume_command(command: str, recipe: Path, folder: Path, overrides: Sequence[str], *more: str) -> str:
    """What goes on with a run: the same settings, or its checkpoint is another recipe's."""
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["bitsmith", command, str(recipe), "--out", str(folder), "--resume", *settings, *more])


def next_step(command: str, quiet: bool) -> None:
    """Print the command to type next."""
    if not quiet:
        out.print(f"Next: [bold]{command}[/bold]", soft_wrap=True)
