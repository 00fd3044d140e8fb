"""The one definition of instructions, registers and error codes.

The SystemVerilog package, the assembler, the disassembler, the driver and the tables of docs/engine.md are
all rendered from the tables here. An instruction is ``WORDS`` 64-bit little-endian words; its fields are packed
from bit 0 upwards in the order in which they are listed, the common head first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

WORD_BITS = 64
WORDS = 8
INSTRUCTION_BITS = WORD_BITS * WORDS
PAD_PLANE_BITS = 16
SUM_GROUPS = 256  # groups of lane_rows channels whose codes write-back can add up
SUM_BITS = 18  # of such a sum, sign included

PROGRAM_MAGIC = 0x314D5342  # "BSM1", little-endian
PROGRAM_VERSION = 1
PROGRAM_END = 0x444E4531_4D534221  # last word of a program
HEADER_WORDS = 8
DEVICE_ID = 0x42534D31  # what the identity register reads
DEVICE_VERSION = 0x00010000


class Stage(IntEnum):
    """Which of the three instruction queues an instruction belongs to."""

    FETCH = 0
    EXECUTE = 1
    WRITE_BACK = 2


class Error(IntEnum):
    """What the error register says after the engine has stopped."""

    NONE = 0
    PROGRAM_MAGIC = 1
    PROGRAM_ENGINE = 2
    PROGRAM_LENGTH = 3
    PROGRAM_END = 4
    ILLEGAL_OPCODE = 5
    AXI_READ = 6
    AXI_WRITE = 7
    WATCHDOG = 8
    BUSY = 9
    ADDRESS = 10


ERROR_MEANING: Mapping[Error, str] = {
    Error.NONE: "no error",
    Error.PROGRAM_MAGIC: "the program does not begin with the program header of this version",
    Error.PROGRAM_ENGINE: "the program was assembled for another engine shape",
    Error.PROGRAM_LENGTH: "the program holds more instructions than the engine's program memory",
    Error.PROGRAM_END: "the program ends early: its end word is missing",
    Error.ILLEGAL_OPCODE: "an instruction has an opcode that its stage does not know",
    Error.AXI_READ: "a memory read was answered with SLVERR or DECERR",
    Error.AXI_WRITE: "a memory write was answered with SLVERR or DECERR",
    Error.WATCHDOG: "no stage made progress for the number of cycles in the watchdog register",
    Error.BUSY: "start was written while the engine was running",
    Error.ADDRESS: "an instruction addresses an on-chip row beyond its buffer, or one of its counts is zero",
}


@dataclass(frozen=True)
class Field:
    """``width`` bits of an instruction; two's complement where ``signed``. Where ``positive``, the loader refuses zero."""

    name: str
    width: int
    meaning: str
    signed: bool = False
    positive: bool = False

    @property
    def lo(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1


@dataclass(frozen=True)
class Opcode:
    """One kind of instruction: its code, the stage that runs it and its fields after the head."""

    name: str
    code: int
    stage: Stage
    meaning: str
    fields: tuple[Field, ...]

    def layout(self) -> Iterator[tuple[Field, int]]:
        """Every field, head included, with the position of its lowest bit."""
        lsb = 0
        for item in HEAD + self.fields:
            yield item, lsb
            lsb += item.width

    @property
    def used_bits(self) -> int:
        return sum(item.width for item in HEAD + self.fields)


HEAD = (
    Field("opcode", 8, "which instruction"),
    Field("layer", 8, "index of the layer, for counters and monitors"),
)


def _wait(name: str, meaning: str) -> tuple[Field, Field]:
    """A token count; the first image, which finds every buffer free, has one of its own."""
    return Field(name, 8, meaning), Field(f"{name}_first", 8, f"{name} for the first image")


_GEOMETRY = (
    Field("in_base", 16, "first row of the source map in its buffer"),
    Field("in_pitch", 16, "rows from one channel group (and plane) of the source map to the next"),
    Field("in_width", 10, "width of the source map in pixels"),
    Field("in_height", 10, "height of the source map in pixels"),
    Field("kernel_h", 4, "window height in pixels", positive=True),
    Field("kernel_w", 4, "window width in pixels", positive=True),
    Field("stride", 4, "window step in pixels"),
    Field("pad", 4, "rows above and columns left of the map that the first window covers"),
    Field("out_width", 10, "width of the produced map in positions"),
    Field("out_height", 10, "height of the produced map in positions"),
    Field("start_x", 10, "column of the band's first output position"),
    Field("start_y", 10, "row of the band's first output position"),
    Field("tiles", 16, "position tiles of the band; a tile is D_N consecutive output positions", positive=True),
    Field("row_tiles", 10, "output channel tiles; a tile is D_M channels", positive=True),
)

_RING = Field("ring", 4, "logarithm of in_pitch where the source lies in a ring of rows (in_base a multiple); 0: whole")

_STORE = (
    Field("start_tile", 16, "index of the band's first position tile, counted over the whole map"),
    Field("store_bytes", 1, "write the codes to the byte buffer"),
    Field("byte_base", 16, "first row of the produced map in the byte buffer"),
    Field("byte_pitch", 16, "rows from one channel group of the produced byte map to the next"),
    Field("byte_requant", 1, "bytes hold the code after the second rounding, else before"),
    Field("store_planes", 1, "write bit planes to the plane buffer"),
    Field("plane_base", 16, "first row of the produced map in the plane buffer"),
    Field("plane_pitch", 16, "rows from one plane of the produced map to the next"),
    Field("plane_bits", 4, "planes written: bits of the stored code, 1 to 8"),
    Field("plane_flip", 1, "invert the top plane: signed codes are stored in offset binary"),
    Field("requant", 1, "planes hold clip((j*rq_mul + rq_bias) >> rq_shift, rq_lo, rq_hi) of the code j, else j itself"),
    Field("rq_mul", 18, "multiplier of the second rounding", signed=True),
    Field("rq_bias", 32, "bias of the second rounding", signed=True),
    Field("rq_shift", 5, "arithmetic shift of the second rounding, 0 to 31"),
    Field("rq_lo", 9, "lowest code of the second rounding", signed=True),
    Field("rq_hi", 9, "highest code of the second rounding", signed=True),
)

OPCODES: tuple[Opcode, ...] = (
    Opcode(
        "load_weights",
        0x10,
        Stage.FETCH,
        "copy weight rows (D_M*D_K bits each) from memory to the weight buffer",
        (
            *_wait("wait_issue", "tokens to take from issue (weights consumed) before the start"),
            Field("post_issue", 1, "give issue a token at the end"),
            Field("offset", 32, "bytes from the program's start to the first row; a multiple of 8"),
            Field("rows", 16, "weight rows to copy, at least 1"),
            Field("base", 16, "first row in the weight buffer"),
        ),
    ),
    Opcode(
        "load_params",
        0x11,
        Stage.FETCH,
        "copy per-channel multipliers and biases from memory to the parameter buffer",
        (
            *_wait("wait_issue", "tokens to take from issue before the start"),
            Field("post_issue", 1, "give issue a token at the end"),
            Field("offset", 32, "bytes from the program's start to the first channel; a multiple of 8"),
            Field("channels", 16, "channels to copy, two words each: bias, then multiplier"),
            Field("base", 16, "first channel in the parameter buffer, a multiple of the channels per beat"),
        ),
    ),
    Opcode(
        "load_image",
        0x12,
        Stage.FETCH,
        "copy an image or a part of it from memory, cut it into bit planes, write them to the plane buffer",
        (
            *_wait("wait_fill", "tokens to take from fill (image consumed) before the start"),
            Field("post_fill", 1, "give fill a token at the end"),
            Field("pixels", 20, "pixels to copy, whole rows of the plane buffer but for the last part"),
            Field("first_pixel", 20, "pixels of the image before them, a multiple of 8"),
            Field("offset", 32, "bytes of the image before them where it lies as (H, W, C)"),
            Field("image_pixels", 20, "pixels of the whole image"),
            Field("image_last", 1, "the last part of its image: what is loaded next is of the next image"),
            Field("channels", 12, "channels of the image"),
            Field("bits", 4, "planes to cut, 1 to 8"),
            Field("base", 16, "first row in the plane buffer"),
            Field("pitch", 16, "rows from one plane to the next"),
            Field("nibbles", 1, "a plane holds four bits of each channel: channel c in bits 4c to 4c+3"),
        ),
    ),
    Opcode(
        "conv",
        0x20,
        Stage.EXECUTE,
        "convolve a band of output positions: fill the column buffer tile by tile, run the array over it",
        (
            *_wait("wait_fetch", "tokens fill takes from fetch (image ready) before the start"),
            *_wait("wait_write_back", "tokens fill takes from write-back (map rows ready) before the start"),
            *_wait("wait_weights", "tokens issue takes from fetch (weights ready) before the start"),
            Field("post_fetch", 1, "fill gives fetch a token once the source is read"),
            Field("post_write_back", 1, "fill gives write-back a token once the source is read"),
            Field("post_weights", 1, "issue gives fetch a token once the weights are read"),
            *_GEOMETRY,
            _RING,
            Field("in_groups", 10, "channel groups of the source, G channels each", positive=True),
            Field("in_bits", 4, "planes of the source, 1 to 8", positive=True),
            Field("last_channels", 6, "channels in the last group, 1 to G"),
            Field("pad_full", 8, "value of each plane outside the map, groups before the last"),
            Field("pad_planes", 8 * PAD_PLANE_BITS, "per plane, per channel: value outside the map, last group"),
            Field("weight_base", 16, "first row of the weights"),
            Field("weight_bits", 4, "weight planes, 1 to 9", positive=True),
            Field("weight_pitch", 16, "weight rows of one row tile"),
            Field("pooled", 1, "tiles are D_N/4 windows of 2x2 positions; out_width, out_height and start count windows"),
            Field("merged", 1, "words hold the slots of all planes one after the other; weight rows per significance"),
            Field("nibbles", 1, "a plane of the source holds four bits of each channel (merged words only)"),
            Field("significances", 5, "weight bits + source bits - 1 (merged words only)"),
            Field("column_words", 10, "column words of a position tile"),
            Field("plane_words", 10, "words of one plane (depthwise: of one group); merged: words that a plane fills"),
            Field("plane_rest", 5, "merged: slots of a plane beyond plane_words whole words"),
            Field("column_pitch", 10, "column words of one activation plane, all groups (not merged)"),
            Field("depthwise", 1, "each row tile reads only the words of its own channel group"),
            Field("negative_top", 1, "the top weight plane counts negative"),
            Field("tile_cycles", 8, "least cycles between two row tiles, for the read-out to keep up"),
        ),
    ),
    Opcode(
        "conv_out",
        0x30,
        Stage.WRITE_BACK,
        "requantise what the array produces for one conv instruction and store it",
        (
            *_wait("wait_fill", "tokens to take from fill (destination free) before the start"),
            Field("post_fill", 1, "give fill a token once everything is stored"),
            Field("fence", 1, "start only when everything before is stored"),
            Field("tiles", 16, "position tiles of the band", positive=True),
            Field("row_tiles", 10, "output channel tiles", positive=True),
            Field("bipolar", 1, "accumulators are 2S - U, else S"),
            Field("logits", 1, "send acc + bias to memory instead of storing codes"),
            Field("logits_last", 1, "with its last beat the image's logits are complete"),
            Field("param_base", 16, "first channel in the parameter buffer"),
            Field("shift", 5, "arithmetic shift of the rounding, 0 to 31"),
            Field("lo", 9, "lowest code", signed=True),
            Field("hi", 9, "highest code", signed=True),
            Field("skip", 1, "add skip * skip_mul before the rounding"),
            Field("skip_signed", 1, "skip codes are signed bytes"),
            Field("skip_mul", 24, "multiplier of the skip codes"),
            Field("skip_base", 16, "first row of the skip map in the byte buffer"),
            Field("skip_pitch", 16, "rows from one channel group of the skip map to the next"),
            Field("skip_zero_groups", 10, "groups of LANE_ROWS channels before the skip map's first"),
            Field("skip_groups", 10, "groups of LANE_ROWS channels that the skip map has"),
            Field("sums", 1, "add up the stored bytes of every channel over the map"),
            Field("sum_group", 10, "group of LANE_ROWS channels whose sums the band's first channels add to"),
            Field("sums_signed", 1, "the bytes are signed"),
            Field("sums_columns", 6, "positions in the band's last tile"),
            Field("from_sums", 1, "take the sums of the layer before (one position) instead of the array's results"),
            Field(
                "pooled",
                1,
                "store the maximum of each window of 2x2 positions; planes from the top, so pitch is negative",
            ),
            Field("subsample", 1, "store the bytes of every second position of every second row, as a map of their own"),
            Field("row_position_tiles", 6, "subsample: position tiles of a map row"),
            *_STORE,
        ),
    ),
    Opcode(
        "pool",
        0x31,
        Stage.WRITE_BACK,
        "maximum over windows of a byte map; with a 1x1 window a subsampled or requantised copy",
        (
            *_wait("wait_fill", "tokens to take from fill (destination free) before the start"),
            Field("post_fill", 1, "give fill a token once everything is stored"),
            *_GEOMETRY,
            _RING,
            Field("in_signed", 1, "codes are signed bytes"),
            Field("in_groups", 12, "channel groups of the source, LANE_ROWS channels each"),
            Field("zero_groups", 12, "channel groups of zeros in front of the copied ones"),
            *_STORE,
        ),
    ),
)

BY_CODE: Mapping[int, Opcode] = {op.code: op for op in OPCODES}
BY_NAME: Mapping[str, Opcode] = {op.name: op for op in OPCODES}


@dataclass(frozen=True)
class Register:
    """A 32-bit register of the AXI4-Lite port at byte ``offset``; ``access`` is "ro" or "rw"."""

    name: str
    offset: int
    access: str
    meaning: str


REGISTERS: tuple[Register, ...] = (
    Register("id", 0x00, "ro", f"identity, {DEVICE_ID:#010x}"),
    Register("version", 0x04, "ro", "version of register map and instruction set, major in the upper half"),
    Register("engine", 0x08, "ro", "hash of the engine shape; a program names the one it was made for"),
    Register(
        "control", 0x0C, "rw", "bit 0: start (writes only); bit 1: stop and reset (writes only); bit 2: interrupt enable"
    ),
    Register(
        "status", 0x10, "ro", "bit 0: busy; bit 1: done; bit 2: error; reading leaves it, start clears done and error"
    ),
    Register("error", 0x14, "ro", "error code of the last run"),
    Register("error_info", 0x18, "ro", "stage in bits 31:24, layer in 23:16, opcode in 7:0 of the failing instruction"),
    Register("watchdog", 0x1C, "rw", "cycles without progress before the run is stopped; 0: never"),
    Register("program_addr", 0x20, "rw", "byte address of the program, a multiple of 4096"),
    Register("image_addr", 0x24, "rw", "byte address of the first image, a multiple of 8"),
    Register("image_stride", 0x28, "rw", "bytes from one image to the next, a multiple of 8"),
    Register("output_addr", 0x2C, "rw", "byte address of the first image's logits, a multiple of 8"),
    Register("output_stride", 0x30, "rw", "bytes from one image's logits to the next, a multiple of 8"),
    Register("image_count", 0x34, "rw", "images to run, at least 1"),
    Register("image_planar", 0x38, "rw", "bit 0: images are (C, H, W), else (H, W, C)"),
    Register("images_done", 0x40, "ro", "images whose logits are in memory"),
    Register("cycles", 0x44, "ro", "cycles since start, while busy"),
    Register("fetch_cycles", 0x48, "ro", "cycles in which fetch worked on an instruction"),
    Register("fill_cycles", 0x4C, "ro", "cycles in which fill wrote slots"),
    Register("issue_cycles", 0x50, "ro", "cycles in which the array took a word"),
    Register("write_back_cycles", 0x54, "ro", "cycles in which write-back took a beat"),
    Register("read_beats", 0x58, "ro", "64-bit words read from memory"),
    Register("write_beats", 0x5C, "ro", "64-bit words written to memory"),
    Register("layer", 0x60, "ro", "layers that fetch, fill, issue and write-back work on, 8 bits each, fetch lowest"),
)


def counts() -> Iterator[tuple[Opcode, Field, int, int]]:
    """Every field that must not be zero, with the word that it ends in and its mask there.

    The mask covers that word in bits 64 to 127 and the word before it in bits 0 to 63.
    """
    for op in OPCODES:
        for item, lsb in op.layout():
            if item.positive:
                word = (lsb + item.width - 1) // WORD_BITS
                yield op, item, word, ((1 << item.width) - 1) << (lsb - WORD_BITS * (word - 1))
