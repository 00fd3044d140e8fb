"""CIFAR-10, decoded into memory, from the standard binary version or from an archive of JPEG files in one .npz."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hwgen.errors import InputError
from model.data import DataSet, Pixels, Split

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_FILES = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32
_PER_FILE = 10_000
_CLASSES = 10
_DTYPES: dict[str, np.dtype[Any]] = {"jpeg": np.dtype("u1"), "offsets": np.dtype("i8"), "labels": np.dtype("i8")}
_SHOWN = 5  # damaged images of an archive that are named
_HELP = f"Download {URL}, unpack it, and set data_path to its folder {FOLDER} (--set data_path=/where/it/is/{FOLDER})."

_BROKEN_ZIP = (ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What zipfile raises for damage: a wrong offset or name, a method or flag that it lacks, data that end early or do not fit."""
_BROKEN_NPY = (ValueError, TypeError, SyntaxError, MemoryError, tokenize.TokenError)
"""What NumPy raises for an array it does not read: objects (never unpickled), a header that is no literal or promises too much."""
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for damage: all but the last for a broken header or data, the last for a size that no photo has."""


def cifar10(path: Path | None) -> DataSet:
    """CIFAR-10: 50,000 + 10,000 images of 32x32x3, 8 bits.

    Args:
        path: the folder ``cifar-10-batches-bin`` or the one it lies in; or an .npz with the arrays ``train_jpeg`` (uint8,
            all files one after another), ``train_offsets`` (int64, N + 1), ``train_labels`` and the same for ``test``.

    Raises:
        InputError: no path, or files or arrays missing, cut short or damaged; every one is named, of an archive's images the
            first few of each part.
    """
    if path is None:
        raise InputError(f"CIFAR-10 needs a path. {_HELP}", "data_path")
    if path.suffix == ".npz":
        return _archive(path)
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    problems: list[str] = []
    parts = [_batches(folder, names, problems) for names in (_TRAIN_FILES, _TEST_FILES)]
    if problems:
        raise InputError([*problems, _HELP], str(path))
    return DataSet(parts[0], parts[1], 8, _CLASSES)


def _uneven(what: str, labels: NDArray[np.int64]) -> list[str]:
    """What is wrong with the labels of all training or all test images: CIFAR-10 has as many of each class."""
    counts = np.bincount(labels, minlength=_CLASSES)
    if (counts == len(labels) / _CLASSES).all():
        return []
    return [
        f"{what}: of the {_CLASSES} classes there are {', '.join(map(str, counts))} images, not {len(labels) // _CLASSES} of"
        " each; it is damaged, or not CIFAR-10."
    ]


def _batches(folder: Path, names: tuple[str, ...], problems: list[str]) -> Split:
    """The records of some files: a label byte, then 32x32 red, green and blue values."""
    raw = []
    for name in names:
        try:
            data = np.fromfile(folder / name, np.uint8)
        except OSError as error:
            problems.append(f"'{name}': {error.strerror or error}.")
            continue
        if len(data) != _RECORD * _PER_FILE:
            problems.append(
                f"'{name}' has {len(data)} bytes, {_RECORD * _PER_FILE} are right; it was cut short or is damaged."
            )
        elif int(data[::_RECORD].max()) >= _CLASSES:
            problems.append(f"'{name}' has a label above 9; it is damaged.")
        else:
            raw.append(data.reshape(-1, _RECORD))
    if len(raw) < len(names):
        return Split(np.empty((0, 32, 32, 3), np.uint8), np.empty(0, np.int64))
    records = np.concatenate(raw)
    labels = records[:, 0].astype(np.int64)
    problems += _uneven(f"'{names[0]}'" if len(names) == 1 else f"'{names[0]}' to '{names[-1]}'", labels)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The six arrays of an archive by name, of the dtypes and the one dimension that they must have.

    Raises:
        InputError: unreadable, no archive, or arrays missing, damaged or of another kind; every one is named.
    """
    arrays: dict[str, NDArray[Any]] = {}
    problems: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for part, (name, dtype) in product(("train", "test"), _DTYPES.items()):
                try:
                    arrays[f"{part}_{name}"] = _array(archive, f"{part}_{name}", dtype)
                except InputError as error:
                    problems += error.problems
    except OSError as error:
        problems.append(f"Cannot read it: {error.strerror or error}.")
    except _BROKEN_ZIP as error:
        problems.append(f"It is no archive of CIFAR-10, or damaged: {error}.")
    if problems:
        raise InputError([*problems, _HELP], str(path))
    return arrays


