"""The float network of another run, to start from or to quantise."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from hwgen.errors import InputError
from model import checkpoint
from model.finite import worst
from model.quantnet import QuantNet

_OWN = ("strengths", "clip", "weight_clip")  # what each network has by its own bits and quantisers


def _taken(items: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in items.items() if name.rpartition(".")[2] not in _OWN}


def read_float(net: QuantNet, path: Path) -> dict[str, Tensor]:
    """Weights and batch norms of the float network of a run folder or checkpoint.

    Raises:
        InputError: no checkpoint there, none with a float network yet, or one that has diverged or is of another shape than
            ``net``.
    """
    path = path / "checkpoint.pt" if path.is_dir() else path
    state = checkpoint.load(path).get("float")
    if not isinstance(state, dict) or not state:
        raise InputError("It holds no float network yet; train that run to the end of its float stage.", str(path))
    given, wanted = _taken(state), _taken(net.state_dict())
    if {name: value.shape for name, value in given.items()} != {name: value.shape for name, value in wanted.items()}:
        raise InputError("It belongs to a network of another shape.", str(path))
    found = [(name, worst(value)) for name, value in given.items()]
    if problems := [
        f"Its float network has diverged: '{name}' holds {most:.3g}." for name, most in found if most is not None
    ]:
        raise InputError([*problems, "Train it anew at a lower train.rate."], str(path))
    return given


def take_float(net: QuantNet, path: Path) -> None:
    """Give ``net`` what :func:`read_float` reads; clips and strengths stay its own."""
    net.load_state_dict(read_float(net, path), strict=False)
