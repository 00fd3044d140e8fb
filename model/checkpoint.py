"""Checkpoints: state dicts and plain values only, written whole or not at all, never unpickled."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from hwgen.errors import InputError

FORMAT = "bitsmith-checkpoint-1"


def save(path: Path, state: dict[str, Any], recipe: str) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) beside the recipe's identity.

    Raises:
        OSError: it cannot be written (a full disk); the checkpoint that was there stays.
    """
    made = io.BytesIO()
    torch.save({"format": FORMAT, "recipe": recipe, "state": state}, made)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(made.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        error.filename = str(path)
        raise
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path, recipe: str | None = None) -> dict[str, Any]:
    """Read a checkpoint's state.

    Raises:
        InputError: missing, damaged, holding anything but plain values, or of another recipe than ``recipe``.
    """
    try:
        data = torch.load(path, weights_only=True, map_location="cpu")
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"Cannot read it: {error.strerror}; 'bitsmith train' writes it.", str(path)) from None
    except Exception:  # the unpickler and the zip reader let through what damaged bytes make them trip over
        raise InputError("It is damaged, cut short, or not a checkpoint of bitsmith.", str(path)) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError("It is not a checkpoint of this version of bitsmith.", str(path))
    if not isinstance(data.get("recipe"), str) or not isinstance(data.get("state"), dict):
        raise InputError("It lacks the recipe or the state of a run; it was damaged or edited.", str(path))
    if recipe is not None and data["recipe"] != recipe:
        raise InputError(
            f"It belongs to another recipe ({data['recipe']}, this one is {recipe}); undo the change of the recipe or start"
            " a new run in another folder.",
            str(path),
        )
    state: dict[str, Any] = data["state"]
    return state
