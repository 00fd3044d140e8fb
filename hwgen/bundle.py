"""Bundles: everything a board needs to run one network, as a folder and as one zip."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen import driver
from hwgen.bitfile import BitFile, virtual_bit
from hwgen.build import Build, tool_version
from hwgen.driver.bitsmith_driver.bundle import FORMAT, MANIFEST, VERSION
from hwgen.driver.bitsmith_driver.bundle import Bundle as DriverBundle
from hwgen.driver.bitsmith_driver.errors import BundleError
from hwgen.errors import InputError
from hwgen.hwh import add_pynq_clock, render_hwh
from hwgen.output import check_output
from hwgen.render import render
from hwgen.vivado import check_timing, read_reports

_EPOCH = (1980, 1, 1, 0, 0, 0)  # zips of the same content have the same bytes
_NAME_HASH = 12


@dataclass(frozen=True)
class Samples:
    """Images for a first run. images: uint8 (N, H, W, C). logits: int32 (N, classes), of the golden model."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    logits: NDArray[np.int32]


def design_hash(sources: list[Path]) -> str:
    """The identity of a simulated design: its sources, not the network that runs on it."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def _archive(**arrays: NDArray[Any]) -> bytes:
    """An .npz without dates."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, array, allow_pickle=False)
            packed.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), inner.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _vivado_files(build: Build, bit: Path | None) -> tuple[bytes, str]:
    path = build.path / "vivado" / "bitsmith.bit" if bit is None else bit
    hwh = path.with_suffix(".hwh")
    missing = [str(item) for item in (path, hwh) if not item.is_file()]
    if missing:
        raise InputError(
            f"There is no {' and no '.join(missing)}: run 'bitsmith synth {build.path}' where the vendor tools are installed"
            + (", or add --virtual for a bundle that runs on the virtual board." if build.backend == "rtl" else ".")
        )
    if bit is None and (measured := read_reports(build.path)) is not None:
        check_timing(measured)
    data = path.read_bytes()
    try:
        BitFile.decode(data)
    except InputError as error:
        raise InputError(error.problems, str(path)) from None
    try:
        return data, add_pynq_clock(hwh.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(error.problems, str(hwh)) from None


def bundle_files(
    build: Build, samples: Samples, *, virtual: bool, bit: Path | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest, and every other file by name.

    Raises:
        InputError: no bit file, or one that is unusable.
    """
    network, board = build.network, build.board
    if virtual and build.backend != "rtl":
        raise InputError(
            f"The virtual board simulates RTL, and the build's backend is {build.backend}; generate it with --backend rtl, or make"
            f" a bit file with 'bitsmith synth {build.path}'.",
            str(build.path),
        )
    if virtual:
        design = design_hash(build.rtl)
        bit_data, hwh = virtual_bit(design, build.engine.hash, board.part), render_hwh(board, board.clock_mhz)
    else:
        bit_data, hwh = _vivado_files(build, bit)
    stem = f"bitsmith-{hashlib.sha256(bit_data).hexdigest()[:_NAME_HASH]}"
    arrays: dict[str, NDArray[Any]] = {"images": samples.images, "logits": samples.logits}
    if samples.labels is not None:
        arrays["labels"] = samples.labels
    source, output = network.tensors[network.input], network.tensors[network.output]
    facts: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "bitsmith": tool_version(),
        "virtual": virtual,
        "control": "kernel" if build.backend == "hls" else "registers",
        "board": board.name,
        "network": network.name,
        "engine": build.engine.name,
        "engine_hash": f"{build.engine.hash:08x}",
        "clock_mhz": board.clock_mhz,
        "image_shape": list(source.shape),
        "image_batch": build.batch,
        "channels_last": build.schedule.channels_last,
        "top_code": source.hi,
        "classes": output.shape[2],
        "output_stride": -(-build.schedule.logits_rows * 4 // 8) * 8,
        "bit": f"{stem}.bit",
        "hwh": f"{stem}.hwh",
        "program": "program.bin",
        "samples": "samples.npz",
    }
    content = {
        facts["bit"]: bit_data,
        facts["hwh"]: hwh.encode(),
        "program.bin": build.program.read_bytes(),
        "samples.npz": _archive(**arrays),
        "accelerator.ipynb": files("hwgen.driver").joinpath("accelerator.ipynb").read_bytes(),
        "README.md": render("board/README.md.j2", facts=facts, board=board, samples=len(samples.images)).encode(),
    }
    content |= {f"{driver.PACKAGE}/{name}": text.encode() for name, text in driver.sources().items()}
    if virtual:
        facts |= {"design": design, "rtl": [f"rtl/{path.name}" for path in build.rtl]}
        content |= {f"rtl/{path.name}": path.read_bytes() for path in build.rtl}
    facts["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(content.items())}
    return facts, content


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            entry = zipfile.ZipInfo(f"{target.stem}/{path.relative_to(folder).as_posix()}", _EPOCH)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def write_bundle(
    build: Build, samples: Samples, out: Path, *, virtual: bool, bit: Path | None = None, force: bool = False
) -> Path:
    """Write the folder ``out`` and, beside it, ``out``.zip; nothing is left behind where that fails.

    Raises:
        InputError: ``out`` exists and ``force`` is not set, or there is no usable bit file.
    """
    check_output(out, MANIFEST, force=force, reads=build.path)
    target = out.with_name(out.name + ".zip")
    if target.exists() and not force:
        raise InputError("It exists already; choose another name or add --force to replace it.", str(target))
    facts, content = bundle_files(build, samples, virtual=virtual, bit=bit)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        made = scratch / "folder"
        for name, data in content.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(data)
        (made / MANIFEST).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        packed = scratch / target.name
        _zip(made, packed)
        if out.exists():
            shutil.rmtree(out)
        made.replace(out)
        packed.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def read_bundle(path: Path) -> DriverBundle:
    """A bundle (folder or zip) with its hashes checked.

    Raises:
        InputError: not a bundle, or a damaged one.
    """
    try:
        return DriverBundle(path)
    except BundleError as error:
        raise InputError(str(error)) from None
