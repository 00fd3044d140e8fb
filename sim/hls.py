"""C simulation of an HLS kernel: compiles it with g++ (or another compiler), keeps the program in the cache, runs it.

AMD's ap_int headers come from $XILINX_HLS or $XILINX_VITIS, else from the ``hls4ml`` package (found, never imported). They are
needed only for ``ap_int=True``: the kernel's words are native 64-bit words elsewhere, with the same results.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwgen import isa
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from sim.compiled import NO_CYCLE, Writes
from sim.verilator import default_cache

_log = logging.getLogger(__name__)
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
_LOG_TAIL = 4000
_REGISTER_WORDS = 64


class CompileError(RuntimeError):
    """The compiler rejected the kernel; the message holds the end of its output."""


def find_ap_int() -> Path:
    """The folder that holds ap_int.h.

    Raises:
        InputError: there is none.
    """
    for variable in ("XILINX_HLS", "XILINX_VITIS"):
        folder = Path(os.environ.get(variable, "")) / "include"
        if os.environ.get(variable) and (folder / "ap_int.h").is_file():
            return folder
    spec = importlib.util.find_spec("hls4ml")
    for root in spec.submodule_search_locations or [] if spec else []:
        for header in sorted(Path(root).rglob("ap_int.h")):
            return header.parent
    raise InputError(
        "There is no ap_int.h: pip install --no-deps hls4ml (its headers alone are used), or set XILINX_HLS to a Vitis HLS installation."
    )


def compile_kernel(
    sources: Mapping[str, str], *, compiler: str = "g++", ap_int: bool = False, flags: Sequence[str] = ()
) -> Path:
    """The testbench program of a kernel, compiled if the cache lacks it.

    Args:
        sources: text of each C++ source by file name, as ``hwgen.render_hls`` gives them.
        compiler: g++ or clang++. ap_int: words are AMD's ap_uint. flags: further ones, sanitizers for example.

    Raises:
        InputError: no such compiler, or no ap_int headers where they are wanted.
        CompileError: the kernel does not compile.
    """
    found = shutil.which(compiler)
    if found is None:
        raise InputError(f"C simulation needs {compiler}, which is not on PATH: install the package {compiler}.")
    every = [*_FLAGS, *flags]
    if ap_int:
        # The compiler sees AMD's constructors, which leave bits unset before they are cut, once they are inlined.
        quiet = ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]
        every += ["-DBS_AP_INT", "-isystem", str(find_ap_int()), *quiet]
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    key = hashlib.sha256(repr((sorted(sources.items()), every, version, platform.processor(), platform.node())).encode())
    program = default_cache().parent / "hls" / key.hexdigest()[:24] / "bs_testbench"
    if program.is_file():
        _log.info("kernel from %s", program.parent)
        return program
    _log.info("%s compiles the kernel into %s", found, program.parent)
    program.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent.parent) as scratch:
        for name, text in sources.items():
            (Path(scratch) / name).write_text(text, encoding="utf-8")
        made = [str(Path(scratch) / name) for name in sources if name.endswith(".cpp")]
        target = Path(scratch) / "bs_testbench"
        done = subprocess.run([found, *every, *made, "-o", str(target)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(f"{compiler} rejects the HLS kernel:\n{(done.stdout + done.stderr)[-_LOG_TAIL:]}")
        program.parent.mkdir(exist_ok=True)
        # Whoever comes second replaces the file by an equal one.
        target.replace(program)
    return program


@dataclass(frozen=True)
class Run:
    """What a run left: memory uint8, registers by name, the kernel's writes to its buffers, its messages."""

    memory: NDArray[np.uint8]
    registers: dict[str, int]
    planes: Writes
    bytes: Writes
    log: str


def run_kernel(program: Path, engine: EngineConfig, memory: NDArray[np.uint8], registers: Mapping[str, int]) -> Run:
    """Run the kernel once.

    Args:
        memory: uint8 (bytes,), from address 0. registers: settings by name; the others are 0.

    Raises:
        RuntimeError: the program ended without a result: a sanitizer found something, or it crashed.
    """
    with tempfile.TemporaryDirectory(prefix="bitsmith-hls-") as scratch:
        folder = Path(scratch)
        memory.tofile(folder / "memory.bin")
        words = np.zeros(_REGISTER_WORDS, "<u4")
        offsets = {item.name: item.offset // 4 for item in isa.REGISTERS}
        for name, value in registers.items():
            words[offsets[name]] = value
        words.tofile(folder / "registers.bin")
        done = subprocess.run([str(program), scratch], capture_output=True, text=True, errors="replace", check=False)
        log = (done.stdout + done.stderr)[-_LOG_TAIL:]
        if done.returncode not in (0, 1) or not (folder / "bytes.bin").is_file():
            raise RuntimeError(f"the C simulation ended without a result (exit code {done.returncode}):\n{log}")
        after = np.fromfile(folder / "registers_out.bin", "<u4")
        planes = np.fromfile(folder / "planes.bin", [("row", "<u4"), ("enables", "<u4"), ("data", "<u2", engine.columns)])
        held = np.fromfile(folder / "bytes.bin", [("row", "<u4"), ("enables", "<u4"), ("data", "u1", engine.lanes)])
        return Run(
            np.fromfile(folder / "memory_out.bin", np.uint8),
            {name: int(after[at]) for name, at in offsets.items()},
            _writes(planes["row"], planes["enables"], _pack(planes["data"], engine.rows)),
            _writes(held["row"], held["enables"], held["data"]),
            log,
        )


def _writes(rows: NDArray[np.uint32], enables: NDArray[np.uint32], data: NDArray[np.uint8]) -> Writes:
    return Writes(np.full(len(rows), NO_CYCLE), rows.copy(), enables.copy(), np.ascontiguousarray(data))


def _pack(words: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """(n, D_N) words of ``bits`` bits each -> (n, bytes), the first word lowest."""
    spread = (words[:, :, None] >> np.arange(bits, dtype=np.uint16) & 1).astype(np.uint8)
    return np.packbits(spread.reshape(len(words), words.shape[1] * bits), axis=1, bitorder="little")
