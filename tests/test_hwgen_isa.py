"""Numbers that programs, drivers and boards in the field rely on: they change with a version only. And counts of words."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import networks
import pytest
from test_hwgen_program import ROOMY

from hwgen import isa
from hwgen.program import assemble, disassemble
from hwgen.schedule import schedule
from hwgen.words import pairs_of


def test_numbers_of_stages_errors_and_opcodes_are_those_of_version_1() -> None:
    assert (isa.DEVICE_VERSION, isa.PROGRAM_VERSION) == (1 << 16, 1)
    assert {stage.name: stage.value for stage in isa.Stage} == {"FETCH": 0, "EXECUTE": 1, "WRITE_BACK": 2}
    assert [error.name for error in sorted(isa.Error)] == [
        "NONE", "PROGRAM_MAGIC", "PROGRAM_ENGINE", "PROGRAM_LENGTH", "PROGRAM_END", "ILLEGAL_OPCODE", "AXI_READ", "AXI_WRITE",
        "WATCHDOG", "BUSY", "ADDRESS",
    ]  # fmt: skip
    assert sorted(isa.Error) == list(range(11))
    assert {op.name: (op.code, op.stage) for op in isa.OPCODES} == {
        "load_weights": (0x10, isa.Stage.FETCH),
        "load_params": (0x11, isa.Stage.FETCH),
        "load_image": (0x12, isa.Stage.FETCH),
        "conv": (0x20, isa.Stage.EXECUTE),
        "conv_out": (0x30, isa.Stage.WRITE_BACK),
        "pool": (0x31, isa.Stage.WRITE_BACK),
    }


@pytest.mark.parametrize("batch", [2, 3, 255])
def test_a_program_keeps_its_batch(batch: int) -> None:
    program = replace(schedule(networks.tiny(), ROOMY).program, batch=batch)
    assert disassemble(assemble(program)) == program


def test_pairs_of_a_significance_are_counted() -> None:
    for weight_planes, planes in product(range(1, 10), range(1, 9)):
        for s in range(weight_planes + planes - 1):
            pairs = [m for m in range(weight_planes) if 0 <= s - m < planes]
            assert pairs_of(s, weight_planes, planes) == len(pairs)
