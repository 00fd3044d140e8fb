"""The few files of a PYNQ board that its clients read and write."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import PurePosixPath

from hwgen.bitfile import virtual_design
from hwgen.errors import InputError

FIRMWARE = "/lib/firmware"
MANAGER = "/sys/class/fpga_manager/fpga0"
BOARD_NAME = "/proc/device-tree/chosen/pynq_board"
MAX_FIRMWARE_BYTES = 16 << 20  # a bitstream of the xc7z020 has 4 MB
MAX_STORED_BYTES = 128 << 20  # of all firmware together

_log = logging.getLogger(__name__)


class FileError(Exception):
    """A file that is not there, or that a client may not write."""


class Files:
    """The files.

    Args:
        board: name of the board, e.g. Pynq-Z2.
        design: hash of the design that this board simulates.
        configure: called when a client has the FPGA manager load that design's firmware.
    """

    def __init__(self, board: str, design: str, configure: Callable[[], None]) -> None:
        self._design = design
        self._configure = configure
        self._state = "unknown"
        self._flags = "0"
        self._firmware: dict[str, bytes] = {}
        self._fixed = {
            "/proc/version": b"Linux version 6.6.10-xilinx (bitsmith virtual board) (armv7l) #1 SMP PREEMPT\n",
            BOARD_NAME: board.encode() + b"\0",
            f"{MANAGER}/name": b"Xilinx Zynq FPGA Manager\n",
        }

    def exists(self, path: str) -> bool:
        """Whether a client finds this file."""
        return path in self._fixed or path in self._firmware or path in self._manager()

    def read(self, path: str) -> bytes:
        """A file.

        Raises:
            FileError: it is not there.
        """
        for table in (self._fixed, self._firmware, self._manager()):
            if path in table:
                return table[path]
        raise FileError(f"{path}: there is no such file on this board")

    def write(self, path: str, data: bytes) -> None:
        """Write a file; writing the FPGA manager's ``firmware`` configures the device.

        Raises:
            FileError: not a file that clients may write, too large, or firmware that this board does not simulate.
        """
        if path == f"{MANAGER}/flags":
            self._flags = data.decode("ascii", "replace").strip()
        elif path == f"{MANAGER}/firmware":
            self._load(data.decode("utf-8", "replace").strip())
        else:
            place = PurePosixPath(path)
            if str(place.parent) != FIRMWARE or ".." in place.parts or str(place) != path:
                raise FileError(f"{path}: clients write only to {FIRMWARE} and to the FPGA manager")
            if place.suffix != ".bin":
                raise FileError(f"{path}: firmware is a .bin file")
            if len(data) > MAX_FIRMWARE_BYTES:
                raise FileError(f"{path}: {len(data)} bytes are more than any bitstream of this device has")
            if sum(map(len, self._firmware.values())) - len(self._firmware.get(path, b"")) + len(data) > MAX_STORED_BYTES:
                raise FileError(f"{path}: no space is left for firmware on this board; start it again")
            self._firmware[path] = data

    def _manager(self) -> dict[str, bytes]:
        return {f"{MANAGER}/state": f"{self._state}\n".encode(), f"{MANAGER}/flags": f"{self._flags}\n".encode()}

    def _load(self, name: str) -> None:
        data = self._firmware.get(f"{FIRMWARE}/{name}")
        self._state = "firmware request error"
        if data is None:
            raise FileError(f"{FIRMWARE}/{name}: there is no such firmware")
        if self._flags != "0":
            raise FileError("this board has no partial reconfiguration")
        try:
            design = virtual_design(data)
        except InputError as error:
            self._state = "write error"
            # Clients look for the name only: half a file of one that vanished would stand in the next one's way.
            del self._firmware[f"{FIRMWARE}/{name}"]
            raise FileError(f"{name}: {error}") from None
        if design != self._design:
            self._state = "write error"
            raise FileError(
                f"{name} is for the design {design[:12]}, this board simulates {self._design[:12]}; serve that bundle"
                " with 'bitsmith board --bundle'"
            )
        self._configure()
        self._state = "operating"
        _log.info("configured with %s", name)
