"""Data sets: what the files hold is what training sees, and missing or damaged files are sentences that say what to do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwgen.errors import InputError
from model import data_cifar, data_imagenet
from model.data import DRAWS, augment, hold_out, load_data
from model.data_cifar import cifar10
from model.data_imagenet import imagenet


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The binary version of CIFAR-10 with ten images a file, one of each class; pixel (y, x) of colour c of image i is a formula."""
    monkeypatch.setattr(data_cifar, "_PER_FILE", 10)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{at}.bin" for at in range(1, 6)), "test_batch.bin"]):
        records = bytearray()
        for at in range(10):
            records.append((number + at) % 10)
            records += bytes(
                (100 * c + 3 * y + x + number + at) % 256 for c in range(3) for y in range(32) for x in range(32)
            )
        (folder / name).write_bytes(bytes(records))
    return folder


def test_binary_records_become_images(batches: Path) -> None:
    data = cifar10(batches)
    assert data.train.images.shape == (50, 32, 32, 3) and data.test.images.shape == (10, 32, 32, 3)
    assert (data.bits, data.classes) == (8, 10)
    number, at, y, x, c = 3, 2, 5, 30, 1
    assert data.train.images[10 * number + at, y, x, c] == 100 * c + 3 * y + x + number + at
    assert data.train.labels[10 * number + at] == number + at and data.test.labels[6] == (5 + 6) % 10
    assert np.array_equal(cifar10(batches.parent).test.images, data.test.images)  # the folder above does too


def test_every_missing_or_damaged_batch_is_named(batches: Path) -> None:
    (batches / "data_batch_2.bin").unlink()
    (batches / "test_batch.bin").write_bytes((batches / "test_batch.bin").read_bytes()[:-1])
    broken = bytearray((batches / "data_batch_4.bin").read_bytes())
    broken[0] = 77
    (batches / "data_batch_4.bin").write_bytes(bytes(broken))
    with pytest.raises(InputError) as caught:
        cifar10(batches)
    text = str(caught.value)
    assert "'data_batch_2.bin': No such file" in text and "'test_batch.bin' has 30729 bytes" in text
    assert "'data_batch_4.bin' has a label above 9" in text
    assert "Download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in text and "--set data_path=" in text


def test_files_of_the_right_size_that_are_not_the_data_set_are_refused(batches: Path) -> None:
    """Zeros have labels that could be right; that all images are of one class is not."""
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (batches / name).write_bytes(bytes(len((batches / name).read_bytes())))
    with pytest.raises(InputError) as caught:
        cifar10(batches)
    first, second, _ = caught.value.problems
    assert first == (
        "'data_batch_1.bin' to 'data_batch_5.bin': of the 10 classes there are 14, 4, 4, 4, 4, 4, 4, 4, 4, 4 images, not 5 of"
        " each; it is damaged, or not CIFAR-10."
    )
    assert second.startswith("'test_batch.bin': of the 10 classes there are 10, 0, 0,")


def test_a_share_of_the_training_set_stands_in_for_the_test_set() -> None:
    whole, tuned = load_data("digits"), load_data("digits", tuning_share=0.25)
    assert (len(tuned.train), len(tuned.test)) == (1077, 360)  # of 1,437
    seen = {image.tobytes() for image in tuned.test.images}
    assert seen <= {image.tobytes() for image in whole.train.images}
    assert not seen & {image.tobytes() for image in whole.test.images}
    assert not seen & {image.tobytes() for image in tuned.train.images}
    assert np.ptp(np.bincount(tuned.test.labels)) <= 2  # stratified


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_no_path_says_what_to_download(name: str) -> None:
    with pytest.raises(InputError, match="https://") as caught:
        load_data(name)
    assert "--set data_path=" in str(caught.value)


def archive(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {}
    for part, count in (("train", 12), ("test", 5)):
        files = []
        for at in range(count):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (20 * at, 255 - 20 * at, 40)).save(stream, "jpeg", quality=95)
            files.append(stream.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)]).astype(np.int64)
        arrays[f"{part}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(path, **{**arrays, **changes})
    return path


def test_the_archive_of_jpeg_files(tmp_path: Path) -> None:
    data = cifar10(archive(tmp_path / "cifar.npz"))
    assert data.train.images.shape == (12, 32, 32, 3) and data.test.labels.tolist() == [0, 1, 2, 3, 4]
    colour = data.train.images[7].reshape(-1, 3).astype(int)
    assert np.abs(colour - [140, 115, 40]).max() <= 3


def test_an_archive_as_large_as_the_whole_set_has_as_many_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "cifar.npz", test_labels=np.array([0, 1, 2, 2, 3]))
    cifar10(path)  # a part of it
    monkeypatch.setattr(data_cifar, "_PER_FILE", 5)
    with pytest.raises(InputError, match="'test_labels': of the 10 classes there are 1, 1, 2, 1, 0, 0"):
        cifar10(path)


