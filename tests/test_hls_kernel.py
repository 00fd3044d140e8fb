"""The HLS kernel's sources: rendering, what synthesis forbids, sanitizers, both kinds of words."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_engine import ENGINE
from benchmarks.networks import cnv
from hwgen.board import load_board
from hwgen.build import generate
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.render_hls import TESTBENCH, render_hls, render_hls_sources
from sim import golden
from sim.hls import Run, compile_kernel, find_ap_int, run_kernel
from sim.job import Layout
from sim.random_network import random_images, random_network

SHAPE = EngineConfig(rows=4, columns=4, slots=6, slot_channels=8, lane_rows=2, weight_depth=4096, plane_depth=1024,
                     byte_depth=1024, column_depth=512)  # fmt: skip
BOARD = load_board("pynq-z2")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def kernel_sources() -> Iterator[tuple[str, str]]:
    """What is synthesised, without comments and without the parts for simulation alone."""
    for name, text in render_hls(SHAPE, BOARD, "test").items():
        if name.endswith((".h", ".cpp")) and name not in (TESTBENCH, "bs_stream.h"):
            text = re.sub(r"#if !defined\(__SYNTHESIS__\)\n.*?(#else|#endif)", "", text, flags=re.S)
            yield name, re.sub(r"//.*", "", text)


def test_rendering_is_pure() -> None:
    assert render_hls(SHAPE, BOARD, "1") == render_hls(SHAPE, BOARD, "1")
    assert render_hls(SHAPE, BOARD, "1") != render_hls(EngineConfig(), BOARD, "1")


def test_kernel_has_no_heap_no_exceptions_no_unbounded_loops() -> None:
    for name, text in kernel_sources():
        found = re.findall(r"\b(new|delete|malloc|free|throw|try|catch|while|do|goto|std::\w+)\b", text)
        assert not found, (name, found)
        for loop in re.findall(r"\bfor \(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)", text):
            parts = loop.split(";")
            assert len(parts) == 3 and re.search(r"<|!= 0", parts[1]) and parts[2].strip(), (name, loop)


def test_kernel_has_no_recursion() -> None:
    text = "\n".join(source for _, source in kernel_sources())
    head = r"^(?:  )?(?:inline|static|extern \"C\")[^;{}()]*?(\w+)\([^{;]*\)\s*"
    bodies = {found[1]: found[2] for found in re.finditer(head + r"\{ (.*) \}$", text, re.M)}
    bodies |= {found[1]: found[2] for found in re.finditer(head + r"\{\n(.*?)^\}", text, re.M | re.S)}
    assert {"fill_tile", "multiply_tile", "region", "store", "write_back_conv", "load_program"} <= set(bodies)
    calls = {name: {other for other in bodies if re.search(rf"\b{other}\(", body)} for name, body in bodies.items()}

    def reaches(name: str, path: list[str]) -> None:
        assert name not in path, f"recursion: {path}"
        for other in calls[name]:
            reaches(other, [*path, name])

    for name in calls:
        reaches(name, [])


def test_every_dynamic_loop_states_its_trips() -> None:
    for name, text in kernel_sources():
        lines = text.splitlines()
        for index, line in enumerate(lines):
            limit = re.search(r"for \(\w+ \w+ = [^;]+; [^;]*<[= ]*([^;]+);", line)
            fixed = limit is None or re.fullmatch(
                r"(u?int(32_t)?\()?(C::|BITS>::)?[A-Z_\d /+(]+\)*|[\d]+|\(C::D_K \+ 63\) / 64", limit[1]
            )
            if not fixed:
                assert "#pragma HLS LOOP_TRIPCOUNT" in "".join(lines[index + 1 : index + 3]), (name, line)


def test_every_pragma_states_its_reason() -> None:
    for name, text in render_hls(SHAPE, BOARD, "test").items():
        if not name.endswith((".h", ".cpp")):
            continue
        lines = text.splitlines()
        for at, line in enumerate(lines):
            if "#pragma HLS" not in line or "LOOP_TRIPCOUNT" in line:
                continue
            above = next(item for item in reversed(lines[:at]) if not item.startswith("#pragma HLS INTERFACE"))
            assert "  // " in line or ("INTERFACE" in line and above.startswith("// ")), (name, line)


def test_regions_are_canonical_dataflow() -> None:
    """Vitis' rules (UG1448, 214-169): calls alone; what outlives a region is read before it is written, by one stage each."""
    text = dict(kernel_sources())
    for name, head in (
        ("bs_kernel.cpp", r"static void region\(.*?\) \{\n"),
        ("bs_execute.h", r"for \(uint32_t tile.*?\) \{\n"),
    ):
        body = re.search(rf"{head}(.*?)^(?:  )?\}}$", text[name], re.M | re.S)
        assert body and body[1].count("#pragma HLS DATAFLOW") == 1
        code = re.sub(r"#.*", "", re.sub(r"#else\n.*?#endif", "", body[1], flags=re.S))
        for statement in filter(None, map(str.strip, code.split(";"))):
            local = re.fullmatch(r"(RowStreams|Stream<\w+>|Columns) [\w, ]+", statement)
            assert local or re.fullmatch(r"\w+\([\w.,\s]*\)", statement), (name, statement)
    every = "\n".join(text.values())
    kinds = ("WeightBuffer", "PlaneBuffer", "ParamBuffer", "ByteBuffer", "SumBuffer", "uint64_t*")
    order = re.findall(r"^  (execute|write_back|fetch|store)\(", text["bs_kernel.cpp"], re.M)
    assert order == ["execute", "write_back", "fetch", "store"]
    for kind in kinds:
        uses = []
        for stage in order:
            arguments = re.findall(rf"^static void {stage}\((.*?)\) \{{", every, re.M | re.S)[0]
            for argument in re.split(r",\s*", arguments):
                if kind in argument:
                    uses.append("read" if argument.startswith("const") else "write")
        # One that writes alone may read as well: bytes and sums are write-back's own.
        expected = ["write", "read", "read"] if kind == "uint64_t*" else ["write"]
        assert uses in (expected, ["read", "write"]), (kind, uses)


