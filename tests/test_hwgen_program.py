"""Instructions, programs, engine and board files, schedules, explored shapes and the cycle model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import networks
import numpy as np
import pytest

from benchmarks.networks import resnet8
from hwgen import isa
from hwgen.area import estimate_area
from hwgen.board import Board, board_names, load_board
from hwgen.build import generate, read_build
from hwgen.cycles import cost_table, time_program
from hwgen.engine import EngineConfig, read_engine, write_engine
from hwgen.errors import InputError
from hwgen.explore import choose_engine, explore
from hwgen.network import Conv, Weighted
from hwgen.network_check import checked
from hwgen.passes import ArrayPass, MeanPass, Pass
from hwgen.plan import Region
from hwgen.program import Instruction, Program, assemble, disassemble, listing
from hwgen.render import render_package, render_sources
from hwgen.schedule import schedule
from sim.random_network import random_network

SMALL = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=2048, plane_depth=512, byte_depth=512,
    column_depth=1024,
)  # fmt: skip
ROOMY = EngineConfig(
    rows=4, columns=4, slots=3, slot_channels=8, lane_rows=1, weight_depth=1 << 14, plane_depth=1 << 13,
    byte_depth=1 << 13, param_depth=1 << 12, column_depth=1 << 10,
)  # fmt: skip


def random_instruction(rng: np.random.Generator, op: isa.Opcode, extreme: bool) -> Instruction:
    values = {}
    for field, _ in op.layout():
        if field.name == "opcode":
            continue
        if extreme:
            values[field.name] = field.lo if rng.random() < 0.5 else field.hi
        else:
            raw = int.from_bytes(rng.bytes(field.width // 8 + 1), "little") & ((1 << field.width) - 1)
            values[field.name] = field.lo + raw
    return Instruction.make(op.name, **values)


# -------------------------------------------------------------------------------- instructions
@pytest.mark.parametrize("op", isa.OPCODES, ids=lambda op: op.name)
def test_encoded_instructions_decode_to_themselves(op: isa.Opcode) -> None:
    rng = np.random.default_rng(op.code)
    for trial in range(60):
        item = random_instruction(rng, op, extreme=trial < 30)
        data = item.encode()
        assert len(data) == isa.INSTRUCTION_BITS // 8
        assert Instruction.decode(data) == item


@pytest.mark.parametrize("op", isa.OPCODES, ids=lambda op: op.name)
def test_fields_tile_the_instruction(op: isa.Opcode) -> None:
    """Every bit below ``used_bits`` belongs to exactly one field, and a field's value sits exactly there."""
    owned: list[str] = []
    names = [field.name for field, _ in op.layout()]
    assert len(set(names)) == len(names)
    for field, lsb in op.layout():
        assert lsb == len(owned)
        owned += [field.name] * field.width
    assert len(owned) == op.used_bits <= isa.INSTRUCTION_BITS
    plain = int.from_bytes(Instruction.make(op.name).encode(), "little")
    assert plain == op.code
    for field, lsb in op.layout():
        if field.name != "opcode":
            value = -1 if field.signed else field.hi
            word = int.from_bytes(Instruction.make(op.name, **{field.name: value}).encode(), "little")
            assert word == plain | ((1 << field.width) - 1) << lsb


@pytest.mark.parametrize("op", isa.OPCODES, ids=lambda op: op.name)
def test_values_out_of_range_are_refused(op: isa.Opcode) -> None:
    for field, _ in op.layout():
        if field.name == "opcode":
            continue
        for value in (field.lo - 1, field.hi + 1):
            with pytest.raises(ValueError, match=rf"{op.name}\.{field.name} = {value} does not fit {field.width} bits"):
                Instruction.make(op.name, **{field.name: value})
    with pytest.raises(ValueError, match="no field 'nonsense'"):
        Instruction.make(op.name, nonsense=1)


def test_codes_and_register_offsets_are_distinct() -> None:
    assert len(isa.BY_CODE) == len(isa.BY_NAME) == len(isa.OPCODES)
    offsets = [register.offset for register in isa.REGISTERS]
    assert len(set(offsets)) == len(offsets) and all(offset % 4 == 0 for offset in offsets)
    assert set(isa.ERROR_MEANING) == set(isa.Error)


