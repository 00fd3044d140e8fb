"""The docs say what the code says: rendered tables are fresh, every recipe setting is described."""

from pathlib import Path

from hwgen import isa
from hwgen.docs import ENGINE_DOC, render_docs
from model.recipe import Recipe

DOCS = Path(__file__).parent.parent / "docs"


def test_rendered_tables_are_fresh():
    text = ENGINE_DOC.read_text(encoding="utf-8")
    assert render_docs(text) == text, "docs/engine.md is stale: run python -m hwgen.docs"


def test_every_field_register_and_error_is_in_the_engine_doc():
    text = ENGINE_DOC.read_text(encoding="utf-8")
    names = [f"`{field.name}`" for op in isa.OPCODES for field in op.fields]
    names += [f"`{register.name}`" for register in isa.REGISTERS] + [error.name for error in isa.Error]
    assert [name for name in names if name not in text] == []


def test_every_recipe_setting_is_in_the_search_doc():
    text = (DOCS / "search.md").read_text(encoding="utf-8")
    sections = {
        "": Recipe,
        **{name: field.annotation for name, field in Recipe.model_fields.items() if name in ("model", "search", "train")},
    }
    names = [name for section in sections.values() for name in section.model_fields]
    assert [name for name in names if f"`{name}`" not in text] == []
