"""What a network file, a build or a program is, in words and tables."""

from __future__ import annotations

from pathlib import Path

from hwgen.build import read_build
from hwgen.engine import EngineConfig, read_engine
from hwgen.errors import InputError
from hwgen.network import AvgPool, MaxPool, Network, Weighted
from hwgen.network_file import read_network
from hwgen.program import Program, disassemble, listing
from hwgen.schedule import Schedule


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return "\n".join(lines)


def describe_network(network: Network) -> str:
    """A table of the nodes and tensors of a network."""
    rows = []
    for node in network.nodes:
        out = network.tensors[node.output]
        source = network.tensors[node.inputs[0]]
        kernel = bits = "-"
        if isinstance(node, Weighted):
            kernel = f"{node.weight.shape[1]}x{node.weight.shape[2]}/{node.stride}" + (" dw" if node.depthwise else "")
            bits = f"{node.weight_bits} {node.encoding.value}"
        elif isinstance(node, MaxPool):
            kernel = f"{node.kernel}x{node.kernel}/{node.stride}"
        elif isinstance(node, AvgPool):
            kernel = f"{node.kernel[0]}x{node.kernel[1]}/{node.stride}"
        rows.append(
            [
                node.name,
                type(node).__name__.lower(),
                " ".join(node.inputs),
                "x".join(map(str, source.shape)),
                "x".join(map(str, out.shape)),
                kernel,
                bits,
                f"{'s' if source.signed else 'u'}{source.bits}",
                f"{'s' if out.signed else 'u'}{out.bits}",
            ]
        )
    head = ["node", "op", "reads", "in HxWxC", "out HxWxC", "kernel/stride", "weights", "in", "out"]
    weights = sum(node.weight.size * node.weight_bits for node in network.nodes if isinstance(node, Weighted))
    return f"Network '{network.name}': {len(network.nodes)} nodes, {weights / 8192:.1f} KiB of weights.\n\n{_table(head, rows)}"


def describe_memory(plan: Schedule) -> str:
    """The memory map and what the buffers have left."""
    rows = []
    for buffer, regions in (("plane", plan.memory.planes), ("byte", plan.memory.bytes)):
        rows += [
            [buffer, name, str(region.base), str(region.base + region.rows - 1), str(region.pitch)]
            for name, region in sorted(regions.items(), key=lambda item: (item[1].base, item[0]))
        ]
    rows += [
        [
            "weight",
            part.item.name,
            str(part.base),
            str(part.base + part.rows - 1),
            "streamed" if part.streamed else "resident",
        ]
        for part in plan.memory.weights
    ]
    used, engine = plan.memory.used_rows(), plan.engine
    budget = [
        [name, str(used[name]), str(depth), f"{100 * used[name] / depth:.0f} %"]
        for name, depth in (
            ("weight", engine.weight_depth),
            ("plane", engine.plane_depth),
            ("byte", engine.byte_depth),
            ("param", engine.param_depth),
        )
    ]
    return "\n\n".join(
        [
            "Memory map (rows):\n" + _table(["buffer", "what", "first", "last", "pitch"], rows),
            "Buffers:\n" + _table(["buffer", "used", "rows", "share"], budget),
        ]
    )


def describe_program(program: Program) -> str:
    """The disassembly."""
    parts = [
        f"Program for engine {program.engine_hash:08x}; fetch loops from instruction {program.fetch_loop};"
        f" {len(program.data)} bytes of weights and parameters."
    ]
    for name, stream in zip(("fetch", "execute", "write-back"), program.streams, strict=True):
        parts.append(f"{name}:\n{listing(stream)}")
    return "\n\n".join(parts)


def describe_engine(engine: EngineConfig) -> str:
    """The shape in one table."""
    rows = [[name, str(value)] for name, value in engine.rtl_parameters().items() if name != "ENGINE_HASH"]
    return (
        f"Engine {engine.name} ({engine.hash:08x}): {engine.macs_per_cycle} binary MAC per cycle,"
        f" {engine.lanes} lanes.\n\n{_table(['parameter', 'value'], rows)}"
    )


def describe(path: Path) -> str:
    """Describe whatever lies at ``path``: a build or network folder, an engine file, a program.

    Raises:
        InputError: nothing there, or nothing that bitsmith writes.
    """
    if (path / "build.json").is_file():
        build = read_build(path)
        plan = build.schedule
        return "\n\n".join(
            [
                describe_network(build.network),
                describe_engine(build.engine),
                describe_memory(plan),
                describe_program(plan.program),
            ]
        )
    if (path / "network.json").is_file():
        return describe_network(read_network(path))
    if (path / "network" / "network.json").is_file():
        return describe_network(read_network(path / "network"))
    if path.is_file() and path.suffix == ".json":
        return describe_engine(read_engine(path))
    if path.is_file():
        try:
            return describe_program(disassemble(path.read_bytes()))
        except InputError as error:
            raise InputError(error.problems, str(path)) from None
    raise InputError("There is no network, run, build, engine file or program here.", str(path))
