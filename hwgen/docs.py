"""Renders the tables of docs/engine.md from their definition. ``python -m hwgen.docs`` rewrites the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hwgen import isa

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
            (f"{lsb + field.width - 1}:{lsb}", f"`{field.name}`", field.meaning + (" (signed)" if field.signed else ""))
            for field, lsb in op.layout() if field not in isa.HEAD
        ]  # fmt: skip
        parts.append(_table(["bits", "field", "meaning"], rows))
    return "\n".join(parts)


def _registers() -> str:
    rows = [(f"{item.offset:#04x}", f"`{item.name}`", item.access, item.meaning) for item in isa.REGISTERS]
    return _table(["offset", "register", "access", "meaning"], rows)


def _errors() -> str:
    return _table(["code", "name", "meaning"], [(int(code), code.name, isa.ERROR_MEANING[code]) for code in isa.Error])


def render_docs(text: str) -> str:
    """The document with every rendered block replaced by its table."""
    makers = {"instructions": _instructions, "registers": _registers, "errors": _errors}
    return _BLOCK.sub(lambda match: f"{match[1]}{makers[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    ENGINE_DOC.write_text(render_docs(ENGINE_DOC.read_text(encoding="utf-8")), encoding="utf-8")
