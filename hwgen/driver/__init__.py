"""The board-side driver: ``bitsmith_driver`` lies here as package data and is copied into bundles."""

from __future__ import annotations

from importlib.resources import files

from hwgen import isa

PACKAGE = "bitsmith_driver"


def render_registers() -> str:
    """The driver's ``registers.py`` with the constants of this instruction set as plain numbers."""
    offsets = "".join(f'    "{item.name}": {item.offset:#04x},\n' for item in isa.REGISTERS)
    errors = "".join(f"    {int(code)}: {meaning!r},\n" for code, meaning in isa.ERROR_MEANING.items())
    stages = "".join(f'    {int(stage)}: "{stage.name.lower().replace("_", "-")}",\n' for stage in isa.Stage)
    return (
        '"""Registers, error codes and identity of the engine; rendered from bitsmith\'s instruction set."""\n\n'
        f"DEVICE_ID = {isa.DEVICE_ID:#010x}\nDEVICE_VERSION = {isa.DEVICE_VERSION:#010x}\n"
        f"OFFSET = {{\n{offsets}}}\nERROR_MEANING = {{\n{errors}}}\nSTAGE = {{\n{stages}}}\n"
    )


def sources() -> dict[str, str]:
    """Every file of the package by name, as a bundle holds it."""
    folder = files("hwgen.driver").joinpath(PACKAGE)
    found = {
        item.name: item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".py")
    }
    return found | {"registers.py": render_registers()}
