"""From any nn.Module to a list of supported layers: torch.fx records what its forward calls, whether written as a module, a
function or a method, and everything that the integer network cannot hold is named at once, with what to use instead."""

from __future__ import annotations

import contextlib
import copy
import io
import operator
from dataclasses import dataclass
from enum import Enum
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from hwgen.errors import InputError
from model.layers import MAKERS, UnsupportedError, ceiling_of, check_conv, check_norm, pool_of


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


_WORKING = (
    "the layers that work are convolution, linear, batch norm, ReLU, ReLU6, addition, max, average and global average"
    " pooling, flatten and dropout"
)
_ADVICE = {  # the first that fits: "matmul" before "mul", "replicationpad" before "cat"
    ("lstm", "gru", "rnn", "attention", "transformer", "matmul", "bmm", "einsum", "embedding"): "use convolutions or linear layers",
    ("pad",): "use the padding of the layer behind it, or model.trace.Shortcut for an option-A shortcut",
    ("adaptivemax", "adaptive_max", "lppool", "lp_pool", "fractional", "maxunpool"):
        "use MaxPool2d with a fixed kernel, or AdaptiveAvgPool2d(1)",
    ("sigmoid", "tanh", "gelu", "silu", "mish", "leaky", "prelu", "rrelu", "elu", "selu", "celu", "hardswish",
     "hardsigmoid", "softplus", "hardtanh", "clamp"): "use ReLU or ReLU6",
    ("softmax", "softmin"): "return the logits and leave it to the loss",
    ("layernorm", "layer_norm", "groupnorm", "group_norm", "instancenorm", "instance_norm", "localresponse",
     "rmsnorm", "normalize"): "use batch norm, which folds into integers",
    ("convtranspose", "conv_transpose", "upsample", "interpolate", "pixelshuffle"): "maps can only shrink, by strides and pools",
    ("conv1d", "conv3d", "maxpool1d", "maxpool3d", "avgpool1d", "avgpool3d"): "use the two-dimensional layer",
    ("cat", "concat", "stack", "chunk", "split"): "use addition of maps of equal shape",
    ("mul", "div", "sub", "truediv", "pow", "neg", "exp", "log"): "use addition, or a batch norm that scales channels",
    ("getitem",): "use model.trace.Shortcut for an option-A shortcut",
}  # fmt: skip


def _advice(what: str) -> str:
    plain = what.lower()
    return next((text for words, text in _ADVICE.items() if any(word in plain for word in words)), _WORKING)


