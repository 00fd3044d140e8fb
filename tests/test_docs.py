"""The docs say what the code says: rendered tables are fresh, every field and setting is described, the examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from hwgen import isa, network_file
from hwgen.area import ram_halves
from hwgen.docs import ENGINE_DOC, render_docs
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network_file import read_network
from hwgen.program import assemble, disassemble
from hwgen.schedule import schedule
from model.docs import RECIPES, render_recipe
from model.recipe import Recipe, read_recipe
from model.train import STAGES
from sim import golden

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NETWORK_DOC = (DOCS / "network-format.md").read_text(encoding="utf-8")
SMALL = EngineConfig(rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, column_depth=1024)
OPS: dict[str, type[BaseModel]] = {
    "conv": network_file._ConvModel,
    "logits": network_file._LogitsModel,
    "requant": network_file._RequantModel,
    "maxpool": network_file._MaxPoolModel,
    "avgpool": network_file._AvgPoolModel,
    "shortcut_a": network_file._ShortcutModel,
}
EXTREMES = {  # by node of the example, numbers at the ends of the ranges that the document gives: (field, allowed, not allowed)
    "join": [("shift", 1, 0), ("shift", 31, 32), ("skip_mul", 0, -1), ("skip_mul", 2**24 - 1, 2**24)],
    "narrow": [("shift", 1, 0), ("shift", 31, 32), ("mul", 0, -1), ("mul", 2**17 - 1, 2**17)],
    "pool": [("shift", 1, 0), ("mul", 2**17 - 1, 2**17), ("bias", 2**46, 2**47)],
}


# ---------------------------------------------------------------- engine.md
def test_rendered_tables_are_fresh() -> None:
    text = ENGINE_DOC.read_text(encoding="utf-8")
    assert render_docs(text) == text, "docs/engine.md is stale: run python -m hwgen.docs"


@pytest.mark.parametrize("block", ["instructions", "registers", "errors", "example", "latencies"])
def test_every_table_is_rendered(block: str) -> None:
    text = ENGINE_DOC.read_text(encoding="utf-8")
    assert text.count(f"<!-- rendered: {block} -->\n") == 1
    damaged = re.sub(rf"(<!-- rendered: {block} -->\n).*?(<!-- end -->)", r"\1stale\n\2", text, flags=re.S)
    assert render_docs(damaged) == text


def test_every_field_register_and_error_is_in_the_engine_doc() -> None:
    text = ENGINE_DOC.read_text(encoding="utf-8")
    names = [f"`{field.name}`" for op in isa.OPCODES for field in op.fields]
    names += [f"`{register.name}`" for register in isa.REGISTERS] + [error.name for error in isa.Error]
    assert [name for name in names if name not in text] == []


def test_the_engine_doc_names_every_module_and_no_other() -> None:
    text = ENGINE_DOC.read_text(encoding="utf-8")
    modules = {path.name.split(".")[0] for path in (ROOT / "hls_templates" / "rtl").glob("bs_*")}
    table = text[text.index("## Modules") : text.index("## Stages")]
    assert set(re.findall(r"`(bs_\w+)`", table)) == modules


def test_the_example_in_words_is_the_example_in_the_table() -> None:
    text = ENGINE_DOC.read_text(encoding="utf-8")
    rows = {cells[1]: cells for line in text.splitlines() if (cells := [cell.strip() for cell in line.split("|")])[1:]}
    slots, _, column_words, words, row_tiles, tiles, fill, array, alone, _ = rows["3x3"][4:14]
    assert (slots, column_words, words, row_tiles, tiles) == ("18", "6", "12", "4", "4")
    assert f"= {fill} cycles a tile, the array {row_tiles} x {words} = {array}." in " ".join(text.split())
    assert f"{fill} + {tiles} x {array} = {alone} cycles" in text
    fill, array, alone = rows["1x1"][10:13]
    assert rows["1x1"][5:8] == ["merged", "1", "4"] and f"{fill} + 4 x {array} = {alone} cycles" in " ".join(text.split())


# ---------------------------------------------------------------- network-format.md
@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the document's code block writes."""
    monkeypatch.chdir(tmp_path)
    code: str = re.findall(r"```python\n(.*?)```", NETWORK_DOC, re.S)[0]
    imports = {line.split()[1] for line in code.splitlines() if line.startswith(("import", "from"))}
    assert imports == {"json", "pathlib", "numpy"}
    exec(compile(code, "network-format.md", "exec"), {})
    return tmp_path / "tiny"


