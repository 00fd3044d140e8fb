"""The network file: what is written is read, and what is wrong is refused with every problem named."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from numpy.typing import NDArray

from hwgen import network_file
from hwgen.errors import InputError
from hwgen.network import Network
from hwgen.network_check import ACC_LIMIT, check, checked, weight_sums
from hwgen.network_file import read_network, write_arrays, write_network
from sim import golden
from sim.random_network import random_network


def same(a: Network, b: Network) -> None:
    assert (a.name, a.input, a.output, dict(a.tensors)) == (b.name, b.input, b.output, dict(b.tensors))
    assert [type(node) for node in a.nodes] == [type(node) for node in b.nodes]
    for one, other in zip(a.nodes, b.nodes, strict=True):
        for field in fields(one):
            left, right = getattr(one, field.name), getattr(other, field.name)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype, field.name
                np.testing.assert_array_equal(left, right)
            else:
                assert left == right, field.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_network(networks.tiny(), tmp_path / "net")
    return tmp_path / "net"


def problems(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_network(path)
    assert caught.value.subject is not None and str(path) in caught.value.subject
    return caught.value.problems


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = path / "network.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def edit_arrays(path: Path, changes: dict[str, Any], file: str = "tensors.npz") -> None:
    with np.load(path / file) as old:
        arrays = dict(old)
    arrays |= changes
    write_arrays(path / file, {name: array for name, array in arrays.items() if array is not None})


# -------------------------------------------------------------------------------- round trip
def test_round_trip_of_every_op(folder: Path) -> None:
    network = networks.tiny()
    back = read_network(folder)
    same(network, back)
    assert network.samples is not None and back.samples is not None
    np.testing.assert_array_equal(network.samples.images, back.samples.images)
    np.testing.assert_array_equal(network.samples.labels, back.samples.labels)
    before, after = (golden.run(item, network.samples.images) for item in (network, back))
    for name, codes in before.items():
        np.testing.assert_array_equal(codes, after[name])


@pytest.mark.parametrize("seed", range(8))
def test_round_trip_of_random_networks(tmp_path: Path, seed: int) -> None:
    network = random_network(seed)
    write_network(network, tmp_path / "net")
    same(network, read_network(tmp_path / "net"))


def test_bytes_depend_on_the_network_alone(tmp_path: Path) -> None:
    write_network(networks.tiny(), tmp_path / "a")
    write_network(read_network(tmp_path / "a"), tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["network.json", "samples.npz", "tensors.npz"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "a" / "tensors.npz") as archive:
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_without_samples(tmp_path: Path) -> None:
    write_network(networks.tiny(samples=0), tmp_path / "net")
    assert not (tmp_path / "net" / "samples.npz").exists()
    assert read_network(tmp_path / "net").samples is None


# -------------------------------------------------------------------------------- damaged files
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_json(folder: Path, share: float) -> None:
    file = folder / "network.json"
    text = file.read_text()
    file.write_text(text[: int(share * len(text))])
    assert "not JSON, or was cut short" in problems(folder)[0]


def test_deeply_nested_and_binary_json(folder: Path) -> None:
    (folder / "network.json").write_text("[" * 200_000)
    assert "not JSON" in problems(folder)[0]
    (folder / "network.json").write_bytes(b"\xff\xfe\x00{")
    assert "not JSON" in problems(folder)[0]


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    assert "Cannot read it" in problems(tmp_path / "nowhere")[0]
    (folder / "tensors.npz").unlink()
    assert "Cannot read it" in problems(folder)[0]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.98])
@pytest.mark.parametrize("name", ["tensors.npz", "samples.npz"])
def test_truncated_arrays(folder: Path, share: float, name: str) -> None:
    file = folder / name
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert any("not a .npz file" in problem for problem in problems(folder))


def test_an_edited_byte_of_an_array_is_found(folder: Path) -> None:
    file = folder / "tensors.npz"
    data = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("stem.weight.npy")
    start = info.header_offset + 30 + len(info.filename)
    for at in range(start, start + info.compress_size - 1):  # the last byte ends in bits without meaning
        edited = bytearray(data)
        edited[at] ^= 0x20
        file.write_bytes(bytes(edited))
        assert problems(folder) == ["array 'stem.weight' is damaged."], at


class Bomb:
    fired = False

    @staticmethod
    def fire() -> None:
        Bomb.fired = True

    def __reduce__(self) -> Any:
        return Bomb.fire, ()


@pytest.mark.parametrize("name", ["tensors.npz", "samples.npz"])
def test_pickles_are_refused_and_never_loaded(folder: Path, name: str) -> None:
    with np.load(folder / name) as old:
        arrays = dict(old)
    first = next(iter(arrays))
    arrays[first] = np.array([Bomb()], dtype=object)
    np.savez(folder / name, allow_pickle=True, **arrays)
    Bomb.fired = False
    assert any(f"array '{first}' is damaged" in problem for problem in problems(folder))
    assert not Bomb.fired
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.fired  # the bomb works where it is loaded


def test_too_large_an_array_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_file, "_MAX_ARRAY_BYTES", 150)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: np.zeros(1, np.int16))
    assert any("'join.weight' is larger than" in problem for problem in problems(folder))


def test_an_array_larger_than_the_graph_allows_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_arrays(folder, {"fc.bias": np.zeros(1 << 22, np.int64), "join.weight": np.zeros(1 << 20, np.int16)})
    load = np.lib.format.read_array
    loaded: list[NDArray[Any]] = []

    def noted(*a: Any, **k: Any) -> NDArray[Any]:
        loaded.append(load(*a, **k))
        return loaded[-1]

    monkeypatch.setattr(np.lib.format, "read_array", noted)
    assert problems(folder) == [
        "array 'join.weight' takes 2097280 bytes; the shapes in network.json leave it at most 14400 values.",
        "array 'fc.bias' takes 33554560 bytes; the shapes in network.json leave it at most 5 values.",
    ]
    assert max(array.size for array in loaded) < 1000


def test_a_header_that_claims_a_huge_array(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tensors.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    members["fc.bias.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(folder / "tensors.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert problems(folder) == ["array 'fc.bias' is damaged."]


def test_arrays_missing_unused_float_and_too_wide(folder: Path) -> None:
    edit_arrays(
        folder,
        {
            "stem.mul": None,
            "fc.bias": np.zeros(5),
            "inner.weight": np.full((8, 3, 3, 4), 1 << 20),
            "stray": np.zeros(1, np.int8),
        },
    )
    found = problems(folder)
    assert sorted(found) == [
        "array 'fc.bias' holds float64; only integers are allowed.",
        "array 'inner.weight' holds values that do not fit int16.",
        "array 'stem.mul' is missing.",
        "array 'stray' is not used by any node.",
    ]


def test_narrower_integers_are_widened(folder: Path) -> None:
    edit_arrays(folder, {"fc.bias": np.arange(5, dtype=np.uint8)})
    bias = networks.node(read_network(folder), "fc").bias
    assert bias.dtype == np.int64 and bias.tolist() == [0, 1, 2, 3, 4]


# -------------------------------------------------------------------------------- the schema
@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_version(folder: Path, version: Any) -> None:
    edit_json(folder, lambda data: data.update(version=version))
    assert problems(folder) == [f"Its schema version is {version!r}; this bitsmith reads version 1."]


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "onnx"}'])
def test_another_file(folder: Path, text: str) -> None:
    (folder / "network.json").write_text(text)
    assert "not a network file" in problems(folder)[0]


def set_node(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for node in data["nodes"]:
            if node["name"] == name:
                node.update(values)

    return change


def test_unknown_op(folder: Path) -> None:
    edit_json(folder, set_node("pool", op="minpool"))
    (found,) = problems(folder)
    assert found.startswith("node 'pool', field 'op'") and "minpool" in found


def test_unknown_field(folder: Path) -> None:
    edit_json(folder, set_node("join", dilation=2))
    (found,) = problems(folder)
    assert found.startswith("node 'join', field 'dilation'")


@pytest.mark.parametrize("value", ["3", 3.5, True, None, [3]])
def test_values_of_another_type(folder: Path, value: Any) -> None:
    edit_json(folder, set_node("join", shift=value))
    (found,) = problems(folder)
    assert found.startswith("node 'join', field 'shift'")


@pytest.mark.parametrize("bits", [-1, 0, 33, 10**18, -(10**400)])
def test_bits_beyond_all_reason(folder: Path, bits: int) -> None:
    """No code range can be computed from such bits; every other problem is still found."""
    edit_json(folder, lambda data: data["tensors"]["image"].update(bits=bits))
    edit_json(folder, set_node("code", shift=40))
    found = problems(folder)
    assert found[0].startswith("tensor 'image', field 'bits'") and "1..8" in found[0]
    assert found[1:] == ["node 'code', field 'shift': 40 is out of range 1..31."]


def test_a_scale_beyond_every_float(folder: Path) -> None:
    edit_json(folder, lambda data: data["tensors"]["image"].update(scale=10**400))
    assert problems(folder) == ["tensor 'image', field 'scale': inf must be a positive number."]


def test_a_tensor_that_no_node_makes(folder: Path) -> None:
    edit_json(folder, lambda data: data["tensors"].update(stray={"shape": [1, 1, 1], "bits": 1}))
    assert problems(folder) == ["tensor 'stray': no node makes it; remove it."]


def test_names_that_cannot_be_shown(folder: Path) -> None:
    edit_json(folder, lambda data: data["nodes"][5].update(name="a\nb"))
    assert problems(folder) == ["node 'a\\nb', field 'name': a name is made of printable characters."]
    edit_json(folder, lambda data: data["nodes"][5].update(name="\ud800"))
    assert "surrogates not allowed" in problems(folder)[0]


def test_missing_field_and_unknown_encoding(folder: Path) -> None:
    edit_json(folder, lambda data: data["nodes"][1].pop("mul"))
    edit_json(folder, set_node("stem", encoding="ternary"))
    edit_json(folder, lambda data: data["tensors"]["code.out"].update(shape=[6, 6]))
    found = problems(folder)
    assert len(found) == 3
    for head in ("node 'code', field 'mul'", "node 'stem', field 'encoding'", "tensor 'code.out', field 'shape'"):
        assert any(problem.startswith(head) for problem in found), head


# -------------------------------------------------------------------------------- the rules
def big(value: int, size: int) -> Any:
    return np.full(size, value, np.int64)


def resample(network: Network, **changes: NDArray[Any]) -> Network:
    assert network.samples is not None
    return replace(network, samples=replace(network.samples, **changes))


RULES: dict[str, tuple[Callable[[Network], Network], str, str]] = {
    "weight bits 9": (lambda n: networks.edit(n, "inner", weight_bits=9), "node 'inner', field 'weight_bits'", "1..8"),
    "weight bits 0": (lambda n: networks.edit(n, "inner", weight_bits=0), "node 'inner', field 'weight_bits'", "1..8"),
    "tensor bits 9": (lambda n: networks.retensor(n, "inner.out", bits=9), "tensor 'inner.out', field 'bits'", "1..8"),
    "tensor bits 0": (lambda n: networks.retensor(n, "inner.out", bits=0), "tensor 'inner.out', field 'bits'", "1..8"),
    "signed, 1 bit": (
        lambda n: networks.retensor(n, "inner.out", bits=1, signed=True),
        "tensor 'inner.out', field 'bits'",
        "2..8",
    ),
    "logits of 16 bits": (lambda n: networks.retensor(n, "logits", bits=16), "tensor 'logits', field 'bits'", "32"),
    "scale 0": (lambda n: networks.retensor(n, "code.out", scale=0.0), "tensor 'code.out', field 'scale'", "positive"),
    "scale nan": (
        lambda n: networks.retensor(n, "code.out", scale=float("nan")),
        "tensor 'code.out', field 'scale'",
        "positive",
    ),
    "no channels": (lambda n: networks.retensor(n, "code.out", shape=(6, 6, 0)), "tensor 'code.out', field 'shape'", "1"),
    "signed image": (lambda n: networks.retensor(n, "image", signed=True), "tensor 'image', field 'signed'", "unsigned"),
    "code above": (
        lambda n: networks.edit(n, "join", weight=np.full((8, 3, 3, 8), 4, np.int16)),
        "node 'join', field 'weight'",
        "0..3",
    ),
    "code below": (
        lambda n: networks.edit(n, "inner", weight=np.full((8, 3, 3, 4), -3, np.int16)),
        "node 'inner', field 'weight'",
        "-2..1",
    ),
    "unknown tensor read": (
        lambda n: networks.edit(n, "pool", inputs=("nothing",)),
        "node 'pool', field 'inputs'",
        "no tensor 'nothing'",
    ),
    "unknown tensor made": (
        lambda n: networks.edit(n, "pool", output="nothing"),
        "node 'pool', field 'output'",
        "no tensor 'nothing'",
    ),
    "cycle": (lambda n: networks.edit(n, "code", inputs=("join.out",)), "node 'code', field 'inputs'", "cycle"),
    "order": (
        lambda n: replace(n, nodes=(n.nodes[1], n.nodes[0], *n.nodes[2:])),
        "node 'code', field 'inputs'",
        "topological order",
    ),
    "made twice": (lambda n: networks.edit(n, "short", output="join.out"), "node 'join', field 'output'", "made twice"),
    "same name": (lambda n: networks.edit(n, "pool", name="join"), "node 'join', field 'name'", "another node"),
    "no output": (lambda n: replace(n, output="gone"), "field 'output'", "no tensor 'gone'"),
    "no logits": (lambda n: replace(n, nodes=n.nodes[:-1]), "field 'nodes'", "exactly one logits"),
    "mul": (
        lambda n: networks.edit(n, "join", mul=big(1 << 17, 8).astype(np.int32)),
        "node 'join', field 'mul'",
        "131071",
    ),
    "requant mul": (lambda n: networks.edit(n, "code", mul=-1), "node 'code', field 'mul'", "0..131071"),
    "average mul": (lambda n: networks.edit(n, "mean", mul=1 << 17), "node 'mean', field 'mul'", "0..131071"),
    "shift 0": (lambda n: networks.edit(n, "join", shift=0), "node 'join', field 'shift'", "1..31"),
    "shift 32": (lambda n: networks.edit(n, "join", shift=32), "node 'join', field 'shift'", "1..31"),
    "requant shift": (lambda n: networks.edit(n, "code", shift=32), "node 'code', field 'shift'", "1..31"),
    "average shift": (lambda n: networks.edit(n, "mean", shift=0), "node 'mean', field 'shift'", "1..31"),
    "skip_mul": (lambda n: networks.edit(n, "join", skip_mul=1 << 24), "node 'join', field 'skip_mul'", "16777215"),
    "skip_mul alone": (lambda n: networks.edit(n, "inner", skip_mul=3), "node 'inner', field 'skip_mul'", "no skip"),
    "skip shape": (
        lambda n: networks.edit(n, "join", inputs=("inner.out", "stem.out")),
        "node 'join', field 'inputs'",
        "skip tensor",
    ),
    "sum": (lambda n: networks.edit(n, "join", bias=big((1 << 47) - 1, 8)), "node 'join', field 'bias'", "2**47"),
    "negative sum": (
        lambda n: networks.edit(n, "join", bias=big(1 - (1 << 47), 8)),
        "node 'join', field 'bias'",
        "2**47",
    ),
    "smallest int64": (
        lambda n: networks.edit(n, "join", bias=big(-(1 << 63), 8)),
        "node 'join', field 'bias'",
        "2**47",
    ),
    "requant sum": (lambda n: networks.edit(n, "code", bias=(1 << 47) - 1), "node 'code', field 'bias'", "2**47"),
    "average bias": (lambda n: networks.edit(n, "mean", bias=1 << 47), "node 'mean', field 'bias'", "48 bits"),
    "logit": (lambda n: networks.edit(n, "fc", bias=big((1 << 31) - 1, 5)), "node 'fc', field 'bias'", "int32"),
    "bias shape": (lambda n: networks.edit(n, "join", bias=big(0, 7)), "node 'join', field 'bias'", "8 output channels"),
    "pad codes": (
        lambda n: networks.edit(n, "stem", pad_codes=(0, 0, 256)),
        "node 'stem', field 'pad_codes'",
        "0..255",
    ),
    "pad code count": (
        lambda n: networks.edit(n, "stem", pad_codes=(0,)),
        "node 'stem', field 'pad_codes'",
        "3 channels",
    ),
    "stride": (lambda n: networks.edit(n, "inner", stride=0), "node 'inner', field 'stride'", "1..15"),
    "padding": (lambda n: networks.edit(n, "pool", padding=2), "node 'pool', field 'padding'", "less than the kernel"),
    "output map": (lambda n: networks.edit(n, "inner", stride=1), "node 'inner', field 'output'", "give (6, 6)"),
    "pool bits": (lambda n: networks.retensor(n, "pool.out", bits=3), "node 'pool', field 'output'", "4 bits"),
    "shortcut": (lambda n: networks.edit(n, "short", before=5), "node 'short', field 'before'", "exceed 8"),
    "channels": (
        lambda n: networks.edit(n, "stem", weight=np.zeros((4, 3, 3, 2), np.int16)),
        "node 'stem', field 'weight'",
        "3",
    ),
    "samples": (
        lambda n: resample(n, images=np.zeros((3, 6, 6, 1), np.uint8)),
        "samples, field 'images'",
        "(3, 6, 6, 1)",
    ),
    "labels": (
        lambda n: resample(n, labels=np.zeros(2, np.int64)),
        "samples, field 'labels'",
        "3 images",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str, tmp_path: Path) -> None:
    change, head, part = RULES[rule]
    network = change(networks.tiny())
    found = check(network)
    assert any(problem.startswith(head) and part in problem for problem in found), found
    with pytest.raises(InputError) as caught:
        write_network(network, tmp_path / "net")
    assert caught.value.problems == found
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError):
        checked(network)


def test_the_small_network_itself_is_legal() -> None:
    assert check(networks.tiny()) == []


def test_rules_hold_for_files_too(folder: Path) -> None:
    edit_json(folder, set_node("join", shift=32))
    edit_json(folder, lambda data: data["tensors"]["code.out"].update(bits=9))
    edit_arrays(folder, {"stem.weight": np.full((4, 3, 3, 3), 8, np.int16)})
    edit_json(folder, set_node("pool", inputs=["nothing"]))
    found = problems(folder)
    for head in (
        "node 'join', field 'shift'",
        "tensor 'code.out', field 'bits'",
        "node 'stem', field 'weight'",
        "node 'pool', field 'inputs'",
    ):
        assert any(problem.startswith(head) for problem in found), (head, found)


def accumulator(channels: int) -> Network:
    """One linear layer of 15x15xchannels, every weight and code at its largest."""
    network = networks.tiny(samples=0)
    weight = np.zeros((1, 15, 15, channels), np.int16)
    fc = replace(
        networks.node(network, "fc"), inputs=("image",), weight=weight, weight_bits=8, bias=np.zeros(1, np.int64)
    )
    tensors = {
        "image": replace(network.tensors["image"], shape=(15, 15, channels)),
        "logits": replace(network.tensors["logits"], shape=(1, 1, 1)),
    }
    return replace(network, nodes=(fc,), tensors=tensors)


def test_accumulator_bound_is_exact() -> None:
    """|t| is 255 everywhere and codes reach 255: 15 * 15 * C * 255 * 255 < 2**31 up to C = 146."""
    channels = (ACC_LIMIT - 1) // (15 * 15 * 255 * 255)
    fits, over = accumulator(channels), accumulator(channels + 1)
    assert int(weight_sums(fits.nodes[0])[0]) == 15 * 15 * channels * 255  # type: ignore[arg-type]
    assert check(fits) == []
    assert any(
        problem.startswith("node 'fc', field 'weight'") and "beyond int32" in problem for problem in check(over)
    ), check(over)
    images = np.full((1, 15, 15, channels), 255, np.uint8)
    assert golden.logits(fits, images)[0, 0] == -15 * 15 * channels * 255 * 255


def test_sum_bound_is_exact() -> None:
    """The largest |acc * mul| + |bias| that is legal is one below 2**47."""
    network = networks.tiny()
    join = networks.node(network, "join")
    acc = int(weight_sums(join)[0]) * 3
    most = (1 << 47) - 1 - acc * int(join.mul[0]) - 255 * join.skip_mul
    bias = np.zeros(8, np.int64)
    for value, legal in ((most, True), (most + 1, False), (-most, True), (-most - 1, False)):
        bias[0] = value
        assert (check(networks.edit(network, "join", bias=bias.copy())) == []) is legal


# -------------------------------------------------------------------------------- writing
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    path = tmp_path / "net"
    if exists:
        write_network(networks.tiny(seed=2), path)
    before = {file.name: file.read_bytes() for file in path.iterdir()} if exists else {}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(network_file, "write_arrays", full)
    with pytest.raises(OSError, match="No space left"):
        write_network(networks.tiny(), path)
    assert [item.name for item in tmp_path.iterdir()] == (["net"] if exists else [])
    if exists:
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_nothing_but_a_network_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("all my work")
    (tmp_path / "file").write_text("a file")
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match="is not a network file; choose another path"):
            write_network(networks.tiny(), tmp_path / name)
    assert (tmp_path / "thesis" / "chapter1").read_text() == "all my work"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "thesis"]


def test_the_old_folder_returns_where_the_new_one_cannot_take_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    move = Path.replace

    def once(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(OSError, match="Input/output"):
        write_network(networks.tiny(seed=2), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [item.name for item in folder.parent.iterdir()] == [folder.name]


def test_writing_replaces_a_folder_whole(folder: Path) -> None:
    (folder / "leftover").write_text("old")
    write_network(networks.tiny(samples=0), folder)
    assert sorted(item.name for item in folder.iterdir()) == ["network.json", "tensors.npz"]
    same(networks.tiny(samples=0), read_network(folder))
    shutil.rmtree(folder)
