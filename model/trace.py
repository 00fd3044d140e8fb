"""From any nn.Module to a list of supported layers: torch.fx records what its forward calls, whether written as a module, a
function or a method, and everything that the integer network cannot hold is named at once, with what to use instead."""

from __future__ import annotations

import contextlib
import copy
import io
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.nn.modules.lazy import LazyModuleMixin

from hwgen.errors import InputError
from model.calls import FUNCTIONS, METHODS, advice
from model.factory import line_of, text_of
from model.layers import MAKERS, UnsupportedError, ceiling_of, check_conv, check_norm, check_stride, pool_of

BATCH = 2  # images that a module is tried on


class Shortcut(nn.Module):
    """Option-A shortcut: every ``stride``-th pixel of (N, C, H, W), zero channels around up to ``channels``."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels

    def forward(self, x: Tensor) -> Tensor:
        before = (self.channels - x.shape[1]) // 2
        after = self.channels - x.shape[1] - before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))


class Kind(Enum):
    """What a call does to its tensors."""

    IMAGE = "image"
    WEIGHTED = "convolution or linear layer"
    NORM = "batch norm"
    RELU = "ReLU"
    ADD = "addition"
    MAX = "max pool"
    AVERAGE = "average pool"
    SHORTCUT = "option-A shortcut"
    SAME = "flatten, dropout or identity"
    REFUSED = "a call that is complained about"


@dataclass(frozen=True)
class Op:
    """One call: its inputs' indices in the list of ops, its output's shape (C, H, W), and the module that does it.

    ceiling: of a ReLU, 6 for ReLU6. dropout: share of the values that training drops.
    """

    kind: Kind
    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, int, int]
    module: nn.Module | None = None
    ceiling: float = inf
    dropout: float = 0.0


_MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv", nn.Linear: "linear", nn.BatchNorm2d: "norm", nn.BatchNorm1d: "norm", nn.ReLU: "relu",
    nn.ReLU6: "relu6", nn.Hardtanh: "clamp", nn.MaxPool2d: "max", nn.AvgPool2d: "average",
    nn.AdaptiveAvgPool2d: "global", nn.Flatten: "same", nn.Identity: "same", nn.Dropout: "dropout",
    nn.Dropout2d: "dropout", Shortcut: "shortcut",
}  # fmt: skip
_KINDS = {
    "conv": Kind.WEIGHTED, "linear": Kind.WEIGHTED, "norm": Kind.NORM, "relu": Kind.RELU, "relu6": Kind.RELU,
    "clamp": Kind.RELU, "max": Kind.MAX, "average": Kind.AVERAGE, "global": Kind.AVERAGE, "mean": Kind.AVERAGE,
    "add": Kind.ADD, "same": Kind.SAME, "dropout": Kind.SAME, "shortcut": Kind.SHORTCUT,
}  # fmt: skip
_RESHAPING = (Kind.WEIGHTED, Kind.MAX, Kind.AVERAGE, Kind.SHORTCUT)  # whose maps have another shape than those they read
_ON_MAPS = ("conv", "max", "average", "global", "mean", "shortcut")
_SIZE = "size of a map"  # in a node's notes
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Shortcut) or super().is_leaf_module(m, module_qualified_name)


class _Sizes(ShapeProp):
    """Notes shapes, and sizes that forward asks for, where they are the same for any number of images."""

    def note(self, shape: tuple[int, int, int]) -> None:
        """Run on images of this shape; what is noted is of ``BATCH`` of them."""
        other: dict[fx.Node, Any] = {}
        with contextlib.suppress(Exception):  # a forward that takes no other number of images has no such sizes
            other = self._sizes(BATCH + 1, shape)
        for node, size in self._sizes(BATCH, shape).items():
            if other.get(node) == size:
                node.meta[_SIZE] = size

    def _sizes(self, images: int, shape: tuple[int, int, int]) -> dict[fx.Node, Any]:
        self._found: dict[fx.Node, Any] = {}
        self.propagate(torch.zeros(images, *shape))
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, int | torch.Size):
            self._found[n] = found
        return found


class _Trace:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.ops: list[Op] = []
        self.index: dict[fx.Node, int] = {}
        self.called: set[str] = set()
        self.owners: dict[int, str] = {}  # of each parameter, by its id
        self.problems: list[str] = []

    def run(self) -> int:
        """Fill ``ops``; the index of the output."""
        output = -1
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                if self.ops:
                    self.problems.append(f"input '{node.target}': a network reads one image; join the inputs before it.")
                kind = Kind.REFUSED if self.ops else Kind.IMAGE
                self._append(node, Op(kind, str(node.target), (), _shape(node)))
            elif node.op == "output":
                value = node.args[0]
                if isinstance(value, fx.Node) and value in self.index:
                    output = self.index[value]
                else:
                    self.problems.append("output: it must be one tensor, the logits (N, classes).")
            # Sizes and what is computed of parameters alone are no tensors of the network: the call that reads them is blamed.
            elif not self._is_size(node) and any(item in self.index for item in node.all_input_nodes):
                self._call(node)
        return output

    def _append(self, node: fx.Node, op: Op) -> None:
        self.index[node] = len(self.ops)
        self.ops.append(op)

    @staticmethod
    def _is_size(node: fx.Node) -> bool:
        """Sizes that views are given; no tensor comes out."""
        return "tensor_meta" not in node.meta

    def _attribute(self, value: Any) -> Any:
        """What a traced argument is: a parameter or buffer of the module, the size of a map, or the argument itself."""
        if isinstance(value, tuple | list):
            return tuple(map(self._attribute, value))
        if isinstance(value, fx.Node) and _SIZE in value.meta:
            return value.meta[_SIZE]
        if isinstance(value, fx.Node) and value.op == "get_attr":
            found: Any = self.graph
            for part in str(value.target).split("."):
                found = getattr(found, part)
            return found
        return value

    def _call(self, node: fx.Node) -> None:
        name, what = node.name, str(node.target)
        known: str | None
        if node.op == "call_module":
            name = what
            module = self.graph.get_submodule(name)
            what, known = type(module).__name__, _MODULES.get(type(module))
            fields = {"input": node.args[0] if node.args else node.kwargs.get("input")}
            if known in ("add", "same"):
                module = nn.Identity()
        else:
            table: dict[Any, tuple[str, tuple[str, ...]]] = FUNCTIONS if node.op == "call_function" else METHODS
            known, names = table.get(node.target, (None, ()))
            what = str(getattr(node.target, "__name__", node.target))
            fields = dict(zip(names, map(self._attribute, node.args), strict=False))
            fields |= {key: self._attribute(value) for key, value in node.kwargs.items()}
            module = nn.Identity()
        if known is None:
            if node.target is operator.getitem and _is_tuple(node.all_input_nodes[0]):
                self._pass_on(node)  # one of the results of a call that is complained about
                return
            self.problems.append(f"'{name}' is {what}, which cannot become integers: {advice(what)}.")
            self._pass_on(node)
            return
        sources = [fields["input"], fields.get("other")] if known == "add" else [fields["input"]]
        read = [item for item in sources if isinstance(item, fx.Node) and item in self.index]
        if len(read) != len(sources):
            self.problems.append(
                f"'{name}': it adds something that is no tensor of the network; make it the bias of the convolution before"
                " it, or use a batch norm."
                if known == "add"
                else f"'{name}' ({what}): its input must be a tensor of the network."
            )
            self._pass_on(node)
            return
        try:
            self._append(node, self._op(node, name, known, module, fields, read))
        except UnsupportedError as error:
            self.problems.append(f"'{name}' ({what}): {error}.")
            self._pass_on(node)

    def _pass_on(self, node: fx.Node) -> None:
        """After a problem: later layers are looked at on the shape that this one gave when the module itself ran."""
        source = next((item for item in node.all_input_nodes if item in self.index), None)
        if source is not None:
            self._append(node, Op(Kind.REFUSED, node.name, (self.index[source],), _shape(node)))

    def _own(self, name: str, given: dict[str, Any]) -> None:
        """Raises where a layer shares a parameter with another: in the network they would be trained apart."""
        tensors = {what: given[what] for what in ("weight", "bias") if isinstance(given.get(what), Tensor)}
        owners = {what: self.owners.setdefault(id(tensor), name) for what, tensor in tensors.items()}
        shared = [f"its {what} is that of '{owner}'" for what, owner in owners.items() if owner != name]
        if shared:
            raise UnsupportedError(f"{' and '.join(shared)}; give each layer parameters of its own")

    def _op(
        self, node: fx.Node, name: str, known: str, module: nn.Module, fields: dict[str, Any], read: list[fx.Node]
    ) -> Op:
        inputs = tuple(self.index[item] for item in read)
        kind, source, sizes = _KINDS[known], self.ops[inputs[0]].shape, _sizes(read[0])
        ceiling, dropout = inf, 0.0
        computed = [key for key, value in fields.items() if _is_computed(value) and key not in ("input", "other")]
        if computed and known != "same":
            raise UnsupportedError(f"its {computed[0]} must be a parameter or a number, not computed in forward")
        flat = known in _ON_MAPS and len(sizes) != 4
        if self.ops[inputs[0]].kind is Kind.REFUSED and (flat or known == "same"):
            return Op(Kind.REFUSED, name, inputs, _shape(node))  # what the map would be is not known
        if flat:
            raise UnsupportedError("it must read maps (N, C, H, W); put the view behind it")
        if known in ("conv", "linear", "norm"):
            if node.op == "call_module" and name in self.called:
                raise UnsupportedError("it is called twice; give each call a layer of its own")
            self.called.add(name)
            self._own(name, dict(module._parameters) if node.op == "call_module" else fields)
        if node.op != "call_module":
            module = MAKERS[known](fields) if known in MAKERS else module
        if known == "conv":
            check_conv(module)
        elif known == "linear" and len(node.meta["tensor_meta"].shape) != 2:
            raise UnsupportedError("a linear layer reads (N, features); flatten the map before it")
        elif known == "linear" and isinstance(module, nn.Linear) and module.in_features != prod(source):
            raise UnsupportedError("flatten the map just before it")
        elif known == "norm":
            check_norm(module, source)
        elif known in ("relu6", "clamp"):
            ceiling = ceiling_of(module, known, fields)
        elif known == "add":
            other = self.ops[inputs[1]].shape
            # Behind a refused call it is not known how the network would hold a map.
            if _sizes(read[1]) != sizes or (other != source and not self.problems):
                raise UnsupportedError(f"maps of {source} and {other} cannot be added; their shapes must be equal")
            if fields.get("alpha", 1) != 1:
                raise UnsupportedError("alpha must be 1")
        elif known in ("max", "average", "global", "mean"):
            module = pool_of(module, known, fields, source)
        elif isinstance(module, Shortcut):
            check_stride(module.stride)
        elif known == "dropout":
            dropout = float(module.p if isinstance(module, nn.Dropout | nn.Dropout2d) else fields.get("p", 0.5))
            if dropout and node.op != "call_module" and fields.get("training", True):
                raise UnsupportedError("it drops in evaluation too; give it training=self.training")
        elif known == "same":
            _check_view(_sizes(node), source)
        return Op(kind, name, inputs, _shape(node) if kind in _RESHAPING else source, module, ceiling, dropout)


def _check_view(sizes: tuple[int, ...], source: tuple[int, int, int]) -> None:
    """Raises unless a view of maps keeps the order in which the network holds their values: (C, H, W), flattened or not."""
    channels, height, width = source
    pixels = height * width
    if sizes not in ((BATCH, channels * pixels), (BATCH, channels, pixels), (BATCH, *source)):
        given = ", ".join(("N" if sizes[:1] == (BATCH,) else str(sizes[0]), *map(str, sizes[1:]))) if sizes else ""
        raise UnsupportedError(
            f"it makes ({given}) of maps (C, H, W) = {source}; a view may only flatten the map of each image, to"
            f" (N, {channels * pixels})"
        )


def _is_computed(value: Any) -> bool:
    """Whether a call's argument is known only when forward runs."""
    return any(map(_is_computed, value)) if isinstance(value, tuple) else isinstance(value, fx.Node)


