"""Boards: the limits of the chip, the clocks it can really make, the memory beside it. Data files in ``hwgen/boards``."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from hwgen.errors import InputError


class Resources(BaseModel):
    """Counts of what a chip has or a design takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lut: PositiveInt
    ff: PositiveInt
    bram36: PositiveInt
    dsp: PositiveInt


class Board(BaseModel):
    """One board.

    clocks_mhz: clocks that its PLL makes, ascending; ``clock_mhz`` is the one that figures use.
    lut_share: share of the LUTs that a design may take, so that it can be routed.
    ddr_bytes_per_s: what the memory really gives; port_bytes_per_cycle: per memory port and direction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    part: str
    resources: Resources
    clocks_mhz: tuple[PositiveFloat, ...]
    clock_mhz: PositiveFloat
    lut_share: PositiveFloat
    ddr_bytes_per_s: PositiveFloat
    port_bytes_per_cycle: PositiveInt
    memory_ports: PositiveInt


def board_names() -> list[str]:
    """Every known board."""
    return sorted(
        item.name.removesuffix(".toml")
        for item in files("hwgen").joinpath("boards").iterdir()
        if item.name.endswith(".toml")
    )


def load_board(name: str) -> Board:
    """A board by name.

    Raises:
        InputError: no such board.
    """
    if name not in board_names():
        raise InputError(f"There is no board '{name}'; known are {', '.join(board_names())}.")
    text = files("hwgen").joinpath("boards", f"{name}.toml").read_text(encoding="utf-8")
    return Board.model_validate({"name": name, **tomllib.loads(text)})
