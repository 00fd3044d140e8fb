"""Data sets as uint8 images and labels, and the vectorised augmentation of images in memory.

CIFAR-10 lives decoded in memory (model.data_cifar), ImageNet is decoded batch by batch from its folders (model.data_imagenet).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hwgen.errors import InputError

DATA_SETS = ("digits", "cifar10", "imagenet")
DIGITS_BITS = 4
_DIGITS_TEST = 360
_DIGITS_SEED = 2
_TUNING_SEED = 3

DRAWS = 5  # random numbers that augmentation takes per image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, H, W, C), and labels, int64 (N,)."""

    images: Pixels
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, pick: NDArray[np.int64], draws: NDArray[np.float64], shift: int = 0, flip: bool = False) -> Pixels:
        """Augmented training images, uint8 (n, H, W, C), of the indices ``pick``; draws: (n, DRAWS) in [0, 1)."""
        return augment(self.images[pick], draws, shift, flip)

    def evenly(self, most: int) -> NDArray[np.int64]:
        """Indices of ``most`` images, evenly spaced; of all where there are no more."""
        return np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64)

    def take(self, pick: NDArray[np.int64]) -> Split:
        """The part of the split that ``pick`` indexes."""
        return replace(self, images=self.images[pick], labels=self.labels[pick])


@dataclass(frozen=True)
class DataSet:
    """Training and test images; ``bits`` is their code width. The test images are read once, at the end."""

    train: Split
    test: Split
    bits: int
    classes: int


@lru_cache(maxsize=2)
def load_data(name: str, path: str = "", tuning_share: float = 0.0) -> DataSet:
    """A data set by name: "digits", "cifar10" or "imagenet"; decoded once per process.

    Args:
        path: where the files are; digits need none.
        tuning_share: share of the training images, stratified by label, that takes the place of the test images and of which
            nothing is trained; the same images whatever the seed of a run.

    Raises:
        InputError: no path, or files that are missing or damaged; the message says what to download and where to put it.
    """
    from model.data_cifar import cifar10
    from model.data_imagenet import imagenet

    if tuning_share:
        whole = load_data(name, path)
        train, stand_in = hold_out(whole.train, tuning_share, _TUNING_SEED)
        return replace(whole, train=train, test=stand_in)
    if name == "digits":
        return digits()
    if name not in DATA_SETS:
        raise InputError(f"There is no data set '{name}'; there are {', '.join(DATA_SETS)}.")
    return {"cifar10": cifar10, "imagenet": imagenet}[name](Path(path).expanduser() if path else None)


def digits() -> DataSet:
    """scikit-learn's digits: 1,797 real 8x8 images, values 0..16 clipped to 4 bits; 360 of them, stratified, for the test."""
    bunch = load_digits()
    images = np.minimum(bunch.images, 15).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=_DIGITS_TEST, random_state=_DIGITS_SEED, stratify=labels)
    return DataSet(Split(parts[0], parts[2]), Split(parts[1], parts[3]), DIGITS_BITS, 10)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """(the rest, ``share`` of the images), stratified by label."""
    rest, held = train_test_split(np.arange(len(split)), test_size=share, random_state=seed, stratify=split.labels)
    return split.take(rest), split.take(held)


def augment(images: Pixels, draws: NDArray[np.float64], shift: int = 0, flip: bool = False) -> Pixels:
    """Move each image by up to ``shift`` rows and columns, zeros coming in, and mirror half of them; uint8 (N, H, W, C).

    One gather does both for the whole batch. draws: (N, DRAWS) random numbers in [0, 1).
    """
    n, height, width, _ = images.shape
    if not shift and not flip:
        return images
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0))) if shift else images
    y = (draws[:, :1] * (2 * shift + 1)).astype(np.int64) + np.arange(height)
    x = (draws[:, 1:2] * (2 * shift + 1)).astype(np.int64) + np.arange(width)
    if flip:
        x = np.where(draws[:, 2:3] < 0.5, x[:, ::-1], x)
    return np.asarray(padded[np.arange(n)[:, None, None], y[:, :, None], x[:, None, :]], np.uint8)
