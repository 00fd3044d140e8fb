"""Data sets: what the files hold is what training sees, and missing or damaged files are sentences that say what to do."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
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


def encoded(image: Image.Image, kind: str = "jpeg") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, quality=95)
    return stream.getvalue()


def archive(path: Path, compressed: bool = False, **changes: Any) -> Path:
    """Twelve and five images; ``changes`` are arrays in the place of its own, None for an array that is missing."""
    arrays: dict[str, Any] = {}
    for part, count in (("train", 12), ("test", 5)):
        files = [encoded(Image.new("RGB", (32, 32), (20 * at, 255 - 20 * at, 40))) for at in range(count)]
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)]).astype(np.int64)
        arrays[f"{part}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    kept = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    (np.savez_compressed if compressed else np.savez)(path, **kept)
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


def refused(path: Path) -> list[str]:
    """What is said of a file; the last sentence is what to download and where to put it."""
    with pytest.raises(InputError) as caught:
        cifar10(path)
    assert caught.value.subject == str(path) and "pickle" not in str(caught.value)
    *problems, last = caught.value.problems
    assert last.startswith("Download https://www.cs.toronto.edu/") and "--set data_path=" in last
    return problems


def no_archive(path: Path) -> None:
    path.write_bytes(b"no archive")


def cut_archive(path: Path) -> None:
    data = archive(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def renamed_npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.arange(9))


@pytest.mark.parametrize("write", [no_archive, cut_archive, renamed_npy])
def test_a_file_that_is_no_archive_is_a_sentence(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "cifar.npz")
    assert refused(tmp_path / "cifar.npz") == ["It is no archive of CIFAR-10, or damaged: File is not a zip file."]


def test_an_archive_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.npz") == ["Cannot read it: No such file or directory."]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((12, 1), np.int64), "int64 of shape (12, 1)"),
        (np.int64(3), "int64 of shape ()"),
        (np.zeros(12), "float64 of shape (12,)"),
        (np.full(12, np.nan), "float64 of shape (12,)"),
        (np.array(["cat"] * 12), "<U3 of shape (12,)"),
        (np.zeros(12, "m8[s]"), "timedelta64[s] of shape (12,)"),
    ],
)
def test_arrays_of_another_kind_are_all_named(array: Any, kind: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar.npz", train_labels=array, test_offsets=array, test_jpeg=array, train_jpeg=None)
    assert refused(path) == [
        "'train_jpeg' is missing.",
        f"'train_labels' is {kind}; int64 of one dimension is right.",
        f"'test_jpeg' is {kind}; uint8 of one dimension is right.",
        f"'test_offsets' is {kind}; int64 of one dimension is right.",
    ]


def test_integers_of_any_width_are_the_same_data(tmp_path: Path) -> None:
    plain = cifar10(archive(tmp_path / "plain.npz"))
    labels, offsets = plain.test.labels, np.load(tmp_path / "plain.npz")["test_offsets"]
    for dtype in (np.int16, np.uint32, np.uint64):
        data = cifar10(archive(tmp_path / "a.npz", test_labels=labels.astype(dtype), test_offsets=offsets.astype(dtype)))
        assert np.array_equal(data.test.images, plain.test.images) and data.test.labels.dtype == np.int64
    large = np.full(5, 2**64 - 1, np.uint64)
    assert refused(archive(tmp_path / "a.npz", test_labels=large)) == [
        "'test_labels': there must be one of 0..9 per image."
    ]


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|O', 'fortran_order': False, 'shape': (9,)}",  # would be unpickled
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (9,",  # tokenize.TokenError
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (09,)}",  # a ValueError of the parser's own
        b"{'descr': ',', 'fortran_order': False, 'shape': (9,)}",  # SyntaxError
        b"{'descr': '|u1', 1: False, 'shape': (9,)}",  # TypeError
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,)}" % (1 << 55),  # MemoryError
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (99,)}",
    ],
)
def test_an_array_that_numpy_does_not_read_is_a_sentence(header: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar.npz", test_labels=None)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(
            "test_labels.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(9)
        )
    assert refused(path) == ["'test_labels' is damaged, or no array of numbers."]


@pytest.mark.parametrize(
    "changes",
    [
        {10: zipfile.ZIP_BZIP2},
        {10: zipfile.ZIP_LZMA},
        {10: 99},  # no method
        {8: 1},  # encrypted: RuntimeError
        {23: 1, 27: 1},  # 16 MiB more than there are: EOFError
    ],
)
def test_a_damaged_entry_of_the_directory_is_a_sentence(changes: dict[int, int], tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar.npz")
    data = bytearray(path.read_bytes())
    for at, value in changes.items():
        data[data.index(b"PK\1\2") + at] = value  # of the first array
    path.write_bytes(data)
    assert refused(path) == ["'train_jpeg' is damaged, or no array of numbers."]


@pytest.mark.parametrize("compressed", [True, False])
def test_random_damage_changes_no_data_unseen(compressed: bool, tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar.npz", compressed)
    plain, whole = cifar10(path), path.read_bytes()
    rng = np.random.default_rng(1)
    loaded = 0
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            found = cifar10(path)
        except InputError:
            continue
        loaded += 1
        for part, expected in ((found.train, plain.train), (found.test, plain.test)):
            assert np.array_equal(part.images, expected.images) and np.array_equal(part.labels, expected.labels)
    assert loaded < 100


def huge(kind: str) -> bytes:
    """An image of 32x32 whose header says 65,535x65,535, which Pillow takes for an attack."""
    data = bytearray(encoded(Image.new("RGB", (32, 32)), kind))
    at, field = {"jpeg": (data.find(b"\xff\xc0") + 5, ">HH"), "bmp": (18, "<II")}[kind]
    struct.pack_into(field, data, at, 65535, 65535)
    return bytes(data)


def short_header() -> bytes:
    """A PNG file whose first chunk lacks fields."""
    chunk = b"IHDR" + bytes(4)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))


BROKEN = {
    "huge jpeg": huge("jpeg"),
    "huge bmp": huge("bmp"),
    "short png": short_header(),
    "odd png": encoded(Image.new("RGB", (32, 32)), "png").replace(
        b"\x19IDAT", b"\5IDAT"
    ),  # SyntaxError: a chunk of no name
    "cut": encoded(Image.effect_noise((32, 32), 90))[:-300],
    "no image": b"no image",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_of_an_archive_is_a_sentence(broken: bytes, tmp_path: Path) -> None:
    good = encoded(Image.new("RGB", (32, 32)))
    files = [good, broken]
    jpeg, offsets = np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)])
    path = archive(tmp_path / "a.npz", test_jpeg=jpeg, test_offsets=offsets, test_labels=np.array([1, 2]))
    (problem,) = refused(path)
    assert problem.startswith("test image 1 is damaged") and "BytesIO" not in problem


def test_all_problems_of_an_archive_are_named_and_the_first_of_many_images(tmp_path: Path) -> None:
    small = encoded(Image.new("RGB", (8, 16)))
    path = archive(
        tmp_path / "cifar.npz",
        train_jpeg=np.frombuffer(small * 12, np.uint8),
        train_offsets=np.arange(13) * len(small),
        train_labels=np.zeros(3, np.uint8),
        test_offsets=np.array([0, 5, 3]),
        test_labels=np.array([1, 10]),
    )
    assert refused(path) == [
        *(f"train image {at} has 8x16 pixels, not 32x32." for at in range(5)),
        "There are 7 more such train images.",
        "'train_labels': there must be one of 0..9 per image.",
        "'test_offsets' does not fit 'test_jpeg'.",
        "'test_labels': there must be one of 0..9 per image.",
    ]


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


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_of_a_folder_says_what_to_download_and_where_to_put_it(broken: bytes, folders: Path) -> None:
    path = folders / "val" / "n03" / "5.png"
    path.write_bytes(broken)
    with pytest.raises(InputError, match="It is no image, or damaged") as caught:
        _ = imagenet(folders, 32).test.images[:]
    assert caught.value.subject == str(path)
    assert "ILSVRC2012 from https://image-net.org" in str(caught.value) and "in its place" in str(caught.value)
