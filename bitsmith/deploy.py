"""Run a bundle's test images on a board: over PYNQ's remote protocol, or over ssh."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwgen.bundle import read_bundle
from hwgen.driver.bitsmith_driver.check import check
from hwgen.driver.bitsmith_driver.errors import AcceleratorError
from hwgen.errors import InputError
from sim.board.client import Remote, RemoteError, RemotePlatform
from sim.board.virtual import open_board
from sim.board.wire import PORT

_PROBE_S = 3.0
_NAME_HASH = 12
_ADDRESS = re.compile(r"(?:(?P<user>[A-Za-z_][A-Za-z0-9_-]*)@)?(?P<host>[A-Za-z0-9:][A-Za-z0-9.:-]*)")
# What the board's shell is given never contains anything of the user's: file names are made of the bundle's hash, and the
# options travel as JSON on standard input. PYNQ needs root and the environment of a login shell.
_REMOTE_COMMAND = (
    'if [ "$(id -u)" = 0 ]; then exec bash -lc "exec python3 -"; else exec sudo -n bash -lc "exec python3 -"; fi'
)
_REMOTE_PROGRAM = """
import json, pathlib, sys, tempfile, zipfile
options = json.loads({options!r})
with tempfile.TemporaryDirectory() as folder:
    zipfile.ZipFile(options["zip"]).extractall(folder)
    inner = next(pathlib.Path(folder).glob("*/manifest.json")).parent
    sys.path.insert(0, str(inner))
    from bitsmith_driver.check import check
    from bitsmith_driver.errors import AcceleratorError
    try:
        answer = check(inner, images=options["images"])
    except (AcceleratorError, ValueError) as error:
        answer = {{"error": str(error)}}
print("bitsmith:" + json.dumps(answer))
"""


def _silent(stage: str, done: int, total: int) -> None:
    pass


def deploy(
    bundle: Path, board: str, images: int | None, progress: Callable[[str, int, int], None] = _silent
) -> dict[str, Any]:
    """Run sample images and compare.

    Args:
        progress: called with a stage, what is done of it and all of it.
        board: "virtual", or [user@]host of a board; over PYNQ's remote protocol where port 7967 speaks it, else over ssh.

    Returns:
        what ``bitsmith_driver.check`` returns, and ``board``, ``way`` ("remote protocol" or "ssh").

    Raises:
        InputError: a damaged bundle, no such board, or what the board says is wrong.
    """
    facts = read_bundle(bundle).manifest
    if board == "virtual":
        progress("compiling the RTL", 0, 1)
        with open_board(bundle, port=0) as server:
            progress("compiling the RTL", 1, 1)
            return _remote(bundle, Remote("127.0.0.1", server.port), images, progress)
    match = _ADDRESS.fullmatch(board)
    if match is None or (":" in match["host"] and not _is_ipv6(match["host"])):
        raise InputError(
            f"--board {board}: give an address such as 192.168.2.99 or xilinx@pynq, or 'virtual'; another port of ssh belongs in"
            " ~/.ssh/config."
        )
    if facts["virtual"] and not match["host"].startswith(("127.", "::1")):
        raise InputError("Its bit file is for the virtual board only; build one with 'bitsmith synth'.", str(bundle))
    if match["user"] is None and (connection := _connect(match["host"])) is not None:
        return _remote(bundle, connection, images, progress)
    return _ssh(bundle, board, images, progress)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _connect(host: str) -> Remote | None:
    """A connection, if the board speaks PYNQ's remote protocol."""
    try:
        with socket.create_connection((host, PORT), timeout=_PROBE_S):
            pass
        return Remote(f"[{host}]" if ":" in host else host)
    except (OSError, RemoteError):
        return None


def _remote(
    bundle: Path, connection: Remote, images: int | None, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    try:
        try:
            platform = RemotePlatform(connection)
            figures = check(bundle, images=images, device=platform, progress=progress)
            return {"board": platform.board, "way": "remote protocol", **figures}
        finally:
            connection.close()
    except (AcceleratorError, ValueError) as error:
        raise InputError(str(error)) from None


def _ssh(bundle: Path, board: str, images: int | None, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    missing = [tool for tool in ("ssh", "scp") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"{board} does not speak PYNQ's remote protocol, and there is no {' and no '.join(missing)}: install the"
            " package openssh-client."
        )
    packed = bundle if bundle.is_file() else bundle.with_name(bundle.name + ".zip")
    if not packed.is_file():
        raise InputError(f"{packed} is missing; it goes to the board: make the bundle again.")
    name = f"bitsmith-{hashlib.sha256(packed.read_bytes()).hexdigest()[:_NAME_HASH]}.zip"
    progress("ssh", 0, 2)
    user, at, host = board.rpartition("@")
    target = f"{user}{at}[{host}]" if ":" in host else board
    _tool(["scp", "-q", "--", str(packed.resolve()), f"{target}:{name}"], f"copying to {board}")
    progress("ssh", 1, 2)
    program = _REMOTE_PROGRAM.format(options=json.dumps({"zip": name, "images": images}))
    output = _tool(["ssh", "--", board, _REMOTE_COMMAND], f"running on {board}", program)
    progress("ssh", 2, 2)
    line = next((text for text in output.splitlines() if text.startswith("bitsmith:")), None)
    if line is None:
        raise InputError(f"{board} answered without figures: {output.strip()[-300:] or 'nothing'}")
    figures: dict[str, Any] = json.loads(line.removeprefix("bitsmith:"))
    if "error" in figures:
        raise InputError(f"{board}: {figures['error']}")
    return {"board": board, "way": "ssh", **figures}


def _tool(command: list[str], what: str, text: str = "") -> str:
    """Run a program without a shell; its output.

    Raises:
        InputError: it failed; the message holds the end of what it said.
    """
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        said = (run.stderr.strip() or run.stdout.strip())[-300:] or f"exit code {run.returncode}"
        raise InputError(f"{what} failed: {said}")
    return run.stdout
