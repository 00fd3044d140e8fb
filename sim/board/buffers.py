"""The contiguous memory that a virtual board hands out."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwgen.address_map import Window

PAGE = 4096
# Where the kernels of the PYNQ-Z2 keep memory for devices: 128 MiB of the 512.
AREA = Window(0x1000_0000, 0x0800_0000)

_log = logging.getLogger(__name__)


class BufferError(Exception):
    """No such buffer, or no room for one."""


@dataclass(frozen=True)
class Buffer:
    """``size`` bytes at physical ``address``; ``owner`` is the client's connection."""

    ident: str
    address: int
    size: int
    owner: str


class Buffers:
    """First-fit allocation of pages.

    Args:
        alive: whether a client's connection still exists. Buffers of vanished clients are taken back when memory is short
            and not before: gRPC may renew the connection of a client that lives.
    """

    def __init__(self, area: Window = AREA, alive: Callable[[str], bool] | None = None) -> None:
        self.area = area
        self._alive = alive or connected
        self._buffers: dict[str, Buffer] = {}

    def allocate(self, size: int, owner: str) -> Buffer:
        """A buffer.

        Raises:
            BufferError: it is empty, or does not fit what is free.
        """
        if size < 1:
            raise BufferError(f"a buffer of {size} bytes cannot be made")
        address = self._room(size)
        if address is None:
            for gone in {item.owner for item in self._buffers.values()} - {owner}:
                if not self._alive(gone):
                    self.release(gone)
            address = self._room(size)
        if address is None:
            free = self.area.size - sum(self._pages(item.size) for item in self._buffers.values())
            raise BufferError(f"no room for {size} bytes: {free} of {self.area.size} are free")
        made = Buffer(uuid.uuid4().hex, address, size, owner)
        self._buffers[made.ident] = made
        return made

    def find(self, ident: str) -> Buffer:
        """The buffer of this name.

        Raises:
            BufferError: there is none.
        """
        if ident not in self._buffers:
            raise BufferError(f"there is no buffer '{ident}'")
        return self._buffers[ident]

    def free(self, ident: str) -> None:
        """Take a buffer back.

        Raises:
            BufferError: there is none.
        """
        del self._buffers[self.find(ident).ident]

    def release(self, owner: str) -> None:
        """Take back everything of a client."""
        lost = [ident for ident, item in self._buffers.items() if item.owner == owner]
        for ident in lost:
            del self._buffers[ident]
        _log.info("took back %d buffers of %s, which is gone", len(lost), owner)

    def __len__(self) -> int:
        return len(self._buffers)

    @staticmethod
    def _pages(size: int) -> int:
        return -(-size // PAGE) * PAGE

    def _room(self, size: int) -> int | None:
        base = self.area.base
        for item in sorted(self._buffers.values(), key=lambda item: item.address):
            if base + self._pages(size) <= item.address:
                return base
            base = item.address + self._pages(item.size)
        return base if base + self._pages(size) <= self.area.base + self.area.size else None


def connected(peer: str) -> bool:
    """Whether the TCP connection that gRPC calls ``peer`` (``ipv4:127.0.0.1:40000``) is established, as the kernel lists it.

    True where the kernel's list cannot be read: better to keep a buffer than to lose one that is in use.
    """
    port = peer.rpartition(":")[2]
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not port.isdigit() or not tables[0].exists():
        return True
    wanted, established = f"{int(port):04X}", "01"
    for table in tables:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if local.endswith(f":{wanted}") and state == established:
                return True
    return False