_FUNCTIONS: dict[Any, tuple[str, tuple[str, ...]]] = {
    F.conv2d: ("conv", ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    F.linear: ("linear", ("input", "weight", "bias")),
    F.batch_norm: (
        "norm",
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    F.relu: ("relu", ("input", "inplace")),
    F.relu6: ("relu6", ("input", "inplace")),
    F.hardtanh: ("clamp", ("input", "min", "max")),
    torch.clamp: ("clamp", ("input", "min", "max")),
    F.max_pool2d: ("max", ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    F.avg_pool2d: (
        "average",
        ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    F.adaptive_avg_pool2d: ("global", ("input", "output_size")),
    torch.mean: ("mean", ("input", "dim", "keepdim")),
    operator.add: ("add", ("input", "other")),
    torch.add: ("add", ("input", "other", "alpha")),
    torch.flatten: ("same", ("input", "start_dim", "end_dim")),
    F.dropout: ("dropout", ("input", "p", "training", "inplace")),
}
_FUNCTIONS |= {
    torch.conv2d: _FUNCTIONS[F.conv2d],
    torch.relu: _FUNCTIONS[F.relu],
    torch.relu_: _FUNCTIONS[F.relu],
    F.relu_: _FUNCTIONS[F.relu],
    torch.max_pool2d: _FUNCTIONS[F.max_pool2d],
    operator.iadd: _FUNCTIONS[operator.add],
    F.dropout2d: _FUNCTIONS[F.dropout],
    torch.dropout: _FUNCTIONS[F.dropout],
    torch.squeeze: ("same", ("input", "dim")),
    torch.reshape: ("same", ("input", "shape")),
}
_METHODS = {
    "relu": _FUNCTIONS[F.relu], "relu_": _FUNCTIONS[F.relu], "add": _FUNCTIONS[torch.add], "add_": _FUNCTIONS[torch.add],
    "clamp": _FUNCTIONS[torch.clamp], "mean": _FUNCTIONS[torch.mean], "flatten": _FUNCTIONS[torch.flatten],
    "view": ("same", ("input",)), "reshape": ("same", ("input",)), "squeeze": ("same", ("input",)),
    "contiguous": ("same", ("input",)),
}  # fmt: skip
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


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Shortcut) or super().is_leaf_module(m, module_qualified_name)


class _Trace:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.ops: list[Op] = []
        self.index: dict[fx.Node, int] = {}
        self.called: dict[str, str] = {}
        self.problems: list[str] = []

    def run(self) -> int:
        """Fill ``ops``; the index of the output."""
        output = -1
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                if self.ops:
                    self.problems.append(f"input '{node.target}': a network reads one image; join the inputs before it.")
                    continue
                self._append(node, Op(Kind.IMAGE, str(node.target), (), _shape(node)))
            elif node.op == "output":
                value = node.args[0]
                if isinstance(value, fx.Node) and value in self.index:
                    output = self.index[value]
                elif not isinstance(value, fx.Node) or self._is_size(value):
                    self.problems.append("output: it must be one tensor, the logits (N, classes).")
            elif node.op != "get_attr" and not self._is_size(node):
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
        """What a traced argument is: a parameter or buffer of the module, or the argument itself."""
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
            table: dict[Any, tuple[str, tuple[str, ...]]] = _FUNCTIONS if node.op == "call_function" else _METHODS
            known, names = table.get(node.target, (None, ()))
            what = str(getattr(node.target, "__name__", node.target))
            fields = dict(zip(names, map(self._attribute, node.args), strict=False))
            fields |= {key: self._attribute(value) for key, value in node.kwargs.items()}
            module = nn.Identity()
        if known is None:
            if node.target is operator.getitem and _is_tuple(node.all_input_nodes[0]):
                self._pass_on(node)  # one of the results of a call that is complained about
                return
            self.problems.append(f"'{name}' is {what}, which cannot become integers: {_advice(what)}.")
            self._pass_on(node)
            return
        sources = [fields["input"], fields.get("other")] if known == "add" else [fields["input"]]
        inputs = [self.index.get(item) for item in sources if isinstance(item, fx.Node)]
        if len(inputs) != len(sources) or None in inputs:
            if all(isinstance(item, fx.Node) and item.op != "get_attr" and not self._is_size(item) for item in sources):
                self._pass_on(node)  # reads what is already complained about
            else:
                self.problems.append(f"'{name}': it adds something that is no tensor of the network; use a batch norm.")
                self._pass_on(node)
            return
        try:
            self._append(node, self._op(node, name, known, module, fields, tuple(i for i in inputs if i is not None)))
        except UnsupportedError as error:
            self.problems.append(f"'{name}' ({what}): {error}.")
            self._pass_on(node)

    def _pass_on(self, node: fx.Node) -> None:
        """After a problem: later layers are looked at on the shape that this one gave when the module itself ran."""
        source = next((item for item in node.all_input_nodes if item in self.index), None)
        if source is not None:
            self._append(node, Op(Kind.REFUSED, node.name, (self.index[source],), _shape(node)))

    def _map(self, index: int) -> tuple[int, int, int]:
        """The shape of a tensor as the network holds it: flattened or not, it stays a map."""
        while self.ops[index].kind is Kind.SAME and self.ops[index].inputs:
            index = self.ops[index].inputs[0]
        return self.ops[index].shape

    def _op(
        self, node: fx.Node, name: str, known: str, module: nn.Module, fields: dict[str, Any], inputs: tuple[int, ...]
    ) -> Op:
        shape, source = _shape(node), self._map(inputs[0])
        ceiling, dropout = inf, 0.0
        if node.op == "call_module" and known in ("conv", "linear", "norm"):
            if name in self.called:
                raise UnsupportedError("it is called twice; give each call a layer of its own")
            self.called[name] = name
        elif node.op != "call_module":
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
            if self._map(inputs[1]) != source:
                raise UnsupportedError(
                    f"maps of {source} and {self._map(inputs[1])} cannot be added; their shapes must be equal"
                )
            if fields.get("alpha", 1) != 1:
                raise UnsupportedError("alpha must be 1")
        elif known in ("max", "average", "global", "mean"):
            module = pool_of(module, known, fields, source)
        elif known == "dropout":
            dropout = float(module.p if isinstance(module, nn.Dropout | nn.Dropout2d) else fields.get("p", 0.5))
        elif known == "same" and prod(shape) != prod(source):
            raise UnsupportedError("a view may only flatten the map of each image")
        return Op(_KINDS[known], name, inputs, shape, module, ceiling, dropout)


def _is_tuple(node: fx.Node) -> bool:
    """Whether a call has several results, as chunk and LSTM have."""
    return not isinstance(node.meta.get("tensor_meta"), TensorMetadata | None)


def _shape(node: fx.Node) -> tuple[int, int, int]:
    meta = node.meta.get("tensor_meta")
    sizes = [*(meta.shape[1:] if isinstance(meta, TensorMetadata) else ()), 1, 1, 1]
    return sizes[0], sizes[1], sizes[2]


def trace(module: nn.Module, shape: tuple[int, int, int]) -> tuple[list[Op], int]:
    """The calls of a module on an image (C, H, W), in order, and the index of the one that makes the logits.

    Raises:
        InputError: a module that cannot be traced or run on that shape; or unsupported layers, all of them at once.
    """
    subject = f"network '{type(module).__name__}'"
    module = copy.deepcopy(module).cpu().eval()
    try:
        graph = fx.GraphModule(module, _Tracer().trace(module))
        graph.graph.eliminate_dead_code()
    except Exception as error:  # fx raises whatever the module's forward makes of its proxies
        raise InputError(
            f"torch.fx cannot trace its forward ({_line(error)}); it must not branch on values or sizes of tensors.",
            subject,
        ) from None
    try:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # ShapeProp prints tracebacks of its own
            ShapeProp(graph).propagate(torch.zeros(2, *shape))
    except Exception as error:  # whatever the module's own code raises
        cause = error.__cause__ or error
        raise InputError(f"It does not run on images of (C, H, W) = {shape}: {_line(cause)}.", subject) from None
    made = _Trace(graph)
    output = made.run()
    if made.problems:
        raise InputError(made.problems, subject)
    return made.ops, output


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