def test_a_damaged_archive_is_a_sentence(tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar.npz")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="no archive of CIFAR-10, or damaged"):
        cifar10(path)
    with pytest.raises(InputError, match="test_offsets"):
        cifar10(archive(path, test_offsets=np.array([0, 5, 3])))
    with pytest.raises(InputError, match="train image 0 is damaged"):
        cifar10(archive(path, train_jpeg=np.zeros(40, np.uint8), train_offsets=np.array([0, 40])))
    with pytest.raises(InputError, match="train_labels"):
        cifar10(archive(path, train_labels=np.zeros(3, np.uint8)))
    with pytest.raises(InputError, match="Cannot read it"):
        cifar10(tmp_path / "none.npz")


# -------------------------------------------------------------------------------- augmentation
def test_augmentation_shifts_and_mirrors_each_image_on_its_own() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(1, 256, (400, 6, 5, 2)).astype(np.uint8)
    made = augment(images, np.random.default_rng(2).random((400, DRAWS)), 2, flip=True)
    assert made.dtype == np.uint8 and made.shape == images.shape
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for at, image in enumerate(made):
        ways = {
            (y, x, mirrored)
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            if np.array_equal(image, padded[at, y : y + 6, x : x + 5][:, :: -1 if mirrored else 1])
        }
        assert len(ways) == 1
        seen |= ways
    assert len(seen) == 50  # every shift, mirrored and not


def test_augmentation_of_nothing_is_the_image() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 1)).astype(np.uint8)
    assert np.array_equal(augment(images, np.zeros((3, DRAWS))), images)


# -------------------------------------------------------------------------------- ImageNet
@pytest.fixture
def folders(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for part, count in (("train", 6), ("val", 3)):
        for number, name in enumerate(("n01", "n02", "n03")):
            (tmp_path / part / name).mkdir(parents=True)
            for at in range(count):
                pixels = np.full((40 + at, 60, 3), 80 * number, np.uint8)
                pixels[:, 30:] = rng.integers(0, 256, 3)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{at}.png")
    Image.new("L", (50, 50), 200).save(tmp_path / "val" / "n03" / "grey.png")
    return tmp_path


def test_class_folders(folders: Path) -> None:
    data = imagenet(folders, size=32)
    assert data.classes == 3 and data.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert data.train.images.shape == (18, 32, 32, 3) and data.test.images[:4].shape == (4, 32, 32, 3)
    assert data.test.images[-1].min() == data.test.images[-1].max() == 200  # grey becomes three equal colours
    assert (data.train.images[np.array([13])][0, :, :8] == 160).all()  # the left of the middle of a class-2 image
    rest, held = hold_out(data.train, 1 / 3, 1)
    assert sorted(held.labels.tolist()) == [0, 0, 1, 1, 2, 2] and len(rest) == 12


def test_random_crops_repeat_with_their_seed_and_differ_without(folders: Path) -> None:
    split = imagenet(folders, size=32).train
    pick = np.array([0, 7, 14, 0])
    draws = np.random.default_rng(1).random((4, DRAWS))
    first = split.batch(pick, draws)
    assert first.shape == (4, 32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, split.batch(pick, draws))
    assert not np.array_equal(first, split.batch(pick, np.random.default_rng(2).random((4, DRAWS))))
    assert not np.array_equal(first[0], first[3])  # the same file, cut twice


def test_a_crop_never_leaves_the_image() -> None:
    image = Image.new("RGB", (37, 53), (9, 8, 7))
    for draws in np.random.default_rng(1).random((200, DRAWS)):
        pixels = np.asarray(data_imagenet._cut(image, 16, draws))
        assert pixels.shape == (16, 16, 3) and (pixels == [9, 8, 7]).all()


def test_folders_that_do_not_fit_are_all_named(folders: Path) -> None:
    (folders / "train" / "n04").mkdir()
    with pytest.raises(InputError, match=r"'train/n04' holds no image"):
        imagenet(folders)
    Image.new("RGB", (40, 40)).save(folders / "train" / "n04" / "a.png")
    with pytest.raises(InputError, match=r"same classes; n04 is in one of them only"):
        imagenet(folders)
    with pytest.raises(InputError) as caught:
        imagenet(folders / "train")
    assert "no folder 'train'" in str(caught.value) and "no folder 'val'" in str(caught.value)
    (folders / "val" / "n04").mkdir()
    (folders / "val" / "n04" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image, or damaged"):
        imagenet(folders, 32).test.images[-1:]
