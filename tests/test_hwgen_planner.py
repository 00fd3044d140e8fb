"""Where the planner puts maps, and what bands of a divided pass write and read: counted by hand or one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from test_hwgen_program import ROOMY, SMALL

from hwgen import plan as planner
from hwgen.network import Tensor
from hwgen.passes import ArrayPass, Window, count_fits
from hwgen.program import Instruction
from hwgen.schedule import Schedule, schedule
from sim.random_network import random_network

TIGHT = replace(SMALL, column_depth=512)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_last_pixel_that_positions_read(pooled: bool) -> None:
    for kernel, stride, pad, height in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (5, 8)):
        rows = (height + 2 * pad - kernel) // stride + 1
        if pad >= kernel or rows < 2:
            continue
        size = rows // 2 if pooled else rows
        window = Window(height, 7, kernel, 3, stride, pad, size, 3, pooled)
        for position in range(window.positions):
            # Every output row up to the position's: two for each row of pooled windows.
            outputs = range((position // 3 + 1) * (2 if pooled else 1))
            read = {y * stride - pad + tap for y in outputs for tap in range(kernel)}
            last = max([y for y in read if 0 <= y < height], default=0)
            assert window.last_pixel(position) == last * 7 + 6, (window, position)


def test_the_count_beside_merged_words_has_16_bits() -> None:
    assert count_fits(257, 8) and 257 * 255 == 65535
    assert not count_fits(258, 8)
    assert count_fits(65535, 1) and not count_fits(65536, 1)


@pytest.mark.parametrize(("needed", "depth"), [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (31, 32), (32, 32), (33, 64)])
def test_the_depth_that_is_proposed_is_the_next_power_of_two(needed: int, depth: int) -> None:
    assert planner._power(needed) == depth


def need(name: str, rows: int, *span: int) -> planner._Need:
    return planner._Need(Tensor(name, (1, 1, 1), 1), rows, rows, ((span[0], span[1]),))


def test_a_map_takes_a_gap_that_it_fills() -> None:
    """``short`` ends before ``late`` begins: its six rows are free, whole, between others."""
    needs = [need("low", 4, 0, 9), need("short", 6, 0, 1), need("high", 5, 0, 9)]
    for rows, base in ((5, 4), (6, 4), (7, 15)):
        regions = planner._regions(planner._first_fit([*needs, need("late", rows, 2, 9)]))
        assert [regions[name].base for name in ("low", "short", "high", "late")] == [0, 4, 10, base]


def test_the_next_image_takes_rows_of_a_map_once_it_is_read() -> None:
    """A network whose image has no room beside its maps: it is loaded after the pass that reads the map it lies over."""
    memory = schedule(random_network(1020), TIGHT).memory
    passes = schedule(random_network(1020), TIGHT).passes
    over = [name for name, region in memory.planes.items() if name != "image" and region.overlaps(memory.planes["image"])]
    last = max(at for at, item in enumerate(passes) if isinstance(item, ArrayPass) and item.source.name in over)
    assert over and memory.image_free_after == last > 0


# -------------------------------------------------------------------------------- divided passes
def outputs(plan: Schedule) -> list[tuple[Instruction, ArrayPass, int]]:
    """conv_out instructions of array passes, with the pass and the band's first row tile."""
    found = [
        (item, band.item, band.first_row_tile)
        for item, band in zip(plan.program.write_back, plan.bands, strict=True)
        if isinstance(band.item, ArrayPass)
    ]
    return found


def places(plan: Schedule) -> dict[str, dict[str, set[tuple[int, ...]]]]:
    """By pass: what channel groups write, read and add to, as rows from the start of the map concerned."""
    made: dict[str, dict[str, set[tuple[int, ...]]]] = {}
    engine, memory = plan.engine, plan.memory
    for item, what, first in outputs(plan):
        facts = made.setdefault(
            what.name, {"bytes": set(), "planes": set(), "skip": set(), "sums": set(), "params": set()}
        )
        for at, tile in product(range(item["row_tiles"] * engine.beats), range(item["tiles"])):
            group, position = first * engine.beats + at, item["start_tile"] + tile
            if what.bytes is not None:
                row = item["byte_base"] + at * item["byte_pitch"] + position
                facts["bytes"].add((group, position, row - memory.bytes[what.bytes.name].base & 0xFFFF))
            if what.skip is not None:
                read = at - item["skip_zero_groups"]
                row = item["skip_base"] + read * item["skip_pitch"] + position
                inside = 0 <= read < item["skip_groups"]
                facts["skip"].add((group, position, row - memory.bytes[what.skip.name].base & 0xFFFF if inside else -1))
            if what.sums:
                facts["sums"].add((group, item["sum_group"] + at))
        for at, tile in product(range(item["row_tiles"]), range(item["tiles"])):
            facts["params"].add((first + at, item["param_base"] - memory.param_base[what.name] + at * engine.rows))
            if what.planes is not None:
                stretch = (first + at) // engine.rows_per_group - first // engine.rows_per_group
                row = item["plane_base"] + stretch * what.planes.bits * item["plane_pitch"] + item["start_tile"] + tile
                row -= memory.planes[what.planes.name].base
                facts["planes"].add((first + at, item["start_tile"] + tile, row & 0xFFFF))
    return made


@pytest.mark.parametrize("seed", [151, 353, 401, 557, 1481])
def test_a_divided_pass_touches_what_the_whole_pass_touches(seed: int) -> None:
    """Weights that stream divide a pass into bands of some row tiles each; an engine with room runs all of them at once."""
    network = random_network(seed)
    divided, whole = schedule(network, TIGHT), schedule(network, ROOMY)
    assert any(first for _, _, first in outputs(divided)) and not any(first for _, _, first in outputs(whole))
    assert places(divided) == places(whole)
    for plan in (divided, whole):
        ends = [bool(item["logits_last"]) for item, _, _ in outputs(plan)]
        assert ends == [False] * (len(ends) - 1) + [True]