def _is_tuple(node: fx.Node) -> bool:
    """Whether a call has several results, as chunk and LSTM have."""
    return not isinstance(node.meta.get("tensor_meta"), TensorMetadata | None)


def _shape(node: fx.Node) -> tuple[int, int, int]:
    sizes = (*_sizes(node)[1:], 1, 1, 1)
    return sizes[0], sizes[1], sizes[2]


def _sizes(node: fx.Node) -> tuple[int, ...]:
    """Of the tensor when the module itself ran, with the batch; nothing where there are several."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if isinstance(meta, TensorMetadata) else ()


def _hooked(module: nn.Module) -> Iterator[str]:
    """A sentence about each layer without weights, or with hooks: torch.fx records what layers do, not what is hung on them."""
    for name, item in module.named_modules():
        if isinstance(item, LazyModuleMixin) and item.has_uninitialized_params():  # type: ignore[misc]
            yield f"'{name or 'the network'}' ({type(item).__name__}) has no weights yet; run the module once on an image, then prepare it."
            continue  # its hook makes them then
        hooks = [hook for kind in _HOOKS for hook in getattr(item, kind, {}).values()]
        if hooks:
            names = ", ".join(getattr(hook, "__name__", type(hook).__name__) for hook in hooks)
            yield (
                f"'{name or 'the network'}' ({type(item).__name__}) has hooks ({names}), which the network cannot keep: remove"
                " them, and write what they do as layers (those of weight_norm, spectral_norm and prune go with the remove"
                " functions of torch.nn.utils)."
            )


def _failure(module: nn.Module, shape: tuple[int, int, int]) -> str | None:
    """What the module itself raises on such images, with the line in the user's code; None: it runs."""
    try:
        with torch.no_grad():
            module(torch.zeros(BATCH, *shape))
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        return f"It does not run on images of (C, H, W) = {shape}: it failed{line_of(error)} with {text_of(error)}."
    return None


