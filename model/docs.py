"""Renders the recipe reference of docs/search.md, and the sentence above each setting of examples/recipes/, from the
recipe's own fields: ``python -m model.docs``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from model.recipe import Recipe, read_recipe

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"
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


def _settings(values: BaseModel, skip: set[str]) -> list[str]:
    """A comment and a line for each setting of a section; those without a value are comments alone."""
    lines = []
    for name, field in type(values).model_fields.items():
        value: Any = getattr(values, name)
        if name in skip or isinstance(value, BaseModel):
            continue
        lines.append(f"# {(field.description or '')[:1].upper()}{(field.description or '')[1:]}.")
        plain = values.model_dump(mode="json")[name]
        lines.append(f"# {name} =" if plain is None or plain == {} else f"{name} = {_toml(plain)}")
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def render_recipe(recipe: Recipe, head: str) -> str:
    """A recipe file with every setting and what it means; ``head`` is its first line, a comment."""
    shape = set() if recipe.model.network == "resnet" else {"stem", "stages"}
    parts = [head, *_settings(recipe, set())]
    for name, skip in (("model", shape), ("search", {"layers"}), ("train", set[str]())):
        parts += ["", f"[{name}]", *_settings(getattr(recipe, name), skip)]
        rules = recipe.search.layers if name == "search" else {}
        for pattern, rule in rules.items():
            parts += ["", f"[search.layers.{json.dumps(pattern)}]", *_settings(rule, set())]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    SEARCH_DOC.write_text(render_docs(SEARCH_DOC.read_text(encoding="utf-8")), encoding="utf-8")
    for path in RECIPES.glob("*.toml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        path.write_text(render_recipe(read_recipe(path), first), encoding="utf-8")
