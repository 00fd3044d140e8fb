"""Renders the recipe reference of docs/search.md from the recipe's own fields: ``python -m model.docs``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from model.recipe import Recipe

SEARCH_DOC = Path(__file__).parent.parent / "docs" / "search.md"
_BEGIN, _END = "<!-- rendered: recipe -->\n", "<!-- end -->"


def _table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows])


def recipe_reference() -> str:
    """A table per section: setting, default, meaning."""
    top: list[tuple[str, str, str]] = []
    parts: list[str] = []
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            top.append((name, repr(field.default), field.description or ""))
            continue
        top.append((name, "(section)", (section.__doc__ or "").split(": ", 1)[1].rstrip(".")))
        rows = [
            (key, "(required)" if item.is_required() else repr(item.default), item.description or "")
            for key, item in section.model_fields.items()
        ]
        parts.append(f"`[{name}]`\n\n{_table(rows)}")
    return "\n\n".join([_table(top), *parts])


def render_docs(text: str) -> str:
    """The document with a fresh recipe reference."""
    head, rest = text.split(_BEGIN, 1)
    return f"{head}{_BEGIN}{recipe_reference()}\n{_END}{rest.split(_END, 1)[1]}"


if __name__ == "__main__":
    SEARCH_DOC.write_text(render_docs(SEARCH_DOC.read_text(encoding="utf-8")), encoding="utf-8")
