"""The shape of an engine: every parameter of the RTL, its limits, and its identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hwgen import isa
from hwgen.errors import InputError
from hwgen.output import whole_file

FORMAT = "bitsmith-engine"
_POWERS_OF_TWO = (
    "columns",
    "lane_rows",
    "weight_depth",
    "column_depth",
    "plane_depth",
    "byte_depth",
    "param_depth",
    "program_depth",
    "logit_depth",
)
_RANGES = {
    "rows": (2, 16),
    "columns": (4, 32),
    "slots": (3, 30),
    "slot_channels": (8, 16),
    "lane_rows": (1, 8),
    "acc_bits": (12, 32),
    "weight_depth": (16, 1 << 14),
    "column_depth": (8, 1 << 10),
    "plane_depth": (16, 1 << 14),
    "byte_depth": (16, 1 << 14),
    "param_depth": (16, 1 << 13),
    "program_depth": (64, 1 << 13),
    "logit_depth": (4, 1 << 11),
}


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """One engine shape.

    rows: D_M, output channels the array works on at a time. columns: D_N, output positions at a time.
    slots, slot_channels: a word is ``slots`` slots of ``slot_channels`` channels; D_K = slots * slot_channels bits.
    lane_rows: array rows read out per cycle; there are lane_rows * columns post-processing lanes.
    acc_bits: accumulator width in bits. Depths: rows of the weight, plane and byte buffers, words per column (both
    halves), channels of the parameter buffer, 64-bit words of one stage's program, beats of the logits FIFO.
    """

    rows: int = 8
    columns: int = 16
    slots: int = 9
    slot_channels: int = 16
    lane_rows: int = 2
    acc_bits: int = 28
    weight_depth: int = 512
    column_depth: int = 512
    plane_depth: int = 512
    byte_depth: int = 512
    param_depth: int = 1024
    program_depth: int = 1024
    logit_depth: int = 512

    def __post_init__(self) -> None:
        problems = []
        for name, (lo, hi) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not lo <= value <= hi:
                problems.append(f"'{name}' is {value!r}; it must be a whole number from {lo} to {hi}.")
        if not problems:
            problems += [
                f"'{name}' is {getattr(self, name)}; it must be a power of two."
                for name in _POWERS_OF_TWO
                if getattr(self, name) & (getattr(self, name) - 1)
            ]
            if self.slots % 3:
                problems.append(f"'slots' is {self.slots}; it must be a multiple of 3: fill places three taps a cycle.")
            if self.slot_channels not in (8, 16):
                problems.append(f"'slot_channels' is {self.slot_channels}; it must be 8 or 16.")
            elif self.slot_channels % self.rows:
                problems.append(
                    f"'rows' is {self.rows}; it must divide 'slot_channels' ({self.slot_channels}), so that row tiles"
                    " fill whole channel groups."
                )
            if self.rows % self.lane_rows:
                problems.append(f"'lane_rows' is {self.lane_rows}; it must divide 'rows' ({self.rows}).")
        if problems:
            raise InputError(problems, "engine")

    @property
    def word_bits(self) -> int:
        """D_K: bits of a word."""
        return self.slots * self.slot_channels

    @property
    def lanes(self) -> int:
        return self.lane_rows * self.columns

    @property
    def macs_per_cycle(self) -> int:
        """Binary multiply-accumulates per cycle."""
        return self.rows * self.columns * self.word_bits

    @property
    def beats(self) -> int:
        """Cycles that reading out one row tile takes."""
        return self.rows // self.lane_rows

    @property
    def rows_per_group(self) -> int:
        """Row tiles per channel group."""
        return self.slot_channels // self.rows

    @property
    def half_words(self) -> int:
        """Column words of one position tile at most."""
        return self.column_depth // 2

    @property
    def row_chunks(self) -> int:
        """64-bit words of one weight row in memory."""
        return -(-self.rows * self.word_bits // isa.WORD_BITS)

    @property
    def parts(self) -> int:
        """Partial counts of a dot unit: at most 48 bits each."""
        return next(
            parts
            for parts in range(1, self.word_bits + 1)
            if self.word_bits % parts == 0 and self.word_bits // parts <= 48
        )

    @property
    def name(self) -> str:
        """D_M x D_K x D_N."""
        return f"{self.rows}x{self.word_bits}x{self.columns}"

    @property
    def hash(self) -> int:
        """32-bit identity of shape and instruction set; what the engine register reads."""
        text = json.dumps({"device": isa.DEVICE_VERSION, **asdict(self)}, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def rtl_parameters(self) -> dict[str, int]:
        """Parameters of the RTL top by name."""
        return {
            "D_M": self.rows,
            "D_N": self.columns,
            "SLOTS": self.slots,
            "G": self.slot_channels,
            "PARTS": self.parts,
            "LANE_ROWS": self.lane_rows,
            "ACC_BITS": self.acc_bits,
            "WEIGHT_DEPTH": self.weight_depth,
            "COLUMN_DEPTH": self.column_depth,
            "PLANE_DEPTH": self.plane_depth,
            "BYTE_DEPTH": self.byte_depth,
            "PARAM_DEPTH": self.param_depth,
            "PROGRAM_DEPTH": self.program_depth,
            "LOGIT_DEPTH": self.logit_depth,
            "ENGINE_HASH": self.hash,
        }


def write_engine(engine: EngineConfig, path: Path) -> None:
    """Write an engine file (JSON)."""
    with whole_file(path) as part:
        part.write_text(json.dumps({"format": FORMAT, **asdict(engine)}, indent=2) + "\n", encoding="utf-8")


def read_engine(path: Path) -> EngineConfig:
    """Read an engine file.

    Raises:
        InputError: unreadable, not an engine file, unknown or missing parameters, values out of range.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read it: {error.strerror}.", str(path)) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InputError(
            "It is not JSON; an engine file is written by 'bitsmith search' or by hand.", str(path)
        ) from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise InputError(f'It is not an engine file: "format" must be "{FORMAT}".', str(path))
    names = [item.name for item in fields(EngineConfig)]
    problems = [
        f"'{name}' is not an engine parameter; known are {', '.join(names)}." for name in data if name not in names
    ]
    problems += [f"'{name}' is missing." for name in names if name not in data]
    if problems:
        raise InputError(problems, str(path))
    try:
        return EngineConfig(**data)
    except InputError as error:
        raise InputError(error.problems, str(path)) from None
