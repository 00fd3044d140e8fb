"""The complete Zynq-7000 chip without Vivado: engine, bridge and the processing system's primitive with every port tied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwgen.address_map import ENGINE
from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.render import render, template_folder
from hwgen.synth import KEEP, map_commands, run_yosys

# Signals of one high-performance port: width on the engine's side, width of the primitive's port.
READ_OUT = {
    "arid": (6, 6), "araddr": (32, 32), "arlen": (8, 4), "arsize": (3, 2), "arburst": (2, 2), "arlock": (2, 2),
    "arcache": (4, 4), "arprot": (3, 3), "arqos": (4, 4), "arvalid": (1, 1), "rready": (1, 1),
}  # fmt: skip
READ_IN = {"arready": (1, 1), "rid": (6, 6), "rdata": (64, 64), "rresp": (2, 2), "rlast": (1, 1), "rvalid": (1, 1)}
WRITE_OUT = {
    **{name.replace("ar", "aw", 1): width for name, width in READ_OUT.items() if name.startswith("ar")},
    "wid": (6, 6), "wdata": (64, 64), "wstrb": (8, 8), "wlast": (1, 1), "wvalid": (1, 1), "bready": (1, 1),
}  # fmt: skip
WRITE_IN = {"awready": (1, 1), "wready": (1, 1), "bid": (6, 6), "bresp": (2, 2), "bvalid": (1, 1)}
# Of the general-purpose port, what the bridge takes and gives.
_GP_OUT = {
    "arid": 12, "araddr": 32, "arlen": 4, "arsize": 2, "arburst": 2, "arvalid": 1, "rready": 1,
    "awid": 12, "awaddr": 32, "awlen": 4, "awsize": 2, "awburst": 2, "awvalid": 1,
    "wdata": 32, "wstrb": 4, "wlast": 1, "wvalid": 1, "bready": 1,
}  # fmt: skip
_GP_IN = {
    "arready": 1, "rid": 12, "rdata": 32, "rresp": 2, "rlast": 1, "rvalid": 1,
    "awready": 1, "wready": 1, "bid": 12, "bresp": 2, "bvalid": 1,
}  # fmt: skip
AXIL = {
    "araddr": 8, "arvalid": 1, "arready": 1, "rdata": 32, "rresp": 2, "rvalid": 1, "rready": 1,
    "awaddr": 8, "awvalid": 1, "awready": 1, "wdata": 32, "wstrb": 4, "wvalid": 1, "wready": 1,
    "bresp": 2, "bvalid": 1, "bready": 1,
}  # fmt: skip
NETLIST = Path("zynq/bs_zynq.json")  # in a build
# Whether each master of the engine writes as well as reads.
MASTERS = (True, False)


@dataclass(frozen=True)
class Net:
    """A net or pin and its range, as it is written in front of the name."""

    name: str
    width: int

    @property
    def range(self) -> str:
        return "" if self.width == 1 else f"[{self.width - 1}:0] "


def ps7_ports() -> dict[str, tuple[str, int]]:
    """The ports of the primitive PS7: direction and width by name."""
    text = template_folder().joinpath("zynq", "ps7_ports.json").read_text(encoding="utf-8")
    return {name: (direction, width) for name, (direction, width) in json.loads(text).items()}


def render_chip(engine: EngineConfig, board: str, rtl: Sequence[str], version: str) -> dict[str, str]:
    """What the chip has beside the RTL, by file name: bridge, top ``bs_zynq`` and a Yosys script that synthesises it all.

    Args:
        rtl: names of the engine's sources in compile order; they lie in ``../rtl``.
    """
    ports = ps7_ports()
    nets = [Net("ps_fclkclk", 4), Net("ps_fclkresetn", 4)]
    used = {
        "FCLKCLK": "ps_fclkclk",
        "FCLKRESETN": "ps_fclkresetn",
        "IRQF2P": "{19'd0, irq}",
        "MAXIGP0ACLK": "clk",
        "FPGAIDLEN": "1'b1",  # active low: the fabric is never idle, so its clocks are never stopped
    }
    bridge: list[tuple[str, str]] = []
    for name, width in {**_GP_OUT, **_GP_IN}.items():
        nets.append(Net(f"gp_{name}", width))
        used[f"MAXIGP0{name.upper()}"] = f"gp_{name}"
        bridge.append((f"s_axi_{name}", f"gp_{name}"))
    top = [("s_axil_awprot", "3'd0"), ("s_axil_arprot", "3'd0")]
    for name, width in AXIL.items():
        nets.append(Net(f"axil_{name}", width))
        bridge.append((f"m_axil_{name}", f"axil_{name}"))
        top.append((f"s_axil_{name}", f"axil_{name}"))
    for index, writes in enumerate(MASTERS):
        used[f"SAXIHP{index}ACLK"] = "clk"
        signals = {**READ_OUT, **READ_IN, **(WRITE_OUT | WRITE_IN if writes else {})}
        for name, (ours, theirs) in signals.items():
            net = f"hp{index}_{name}"
            nets.append(Net(net, ours))
            used[f"SAXIHP{index}{name.upper()}"] = net if ours == theirs else f"{net}[{theirs - 1}:0]"
            top.append((f"m_axi_{index}_{name}", net))
    ps, pins = [], []
    for name, (direction, width) in ports.items():
        if direction == "inout":
            pins.append(Net(name, width))
            ps.append((name, name))
        elif name in used:
            ps.append((name, used[name]))
        else:
            ps.append((name, f"{width}'d0" if direction == "input" else ""))
    assert set(used) <= set(ports), sorted(set(used) - set(ports))
    chip = render(
        "zynq/bs_zynq.sv.j2",
        engine=engine, board=board, base=ENGINE.base, nets=nets, pins=pins, ps=ps, bridge=bridge, top=top,
    )  # fmt: skip
    return {
        "bs_axi3_bridge.sv": template_folder().joinpath("zynq", "bs_axi3_bridge.sv").read_text(encoding="utf-8"),
        "bs_zynq.sv": chip,
        "synth.ys": _script(engine, rtl, version),
    }


def _script(engine: EngineConfig, rtl: Sequence[str], version: str) -> str:
    sources = [*(Path("../rtl") / name for name in rtl), Path("bs_axi3_bridge.sv"), Path("bs_zynq.sv")]
    library, *mapping = map_commands(sources, "bs_zynq", {}, KEEP)
    head = [
        f"# The complete chip with engine {engine.name}, mapped to the 7 series; made by bitsmith {version}.",
        "# In this folder: yosys synth.ys     (writes bs_zynq.json, the flat netlist that nextpnr-xilinx reads)",
    ]
    # The primitive PS7 is in the second file of the library. Flat only when mapped: each kind of unit is mapped once.
    flat = [
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean",
        "stat -tech xilinx",
        "write_json bs_zynq.json",
    ]
    return "\n".join([*head, library, "read_verilog -lib +/xilinx/cells_xtra.v", *mapping, *flat]) + "\n"


def synthesise_chip(build: Path) -> dict[str, int]:
    """Run the Yosys script of the build folder ``build``, which writes ``NETLIST``; the number of cells by type.

    Raises:
        InputError: the script is missing.
        RuntimeError: Yosys failed; the message holds the end of its output.
    """
    script = build / NETLIST.parent / "synth.ys"
    if not script.is_file():
        raise InputError("zynq/synth.ys is missing; generate the build again.", str(build))
    lines = script.read_text(encoding="utf-8").splitlines()
    run_yosys([line for line in lines if not line.startswith("#")], "bs_zynq", script.parent)
    modules = json.loads((build / NETLIST).read_text(encoding="utf-8"))["modules"]
    types = Counter(str(cell["type"]) for cell in modules["bs_zynq"]["cells"].values())
    return {name: number for name, number in sorted(types.items()) if name != "$scopeinfo"}
