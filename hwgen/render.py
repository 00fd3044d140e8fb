"""Rendering of the templates in ``hls_templates``: pure, the same input gives the same bytes.

The delimiters are ``@{ }``, ``/*% %*/`` and ``/*# #*/``: they do not clash with SystemVerilog or C++ and look
like comments to an editor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from hwgen import isa, popcount, popcount_proof
from hwgen.engine import EngineConfig


@dataclass(frozen=True)
class Member:
    """A field as a member of a packed struct."""

    name: str
    range: str


@dataclass(frozen=True)
class OpcodeView:
    """An opcode as its packed struct: members from the highest bit down."""

    name: str
    code: int
    meaning: str
    unused_msb: int
    members: tuple[Member, ...]


def _member(field: isa.Field) -> Member:
    sign = " signed" if field.signed else ""
    width = f" [{field.width - 1}:0]" if field.width > 1 else ""
    return Member(field.name, sign + width)


def _view(op: isa.Opcode) -> OpcodeView:
    members = tuple(_member(field) for field, _ in reversed(list(op.layout())))
    return OpcodeView(op.name, op.code, op.meaning, isa.INSTRUCTION_BITS - op.used_bits - 1, members)


def template_folder() -> Traversable:
    """The folder of templates and of the RTL that needs no rendering."""
    return files("hls_templates")


@cache
def _environment() -> Environment:
    def load(name: str) -> str:
        return template_folder().joinpath(*name.split("/")).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        variable_start_string="@{",
        variable_end_string="}",
        block_start_string="/*%",
        block_end_string="%*/",
        comment_start_string="/*#",
        comment_end_string="#*/",
    )
    # Input of a level's register: level_1[3] -> level_1_d[3].
    environment.filters["d_of"] = lambda bit: bit.replace("[", "_d[")
    environment.filters["flatten"] = lambda rows: [bit for row in rows for bit in row]
    return environment


def render(template: str, **context: Any) -> str:
    """Render ``hls_templates/<template>``; a name that the context lacks is an error."""
    return _environment().get_template(template).render(**context)


def render_package() -> str:
    """The SystemVerilog package of encodings, the same for every engine shape."""
    return render(
        "rtl/bs_pkg.sv.j2",
        isa=isa,
        head=[_member(field) for field in reversed(isa.HEAD)],
        opcodes=[_view(op) for op in isa.OPCODES],
    )


def render_popcount(width: int) -> str:
    """The population counter of words of ``width`` bits on 7-series primitives."""
    return render("rtl/bs_popcount_xc7.sv.j2", plan=popcount_proof.prove(popcount.plan(width)))


def render_sources(engine: EngineConfig, board: str, version: str) -> dict[str, str]:
    """Every RTL source of an engine by file name, in compile order: package, modules, top."""
    folder = template_folder().joinpath("rtl")
    modules = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sv"))
    sources = {"bs_pkg.sv": render_package()}
    sources |= {name: folder.joinpath(name).read_text(encoding="utf-8") for name in modules}
    sources["bs_popcount_xc7.sv"] = render_popcount(engine.word_bits)
    sources["bs_top.sv"] = render("rtl/bs_top.sv.j2", engine=engine, board=board, version=version)
    return sources
