"""An AXI4-Lite master for cocotb testbenches: 32-bit reads and writes, one at a time."""

from __future__ import annotations

import random
from typing import Any

from cocotb.triggers import RisingEdge

from sim.axi_memory import OKAY, reader, writer


class AxilError(Exception):
    """A register access was answered with SLVERR or DECERR."""


class AxilMaster:
    """Drives the slave port of ``dut`` whose signals begin with ``prefix``.

    Args:
        stall: probability, per cycle, that the master pauses before a handshake: 0 to below 1.
    """

    def __init__(self, dut: Any, prefix: str, clk: Any, *, stall: float = 0.0, seed: int = 1) -> None:
        self._edge = RisingEdge(clk)
        self._stall = stall
        self._random = random.Random(seed)

        def drive(name: str) -> Any:
            return writer(getattr(dut, f"{prefix}_{name}"))

        def sense(name: str) -> Any:
            return reader(getattr(dut, f"{prefix}_{name}"))

        self._awaddr, self._awvalid, self._awready = drive("awaddr"), drive("awvalid"), sense("awready")
        self._wdata, self._wstrb = drive("wdata"), drive("wstrb")
        self._wvalid, self._wready = drive("wvalid"), sense("wready")
        self._bvalid, self._bresp, self._bready = sense("bvalid"), sense("bresp"), drive("bready")
        self._araddr, self._arvalid, self._arready = drive("araddr"), drive("arvalid"), sense("arready")
        self._rvalid, self._rdata = sense("rvalid"), sense("rdata")
        self._rresp, self._rready = sense("rresp"), drive("rready")
        for quiet in (self._awvalid, self._wvalid, self._bready, self._arvalid, self._rready):
            quiet(0)

    async def _pause(self) -> None:
        while self._stall and self._random.random() < self._stall:
            await self._edge

    async def access_write(self, address: int, value: int, strobe: int = 0xF) -> int:
        """Write and return the response code. Address and data may be taken in either order."""
        await self._pause()
        address_first, data_first = self._random.choice(((1, 1), (1, 0), (0, 1))) if self._stall else (1, 1)
        address_open = data_open = True
        address_shown, data_shown = bool(address_first), bool(data_first)
        self._awaddr(address)
        self._wdata(value)
        self._wstrb(strobe)
        self._awvalid(int(address_shown))
        self._wvalid(int(data_shown))
        while address_open or data_open:
            await self._edge
            if address_shown and address_open and self._awready():
                address_open = False
                self._awvalid(0)
            if data_shown and data_open and self._wready():
                data_open = False
                self._wvalid(0)
            if not address_shown:
                address_shown = True
                self._awvalid(1)
            if not data_shown:
                data_shown = True
                self._wvalid(1)
        await self._pause()
        self._bready(1)
        while True:
            await self._edge
            if self._bvalid():
                response = int(self._bresp())
                self._bready(0)
                return response

    async def access_read(self, address: int) -> tuple[int, int]:
        """Read and return (value, response code)."""
        await self._pause()
        self._araddr(address)
        self._arvalid(1)
        while True:
            await self._edge
            if self._arready():
                break
        self._arvalid(0)
        await self._pause()
        self._rready(1)
        while True:
            await self._edge
            if self._rvalid():
                value, response = int(self._rdata()), int(self._rresp())
                self._rready(0)
                return value, response

    async def write(self, address: int, value: int, strobe: int = 0xF) -> None:
        """Write ``value``.

        Raises:
            AxilError: the response is not OKAY.
        """
        response = await self.access_write(address, value, strobe)
        if response != OKAY:
            raise AxilError(f"writing register {address:#04x} was answered with {response}")

    async def read(self, address: int) -> int:
        """The value at ``address``.

        Raises:
            AxilError: the response is not OKAY.
        """
        value, response = await self.access_read(address)
        if response != OKAY:
            raise AxilError(f"reading register {address:#04x} was answered with {response}")
        return value