def by_the_document(folder: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the hand-written network, from the document's formulas alone, in Python integers."""
    data, arrays = json.loads((folder / "network.json").read_text()), dict(np.load(folder / "tensors.npz"))
    maps = {data["input"]: image.tolist()}
    for node in data["nodes"]:
        x, out = maps[node["inputs"][0]], data["tensors"][node["output"]]
        (height, width, channels), bits, name = out["shape"], out["bits"], node["name"]
        stride, padding = node.get("stride", 1), node.get("padding", 0)
        source = data["tensors"][node["inputs"][0]]["shape"]
        made = [[[0] * channels for _ in range(width)] for _ in range(height)]
        for y, column, c in np.ndindex(height, width, channels):

            def at(
                i: int,
                j: int,
                d: int,
                y: int = y,
                column: int = column,
                x: list[list[list[int]]] = x,
                stride: int = stride,
                padding: int = padding,
                node: dict[str, Any] = node,
                source: list[int] = source,
            ) -> int:
                row, col = y * stride + i - padding, column * stride + j - padding
                inside = 0 <= row < source[0] and 0 <= col < source[1]
                pad: list[int] = node.get("pad_codes") or [0] * source[2]
                return x[row][col][d] if inside else pad[d]

            if node["op"] == "requant":
                value = (x[y][column][c] * node["mul"] + node["bias"]) >> node["shift"]
            elif node["op"] == "avgpool":
                kernel_h, kernel_w = node["kernel"]
                total = sum(at(i, j, c) for i in range(kernel_h) for j in range(kernel_w))
                value = (total * node["mul"] + node["bias"]) >> node["shift"]
            else:
                q = arrays[f"{name}.weight"][c].astype(int)
                t = q if node["encoding"] == "twos" else 2 * q - (2 ** node["weight_bits"] - 1)
                acc = sum(int(t[place]) * at(*place) for place in np.ndindex(*t.shape))
                bias = int(arrays[f"{name}.bias"][c])
                if node["op"] == "logits":
                    made[y][column][c] = acc + bias
                    continue
                skip = maps[node["inputs"][1]][y][column][c] * node["skip_mul"] if len(node["inputs"]) > 1 else 0
                value = (acc * int(arrays[f"{name}.mul"][c]) + skip + bias) >> node["shift"]
            made[y][column][c] = min(max(value, 0), 2**bits - 1)
        maps[node["output"]] = made
    return {name: np.array(values) for name, values in maps.items()}


def test_the_worked_example_computes_what_the_document_says(tiny: Path) -> None:
    network = read_network(tiny)
    images = np.random.default_rng(7).integers(0, 16, (2, 6, 6, 2), np.uint8)
    got = golden.run(network, images)
    for index, image in enumerate(images):
        want = by_the_document(tiny, image)
        assert want.keys() == got.keys()
        for name, values in want.items():
            assert np.array_equal(got[name][index], values), name
    for name in ("skip", "code", "sum", "mean", "logits"):  # an example whose codes all saturate shows nothing
        assert len(np.unique(got[name])) > 2, name


def test_the_worked_example_fits_a_small_engine(tiny: Path) -> None:
    plan = schedule(read_network(tiny), SMALL)
    assert [item.name for item in plan.passes] == ["stem", "join", "pool", "classifier"]  # requant is in its stem's pass
    assert disassemble(assemble(plan.program)).streams == plan.program.streams


@pytest.mark.parametrize(
    ("node", "field", "good", "bad"), [(node, *rest) for node in EXTREMES for rest in EXTREMES[node]]
)
def test_ranges_are_those_of_the_document(tiny: Path, node: str, field: str, good: int, bad: int) -> None:
    path = tiny / "network.json"
    data = json.loads(path.read_text())
    item = next(item for item in data["nodes"] if item["name"] == node)
    item[field] = good
    path.write_text(json.dumps(data))
    read_network(tiny)
    item[field] = bad
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"node '{node}', field '{field}'"):
        read_network(tiny)


