"""Mutants of the Python that makes and checks programs: encoder, planner, golden model and exporter. Part of ``make mutate``.

A mutant changes one place of a module's syntax tree as the module is imported: a comparison, a sign, a constant, ``and`` for ``or``.
Each runs in a process forked from this one, which has imported libraries but nothing of bitsmith; no file is changed.

    python -m benchmarks.mutate_python LIBRARY OUT     # LIBRARY: the compiled engine of benchmarks.mutate
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from benchmarks.survivors import find, source_line

ROOT = Path(__file__).resolve().parent.parent
SEED = 1
SECONDS = 120
"""For one mutant; what hangs is noticed too."""
MEMORY = 6 << 30
"""Bytes of address space of one mutant: some loop and collect without end."""
NETWORKS = (103, 108, 121, 1553, 815, 2065, 401, 1481)
"""Seeds of random networks whose programs the engine runs: 1553 pools planes as it stores them, the weights of 815 are all loaded
for every image, the last three run in strips, and divide passes with skip and sums."""


@dataclass(frozen=True)
class Target:
    """modules: what is mutated. tests: arguments of pytest. programs: also run programs on the engine."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    programs: bool


TARGETS = (
    Target("python encoder", ("hwgen.isa", "hwgen.program", "hwgen.words"), (
        "tests/test_hwgen_program.py", "tests/test_hwgen_isa.py",
        "-k", "instruction or disassemble or refused or fields or codes or truncation or package or test_hwgen_isa"), True),
    Target("python planner", ("hwgen.plan", "hwgen.passes", "hwgen.schedule"), (
        "tests/test_hwgen_program.py", "tests/test_hwgen_planner.py",
        "-k", "bands or tokens or maps or tile_bound or column_buffer or weights or bias or passes or test_hwgen_planner"), True),
    Target("python golden model", ("sim.golden",), ("tests/test_sim_golden.py",), False),
    Target("python exporter", ("model.export", "model.fold"), (
        "tests/test_model_exactness.py", "tests/test_model_fold.py",
        "-k", "golden_model or multiplier or rounding or test_model_fold"), False),
)  # fmt: skip

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def places(tree: ast.Module) -> list[ast.expr]:
    """Expressions that can be mutated, in the order of the text: not those of annotations, messages and decorators."""
    found: list[ast.expr] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Raise):
            return
        if (
            (isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE)
            or (isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC)
            or isinstance(node, ast.BoolOp)
            or (isinstance(node, ast.Constant) and type(node.value) is int)
        ):
            found.append(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "msg", "bases", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)

    visit(tree)
    return found


def changed(node: ast.expr) -> ast.expr:
    """The same node in place, mutated."""
    if isinstance(node, ast.Compare):
        node.ops[0] = _COMPARE[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = _ARITHMETIC[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        node.value += 1
    return node


def mutated(source: str, number: int) -> tuple[ast.Module, str]:
    """The tree of a module with one place mutated, and what was done as text: line, before, after."""
    tree = ast.parse(source)
    node = places(tree)[number]
    before = ast.unparse(copy.deepcopy(node))
    after = ast.unparse(changed(node))
    return ast.fix_missing_locations(tree), f"{node.lineno}: {before} becomes {after}"


def chosen(modules: Sequence[str], count: int) -> list[tuple[str, int]]:
    """Up to ``count`` mutants of some modules: module and number of the place."""
    every = [(name, at) for name in modules for at in range(len(places(ast.parse(_source(name)))))]
    return sorted(random.Random(SEED).sample(every, min(count, len(every))))


def _path(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def _source(module: str) -> str:
    return _path(module).read_text(encoding="utf-8")


class _Loader(SourceFileLoader):
    def __init__(self, module: str, number: int) -> None:
        super().__init__(module, str(_path(module)))
        self.number = number

    def get_code(self, fullname: str) -> CodeType:
        return compile(mutated(_source(fullname), self.number)[0], self.path, "exec")


class MutantFinder(importlib.abc.MetaPathFinder):
    """Imports one module with one place mutated."""

    def __init__(self, module: str, number: int) -> None:
        self.module, self.number = module, number

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, self.number))


def run_programs(library: Path) -> None:
    """Random networks through planner, encoder and RTL against the golden model; raises AssertionError."""
    from benchmarks.mutate import ENGINE, ImpatientLayout
    from sim.compiled import MemoryTiming
    from sim.random_network import random_images, random_network
    from sim.soak import Station, prepare

    with Station(library, 5, MemoryTiming((3, 40), 0.2, seed=5), layout=ImpatientLayout) as station:
        for seed in NETWORKS:
            network = random_network(seed)
            result = station.run(prepare(network, random_images(network, 2, seed), ENGINE, seed))
            assert not result.problem and not result.wrong, result.mismatches


def _child(target: Target, module: str, number: int, library: Path) -> None:
    """Exit code 0: nothing was noticed."""
    sys.meta_path.insert(0, MutantFinder(module, number))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    import pytest

    code = 1
    try:
        if target.programs:
            run_programs(library)
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *target.tests]))
    finally:
        os._exit(code)


def unnoticed(target: Target, module: str, number: int, library: Path) -> bool:
    """Whether a mutant passes everything; number -1: no mutant."""
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(target, module if number >= 0 else "", number, library)
    )
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return False
    return process.exitcode == 0


def rows(library: Path, count: int, names: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """One row for each target."""
    for target in TARGETS:
        if names and target.name not in names:
            continue
        start = time.perf_counter()
        if not unnoticed(target, target.modules[0], -1, library):
            raise RuntimeError(f"{target.name}: its tests fail without a mutation.")
        mutants = chosen(target.modules, count)
        equivalent, survivors, reasons = 0, [], {}
        for module, number in mutants:
            told = mutated(_source(module), number)[1]
            if not unnoticed(target, module, number, library):
                continue
            line, _, change = told.partition(": ")
            known = find(f"{module.replace('.', '/')}.py", source_line(_path(module), int(line)), change)
            if known is not None and known.equivalent:
                equivalent += 1
            else:
                survivors.append(f"{module}:{told}")
                if known is not None:
                    reasons[survivors[-1]] = known.reason
        yield {
            "target": target.name, "mutants": len(mutants), "killed": len(mutants) - equivalent - len(survivors),
            "equivalent": equivalent, "survivors": survivors, "reasons": reasons, "seconds": round(time.perf_counter() - start, 1),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mutants", type=int, default=30, help="per target (30)")
    parser.add_argument("--target", action="append", default=[])
    given = parser.parse_args()
    # What every child needs; nothing of bitsmith, or mutants would come too late.
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    os.chdir(ROOT)
    made = []
    for row in rows(given.library, given.mutants, given.target):
        made.append(row)
        given.out.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        print(
            f"{row['target']:<20} {row['killed']:>3} of {row['mutants'] - row['equivalent']} that are not equivalent",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
