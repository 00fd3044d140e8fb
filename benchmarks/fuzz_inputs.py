"""Right inputs for each reader, and the ways in which fuzzing spoils them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitsmith.board_commands import golden_samples
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.bundle import write_bundle
from hwgen.engine import EngineConfig, write_engine
from hwgen.network import Network, Samples
from hwgen.network_file import write_network
from hwgen.program import assemble
from hwgen.schedule import schedule
from sim.random_network import random_images, random_network

_SEED = 7
_ENGINE = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=8192, plane_depth=2048, byte_depth=2048,
    column_depth=1024,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**70), 1e308, float("nan"), float("inf"), -0.5, "", "x", "../../x", "/etc/passwd",
    "\x00", "\ud800", "é" * 300, [], {}, [[[[]]]], [0, 0, 0], {"a": {"b": {}}}, "__import__('os')", 10**400,
)  # fmt: skip
_ROOT = Path(__file__).resolve().parent.parent


def _network() -> Network:
    return random_network(_SEED)


def _write_network(folder: Path) -> None:
    write_network(_network(), folder)


def _write_build(folder: Path) -> None:
    generate(_network(), _ENGINE, load_board("pynq-z2"), folder)


def _write_program(folder: Path) -> None:
    folder.mkdir()
    (folder / "program.bin").write_bytes(assemble(schedule(_network(), _ENGINE).program))


def _write_bundle(folder: Path) -> None:
    network = _network()
    network = replace(network, samples=Samples(random_images(network, 3, 1), np.zeros(3, np.int64)))
    build = generate(network, _ENGINE, load_board("pynq-z2"), folder / "build")
    write_bundle(build, golden_samples(build), folder / "bundle", virtual=True)
    shutil.rmtree(folder / "build")
    shutil.rmtree(folder / "bundle")


def _write_engine(folder: Path) -> None:
    folder.mkdir()
    write_engine(_ENGINE, folder / "engine.json")


def _write_recipe(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(_ROOT / "examples" / "recipes" / "digits.toml", folder / "recipe.toml")


def _write_checkpoint(folder: Path) -> None:
    import torch

    from model import checkpoint

    folder.mkdir()
    state = {
        "epoch": 3,
        "weights": {"conv": torch.arange(24.0).reshape(2, 3, 4)},
        "history": [1.0, 2.0],
        "stage": "search",
    }
    checkpoint.save(folder / "checkpoint.pt", state, "abc")


SEEDS: dict[str, Callable[[Path], None]] = {
    "network": _write_network,
    "build": _write_build,
    "program": _write_program,
    "bundle": _write_bundle,
    "engine": _write_engine,
    "recipe": _write_recipe,
    "checkpoint": _write_checkpoint,
}


def mutate(folder: Path, rng: random.Random) -> None:
    """Spoil one or two files of an input."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "rtl" not in path.parts)
    for path in rng.sample(files, min(len(files), rng.choice([1, 1, 2]))):
        data = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.7:
            path.write_bytes(_spoilt_json(data, rng))
        elif path.suffix in (".npz", ".zip", ".pt") and rng.random() < 0.6:
            path.write_bytes(_spoilt_archive(data, rng))
        elif len(files) > 1 and rng.random() < 0.03:
            path.unlink()
        else:
            path.write_bytes(_spoilt_bytes(data, rng))


def _spoilt_bytes(data: bytes, rng: random.Random) -> bytes:
    raw = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(raw) + 1)
        size = rng.choice([1, 2, 4, 8, 64])
        how = rng.randrange(6)
        if how == 0:
            del raw[at:]
        elif how == 1:
            del raw[at : at + size]
        elif how == 2:
            raw[at:at] = rng.randbytes(size)
        elif how == 3:
            raw[at : at + size] = rng.choice([b"\xff", b"\x00", b"\x80", b"9", b"{", b'"', b"["]) * size
        elif how == 4:
            raw[at:at] = raw[max(at - size, 0) : at]
        elif raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _spoilt_json(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.02:
        return b"[" * 100_000
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = _places(value)
        if not places:
            break
        holder, key = rng.choice(places)
        how = rng.randrange(4)
        if how == 0 and isinstance(holder, dict):
            holder[rng.choice(["extra", "", "name", "é"])] = deepcopy(rng.choice(_VALUES))
        elif how == 1:
            del holder[key]
        elif how == 2:
            other, there = rng.choice(places)
            # A copy: a value inside itself is no JSON.
            holder[key] = json.loads(json.dumps(other[there]))
        elif isinstance(holder[key], int) and rng.random() < 0.5:
            holder[key] += rng.choice([-1, 1, 7, 1 << 20])
        else:
            holder[key] = deepcopy(rng.choice(_VALUES))
    return json.dumps(value).encode()


def _spoilt_archive(data: bytes, rng: random.Random) -> bytes:
    """A zip whose members are spoilt and whose checksums are right: what only looking at the content finds."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    manifests = [item for item in content if item.endswith("manifest.json")]
    name = rng.choice(manifests if manifests and rng.random() < 0.4 else sorted(content))
    how = rng.randrange(6)
    if how == 0:
        del content[name]
    elif how == 1:
        content[rng.choice(["../outside", "/tmp/outside", "extra.npy", name.upper()])] = content[name]
    elif name.endswith(".npy") and how < 4:
        content[name] = _spoilt_array(content[name], rng)
    elif name.endswith(".json"):
        content[name] = _spoilt_json(content[name], rng)
    else:
        content[name] = _spoilt_bytes(content[name], rng)
    manifest = manifests[0] if manifests and manifests[0] in content else ""
    if manifest and name != manifest and name in content and rng.random() < 0.7:
        # The hash of the spoilt file as if its maker had meant it so.
        facts = json.loads(content[manifest])
        facts["files"][name.partition("/")[2]] = hashlib.sha256(content[name]).hexdigest()
        content[manifest] = json.dumps(facts).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])) as archive:
        for item, raw in content.items():
            archive.writestr(item, raw)
    return made.getvalue()


def _spoilt_array(data: bytes, rng: random.Random) -> bytes:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    how = rng.randrange(6)
    made = io.BytesIO()
    if how == 0:
        np.save(made, np.array([{"any": "object"}], dtype=object), allow_pickle=True)
    elif how == 1:
        np.save(made, array.astype(rng.choice(["f4", "f8", "c16", "U3", "u8", "?", "i1"])))
    elif how == 2:
        np.save(made, array.reshape(rng.choice([(-1,), (1, -1), (-1, 1, 1, 1, 1)])))
    elif how == 3:
        # A header that promises 2**60 values.
        head = {"descr": "<i8", "fortran_order": False, "shape": (1 << 30, 1 << 30)}
        np.lib.format.write_array_header_1_0(made, head)
        made.write(data[-64:])
    elif how == 4:
        np.save(made, np.zeros(1 << rng.choice([0, 10, 22]), np.int64))
    else:
        flat = array.copy().reshape(-1).astype(np.int64)
        if flat.size:
            flat[rng.randrange(flat.size)] = rng.choice([-(2**62), 2**62, -1, 255, 1 << 20])
        np.save(made, flat.reshape(array.shape))
    return made.getvalue()
