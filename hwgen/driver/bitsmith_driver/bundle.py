"""Bundles: a folder or zip with bit file, hardware description, program, samples and the hashes of them all."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BundleError

FORMAT = "bitsmith-bundle"
VERSION = 1
MANIFEST = "manifest.json"


class Bundle:
    """A bundle that has been read and whose hashes agree.

    Args:
        path: folder or zip.

    Raises:
        BundleError: unreadable, another format version, or a file that is missing or changed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BundleError(f"{path}: there is no such bundle.")
        try:
            self.manifest: dict[str, Any] = json.loads(self._raw(MANIFEST))
        except (ValueError, OSError, KeyError, zipfile.BadZipFile):
            raise BundleError(f"{path}: it is not a bundle: no readable {MANIFEST} in it.") from None
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise BundleError(f'{path}: its {MANIFEST} does not say "format": "{FORMAT}".')
        if self.manifest.get("version") != VERSION:
            raise BundleError(f"{path}: its version is {self.manifest.get('version')!r}; this driver reads {VERSION}.")
        for name in self.manifest["files"]:
            self.read(name)

    def _raw(self, name: str) -> bytes:
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        with zipfile.ZipFile(self.path) as packed:
            folder = next(entry for entry in packed.namelist() if entry.split("/")[-1] == MANIFEST)
            return packed.read(folder[: -len(MANIFEST)] + name)

    def read(self, name: str) -> bytes:
        """The content of a file of the bundle.

        Raises:
            BundleError: it is missing or its hash is not the manifest's.
        """
        try:
            data = self._raw(name)
        except (OSError, KeyError, StopIteration, zipfile.BadZipFile):
            raise BundleError(f"{self.path}: {name} is missing or unreadable; make the bundle again.") from None
        if hashlib.sha256(data).hexdigest() != self.manifest["files"].get(name):
            raise BundleError(f"{self.path}: {name} was changed after the bundle was made; make the bundle again.")
        return data

    @property
    def program(self) -> bytes:
        """The memory image of program and weights."""
        return self.read(self.manifest["program"])

    @property
    def engine_hash(self) -> int:
        """The identity that the engine of the bit file has."""
        return int(self.manifest["engine_hash"], 16)

    @property
    def virtual(self) -> bool:
        """Whether the bit file configures only a virtual board."""
        return bool(self.manifest["virtual"])

    def samples(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """images uint8 (N, H, W, C), labels (N,) or None, golden logits int32 (N, classes)."""
        with np.load(io.BytesIO(self.read(self.manifest["samples"])), allow_pickle=False) as arrays:
            labels = arrays["labels"] if "labels" in arrays.files else None
            return arrays["images"], labels, arrays["logits"]

    def unpack_bit(self, folder: Path) -> Path:
        """Write bit file and hardware description side by side into ``folder``, as pynq wants them; the bit file."""
        for name in (self.manifest["bit"], self.manifest["hwh"]):
            (folder / name).write_bytes(self.read(name))
        return folder / str(self.manifest["bit"])


class BitFolder:
    """A temporary folder for the bit file: pynq reads it by path, and a zip has none."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bitsmith-"))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