# -------------------------------------------------------------------------------- programs
def random_program(seed: int) -> Program:
    rng = np.random.default_rng(seed)
    fetch, execute, write_back = (
        tuple(random_instruction(rng, ops[int(rng.integers(len(ops)))], extreme=False) for _ in range(rng.integers(1, 6)))
        for stage in isa.Stage
        for ops in [[op for op in isa.OPCODES if op.stage is stage]]
    )
    return Program(int(rng.integers(1 << 32)), fetch, execute, write_back, len(fetch) - 1, rng.bytes(136))


@pytest.mark.parametrize("seed", range(10))
def test_assembled_programs_disassemble_to_themselves(seed: int) -> None:
    program = random_program(seed)
    image = assemble(program)
    assert disassemble(image) == program
    assert assemble(disassemble(image)) == image
    assert (len(image) - len(program.data)) % 64 == 0


@pytest.mark.parametrize("seed", range(4))
def test_scheduled_programs_disassemble_to_themselves(seed: int) -> None:
    program = schedule(random_network(seed), ROOMY).program
    assert disassemble(assemble(program)) == program


def test_every_truncation_is_refused() -> None:
    program = replace(random_program(1), data=b"")
    image = assemble(program)
    total = isa.HEADER_WORDS + sum(map(len, program.streams)) * isa.WORDS + 1
    for size in range(0, total * 8, 8):
        with pytest.raises(InputError) as caught:
            disassemble(image[:size])
        assert caught.value.subject == "program"
    assert disassemble(image[: total * 8]) == program


EDITS: dict[str, tuple[Callable[[bytearray, int], None], str]] = {
    "magic": (lambda image, end: image.__setitem__(0, image[0] ^ 1), "does not begin with a program header"),
    "version": (lambda image, end: image.__setitem__(4, 9), "has version 9; this is for version 1"),
    "length": (lambda image, end: image.__setitem__(12, image[12] ^ 1), "truncated or edited"),
    "count": (lambda image, end: image.__setitem__(16, image[16] + 1), "truncated or edited"),
    "end word": (lambda image, end: image.__setitem__(end, image[end] ^ 0x80), "end word is missing"),
    "opcode": (lambda image, end: image.__setitem__(64, 0xEE), "fetch instruction 0: 0xee is not an opcode"),
    "stage": (lambda image, end: image.__setitem__(64, 0x20), "fetch instruction 0: conv belongs to another stage"),
}


@pytest.mark.parametrize("what", EDITS)
def test_edited_programs_are_refused(what: str) -> None:
    program = random_program(3)
    image = bytearray(assemble(program))
    end = (isa.HEADER_WORDS + sum(map(len, program.streams)) * isa.WORDS) * 8
    change, part = EDITS[what]
    change(image, end)
    with pytest.raises(InputError) as caught:
        disassemble(bytes(image))
    assert part in str(caught.value)


def test_all_bad_instructions_are_reported_at_once() -> None:
    program = random_program(3)
    image = bytearray(assemble(program))
    count = sum(map(len, program.streams))
    for index in range(count):
        image[64 + 64 * index] = 0xEE
    with pytest.raises(InputError) as caught:
        disassemble(bytes(image))
    assert len(caught.value.problems) == count
    assert caught.value.problems[-1].startswith("write_back instruction")


def test_listing_shows_every_value_that_is_not_zero() -> None:
    item = Instruction.make("pool", rq_bias=-5, tiles=7)
    (line,) = listing([item]).splitlines()
    assert line.split() == ["0", "pool", "tiles=7", "rq_bias=-5"]


# -------------------------------------------------------------------------------- rendering
def test_rendering_is_deterministic_and_complete() -> None:
    sources = render_sources(SMALL, "pynq-z2", "1.2.3")
    assert sources == render_sources(SMALL, "pynq-z2", "1.2.3")
    assert next(iter(sources)) == "bs_pkg.sv" and list(sources)[-1] == "bs_top.sv"
    top = sources["bs_top.sv"]
    for name, value in SMALL.rtl_parameters().items():
        found = re.search(rf"\b{name}\b\s*=\s*(?:\d*'[hd])?([0-9a-fA-F_]+)", top)
        assert found, name
        assert value in (int(found[1], 16), int(found[1]) if found[1].isdigit() else -1), name
    assert all("@{" not in text and "/*%" not in text for text in sources.values())
    assert render_sources(replace(SMALL, columns=8), "pynq-z2", "1.2.3")["bs_top.sv"] != top


