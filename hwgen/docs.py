"""Renders the tables of docs/engine.md from their definition. ``python -m hwgen.docs`` rewrites the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hwgen import cycles, isa
from hwgen.engine import EngineConfig
from hwgen.fill import run_operations, tile_runs
from hwgen.lower import lower
from hwgen.network import Conv, Encoding, Logits, Network, Tensor
from hwgen.passes import ArrayPass
from hwgen.plan import choose_words
from hwgen.schedule import tile_cycles

ENGINE_DOC = Path(__file__).resolve().parent.parent / "docs" / "engine.md"
_BLOCK = re.compile(r"(<!-- rendered: (\w+) -->\n).*?(<!-- end -->)", re.S)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _instructions() -> str:
    parts = [f"An instruction has {isa.WORDS} words of {isa.WORD_BITS} bits. Every instruction begins with:\n"]
    head = [(0 if at == 0 else isa.HEAD[0].width, field) for at, field in enumerate(isa.HEAD)]
    parts.append(
        _table(["bits", "field", "meaning"], [(f"{lsb + f.width - 1}:{lsb}", f.name, f.meaning) for lsb, f in head])
    )
    for op in isa.OPCODES:
        stage = op.stage.name.lower().replace("_", "-")
        parts.append(f"\n### {op.name} ({op.code:#04x}, {stage})\n\n{op.meaning[0].upper()}{op.meaning[1:]}.\n")
        rows = [
            (f"{lsb + field.width - 1}:{lsb}", f"`{field.name}`", field.meaning + (" (signed)" if field.signed else " (not 0)" if field.positive else ""))
            for field, lsb in op.layout() if field not in isa.HEAD
        ]  # fmt: skip
        parts.append(_table(["bits", "field", "meaning"], rows))
    return "\n".join(parts)


def _registers() -> str:
    rows = [(f"{item.offset:#04x}", f"`{item.name}`", item.access, item.meaning) for item in isa.REGISTERS]
    return _table(["offset", "register", "access", "meaning"], rows)


def _errors() -> str:
    return _table(["code", "name", "meaning"], [(int(code), code.name, isa.ERROR_MEANING[code]) for code in isa.Error])


def example_network() -> Network:
    """The network of the mapping example: a stem and two layers of 32 channels on an 8x8 map, all weights of 2 bits."""
    tensors = [Tensor("image", (8, 8, 3), 8), *(Tensor(name, (8, 8, 32), 3) for name in ("a", "b", "c"))]
    tensors.append(Tensor("logits", (1, 1, 10), 32, True))

    def conv(name: str, source: str, output: str, kernel: int, channels: int) -> Conv:
        return Conv(
            name=name,
            inputs=(source,),
            output=output,
            weight=np.zeros((32, kernel, kernel, channels), np.int16),
            weight_bits=2,
            encoding=Encoding.BIPOLAR,
            bias=np.zeros(32, np.int64),
            padding=kernel // 2,
            mul=np.ones(32, np.int32),
            shift=8,
        )

    classifier = Logits(
        name="linear",
        inputs=("c",),
        output="logits",
        weight=np.zeros((10, 8, 8, 32), np.int16),
        weight_bits=2,
        encoding=Encoding.BIPOLAR,
        bias=np.zeros(10, np.int64),
    )
    nodes = (conv("stem", "image", "a", 3, 3), conv("3x3", "a", "b", 3, 32), conv("1x1", "b", "c", 1, 32), classifier)
    return Network("example", {tensor.name: tensor for tensor in tensors}, nodes, "image", "logits")


def _example() -> str:
    engine = EngineConfig()
    rows = []
    for item in lower(example_network(), engine):
        assert isinstance(item, ArrayPass)
        words = choose_words(item, engine)
        tiles = -(-item.window.positions // engine.columns)
        operations = run_operations(words, item.window, engine.slots, depthwise=item.depthwise)
        runs = max(tile_runs(item.window, engine.columns))
        rows.append(
            (
                item.name,
                f"{item.source.shape[2]} > {item.channels_out}",
                f"W{item.weight_bits}A{item.source.bits}",
                words.pair_slots,
                "nibbles" if words.nibbles else "merged" if words.merged else "plain",
                words.column_words,
                words.row_words,
                words.row_tiles,
                tiles,
                runs * operations,
                words.row_tiles * max(words.row_words, tile_cycles(item, engine)),
                cycles.isolated_cycles(item, engine, item.weight_bits, item.source.bits),
                cycles.layer_bound(item, engine),
            )
        )
    head = ["layer", "channels", "bits", "slots", "words", "column words", "row words", "row tiles", "position tiles"]
    return _table([*head, "fill a tile", "array a tile", "alone", "bound"], rows)


def _latencies() -> str:
    rows = [
        ("`bs_fill`: instruction taken to first operation", cycles._FILL_START),
        ("`bs_fill`: last operation of a tile to the tile being ready for issue", cycles._FILLED),
        ("`bs_issue`: last word of a tile to its words being free for `bs_fill`", cycles._RELEASED),
        ("array: last word of a row tile issued to its first beat in write-back", cycles._READ_OUT + 1),
        ("`bs_write_back`: last beat to the token, and one for each plane", cycles._STORED),
        ("`bs_pool`: start of the walker to the first operation", cycles._POOL_START),
        ("`bs_pool`: last operation of a beat to its entry into the lanes", cycles._POOL_BEAT),
        ("`bs_pool`: last operation to the token, and one for each plane", cycles._POOL_STORED),
        ("`bs_stage_queue`: least time between two instructions of a stage", cycles._QUEUE),
    ]
    return _table(["from, to", "cycles"], rows)


def render_docs(text: str) -> str:
    """The document with every rendered block replaced by its table."""
    makers = {
        "instructions": _instructions,
        "registers": _registers,
        "errors": _errors,
        "example": _example,
        "latencies": _latencies,
    }
    return _BLOCK.sub(lambda match: f"{match[1]}{makers[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    ENGINE_DOC.write_text(render_docs(ENGINE_DOC.read_text(encoding="utf-8")), encoding="utf-8")