@pytest.mark.parametrize("op", OPS)
def test_every_field_of_every_op_is_in_its_section(op: str) -> None:
    sections = dict(re.findall(r"### (\w+)\n(.*?)(?=\n##)", NETWORK_DOC, re.S))
    assert set(sections) == set(OPS)
    text = sections[op] + (sections["conv"] if op == "logits" else "")
    common = {"name", "op", "inputs", "output"}
    assert [name for name in OPS[op].model_fields if name not in common and f"`{name}`" not in text] == []
    everywhere = NETWORK_DOC[NETWORK_DOC.index("## network.json") : NETWORK_DOC.index("### conv")]
    assert [name for name in (*common, *network_file._FileModel.model_fields) if f"`{name}`" not in everywhere] == []


def test_the_ops_of_the_document_are_all_there_are() -> None:
    assert set(OPS) == set(network_file._OPS.values())


# ---------------------------------------------------------------- architecture.md
def test_figures_of_the_architecture_doc() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    engine = EngineConfig()
    assert (engine.columns, engine.slot_channels, engine.plane_depth) == (16, 16, 512)
    assert f"{ram_halves(16, 512) * 16 // 2} BRAM36 at 16 columns" in text


# ---------------------------------------------------------------- search.md
def recipe_tables() -> dict[str, tuple[str, str]]:
    """Default and meaning of every setting as docs/search.md has them, by section.name."""
    text = (DOCS / "search.md").read_text(encoding="utf-8")
    section, rows = "", {}
    for line in text[text.index("## Recipe") :].splitlines():
        if match := re.fullmatch(r"`\[(\w+)\]`", line):
            section = f"{match[1]}."
        elif match := re.fullmatch(r"\| `(\w+)` \| (.*?) \| (.*?) \|", line):
            rows[section + match[1]] = (match[2], match[3])
    return rows


def test_the_recipe_reference_is_the_recipe() -> None:
    want: dict[str, tuple[str, str | None]] = {}
    sections = {
        name: field.annotation
        for name, field in Recipe.model_fields.items()
        if name in ("model", "search", "train") and field.annotation is not None
    }
    for name, field in Recipe.model_fields.items():
        if name in sections:
            want[name] = ("(section)", str(sections[name].__doc__).split(": ", 1)[1].rstrip("."))
        else:
            want[name] = (repr(field.default), field.description)
    for section, model in sections.items():
        for name, field in model.model_fields.items():
            want[f"{section}.{name}"] = ("(required)" if field.is_required() else repr(field.default), field.description)
    got = recipe_tables()
    assert set(got) == set(want)
    assert {name: row[0] for name, row in got.items()} == {name: row[0] for name, row in want.items()}
    assert [name for name in want if name not in ("model", "search", "train") and got[name][1] != want[name][1]] == []


def test_the_search_doc_names_every_stage_and_key() -> None:
    text = (DOCS / "search.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\w+) \| .*\|$", text[text.index("## Stages") : text.index("## Recipe")], re.M)[1:] == list(
        STAGES
    )


# ---------------------------------------------------------------- all
@pytest.mark.parametrize("path", sorted([*DOCS.glob("*.md"), ROOT / "README.md"]), ids=lambda path: path.name)
def test_files_that_a_document_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [path.parent / name for name in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    sources = [ROOT / name for name in re.findall(r"`((?:hwgen|model|sim|tests|benchmarks|docs)/[\w/.-]+\.\w+)`", text)]
    assert [str(item) for item in links + sources if not item.exists()] == []


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_has_every_setting_with_its_sentence(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ") and render_recipe(read_recipe(path), text.splitlines()[0]) == text, (
        "python -m model.docs"
    )
