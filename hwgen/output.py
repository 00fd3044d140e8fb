"""Output files and folders: never over something else, never half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwgen.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place once all is written.

    Raises:
        OSError: writing failed; it names ``path``, and the file that was there stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to fill, which takes its place once all is written.

    Raises:
        OSError: writing failed; it names what could not be written in ``path``, and what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    aside = scratch.with_name(f"{scratch.name}-old")
    try:
        yield scratch
        scratch.chmod(0o755)
        if path.exists():  # a folder cannot be replaced in one step: the old one steps aside first
            path.replace(aside)
        scratch.replace(path)
    except BaseException as error:
        if aside.exists() and not path.exists():
            aside.replace(path)
        if isinstance(error, OSError):  # a full disk is noticed while writing, which names nothing
            error.filename, error.filename2 = str(error.filename or path).replace(str(scratch), str(path)), None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def check_output(path: Path, marker: str, *, force: bool, reads: Path | None = None) -> None:
    """Whether ``path`` may be made, or replaced.

    Args:
        marker: a file that a folder of the same kind holds; only such a folder, or an empty one, is replaced.
        reads: what the command reads; it must not lie in ``path``.

    Raises:
        InputError: it would lie below a file, it exists and ``force`` is not set, it is something else, or it holds what is read.
    """
    if in_the_way := next((above for above in path.parents if above.exists() and not above.is_dir()), None):
        raise InputError(
            f"{in_the_way} is a file, so that nothing can be made below it; choose another folder.", str(path)
        )
    if not path.exists():
        return
    if not force:
        raise InputError("It exists already; choose another folder or add --force to replace it.", str(path))
    if reads is not None and reads.resolve().is_relative_to(path.resolve()):
        raise InputError(f"It holds {reads}, which is read; choose another folder.", str(path))
    if not path.is_dir() or (not (path / marker).exists() and any(path.iterdir())):
        raise InputError(f"--force replaces only folders with a {marker}; choose another folder or remove it.", str(path))