def test_the_package_names_every_opcode_and_field() -> None:
    text = render_package()
    for op in isa.OPCODES:
        assert op.name in text.lower()
        for field, _ in op.layout():
            assert re.search(rf"\b{field.name};", text), (op.name, field.name)


# -------------------------------------------------------------------------------- engine files
def test_engine_file_round_trip(tmp_path: Path) -> None:
    for engine in (EngineConfig(), SMALL, ROOMY):
        write_engine(engine, tmp_path / "engine.json")
        assert read_engine(tmp_path / "engine.json") == engine


def test_engine_hash_tells_shapes_apart() -> None:
    assert SMALL.hash == replace(SMALL).hash
    assert len({SMALL.hash, ROOMY.hash, EngineConfig().hash, replace(SMALL, acc_bits=27).hash}) == 4
    assert 0 <= SMALL.hash < 1 << 32


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"rows": 3}, ["'rows' is 3", "divide 'slot_channels' (8)"]),
        ({"columns": 5}, ["'columns' is 5; it must be a power of two"]),
        ({"columns": 64}, ["'columns' is 64; it must be a whole number from 4 to 32"]),
        ({"columns": "4"}, ["'columns' is '4'; it must be a whole number"]),
        ({"rows": True}, ["'rows' is True"]),
        ({"slots": 4}, ["'slots' is 4; it must be a multiple of 3"]),
        ({"slot_channels": 12}, ["'slot_channels' is 12; it must be 8 or 16"]),
        ({"lane_rows": 8}, ["'lane_rows' is 8; it must divide 'rows' (4)"]),
        ({"weight_depth": 100}, ["'weight_depth' is 100; it must be a power of two"]),
        ({"rows": 99, "acc_bits": 1, "plane_depth": 0}, ["'rows'", "'acc_bits'", "'plane_depth'"]),
        ({"speed": 3, "colour": 1}, ["'speed' is not an engine parameter", "'colour' is not an engine parameter"]),
    ],
)
def test_engine_file_mistakes(tmp_path: Path, change: dict[str, object], parts: list[str]) -> None:
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({"format": "bitsmith-engine", **asdict(SMALL), **change}))
    with pytest.raises(InputError) as caught:
        read_engine(path)
    assert caught.value.subject == str(path)
    for part in parts:
        assert any(part in problem for problem in caught.value.problems), (part, caught.value.problems)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not JSON"),
        ('{"format": "bitsmith-engine", "rows"', "not JSON"),
        ("[]", "not an engine file"),
        ('{"format": "other"}', "not an engine file"),
        ('{"format": "bitsmith-engine", "rows": 4}', "'columns' is missing"),
    ],
)
def test_files_that_are_no_engine(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "engine.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(part)):
        read_engine(tmp_path / "engine.json")
    with pytest.raises(InputError, match="Cannot read it"):
        read_engine(tmp_path / "none.json")


# -------------------------------------------------------------------------------- boards
def test_boards() -> None:
    assert {"pynq-z1", "pynq-z2"} <= set(board_names())
    for name in board_names():
        board = load_board(name)
        assert board.name == name and board.clock_mhz in board.clocks_mhz
        assert list(board.clocks_mhz) == sorted(board.clocks_mhz)
        assert 0 < board.lut_share <= 1


@pytest.mark.parametrize("name", ["zc999", "", "../boards/pynq-z2", "pynq-z2.toml"])
def test_unknown_boards(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_board(name)
    assert f"no board '{name}'" in str(caught.value) and "pynq-z2" in str(caught.value)


# -------------------------------------------------------------------------------- schedules
def test_a_network_too_large_says_what_would_fit() -> None:
    tight = replace(SMALL, weight_depth=16, plane_depth=16, byte_depth=16, param_depth=16)
    network = networks.tiny()
    with pytest.raises(InputError) as caught:
        schedule(network, tight)
    sizes: dict[str, int] = {}
    for problem in caught.value.problems:
        found = re.search(r"An engine with (\w+_depth) (\d+) would hold it", problem)
        assert found, problem
        sizes[found[1]] = int(found[2])
        if found[1] == "weight_depth":
            assert "too few even to stream them" in problem
            continue
        need = re.match(r"The network needs (\d+) [a-z ]+, the engine has 16: (\d+) too many\.", problem)
        assert need and int(need[2]) == int(need[1]) - 16, problem
        assert int(found[2]) // 2 < int(need[1]) <= int(found[2])
    assert set(sizes) == {"weight_depth", "plane_depth", "byte_depth", "param_depth"}
    schedule(network, replace(tight, **sizes))
    for name in set(sizes) - {"weight_depth"}:
        with pytest.raises(InputError, match=name):
            schedule(network, replace(tight, **{**sizes, name: sizes[name] // 2}))


def test_weights_that_do_not_fit_are_streamed_in_parts_that_wait_for_their_rows() -> None:
    network = resnet8(2, 2, shape=(8, 8, 3))
    roomy = replace(SMALL, weight_depth=1 << 13, plane_depth=1 << 12, byte_depth=1 << 12)
    whole = schedule(network, roomy)
    rows = whole.memory.resident_rows
    assert not whole.memory.streamed_rows and rows == sum(part.rows for part in whole.memory.weights)
    depth = 1 << rows.bit_length() - 1
    tight = schedule(network, replace(roomy, weight_depth=depth))
    memory = tight.memory
    assert memory.streamed_rows and memory.resident_rows + memory.streamed_rows == rows > depth
    assert max(part.base + part.rows for part in memory.weights) <= depth
    # Every part has its load; residents are loaded before the loop over the images.
    loads = [item for item in tight.program.fetch if item.op.name == "load_weights"]
    streamed = [part for part in memory.weights if part.streamed]
    assert [(load["base"], load["rows"]) for load in loads[-len(streamed) :]] == [(p.base, p.rows) for p in streamed]
    looped = tight.program.fetch[tight.program.fetch_loop :]
    assert [item.op.name for item in looped] == ["load_image"] + ["load_weights"] * len(streamed)
    # Each image takes as many tokens as it gives, in both directions.
    assert sum(load["wait_issue"] for load in looped[1:]) == len(streamed)
    assert sum(item["post_weights"] for item in tight.program.execute) == len(streamed)
    assert sum(item["wait_weights"] for item in tight.program.execute) == len(streamed)
    # The rows of all row tiles are read, each by one part.
    for item in tight.passes:
        parts = [part for part in memory.weights if part.item is item]
        if parts:
            assert [part.first for part in parts[1:]] == list(np.cumsum([part.row_tiles for part in parts[:-1]])) and sum(
                part.row_tiles for part in parts
            ) == memory.words[item.name].row_tiles


def test_a_column_buffer_too_small_says_what_would_fit() -> None:
    with pytest.raises(InputError) as caught:
        schedule(networks.tiny(), replace(SMALL, column_depth=8))
    sizes = [int(re.findall(r"column_depth (\d+)", problem)[0]) for problem in caught.value.problems]
    assert all(problem.startswith("node '") for problem in caught.value.problems)
    schedule(networks.tiny(), replace(SMALL, column_depth=max(sizes)))


def test_a_bias_that_leaves_the_lanes_no_room_is_refused() -> None:
    """The sum fits 48 bits, as the network file demands, but not with the limb that the lanes add to it."""
    network = networks.tiny()
    first = network.nodes[0]
    assert isinstance(first, Conv)
    for bias, refused in ((2**47 - 2**35, False), (2**47 - 2**33, True)):
        nodes = (replace(first, bias=np.full_like(first.bias, bias)), *network.nodes[1:])
        made = checked(replace(network, nodes=nodes, samples=None))
        if refused:
            with pytest.raises(InputError, match=f"node '{first.name}': its bias, .* lanes' 48 bits"):
                schedule(made, SMALL)
        else:
            schedule(made, SMALL)


def test_a_network_with_too_many_passes() -> None:
    network = networks.tiny()
    few = replace(SMALL, program_depth=64)
    schedule(network, few)
    rng = np.random.default_rng(1)
    extra = [
        networks.conv(rng, f"more{at}", (f"more{at - 1}.out" if at else "inner.out",), (8, 1, 1, 8)) for at in range(12)
    ]
    tensors = {node.output: replace(network.tensors["inner.out"], name=node.output) for node in extra}
    join = replace(networks.node(network, "join"), inputs=("more11.out", "short.out"))
    nodes = [*network.nodes[:4], *extra, join, *network.nodes[5:]]
    long = replace(network, nodes=tuple(nodes), tensors={**network.tensors, **tensors})
    with pytest.raises(InputError, match=r"program memory holds 8 instructions per stage.*larger program_depth"):
        schedule(long, few)
    schedule(long, SMALL)


def test_schedules_are_deterministic() -> None:
    one, two = (assemble(schedule(networks.tiny(), SMALL).program) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("seed", range(6))
def test_bands_cover_every_pass_once(seed: int) -> None:
    plan = schedule(random_network(seed), ROOMY)
    for layer, item in enumerate(plan.passes):
        tiles = [at for band in plan.bands if band.layer == layer for at in range(band.first, band.first + band.tiles)]
        assert tiles == list(range(-(-item.window.positions // ROOMY.columns)))


@pytest.mark.parametrize("seed", range(6))
def test_tokens_balance(seed: int) -> None:
    """In steady state a stage takes as many tokens per image as its partner gives."""
    network = random_network(seed)
    if seed == 0:  # a single layer: write-back waits for nothing of its own image
        network = networks.one_layer()
    program = schedule(network, ROOMY).program
    assert sum(item["wait_write_back"] for item in program.execute) == sum(
        item["post_fill"] for item in program.write_back
    )
    assert sum(item["wait_fill"] for item in program.write_back) == sum(
        item["post_write_back"] for item in program.execute
    )
    loop = program.fetch[program.fetch_loop :]
    assert sum(item["post_fill"] for item in loop) == sum(item["wait_fetch"] for item in program.execute)
    assert sum(item["wait_fill"] for item in loop) == sum(item["post_fetch"] for item in program.execute)


@pytest.mark.parametrize("seed", range(6))
def test_maps_that_live_together_do_not_overlap(seed: int) -> None:
    plan = schedule(random_network(seed), ROOMY)
    both: list[tuple[dict[str, Region], Callable[[Pass], list[str]]]] = [
        (plan.memory.planes, lambda item: [item.source.name] if isinstance(item, ArrayPass) else []),
        (
            plan.memory.bytes,
            lambda item: ([item.skip.name] if item.skip else []) if isinstance(item, ArrayPass) else [item.source.name],
        ),
    ]
    for regions, reads in both:
        made = {
            tensor.name: at for at, item in enumerate(plan.passes) for tensor in item.tensors if tensor.name in regions
        }
        last = {
            name: max([at for at, item in enumerate(plan.passes) if name in reads(item)], default=made.get(name, 0))
            for name in regions
        }
        for a in regions:
            for b in regions:
                if a < b and made.get(a, -1) <= last[b] and made.get(b, -1) <= last[a]:
                    one, other = regions[a], regions[b]
                    assert one.base + one.rows <= other.base or other.base + other.rows <= one.base, (a, b)


# -------------------------------------------------------------------------------- cycles
@pytest.mark.parametrize("seed", range(12))
def test_tile_bound_is_a_lower_bound(seed: int) -> None:
    plan = schedule(random_network(seed), ROOMY)
    timing = time_program(plan)
    means = {item.name for item in plan.passes if isinstance(item, MeanPass)}
    assert timing.cycles_per_image == sum(layer.cycles for layer in timing.layers)
    for layer in timing.layers:
        if layer.name in means:
            assert layer.tile_bound == 0 < layer.cycles
            continue
        assert 0 < layer.tile_bound <= layer.cycles, layer
        assert 0 < layer.utilisation <= 1
    assert timing.first_image >= max(layer.cycles for layer in timing.layers)


def test_cost_table_rises_with_bits() -> None:
    network = networks.tiny()
    table = cost_table(network, ROOMY)
    assert set(table) == {node.name for node in network.nodes if isinstance(node, Weighted)}
    for name, cost in table.items():
        assert cost.shape == (8, 8) and cost.min() > 0, name
        assert cost[7, 7] > cost[0, 0], name


def test_more_bits_cost_more_cycles() -> None:
    network = networks.tiny()
    cheap = time_program(schedule(network, SMALL)).cycles_per_image
    join = networks.node(network, "join")
    wide = networks.edit(network, "join", weight_bits=8, weight=join.weight)
    assert time_program(schedule(wide, SMALL)).cycles_per_image > cheap


# -------------------------------------------------------------------------------- exploration
def test_explore_finds_engines_for_pynq_z2() -> None:
    network, board = networks.tiny(), load_board("pynq-z2")
    found = explore(network, board).candidates
    keys = [(item.cycles_per_image, item.area.lut, item.area.bram36) for item in found]
    assert keys == sorted(keys)
    for item in found[:3]:
        assert item.area == estimate_area(item.engine)
        assert item.area.lut <= board.lut_share * board.resources.lut
        assert item.area.dsp <= board.resources.dsp and item.area.bram36 <= board.resources.bram36
        assert item.cycles_per_image == time_program(schedule(network, item.engine)).cycles_per_image
    assert choose_engine(network, board) == found[0]


def test_explore_says_why_nothing_fits() -> None:
    board = load_board("pynq-z2")
    small = board.model_copy(update={"resources": board.resources.model_copy(update={"bram36": 2})})
    with pytest.raises(InputError, match=r"No engine shape fits pynq-z2: .* 220 DSPs and 2 BRAM36"):
        explore(networks.tiny(), small)


def test_explore_says_how_much_block_ram_is_needed() -> None:
    """A bound that the least with which it fits is near."""
    board, network = load_board("pynq-z2"), resnet8(8, 8)

    def limited(bram36: int) -> Board:
        return board.model_copy(update={"resources": board.resources.model_copy(update={"bram36": bram36})})

    with pytest.raises(InputError, match="of the engines whose buffers hold it") as caught:
        explore(network, limited(40))
    found = re.search(r"the least block RAM, (\d+) BRAM36 or more, and the board has 40", str(caught.value))
    assert found is not None
    need = int(found[1])
    with pytest.raises(InputError):
        explore(network, limited(need - 1))
    assert explore(network, limited(need + 2)).candidates[0].area.bram36 in range(need, need + 3)


def test_explore_on_a_board_without_room_for_any_shape() -> None:
    """Even then there is a sentence to read."""
    board = load_board("pynq-z2")
    small = board.model_copy(update={"resources": board.resources.model_copy(update={"lut": 100})})
    with pytest.raises(InputError) as caught:
        explore(networks.tiny(), small)
    assert caught.value.problems and "pynq-z2" in str(caught.value)


# -------------------------------------------------------------------------------- builds
def test_builds_are_reproducible_and_checked(tmp_path: Path) -> None:
    board = load_board("pynq-z2")
    one, two = (generate(networks.tiny(), SMALL, board, tmp_path / name) for name in "ab")
    files = sorted(path.relative_to(one.path) for path in one.path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two.path) for path in two.path.rglob("*") if path.is_file())
    for name in files:
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes(), name
    assert read_build(one.path).engine == SMALL
    with pytest.raises(InputError, match="exists already"):
        generate(networks.tiny(), SMALL, board, one.path)
    with pytest.raises(InputError, match="_depth"):
        generate(networks.tiny(), replace(SMALL, weight_depth=16), board, one.path, force=True)
    assert read_build(one.path).program.read_bytes() == two.program.read_bytes()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "b"]


def test_builds_whose_files_do_not_belong_together(tmp_path: Path) -> None:
    build = generate(networks.tiny(), SMALL, load_board("pynq-z2"), tmp_path / "build")
    write_engine(replace(SMALL, acc_bits=27), build.path / "engine.json")
    with pytest.raises(InputError, match=f"program.bin is for engine {SMALL.hash:08x}"):
        read_build(build.path)
    write_engine(SMALL, build.path / "engine.json")
    image = build.program.read_bytes()
    build.program.write_bytes(image[:-1] + bytes([image[-1] ^ 1]))
    with pytest.raises(InputError, match="was changed after it was generated"):
        read_build(build.path)
    build.program.write_bytes(image[:100])
    (build.path / "rtl" / "files.f").unlink()
    with pytest.raises(InputError) as caught:
        read_build(build.path)
    assert len(caught.value.problems) == 2
    build.program.unlink()
    with pytest.raises(InputError, match=r"program\.bin is missing"):
        read_build(build.path)
    (build.path / "build.json").write_text('{"format": "bitsmith-build", "version": 7}')
    with pytest.raises(InputError, match="format version is 7"):
        read_build(build.path)
    (build.path / "build.json").write_text("[")
    with pytest.raises(InputError, match="not a build folder"):
        read_build(build.path)
