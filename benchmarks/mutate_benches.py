"""The benches of single modules, on mutants that whole engines do not notice. Part of ``make mutate``.

A bench runs on the same netlist as the engine, with one module as the top and the parameters that the engine gives it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sim import verilator
from sim.verilator import BuildError, SimBuild

BENCHES = Path(__file__).resolve().parent.parent / "tests" / "rtl"
WHERE = dict.fromkeys(("bs_less", "bs_clip", "bs_mac", "bs_value"), "bs_lane") | dict.fromkeys(
    ("bs_popcount", "bs_accumulator"), "bs_array"
)
"""Modules that the bench of another one holds; the others have their own or none."""
_SECONDS = 120


def parameters_of(design: str, module: str) -> dict[str, int]:
    """What a module of a design in RTLIL was elaborated with: numbers, as ``2048`` or ``1'1``."""
    body = design.partition(f"\nmodule \\{module}\n")[2].partition("\nend\n")[0]
    found = re.findall(r"^  parameter \\(\w+) (?:(\d+)|\d+'([01]+))$", body, re.M)
    return {name: int(plain) if plain else int(bits, 2) for name, plain, bits in found}


@dataclass
class Benches:
    """Compiled when they are first asked for.

    netlist: every module with its mutants, as Yosys writes it. design: its RTLIL. names: of the modules to run, by their names
    in the sources. drive: makes the select port of a module a variable. chooser: C++ that sets it. variable: of the
    environment, with the number of the mutant.
    """

    netlist: Path
    design: Path
    names: dict[str, str]
    drive: Callable[[str, str], str]
    chooser: Path
    variable: str
    _built: dict[str, SimBuild | None] = field(default_factory=dict)

    def fails(self, base: str, mutant: int) -> bool:
        """Whether the bench for a module of the sources fails on a mutant; never where it does not run on the netlist at all."""
        top = WHERE.get(base, base)
        if top not in self._built:
            self._built[top] = self._build(top)
            if not self._passes(top, 0):
                self._built[top] = None
        return self._built[top] is not None and not self._passes(top, mutant)

    def _build(self, top: str) -> SimBuild | None:
        if not (BENCHES / f"tb_{top.removeprefix('bs_')}.py").is_file():
            return None
        made = self.netlist.with_name(f"bench_{top}.sv")
        draft = made.with_suffix(f".{os.getpid()}")  # other processes may want it at the same time
        draft.write_text(self.drive(self.netlist.read_text(encoding="utf-8"), self.names[top]), encoding="utf-8")
        draft.replace(made)
        try:
            return verilator.build([made, self.chooser], self.names[top], public=())
        except BuildError:
            return None

    def _passes(self, top: str, mutant: int) -> bool:
        build = self._built[top]
        if build is None:
            return False
        values = parameters_of(self.design.read_text(encoding="utf-8"), self.names[top])
        env = {self.variable: str(mutant), "BITSMITH_PARAMETERS": json.dumps(values)}
        folder = self.netlist.parent / f"{top}-{mutant}-{os.getpid()}"
        return build.test(
            f"tb_{top.removeprefix('bs_')}", folder, env=env, python_path=[BENCHES], timeout_s=_SECONDS
        ).passed