def trace(module: nn.Module, shape: tuple[int, int, int]) -> tuple[list[Op], int]:
    """The calls of a module on an image (C, H, W), in order, and the index of the one that makes the logits.

    Raises:
        InputError: a module that cannot be traced or run on that shape; or unsupported layers, all of them at once.
    """
    subject = f"network '{type(module).__name__}'"
    problems = list(_hooked(module))
    try:
        module = copy.deepcopy(module).cpu().eval()
    except Exception as error:  # torch copies no tensor that was computed, as hooks leave them
        raise InputError(problems or f"It cannot be copied: {text_of(error)}.", subject) from None
    try:
        graph = fx.GraphModule(module, _Tracer().trace(module))
        graph.graph.eliminate_dead_code()
    except (Exception, SystemExit) as error:  # fx raises whatever the module's forward makes of its proxies
        text = f"torch.fx cannot trace its forward ({text_of(error)}); it must not branch on values or sizes of tensors."
        raise InputError([*problems, _failure(module, shape) or text], subject) from None
    try:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # ShapeProp prints tracebacks of its own
            _Sizes(graph).note(shape)
    except Exception as error:
        cause = text_of(error.__cause__ or error)
        text = f"As torch.fx records it, it does not run on images of (C, H, W) = {shape}: {cause}."
        raise InputError([*problems, _failure(module, shape) or text], subject) from None
    made = _Trace(graph)
    output = made.run()
    if problems or made.problems:
        raise InputError([*problems, *made.problems], subject)
    return made.ops, output
