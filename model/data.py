"""Data sets as uint8 arrays held in memory, and their vectorised augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DIGITS_BITS = 4
_DIGITS_TEST = 360
_DIGITS_SEED = 2


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, H, W, C), and labels, int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """Training and test images; ``bits`` is their code width. The test images are read once, at the end."""

    train: Split
    test: Split
    bits: int
    classes: int


def digits() -> DataSet:
    """scikit-learn's digits: 1,797 real 8x8 images, values 0..16 clipped to 4 bits; 360 of them, stratified, for the test."""
    bunch = load_digits()
    images = np.minimum(bunch.images, 15).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=_DIGITS_TEST, random_state=_DIGITS_SEED, stratify=labels)
    return DataSet(Split(parts[0], parts[2]), Split(parts[1], parts[3]), DIGITS_BITS, 10)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """(the rest, ``share`` of the images), stratified by label."""
    parts = train_test_split(split.images, split.labels, test_size=share, random_state=seed, stratify=split.labels)
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def shift(images: NDArray[np.uint8], pixels: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move each image by up to ``pixels`` rows and columns, zeros coming in; uint8 (N, H, W, C)."""
    if pixels == 0:
        return images
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    y = rng.integers(0, 2 * pixels + 1, (n, 1)) + np.arange(height)
    x = rng.integers(0, 2 * pixels + 1, (n, 1)) + np.arange(width)
    return np.asarray(padded[np.arange(n)[:, None, None], y[:, :, None], x[:, None, :]], np.uint8)
