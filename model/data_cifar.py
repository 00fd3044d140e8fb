"""CIFAR-10, decoded into memory, from the standard binary version or from an archive of JPEG files in one .npz."""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
_HELP = f"Download {URL}, unpack it, and set data_path to its folder {FOLDER} (--set data_path=/where/it/is/{FOLDER})."


def cifar10(path: Path | None) -> DataSet:
    """CIFAR-10: 50,000 + 10,000 images of 32x32x3, 8 bits.

    Args:
        path: the folder ``cifar-10-batches-bin`` or the one it lies in; or an .npz with the arrays ``train_jpeg`` (uint8,
            all files one after another), ``train_offsets`` (int64, N + 1), ``train_labels`` and the same for ``test``.

    Raises:
        InputError: no path, or files missing, cut short or damaged; every one is named.
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


def _archive(path: Path) -> DataSet:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {f"{part}_{name}": file[f"{part}_{name}"] for part in ("train", "test")
                      for name in ("jpeg", "offsets", "labels")}  # fmt: skip
    except OSError as error:
        raise InputError([f"Cannot read it: {error.strerror or error}.", _HELP], str(path)) from None
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise InputError([f"It is no archive of CIFAR-10, or damaged: {error}.", _HELP], str(path)) from None
    parts = []
    problems: list[str] = []
    for part, whole in (("train", len(_TRAIN_FILES) * _PER_FILE), ("test", len(_TEST_FILES) * _PER_FILE)):
        labels = arrays[f"{part}_labels"].astype(np.int64)
        images = decode(arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"], str(path), part)
        if len(labels) != len(images) or not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= _CLASSES:
            raise InputError(f"'{part}_labels': there must be one of 0..9 per image.", str(path))
        if len(labels) == whole:  # a smaller archive is a part of CIFAR-10, and may be any
            problems += _uneven(f"'{part}_labels'", labels)
        parts.append(Split(images, labels))
    if problems:
        raise InputError([*problems, _HELP], str(path))
    return DataSet(parts[0], parts[1], 8, _CLASSES)


def decode(data: Pixels, offsets: NDArray[np.int64], subject: str, part: str) -> Pixels:
    """uint8 (N, 32, 32, 3) of N files that lie one after another, file i in data[offsets[i]:offsets[i + 1]].

    Raises:
        InputError: offsets that do not fit, or a file that is no image of 32x32.
    """
    if (
        offsets.ndim != 1
        or len(offsets) < 2
        or int(offsets[0]) != 0
        or bool((np.diff(offsets) <= 0).any())
        or int(offsets[-1]) != len(data)
    ):
        raise InputError(f"'{part}_offsets' does not fit '{part}_jpeg'; the archive is damaged. {_HELP}", subject)
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    view = memoryview(data.tobytes())

    def one(at: int) -> None:
        try:
            with Image.open(io.BytesIO(view[int(offsets[at]) : int(offsets[at + 1])])) as image:
                if image.size != (32, 32):
                    raise InputError(f"{part} image {at} has {image.size} pixels, not 32x32. {_HELP}", subject)
                images[at] = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise InputError(f"{part} image {at} is damaged ({error}). {_HELP}", subject) from None

    def some(start: int) -> None:
        for at in range(start, min(start + 1000, len(images))):
            one(at)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(some, range(0, len(images), 1000)):
            pass
    return images
