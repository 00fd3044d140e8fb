"""ImageNet, or any set of images in class folders: train/<class>/* and val/<class>/*, decoded when a batch asks for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hwgen.errors import InputError
from model.data import DataSet, Pixels, Split
from model.data_cifar import BROKEN_IMAGE

SIZE = 224
_SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".webp"}
_SOURCE = "ILSVRC2012 from https://image-net.org (an account is needed)"
_HELP = (
    f"Get {_SOURCE}, sort it into train/<class>/*.JPEG and val/<class>/*.JPEG, and set data_path to the folder above them"
    " (--set data_path=/where/it/is)."
)
_ANEW = f"Put the file of the same name from {_SOURCE}, or from where your images are from, in its place."
_SCALE = (0.08, 1.0)  # share of the area that a random crop takes
_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class FolderImages:
    """Image files as uint8 (N, size, size, 3): picked, they are resized and cropped in the middle; ``augmented`` at random."""

    files: tuple[Path, ...]
    size: int = SIZE

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.files), self.size, self.size, 3)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, pick: Any) -> Pixels:
        return self._decode(np.atleast_1d(np.arange(len(self))[pick]), None)

    def augmented(self, pick: NDArray[np.int64], draws: NDArray[np.float64]) -> Pixels:
        """Random crops of 8 to 100 % of the area, half of them mirrored."""
        return self._decode(pick, draws)

    def subset(self, pick: NDArray[np.int64]) -> FolderImages:
        """Some of the files, not decoded."""
        return FolderImages(tuple(self.files[at] for at in pick), self.size)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor()

    def _decode(self, pick: NDArray[np.int64], draws: NDArray[np.float64] | None) -> Pixels:
        out = np.empty((len(pick), self.size, self.size, 3), np.uint8)

        def one(at: int) -> None:
            path = self.files[pick[at]]
            try:
                with Image.open(path) as image:
                    out[at] = np.asarray(_cut(image.convert("RGB"), self.size, None if draws is None else draws[at]))
            except BROKEN_IMAGE as error:
                raise InputError([f"It is no image, or damaged ({error}).", _ANEW], str(path)) from None

        for _ in self._pool.map(one, range(len(pick))):
            pass
        return out


def _cut(image: Image.Image, size: int, draws: NDArray[np.float64] | None) -> Image.Image:
    """The middle of the image, its short side 8/7 of ``size``; or the random crop that five numbers in [0, 1) describe."""
    width, height = image.size
    if draws is None:
        side = size * min(width, height) / round(size * 8 / 7)
        left, top = (width - side) / 2, (height - side) / 2
        return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    area = width * height * (_SCALE[0] + draws[0] * (_SCALE[1] - _SCALE[0]))
    aspect = float(np.exp(np.log(_ASPECT[0]) + draws[1] * (np.log(_ASPECT[1]) - np.log(_ASPECT[0]))))
    w, h = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, top = draws[2] * (width - w), draws[3] * (height - h)
    cut = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[4] < 0.5 else cut


@dataclass(frozen=True)
class FolderSplit(Split):
    """A split whose images stay files until a batch asks for them."""

    images: Any  # FolderImages

    def batch(self, pick: NDArray[np.int64], draws: NDArray[np.float64], shift: int = 0, flip: bool = False) -> Pixels:
        """Random crops, mirrored; ``shift`` and ``flip`` are those of images in memory and have no say here."""
        images: FolderImages = self.images
        return images.augmented(pick, draws)

    def take(self, pick: NDArray[np.int64]) -> FolderSplit:
        """The part of the split that ``pick`` indexes; nothing is decoded."""
        return FolderSplit(self.images.subset(pick), self.labels[pick])


def imagenet(path: Path | None, size: int = SIZE) -> DataSet:
    """Images in class folders below train/ and val/; the class number is the folder's place in alphabetical order.

    Raises:
        InputError: no path, missing or empty folders, or classes that differ between train and val; all at once.
    """
    if path is None:
        raise InputError(f"ImageNet needs a path. {_HELP}", "data_path")
    problems: list[str] = []
    found = {part: _classes(path / part, problems) for part in ("train", "val")}
    if not problems and found["train"].keys() != found["val"].keys():
        odd = sorted(found["train"].keys() ^ found["val"].keys())
        problems.append(f"train/ and val/ must have the same classes; {', '.join(odd[:5])} is in one of them only.")
    if problems:
        raise InputError([*problems, _HELP], str(path))
    parts = []
    for part in ("train", "val"):
        files = [file for name in sorted(found[part]) for file in found[part][name]]
        labels = np.repeat(np.arange(len(found[part])), [len(found[part][name]) for name in sorted(found[part])])
        parts.append(FolderSplit(FolderImages(tuple(files), size), labels.astype(np.int64)))
    return DataSet(parts[0], parts[1], 8, len(found["train"]))


def _classes(folder: Path, problems: list[str]) -> dict[str, list[Path]]:
    """Image files by class folder, both sorted."""
    if not folder.is_dir():
        problems.append(f"There is no folder '{folder.name}' in it.")
        return {}
    found = {}
    for inner in sorted(item for item in folder.iterdir() if item.is_dir()):
        files = sorted(item for item in inner.iterdir() if item.suffix.lower() in _SUFFIXES)
        if files:
            found[inner.name] = files
        else:
            problems.append(f"'{folder.name}/{inner.name}' holds no image.")
    if not found:
        problems.append(f"'{folder.name}' holds no class folder with images.")
    return found
