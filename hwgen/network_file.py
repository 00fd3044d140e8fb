"""Reading and writing network files: ``network.json``, ``tensors.npz``, ``samples.npz``; see docs/network-format.md."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwgen.errors import InputError
from hwgen.network import (
    MAX_KERNEL,
    AvgPool,
    Conv,
    Encoding,
    Logits,
    MaxPool,
    Network,
    Node,
    Requant,
    Samples,
    ShortcutA,
    Tensor,
    Weighted,
)
from hwgen.network_check import check
from hwgen.output import whole_folder

FORMAT = "bitsmith-network"
VERSION = 1
_MAX_JSON_BYTES = 1 << 26
_MAX_ARRAY_BYTES = 1 << 29
_MAX_HEADER_BYTES = 1 << 14  # of an .npy file; NumPy reads no header above 10,000
_EPOCH = (1980, 1, 1, 0, 0, 0)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _TensorModel(_Strict):
    shape: Annotated[list[int], Field(min_length=3, max_length=3)]
    bits: int
    signed: bool = False
    scale: float | int = 1.0


class _NodeModel(_Strict):
    name: str
    inputs: Annotated[list[str], Field(min_length=1, max_length=2)]
    output: str


class _WeightedModel(_NodeModel):
    weight_bits: int
    encoding: Literal["bipolar", "twos"]
    stride: int = 1
    padding: int = 0
    depthwise: bool = False
    pad_codes: list[int] = []


class _ConvModel(_WeightedModel):
    op: Literal["conv"]
    shift: int
    skip_mul: int = 0


class _LogitsModel(_WeightedModel):
    op: Literal["logits"]


class _RequantModel(_NodeModel):
    op: Literal["requant"]
    mul: int
    bias: int
    shift: int


class _MaxPoolModel(_NodeModel):
    op: Literal["maxpool"]
    kernel: int
    stride: int
    padding: int = 0


class _AvgPoolModel(_NodeModel):
    op: Literal["avgpool"]
    kernel: Annotated[list[int], Field(min_length=2, max_length=2)]
    stride: int
    mul: int
    bias: int
    shift: int
    padding: int = 0


class _ShortcutModel(_NodeModel):
    op: Literal["shortcut_a"]
    stride: int
    before: int


_AnyNode = _ConvModel | _LogitsModel | _RequantModel | _MaxPoolModel | _AvgPoolModel | _ShortcutModel


class _FileModel(_Strict):
    format: Literal["bitsmith-network"]
    version: Literal[1]
    name: str
    input: str
    output: str
    tensors: dict[str, _TensorModel]
    nodes: list[Annotated[_AnyNode, Field(discriminator="op")]]


_OPS: dict[type[Node], str] = {
    Conv: "conv",
    Logits: "logits",
    Requant: "requant",
    MaxPool: "maxpool",
    AvgPool: "avgpool",
    ShortcutA: "shortcut_a",
}
_ARRAYS: dict[str, np.dtype[Any]] = {"weight": np.dtype(np.int16), "mul": np.dtype(np.int32), "bias": np.dtype(np.int64)}


def _sentences(error: ValidationError, data: Any) -> list[str]:
    """One sentence per problem, naming node (or tensor) and field."""
    problems = []
    for item in error.errors():
        where = [str(part) for part in item["loc"]]
        if where[:1] == ["nodes"] and len(where) > 1:
            try:
                name = data["nodes"][int(where[1])]["name"]
            except (KeyError, IndexError, TypeError, ValueError):
                name = f"number {where[1]}"
            field = ".".join(part for part in where[2:] if part not in _OPS.values()) or "op"
            head = f"node '{name}', field '{field}'"
        elif where[:1] == ["tensors"] and len(where) > 1:
            head = f"tensor '{where[1]}', field '{'.'.join(where[2:]) or 'itself'}'"
        else:
            head = f"field '{'.'.join(where) or 'network.json'}'"
        value = item.get("input")
        shown = "" if isinstance(value, dict | list) or item["type"] == "missing" else f" (it is {value!r:.80})"
        problems.append(f"{head}: {item['msg']}{shown}.")
    return problems


def _read_json(path: Path) -> _FileModel:
    subject = str(path)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"It is larger than {_MAX_JSON_BYTES >> 20} MiB, which no network needs.", subject)
        data = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # half a surrogate pair could not even be reported
    except OSError as error:
        raise InputError(f"Cannot read it: {error.strerror}.", subject) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"It is not JSON, or was cut short: {error}.", subject) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f'It is not a network file: "format" must be "{FORMAT}".', subject)
    if data.get("version") != VERSION:
        raise InputError(
            f"Its schema version is {data.get('version')!r}; this bitsmith reads version {VERSION}.", subject
        )
    try:
        return _FileModel.model_validate(data)
    except ValidationError as error:
        raise InputError(_sentences(error, data), subject) from None


def read_arrays(
    path: Path, wanted: dict[str, np.dtype[Any] | None], most: Mapping[str, int] | None = None
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Arrays of an .npz by name, without unpickling and with a look at every size before anything is loaded.

    Args:
        wanted: names that must be there, with the dtype to convert to (integers only; None: leave as it is).
        most: the most values that an array can have, where that is known.

    Returns:
        the arrays that could be read, and the problems.
    """
    arrays: dict[str, NDArray[Any]] = {}
    problems: list[str] = []
    most = most or {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            problems += [f"array '{name}' is not used by any node." for name in sorted(set(names) - set(wanted))]
            for name, dtype in wanted.items():
                if name not in names:
                    problems.append(f"array '{name}' is missing.")
                    continue
                size = archive.getinfo(names[name]).file_size
                if size > _MAX_ARRAY_BYTES:
                    problems.append(f"array '{name}' is larger than {_MAX_ARRAY_BYTES >> 20} MiB.")
                    continue
                if name in most and size > _MAX_HEADER_BYTES + 8 * most[name]:
                    problems.append(
                        f"array '{name}' takes {size} bytes; the shapes in network.json leave it at most {most[name]} values."
                    )
                    continue
                try:
                    array = np.lib.format.read_array(io.BytesIO(archive.read(names[name])), allow_pickle=False)
                except Exception:  # zlib, zipfile, NumPy's header parser and tokenize each raise their own kinds
                    problems.append(f"array '{name}' is damaged.")
                    continue
                if array.dtype.kind not in "iu":
                    problems.append(f"array '{name}' holds {array.dtype}; only integers are allowed.")
                    continue
                if dtype is not None:
                    limits = np.iinfo(dtype)
                    if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
                        problems.append(f"array '{name}' holds values that do not fit {dtype}.")
                        continue
                    array = array.astype(dtype)
                arrays[name] = array
    except OSError as error:
        problems.append(f"Cannot read it: {error.strerror or error}.")
    except Exception:  # as above: a damaged directory of the archive
        problems.append("It is not a .npz file, or was cut short.")
    return arrays, problems


def _most_values(node: _WeightedModel, model: _FileModel) -> dict[str, int]:
    """How many values the arrays of a node can have, as far as the shapes of its tensors say."""
    source, out = model.tensors.get(node.inputs[0]), model.tensors.get(node.output)
    if source is None or out is None or min(source.shape + out.shape) < 1:
        return {}
    channels = out.shape[2]
    kernel = max(MAX_KERNEL, source.shape[0]) * max(MAX_KERNEL, source.shape[1])
    weights = channels * kernel * (1 if node.depthwise else source.shape[2])
    return {f"{node.name}.weight": weights, f"{node.name}.mul": channels, f"{node.name}.bias": channels}


def _node(model: _AnyNode, arrays: dict[str, NDArray[Any]]) -> Node:
    fields = model.model_dump(exclude={"op"})
    fields["inputs"] = tuple(fields["inputs"])
    if isinstance(model, _WeightedModel):
        fields["encoding"] = Encoding(model.encoding)
        fields["pad_codes"] = tuple(model.pad_codes)
        for name in ("weight", "bias", "mul"):
            if f"{model.name}.{name}" in arrays:
                fields[name] = arrays[f"{model.name}.{name}"]
    if isinstance(model, _AvgPoolModel):
        fields["kernel"] = (model.kernel[0], model.kernel[1])
    kinds: dict[type[_NodeModel], type[Node]] = {
        _ConvModel: Conv,
        _LogitsModel: Logits,
        _RequantModel: Requant,
        _MaxPoolModel: MaxPool,
        _AvgPoolModel: AvgPool,
        _ShortcutModel: ShortcutA,
    }
    return kinds[type(model)](**fields)


def _real(value: float | int) -> float:
    """The float of a JSON number; an integer beyond every float is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_network(path: Path) -> Network:
    """Read and check a network folder.

    Raises:
        InputError: with every problem that could be found, each naming node and field.
    """
    model = _read_json(path / "network.json")
    wanted: dict[str, np.dtype[Any] | None] = {}
    most: dict[str, int] = {}
    for node in model.nodes:
        if isinstance(node, _WeightedModel):
            most |= _most_values(node, model)
            wanted |= {f"{node.name}.weight": _ARRAYS["weight"], f"{node.name}.bias": _ARRAYS["bias"]}
            if isinstance(node, _ConvModel):
                wanted[f"{node.name}.mul"] = _ARRAYS["mul"]
    arrays, problems = read_arrays(path / "tensors.npz", wanted, most)
    samples = None
    if (path / "samples.npz").exists():
        found, more = read_arrays(path / "samples.npz", {"images": np.dtype(np.uint8), "labels": np.dtype(np.int64)})
        problems += [f"samples.npz: {problem}" for problem in more]
        if not more:
            samples = Samples(found["images"], found["labels"])
    if problems:
        raise InputError(problems, str(path))
    tensors = {
        name: Tensor(name, (item.shape[0], item.shape[1], item.shape[2]), item.bits, item.signed, _real(item.scale))
        for name, item in model.tensors.items()
    }
    network = Network(
        model.name, tensors, tuple(_node(node, arrays) for node in model.nodes), model.input, model.output, samples
    )
    problems = check(network)
    if problems:
        raise InputError(problems, str(path))
    return network


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue())


def _node_json(node: Node) -> dict[str, Any]:
    data: dict[str, Any] = {"name": node.name, "op": _OPS[type(node)], "inputs": list(node.inputs), "output": node.output}
    if isinstance(node, Weighted):
        data |= {
            "weight_bits": node.weight_bits,
            "encoding": node.encoding.value,
            "stride": node.stride,
            "padding": node.padding,
            "depthwise": node.depthwise,
            "pad_codes": list(map(int, node.pad_codes)),
        }
    for name in ("shift", "skip_mul", "mul", "bias", "kernel", "stride", "padding", "before"):
        value = getattr(node, name, None)
        if isinstance(value, int | np.integer):
            data[name] = int(value)
        elif isinstance(value, tuple):
            data[name] = [int(item) for item in value]
    return data


def write_network(network: Network, path: Path) -> None:
    """Write a network folder, whole or not at all; an existing one is replaced.

    Raises:
        InputError: the network is not legal, or something else than a network file is in the way.
    """
    problems = check(network)
    if problems:
        raise InputError(problems, f"network '{network.name}'")
    if path.exists() and not (path / "network.json").is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError("It exists and is not a network file; choose another path or remove it.", str(path))
    data = {
        "format": FORMAT,
        "version": VERSION,
        "name": network.name,
        "input": network.input,
        "output": network.output,
        "tensors": {
            name: {
                "shape": list(map(int, item.shape)),
                "bits": item.bits,
                "signed": item.signed,
                "scale": float(item.scale),
            }
            for name, item in network.tensors.items()
        },
        "nodes": [_node_json(node) for node in network.nodes],
    }
    arrays: dict[str, NDArray[Any]] = {}
    for node in network.nodes:
        if isinstance(node, Weighted):
            arrays[f"{node.name}.weight"] = node.weight.astype(np.int16)
            if isinstance(node, Conv):
                arrays[f"{node.name}.mul"] = node.mul.astype(np.int32)
            arrays[f"{node.name}.bias"] = node.bias.astype(np.int64)
    with whole_folder(path) as scratch:
        (scratch / "network.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        write_arrays(scratch / "tensors.npz", arrays)
        if network.samples is not None:
            write_arrays(scratch / "samples.npz", {"images": network.samples.images, "labels": network.samples.labels})
