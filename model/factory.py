"""A network from the user's own function; what goes wrong in their code is told with its line there."""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from hwgen.errors import InputError

_HERE = Path(__file__).resolve().parent


def call_factory(what: str, options: dict[str, Any]) -> Any:
    """What "package.module:function" returns, called with ``options``.

    The module is found like ``python`` finds it: from the current folder too.

    Raises:
        InputError: a module that cannot be imported, no such function, or whatever exception these raise.
    """
    where = f"model '{what}'"
    package, _, name = what.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(package)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise InputError(_import_problem(package, error), where) from error
    made = getattr(found, name, None)
    if not callable(made):
        raise InputError(f"Module '{package}' has no function '{name}'.", where)
    try:
        return made(**options)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's function raises
        line = line_of(error, getattr(found, "__file__", None))
        if isinstance(error, TypeError) and not line:  # the call itself: the function was never entered
            raise InputError(f"It does not take these options{_definition(made)}: {error}.", where) from error
        raise InputError(f"'{name}' failed{line} with {text_of(error)}; mend it, or its model.options.", where) from error


def _import_problem(package: str, error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and f"{package}.".startswith(f"{missing}."):
        return f"Cannot import '{package}' ({error}); run bitsmith where it lies, or install it."
    if isinstance(error, SyntaxError):
        return f"Cannot import '{package}': {error.filename}, line {error.lineno}: {error.msg}."
    advice = "mend it" if missing is None else f"install '{missing}' where bitsmith runs"
    return f"Cannot import '{package}': it failed{line_of(error)} with {text_of(error)}; {advice}."


def text_of(error: BaseException) -> str:
    """Type and first line."""
    text = str(error).strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line_of(error: BaseException, home: str | None = None) -> str:
    """The last line of the traceback that is the user's: in ``home``, or neither installed nor Python's or bitsmith's."""

    def own(file: str) -> bool:
        path = Path(file)
        foreign = (_HERE, Path(sysconfig.get_path("stdlib")))
        installed = {"site-packages", "dist-packages"} & set(path.parts)
        return path.is_file() and not installed and not any(map(path.is_relative_to, foreign))

    frames = traceback.extract_tb(error.__traceback__)
    lines = [
        f" at {frame.filename}, line {frame.lineno}," for frame in frames if frame.filename == home or own(frame.filename)
    ]
    return lines[-1] if lines else ""


def _definition(function: Any) -> str:
    """Where a function or class is defined; nothing where Python does not know."""
    try:
        return f" ({inspect.getsourcefile(function)}, line {inspect.getsourcelines(function)[1]})"
    except (TypeError, OSError):
        return ""