def _array(archive: zipfile.ZipFile, key: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One array; its member is read whole before NumPy parses it, so that the checksum has found any damage by then.

    Raises:
        InputError: missing, damaged, or not of whole numbers and one dimension.
    """
    try:
        if archive.getinfo(f"{key}.npy").compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile("NumPy writes no other; their decoders would raise errors of their own")
        array = np.lib.format.read_array(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
    except KeyError:
        raise InputError(f"'{key}' is missing.") from None
    except (*_BROKEN_ZIP, *_BROKEN_NPY):  # their texts are not passed on: NumPy's advise to unpickle
        raise InputError(f"'{key}' is damaged, or no array of numbers.") from None
    # A narrower integer is as good. One of uint64 that is too large turns negative, as no offset and no label may be.
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.itemsize > dtype.itemsize:
        raise InputError(f"'{key}' is {array.dtype} of shape {array.shape}; {dtype} of one dimension is right.")
    return array.astype(dtype, copy=False)


def _archive(path: Path) -> DataSet:
    arrays = _arrays(path)
    parts = []
    problems: list[str] = []
    for part, names in (("train", _TRAIN_FILES), ("test", _TEST_FILES)):
        data, offsets, labels = (arrays[f"{part}_{name}"] for name in _DTYPES)
        parts.append(Split(_decode(data, offsets, part, problems), labels))
        if len(labels) != len(offsets) - 1 or ((labels < 0) | (labels >= _CLASSES)).any():
            problems.append(f"'{part}_labels': there must be one of 0..9 per image.")
        elif len(labels) == len(names) * _PER_FILE:  # a smaller archive is a part of CIFAR-10, and may be any
            problems += _uneven(f"'{part}_labels'", labels)
    if problems:
        raise InputError([*problems, _HELP], str(path))
    return DataSet(parts[0], parts[1], 8, _CLASSES)


def _decode(data: Pixels, offsets: NDArray[np.int64], part: str, problems: list[str]) -> Pixels:
    """uint8 (N, 32, 32, 3) of N files that lie one after another, file i in data[offsets[i]:offsets[i + 1]]."""
    if len(offsets) < 2 or offsets[0] != 0 or (offsets[1:] <= offsets[:-1]).any() or offsets[-1] != len(data):
        problems.append(f"'{part}_offsets' does not fit '{part}_jpeg'.")
        return np.empty((0, 32, 32, 3), np.uint8)
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    view = memoryview(data.tobytes())

    def one(at: int) -> list[str]:
        try:
            with Image.open(io.BytesIO(view[int(offsets[at]) : int(offsets[at + 1])])) as image:
                if image.size != (32, 32):
                    return [f"{part} image {at} has {image.width}x{image.height} pixels, not 32x32."]
                images[at] = np.asarray(image.convert("RGB"))
        except UnidentifiedImageError:  # its text is the address of a stream
            return [f"{part} image {at} is damaged, or no image."]
        except BROKEN_IMAGE as error:
            return [f"{part} image {at} is damaged ({error})."]
        return []

    def some(start: int) -> list[str]:
        return [problem for at in range(start, min(start + 1000, len(images))) for problem in one(at)]

    with ThreadPoolExecutor() as pool:
        broken = [problem for found in pool.map(some, range(0, len(images), 1000)) for problem in found]
    problems += broken[:_SHOWN]
    if broken[_SHOWN:]:
        problems.append(f"There are {len(broken) - _SHOWN} more such {part} images.")
    return images
