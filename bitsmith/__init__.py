"""bitsmith: from a PyTorch network to a verified mixed-precision FPGA accelerator.

The Python API is the path of the command line:

    run = prepare(recipe, folder)      # data, engine, cost table
    search(run)                        # float training, bit search, retraining
    network = export(run)              # the integer network, checked against the trained one
    build = generate(network, out)     # RTL and program
    result = verify(build.path)        # every tensor against the golden model
    other = assemble(other_network, build.path, out)  # another network's program for the same engine
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwgen.errors import InputError

if TYPE_CHECKING:
    from bitsmith.run import RunFolder
    from hwgen.build import Build
    from hwgen.engine import EngineConfig
    from hwgen.network import Network

__all__ = ["InputError", "assemble", "export", "generate", "prepare", "search", "verify"]

DEFAULT_BOARD = "pynq-z2"


def prepare(
    recipe: Path, folder: Path, *, board: str = DEFAULT_BOARD, engine: Path | None = None, force: bool = False
) -> RunFolder:
    """Make a run folder: read the recipe, choose the engine (or read it), load the data, make the cost table.

    Raises:
        InputError: bad recipe, board or engine file, or a folder that exists while ``force`` is not set.
    """
    from bitsmith import run

    return run.start(recipe, folder, board, engine, force=force)


def search(run: RunFolder) -> None:
    """Train all stages: float, bit search, retraining, integers.

    Raises:
        InputError: no assignment meets the budget, or the loss is no number any more.
    """
    from bitsmith import run as runs

    runs.train(run)


def export(run: RunFolder) -> Network:
    """The integer network of a trained run; every code equals the trained network's on the test images.

    Raises:
        InputError: the run is not trained to its end, or integers would overflow.
    """
    from bitsmith import run as runs

    return runs.export(run)


def generate(
    network: Network, out: Path, *, board: str = DEFAULT_BOARD, engine: EngineConfig | None = None, force: bool = False
) -> Build:
    """Build folder with RTL and program; without an engine, the fastest one that fits the board.

    Raises:
        InputError: ``out`` exists, or no engine can run or hold the network.
    """
    from hwgen.board import load_board
    from hwgen.build import generate as write
    from hwgen.explore import choose_engine

    target = load_board(board)
    return write(network, engine or choose_engine(network, target).engine, target, out, force=force)


def assemble(network: Network, build: Path, out: Path, *, force: bool = False, batch: int = 1) -> Build:
    """A build folder with this network's program for the engine of another build: same RTL, same engine hash.

    Args:
        batch: images that share the weights of the last layers.

    Raises:
        InputError: ``build`` is no build folder, ``out`` exists, or the network does not fit the engine: which buffers
            and limits are exceeded, and by how much.
    """
    from hwgen.build import assemble_for, read_build

    return assemble_for(network, read_build(build), out, force=force, batch=batch)


def verify(build: Path, *, count: int | None = None, seed: int = 1) -> dict[str, object]:
    """Simulate a build's RTL and compare every tensor; the figures of ``bitsmith verify``.

    Raises:
        InputError: the build or the images are unusable, or no simulator is installed.
    """
    from sim.verify import verify as simulate

    return simulate(build, count=count, seed=seed)
