"""Proofs that a mutant computes what the module does. Part of ``make mutate``."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from hwgen.synth import run_yosys

SECONDS = 60


def proved_equal(design: Path, mutation: str) -> bool:
    """Whether Yosys proves that a mutation changes nothing of what leaves its module or enters its registers and memories.

    First with submodules as equal boxes, then with everything below the module, down to memories; bit by bit, so that a
    register's bit that nobody reads does not count, nor does one that a submodule does not look at. Registers of both
    versions start alike, so each cell that computes the same of the same is merged (opt_merge); only the cone of the
    mutation is left to prove (equiv_simple).

    design: RTLIL. mutation: a line that ``mutate -list`` wrote.
    """
    if re.search(r"-port \w*(clk|CLK) ", mutation):
        return False  # what a register takes is compared, not when
    return any(_proved(design, mutation, flatten) for flatten in ([], ["flatten gold gate"]))


def _proved(design: Path, mutation: str, flatten: list[str]) -> bool:
    module = re.search(r"-module (\S+)", mutation)[1]  # type: ignore[index]
    gate = re.sub(r"-module \S+", "-module gate", re.sub(r" -(ctrl \S+ \d+ \d+|src \S+)", "", mutation))
    commands = [
        f"read_rtlil {design}", f"copy {module} gold", f"copy {module} gate", gate,
        "setattr -mod -set keep_hierarchy 1 *bs_ram*", *flatten,
        "select gold gate", "simplemap", "opt_clean -purge", "select -clear",
        "equiv_make gold gate equiv", "select equiv", "opt_clean -purge", "opt_merge",
        "equiv_simple", "equiv_status -assert",
    ]  # fmt: skip
    try:
        run_yosys(commands, module, seconds=SECONDS)
    except (RuntimeError, subprocess.TimeoutExpired):
        return False
    return True
