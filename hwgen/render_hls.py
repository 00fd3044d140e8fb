"""Rendering of the HLS kernel: its configuration and encodings; the library beside them is copied as it is. Pure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwgen import isa
from hwgen.board import Board
from hwgen.engine import EngineConfig
from hwgen.render import render, template_folder
from hwgen.schedule import Schedule

KERNEL = "bs_kernel.cpp"
TESTBENCH = "bs_testbench.cpp"
TOP = "bs_kernel"
_PAGE = 4096
_REGISTER_WORDS = 64


def render_hls_sources(engine: EngineConfig, board: str, version: str) -> dict[str, str]:
    """Every C++ source of an engine by file name: rendered headers, library, kernel, testbench."""
    folder = template_folder().joinpath("hls")
    copied = sorted(item.name for item in folder.iterdir() if item.name.endswith((".h", ".cpp")))
    sources = {
        "bs_config.h": render("hls/bs_config.h.j2", engine=engine, board=board, version=version),
        "bs_isa.h": render("hls/bs_isa.h.j2", isa=isa),
    }
    return sources | {name: folder.joinpath(name).read_text(encoding="utf-8") for name in copied}


def render_hls(engine: EngineConfig, board: Board, version: str) -> dict[str, str]:
    """Every file of the Vitis HLS project by name: the sources and the scripts for the vendor tools."""
    sources = render_hls_sources(engine, board.name, version)
    facts = {
        "board": board,
        "top": TOP,
        "kernel": [name for name in sources if name.endswith(".cpp") and name != TESTBENCH],
        "testbench": TESTBENCH,
        "version": version,
    }
    return sources | {"hls.tcl": render("hls/hls.tcl.j2", **facts)}


def write_test_data(plan: Schedule, program: bytes, folder: Path) -> None:
    """Memory and registers of a run over one image, all zero, for the vendor's C simulation and co-simulation."""
    folder.mkdir(parents=True, exist_ok=True)
    image = -(-len(program) // _PAGE) * _PAGE
    output = image + -(-plan.image_bytes // _PAGE) * _PAGE
    memory = np.zeros(output + -(-plan.logits_rows * 4 // 8) * 8, np.uint8)
    memory[: len(program)] = np.frombuffer(program, np.uint8)
    memory.tofile(folder / "memory.bin")
    registers = np.zeros(_REGISTER_WORDS, "<u4")
    offsets = {item.name: item.offset // 4 for item in isa.REGISTERS}
    for name, value in {"image_addr": image, "output_addr": output, "image_count": 1}.items():
        registers[offsets[name]] = value
    registers.tofile(folder / "registers.bin")
