"""Hardware handoff files (.hwh): what pynq reads to learn addresses, registers, clocks and interrupts.

Vivado writes one for a real board. A virtual board has the same blocks, so its file is made here.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from hwgen import isa
from hwgen.address_map import DDR, ENGINE, INTERRUPTS, Window, clock_divisors
from hwgen.board import Board
from hwgen.errors import InputError

ENGINE_INSTANCE = "bitsmith"
_PS = "processing_system7_0"
_INTC = "axi_intc_0"
_CLOCKS = 4
# pynq 4.0.0 looks for the clock of a Zynq-7000 under the name that only the UltraScale+ has, and stops where it is missing.
_PYNQ_CLOCK = "PSU__CRL_APB__PL{}_REF_CTRL__ACT_FREQMHZ"
_ACCESS = {"ro": "read-only", "rw": "read-write"}


def _module(parent: Element, name: str, kind: str, vlnv: str) -> Element:
    made = SubElement(
        parent, "MODULE", FULLNAME=f"/{name}", INSTANCE=name, MODTYPE=kind, VLNV=vlnv, IPTYPE="PERIPHERAL", IS_ENABLE="1"
    )
    return made


def _parameters(module: Element, values: dict[str, object]) -> None:
    parent = SubElement(module, "PARAMETERS")
    for name, value in values.items():
        SubElement(parent, "PARAMETER", NAME=name, VALUE=str(value))


def _port(ports: Element, name: str, direction: str, kind: str, net: str, *ends: tuple[str, str]) -> None:
    port = SubElement(ports, "PORT", NAME=name, DIR=direction, SIGIS=kind, SIGNAME=net)
    if kind == "INTERRUPT":
        port.set("SENSITIVITY", "LEVEL_HIGH")
    connections = SubElement(port, "CONNECTIONS")
    for instance, pin in ends:
        SubElement(connections, "CONNECTION", INSTANCE=instance, PORT=pin)


def _bus(buses: Element, name: str, kind: str, protocol: str, width: int) -> None:
    bus = SubElement(
        buses, "BUSINTERFACE", NAME=name, TYPE=kind, DATAWIDTH=str(width), VLNV="xilinx.com:interface:aximm:1.0"
    )
    SubElement(bus, "PARAMETER", NAME="PROTOCOL", VALUE=protocol)
    SubElement(bus, "PARAMETER", NAME="DATA_WIDTH", VALUE=str(width))


def _range(parent: Element, window: Window, master: str, target: str, slave: str, kind: str) -> None:
    SubElement(
        parent,
        "MEMRANGE",
        ADDRESSBLOCK="Reg" if kind == "REGISTER" else "HP_DDR",
        BASENAME="C_BASEADDR",
        BASEVALUE=f"0x{window.base:08X}",
        HIGHNAME="C_HIGHADDR",
        HIGHVALUE=f"0x{window.last:08X}",
        INSTANCE=target,
        IS_DATA="TRUE",
        IS_INSTRUCTION="TRUE",
        MASTERBUSINTERFACE=master,
        MEMTYPE=kind,
        SLAVEBUSINTERFACE=slave,
    )


def _registers(module: Element, interface: str) -> None:
    block = SubElement(
        SubElement(module, "ADDRESSBLOCKS"),
        "ADDRESSBLOCK",
        ACCESS="read-write",
        INTERFACE=interface,
        NAME="Reg",
        RANGE=str(ENGINE.size),
        USAGE="register",
    )
    parent = SubElement(block, "REGISTERS")
    for item in isa.REGISTERS:
        register = SubElement(parent, "REGISTER", NAME=item.name)
        for name, value in (
            ("DESCRIPTION", item.meaning),
            ("ADDRESS_OFFSET", f"{item.offset:#x}"),
            ("SIZE", "32"),
            ("ACCESS", _ACCESS[item.access]),
            ("IS_ENABLED", "true"),
            ("RESET_VALUE", "0x0"),
        ):
            SubElement(register, "PROPERTY", NAME=name, VALUE=value)
        SubElement(register, "FIELDS")


def _engine(modules: Element, masters: int) -> None:
    module = _module(modules, ENGINE_INSTANCE, "bs_top", "bitsmith:bitsmith:bs_top:1.0")
    _registers(module, "s_axil")
    _parameters(module, {"C_BASEADDR": f"0x{ENGINE.base:08X}", "C_HIGHADDR": f"0x{ENGINE.last:08X}"})
    ports = SubElement(module, "PORTS")
    _port(ports, "clk", "I", "clk", "fclk", (_PS, "FCLK_CLK0"))
    _port(ports, "irq_o", "O", "INTERRUPT", "engine_irq", (_INTC, "intr"))
    buses = SubElement(module, "BUSINTERFACES")
    _bus(buses, "s_axil", "SLAVE", "AXI4LITE", 32)
    memory = SubElement(module, "MEMORYMAP")
    for index in range(masters):
        _bus(buses, f"m_axi_{index}", "MASTER", "AXI3", 64)
        _range(memory, DDR, f"m_axi_{index}", _PS, f"S_AXI_HP{index}", "MEMORY")


def _interrupts(modules: Element) -> None:
    module = _module(modules, _INTC, "axi_intc", "xilinx.com:ip:axi_intc:4.1")
    _parameters(module, {"C_NUM_INTR_INPUTS": 1, "C_BASEADDR": f"0x{INTERRUPTS.base:08X}"})
    ports = SubElement(module, "PORTS")
    _port(ports, "s_axi_aclk", "I", "clk", "fclk", (_PS, "FCLK_CLK0"))
    _port(ports, "intr", "I", "INTERRUPT", "engine_irq", (ENGINE_INSTANCE, "irq_o"))
    _port(ports, "irq", "O", "INTERRUPT", "intc_irq", (_PS, "IRQ_F2P"))
    _bus(SubElement(module, "BUSINTERFACES"), "s_axi", "SLAVE", "AXI4LITE", 32)


def _processing_system(modules: Element, clock_mhz: float, masters: int) -> None:
    module = _module(modules, _PS, "processing_system7", "xilinx.com:ip:processing_system7:5.5")
    module.set("IS_PL", "FALSE")
    values: dict[str, object] = {}
    for index in range(_CLOCKS):
        first, second = clock_divisors(clock_mhz) if index == 0 else (5, 4)
        values |= {
            f"PCW_FCLK{index}_PERIPHERAL_CLKSRC": "IO PLL",
            f"PCW_FCLK{index}_PERIPHERAL_DIVISOR0": first,
            f"PCW_FCLK{index}_PERIPHERAL_DIVISOR1": second,
            f"PCW_FPGA_FCLK{index}_ENABLE": int(index == 0),
        }
    values |= {"PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ": clock_mhz, _PYNQ_CLOCK.format(0): clock_mhz}
    _parameters(module, values)
    ports = SubElement(module, "PORTS")
    _port(ports, "FCLK_CLK0", "O", "clk", "fclk", (ENGINE_INSTANCE, "clk"), (_INTC, "s_axi_aclk"))
    _port(ports, "IRQ_F2P", "I", "INTERRUPT", "intc_irq", (_INTC, "irq"))
    buses = SubElement(module, "BUSINTERFACES")
    _bus(buses, "M_AXI_GP0", "MASTER", "AXI3", 32)
    for index in range(masters):
        _bus(buses, f"S_AXI_HP{index}", "SLAVE", "AXI3", 64)
    memory = SubElement(module, "MEMORYMAP")
    _range(memory, ENGINE, "M_AXI_GP0", ENGINE_INSTANCE, "s_axil", "REGISTER")
    _range(memory, INTERRUPTS, "M_AXI_GP0", _INTC, "s_axi", "REGISTER")


def _text(root: Element) -> str:
    data: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return data.decode() + "\n"


def render_hwh(board: Board, clock_mhz: float, *, masters: int = 2) -> str:
    """The description of the chip that a virtual board simulates.

    Args:
        masters: memory masters of the engine, each on a high-performance port of its own.
    """
    root = Element("EDKSYSTEM", EDWVERSION="1.2", VIVADOVERSION="bitsmith")
    device, _, grade = board.part.removeprefix("xc").partition("-")
    SubElement(
        root,
        "SYSTEMINFO",
        ARCH="zynq",
        DEVICE=device[:5],
        NAME="bitsmith_virtual",
        PACKAGE=device[5:],
        SPEEDGRADE=f"-{grade}",
    )
    SubElement(root, "EXTERNALPORTS")
    SubElement(root, "EXTERNALINTERFACES")
    modules = SubElement(root, "MODULES")
    _interrupts(modules)
    _engine(modules, masters)
    _processing_system(modules, clock_mhz, masters)
    ElementTree.indent(root)
    return _text(root)


def add_pynq_clock(text: str) -> str:
    """Vivado's description with the one parameter that pynq 4.0.0 needs to set the clock of a Zynq-7000.

    Raises:
        InputError: no processing system in it, or no clock.
    """
    try:
        root = ElementTree.fromstring(text.lstrip("\ufeff"))
    except ElementTree.ParseError:
        raise InputError("It is not an .hwh file: it cannot be parsed.") from None
    module = next((item for item in root.iter("MODULE") if item.get("MODTYPE") == "processing_system7"), None)
    parameters = None if module is None else module.find("PARAMETERS")
    if parameters is None:
        raise InputError("It describes no Zynq-7000 processing system.")
    values = {item.get("NAME"): item.get("VALUE") for item in parameters}
    clock = values.get("PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ")
    if clock is None:
        raise InputError("Its processing system says no frequency for FCLK0.")
    if _PYNQ_CLOCK.format(0) not in values:
        SubElement(parameters, "PARAMETER", NAME=_PYNQ_CLOCK.format(0), VALUE=clock)
    return _text(root)
