"""Networks from functions of one's own: they are called as the recipe says, and what fails in them is told with its line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hwgen.errors import InputError
from model.build import build_module
from model.settings import ModelSection


def test_a_factory_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine_net.py").write_text(
        "from torch import nn\n"
        "def make(width=4):\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))\n"
    )
    section = ModelSection.model_validate("mine_net:make")
    assert (section.network, section.name) == ("mine_net:make", "make")
    made: Any = build_module(section.model_copy(update={"options": {"width": 6}}), (1, 8, 8), 10)
    assert made[0].out_channels == 6
    torch.save(made.state_dict(), "weights.pt")
    again: Any = build_module(
        section.model_copy(update={"options": {"width": 6}, "weights": "weights.pt"}), (1, 8, 8), 10
    )
    assert torch.equal(again[0].weight, made[0].weight)
    for changes, part in (
        ({"weights": "weights.pt"}, "state dict of another network"),
        ({"options": {"depth": 6}}, r"does not take these options \(.*mine_net.py, line 2\): .*'depth'"),
        ({"network": "mine_net:other"}, "has no function 'other'"),
        ({"network": "no_such_net:make"}, "Cannot import 'no_such_net'"),
    ):
        with pytest.raises(InputError, match=part):
            build_module(section.model_copy(update=changes), (1, 8, 8), 10)


_BROKEN = """import helper_of_net
class Deep:
    def __init__(self, width):
        self.width = 8 / width
def call(width):
    return helper_of_net.per(width)
def convolve(width):
    from torch import nn
    return nn.Conv2d("a", width, 3)
"""


@pytest.mark.parametrize(
    ("text", "what", "said"),
    [
        (_BROKEN, "call", r"'call' failed at .*helper_of_net.py, line 2, with ZeroDivisionError: division by zero"),
        (_BROKEN, "convolve", r"'convolve' failed at .*broken_net.py, line 9, with TypeError: "),
        (_BROKEN, "Deep", r"'Deep' failed at .*broken_net.py, line 4, with ZeroDivisionError"),
        ("x = 1\nimport no_such_package\n", "call", r"at .*broken_net.py, line 2, with .*; install 'no_such_package'"),
        ("x = 1\ny = x.z\n", "call", r"it failed at .*broken_net.py, line 2, with AttributeError: 'int' object"),
        ("import sys\nsys.exit(3)\n", "call", r"it failed at .*broken_net.py, line 2, with SystemExit: 3; mend it"),
        ("def call(width):\n    exit()\n", "call", r"'call' failed at .*broken_net.py, line 2, with SystemExit"),
        ("x = 1\ndef call(:\n", "call", r"Cannot import 'broken_net': .*broken_net.py, line 2: invalid syntax"),
    ],
)
def test_what_fails_in_ones_own_code_is_told_with_its_line(
    text: str, what: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, content in (("broken_net", text), ("helper_of_net", "def per(width):\n    return 8 / width\n")):
        Path(f"{name}.py").write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
    section = ModelSection.model_validate(f"broken_net:{what}").model_copy(update={"options": {"width": 0}})
    with pytest.raises(InputError, match=said) as caught:
        build_module(section, (1, 8, 8), 10)
    assert caught.value.subject == f"model 'broken_net:{what}'" and caught.value.__cause__ is not None


def test_options_that_a_built_in_network_refuses_are_a_sentence() -> None:
    for options, said in (({"depth": 3}, "TypeError: .*'depth'"), ({"hidden": [-3]}, "RuntimeError: .*negative")):
        with pytest.raises(InputError, match=said):
            build_module(ModelSection(name="mlp", network="mlp", options=options), (1, 8, 8), 10)