def test_sources_keep_to_the_standard_that_the_script_names(tmp_path: Path) -> None:
    rendered = render_hls(SHAPE, BOARD, "test")
    assert "-std=c++14 " in rendered["hls.tcl"]
    assert compile_kernel(render_hls_sources(SHAPE, BOARD.name, "test"), flags=("-std=c++14", "-pedantic")).is_file()


def started(seed: int, ap_int: bool = False, flags: Sequence[str] = (), *, tmp_path: Path) -> Run:
    network = random_network(seed)
    build = generate(network, SHAPE, BOARD, tmp_path / f"b{seed}", backend="hls", force=True)
    images = random_images(network, 2, seed)
    program = build.program.read_bytes()
    stride, out_stride = -(-images[0].size // 8) * 8, -(-build.schedule.logits_rows * 4 // 8) * 8
    start = -(-len(program) // 4096) * 4096
    output = start + 2 * stride
    memory = np.zeros(output + 2 * out_stride, np.uint8)
    memory[: len(program)] = np.frombuffer(program, np.uint8)
    for index, image in enumerate(images):
        memory[start + index * stride :][: image.size] = image.ravel()
    registers = {"image_addr": start, "image_stride": stride, "output_addr": output, "output_stride": out_stride}
    kernel = compile_kernel(build.hls, ap_int=ap_int, flags=flags)
    done = run_kernel(kernel, SHAPE, memory, registers | {"image_count": 2})
    found = done.memory[output:].view("<i4").reshape(2, -1)[:, : network.tensors[network.output].shape[2]]
    assert np.array_equal(found, golden.logits(network, images))
    return done


def fitting() -> Iterator[int]:
    for seed in range(50):
        try:
            from hwgen.schedule import schedule

            schedule(random_network(seed), SHAPE)
            yield seed
        except InputError:
            continue


def test_clean_under_sanitizers(tmp_path: Path) -> None:
    for seed, _ in zip(fitting(), range(4), strict=False):
        started(seed, flags=SANITIZERS, tmp_path=tmp_path)


def test_stages_that_get_in_each_others_way_are_told(tmp_path: Path) -> None:
    """Without the tokens of the weights, loads overwrite rows that the array still reads."""
    build = generate(cnv(1, 1), ENGINE, BOARD, tmp_path / "b", backend="hls")
    assert build.schedule.memory.streamed_rows
    layout = Layout(build.schedule, build.program.read_bytes(), random_images(build.network, 1, 1), 1)
    memory = np.empty(layout.memory_bytes, np.uint8)
    layout.fill(memory)
    sources = build.hls
    whole, hasty = "if (weights_free.enough(need)) {", "if (need < 256) {"
    assert sources["bs_sequencer.h"].count(whole) == 1
    run_kernel(compile_kernel(sources), ENGINE, memory, dict(layout.registers()))
    sources["bs_sequencer.h"] = sources["bs_sequencer.h"].replace(whole, hasty)
    with pytest.raises(RuntimeError, match=r"two stages of a region touch weight row \d+, and one of them writes it"):
        run_kernel(compile_kernel(sources), ENGINE, memory, dict(layout.registers()))


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_compilers_find_nothing_to_warn_of(compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    assert compile_kernel(render_hls_sources(SHAPE, BOARD.name, "test"), compiler=compiler).is_file()


def test_ap_int_words_give_the_same(tmp_path: Path) -> None:
    try:
        find_ap_int()
    except InputError as error:
        assert not os.environ.get("CI"), "make setup installs them"
        pytest.skip(str(error))
    for seed, _ in zip(fitting(), range(3), strict=False):
        one, two = (started(seed, ap_int=kind, tmp_path=tmp_path) for kind in (False, True))
        assert one.registers == two.registers and np.array_equal(one.memory, two.memory)
