"""Bundles: a folder or zip with bit file, hardware description, program, samples and the hashes of them all."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BundleError

FORMAT = "bitsmith-bundle"
VERSION = 2
MANIFEST = "manifest.json"
_UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, EOFError, StopIteration, NotImplementedError,
               RecursionError, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What the zip reader raises for damaged archives."""
_TYPES: dict[str, Any] = {
    "board": str, "network": str, "engine": str, "engine_hash": str, "clock_mhz": (int, float), "image_shape": list, "image_batch": int,
    "top_code": int, "classes": int, "output_stride": int, "bit": str, "hwh": str, "program": str, "samples": str, "virtual": bool,
    "files": dict,
}  # fmt: skip


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
        except _UNREADABLE:
            raise BundleError(f"{path}: it is not a bundle: no readable {MANIFEST} in it.") from None
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise BundleError(f'{path}: its {MANIFEST} does not say "format": "{FORMAT}".')
        if self.manifest.get("version") != VERSION:
            raise BundleError(f"{path}: its version is {self.manifest.get('version')!r}; this driver reads {VERSION}.")
        wrong = [name for name, kind in _TYPES.items() if not isinstance(self.manifest.get(name), kind)]
        if self.manifest.get("virtual") is True:
            wrong += [
                name for name, kind in (("design", str), ("rtl", list)) if not isinstance(self.manifest.get(name), kind)
            ]
        if self.manifest.get("control", "registers") not in ("registers", "kernel"):
            wrong.append("control")
        if not isinstance(self.manifest.get("channels_last", False), bool):
            wrong.append("channels_last")
        if not wrong and self.manifest["image_batch"] < 1:
            wrong.append("image_batch")
        hexadecimal = str(self.manifest.get("engine_hash"))
        if not wrong and any(character not in "0123456789abcdef" for character in hexadecimal or "-"):
            wrong.append("engine_hash")
        if wrong:
            raise BundleError(f"{path}: its {MANIFEST} lacks or spoils {', '.join(wrong)}; make the bundle again.")
        for name in self.manifest["files"]:
            if name.startswith("/") or ".." in name.split("/"):
                raise BundleError(f"{path}: its {MANIFEST} names {name!r}, which lies outside it.")
            self.read(name)
        # These become paths.
        for name in (self.manifest["bit"], self.manifest["hwh"]):
            if "/" in name or name not in self.manifest["files"]:
                raise BundleError(f"{path}: its {MANIFEST} does not list {name!r} as a file of its own.")

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
        except _UNREADABLE:
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
    def control(self) -> str:
        """How its engine is talked to: a key of ``control.CONTROLS``."""
        return str(self.manifest.get("control", "registers"))

    @property
    def virtual(self) -> bool:
        """Whether the bit file configures only a virtual board."""
        return bool(self.manifest["virtual"])

    def samples(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """images uint8 (N, H, W, C), labels (N,) or None, golden logits int32 (N, classes)."""
        data = io.BytesIO(self.read(self.manifest["samples"]))
        try:
            with np.load(data, allow_pickle=False) as arrays:
                labels = arrays["labels"] if "labels" in arrays.files else None
                images, logits = arrays["images"], arrays["logits"]
        except (*_UNREADABLE, AttributeError, TypeError, SyntaxError, MemoryError):
            raise BundleError(f"{self.path}: its samples are unreadable; make the bundle again.") from None
        if images.dtype != np.uint8 or images.ndim != 4 or logits.shape[:1] != images.shape[:1]:
            raise BundleError(f"{self.path}: its samples are no images with logits; make the bundle again.")
        return images, labels, logits

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
