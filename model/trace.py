"""From any nn.Module to a list of supported layers: torch.fx records what its forward calls, whether written as a module, a
function or a method, and everything that the integer network cannot hold is named at once, with what to use instead."""

from __future__ import annotations

import contextlib
import copy
import io
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from hwgen.errors import InputError


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
_ADVICE = {
    ("sigmoid", "tanh", "gelu", "silu", "mish", "leaky", "prelu", "rrelu", "elu", "selu", "celu", "hardswish",
     "hardsigmoid", "softplus", "hardtanh", "clamp"): "use ReLU or ReLU6",
    ("softmax", "softmin"): "return the logits and leave it to the loss",
    ("layernorm", "layer_norm", "groupnorm", "group_norm", "instancenorm", "instance_norm", "localresponse",
     "rmsnorm", "normalize"): "use batch norm, which folds into integers",
    ("convtranspose", "conv_transpose", "upsample", "interpolate", "pixelshuffle"): "maps can only shrink: use strides and pools",
    ("conv1d", "conv3d", "maxpool1d", "maxpool3d", "avgpool1d", "avgpool3d"): "use the two-dimensional layer",
    ("cat", "concat", "stack", "chunk", "split"): "use addition of maps of equal shape",
    ("mul", "div", "sub", "truediv", "pow", "neg", "exp", "log"): "use addition, or a batch norm that scales channels",
    ("lstm", "gru", "rnn", "attention", "transformer", "matmul", "bmm", "einsum", "embedding"): "use convolutions or linear layers",
    ("pad",): "use the padding of the layer behind it, or model.trace.Shortcut for an option-A shortcut",
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
                elif not isinstance(value, fx.Node):
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
            self.problems.append(f"'{name}' is {what}, which cannot become integers: {_advice(what)}.")
            self._pass_on(node)
            return
        sources = [fields["input"], fields.get("other")] if known == "add" else [fields["input"]]
        inputs = [self.index.get(item) for item in sources if isinstance(item, fx.Node)]
        if len(inputs) != len(sources) or None in inputs:
            if all(isinstance(item, fx.Node) and item.op != "get_attr" for item in sources):
                self._pass_on(node)  # reads what is already complained about
            else:
                self.problems.append(f"'{name}': it adds something that is no tensor of the network; use a batch norm.")
                self._pass_on(node)
            return
        try:
            self._append(node, self._op(node, name, known, module, fields, tuple(i for i in inputs if i is not None)))
        except _UnsupportedError as error:
            self.problems.append(f"'{name}' ({what}): {error}.")
            self._pass_on(node)

    def _pass_on(self, node: fx.Node) -> None:
        """After a problem: later layers are looked at as if this one did nothing."""
        source = next((item for item in node.all_input_nodes if item in self.index), None)
        if source is not None:
            self._append(node, Op(Kind.SAME, node.name, (self.index[source],), _shape(node)))

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
                raise _UnsupportedError("it is called twice; give each call a layer of its own")
            self.called[name] = name
        elif node.op != "call_module":
            module = _MAKERS[known](fields) if known in _MAKERS else module
        if known == "conv":
            check_conv(module)
        elif known == "linear" and len(node.meta["tensor_meta"].shape) != 2:
            raise _UnsupportedError("a linear layer reads (N, features); flatten the map before it")
        elif known == "linear" and isinstance(module, nn.Linear) and module.in_features != prod(source):
            raise _UnsupportedError("flatten the map just before it")
        elif known == "norm":
            check_norm(module, source)
        elif known in ("relu6", "clamp"):
            ceiling = _ceiling(module, known, fields)
        elif known == "add":
            if self._map(inputs[1]) != source:
                raise _UnsupportedError(
                    f"maps of {source} and {self._map(inputs[1])} cannot be added; their shapes must be equal"
                )
            if fields.get("alpha", 1) != 1:
                raise _UnsupportedError("alpha must be 1")
        elif known in ("max", "average", "global", "mean"):
            module = _pool(module, known, fields, source)
        elif known == "dropout":
            dropout = float(module.p if isinstance(module, nn.Dropout | nn.Dropout2d) else fields.get("p", 0.5))
        elif known == "same" and prod(shape) != prod(source):
            raise _UnsupportedError("a view may only flatten the map of each image")
        return Op(_KINDS[known], name, inputs, shape, module, ceiling, dropout)


class _UnsupportedError(Exception):
    pass


def _shape(node: fx.Node) -> tuple[int, int, int]:
    shape = tuple(node.meta["tensor_meta"].shape)[1:] if "tensor_meta" in node.meta else ()
    return (*shape, 1, 1, 1)[:3] if len(shape) < 3 else (shape[0], shape[1], shape[2])


def _both(value: Any, what: str) -> int:
    """A size that must be the same in both directions."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) == 1:
        pair = pair * 2
    if pair[0] != pair[1]:
        raise _UnsupportedError(f"its {what} {pair[0]}x{pair[1]} must be the same in both directions")
    return int(pair[0])


def padding_of(conv: nn.Conv2d) -> int:
    """Pixels of padding on each side."""
    if conv.padding == "valid":
        return 0
    if conv.padding == "same":
        kernel = _both(conv.kernel_size, "kernel")
        if kernel % 2 == 0 or _both(conv.stride, "stride") != 1:
            raise _UnsupportedError("padding 'same' needs an odd kernel and stride 1")
        return kernel // 2
    return _both(conv.padding, "padding")


def check_conv(module: nn.Module) -> None:
    """Raises where a convolution is none that the integer network has."""
    assert isinstance(module, nn.Conv2d)
    _both(module.stride, "stride")
    padding_of(module)
    if _both(module.dilation, "dilation") != 1:
        raise _UnsupportedError("dilation must be 1; use a larger kernel or a stride")
    if module.padding_mode != "zeros":
        raise _UnsupportedError(f"padding mode '{module.padding_mode}' must be 'zeros'")
    if max(module.kernel_size) > 15:
        raise _UnsupportedError("kernels reach up to 15x15")
    if module.groups != 1 and not module.groups == module.in_channels == module.out_channels:
        raise _UnsupportedError(
            f"{module.groups} groups of {module.in_channels} channels to {module.out_channels}; groups must be 1, or all"
            " three equal (depthwise)"
        )


def check_norm(module: nn.Module, source: tuple[int, int, int]) -> None:
    """Raises where a batch norm cannot be folded."""
    assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    if module.running_mean is None:
        raise _UnsupportedError("it needs running statistics (track_running_stats=True)")
    if module.num_features != source[0]:
        raise _UnsupportedError(f"it has {module.num_features} channels, its input {source[0]}; put it before flatten")


def _ceiling(module: nn.Module, known: str, fields: dict[str, Any]) -> float:
    if known == "relu6":
        return 6.0
    least, most = fields.get("min", -1.0), fields.get("max", 1.0 if "min" not in fields else None)
    if isinstance(module, nn.Hardtanh):
        least, most = module.min_val, module.max_val
    if least != 0:
        raise _UnsupportedError("it must clip at 0 below; use ReLU or ReLU6")
    return inf if most is None else float(most)


def _pool(module: nn.Module, known: str, fields: dict[str, Any], source: tuple[int, int, int]) -> nn.Module:
    """A max or average pool of plain numbers."""
    if known == "mean":
        dims = fields.get("dim")
        if not isinstance(dims, tuple | list) or sorted(d % 4 for d in dims) != [2, 3]:
            raise _UnsupportedError("the mean must be that of the whole map, dim=(2, 3)")
        return nn.AvgPool2d(source[1:], 1)
    if known == "global":
        size = module.output_size if isinstance(module, nn.AdaptiveAvgPool2d) else fields.get("output_size")
        pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
        if pair != (1, 1):
            raise _UnsupportedError(f"adaptive pooling works to 1x1 only, not {pair}; use AvgPool2d")
        return nn.AvgPool2d(source[1:], 1)
    assert isinstance(module, nn.MaxPool2d | nn.AvgPool2d)
    if module.ceil_mode:
        raise _UnsupportedError("ceil_mode must be off; use padding")
    stride, padding = _both(module.stride, "stride"), _both(module.padding, "padding")
    if isinstance(module, nn.MaxPool2d):
        if module.return_indices or _both(module.dilation, "dilation") != 1:
            raise _UnsupportedError("it must have dilation 1 and return no indices")
        return nn.MaxPool2d(_both(module.kernel_size, "kernel"), stride, padding)
    if module.divisor_override is not None or (padding and not module.count_include_pad):
        raise _UnsupportedError("the mean counts every pixel of the window, padding too: leave count_include_pad on")
    kernel = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
    return nn.AvgPool2d((kernel[0], kernel[1]), stride, padding)


def _conv(fields: dict[str, Any]) -> nn.Module:
    weight, bias, groups = fields["weight"], fields.get("bias"), fields.get("groups", 1)
    if not isinstance(weight, Tensor):
        raise _UnsupportedError("its weight must be a parameter of the module")
    made = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), fields.get("stride", 1),  # type: ignore[arg-type]
        fields.get("padding", 0), fields.get("dilation", 1), groups, bias is not None,
    )  # fmt: skip
    return _with_weights(made, weight, bias)


def _linear(fields: dict[str, Any]) -> nn.Module:
    weight, bias = fields["weight"], fields.get("bias")
    if not isinstance(weight, Tensor):
        raise _UnsupportedError("its weight must be a parameter of the module")
    return _with_weights(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def _norm(fields: dict[str, Any]) -> nn.Module:
    mean, var = fields.get("running_mean"), fields.get("running_var")
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        raise _UnsupportedError("it needs running statistics")
    made = nn.BatchNorm2d(len(mean), fields.get("eps", 1e-5), fields.get("momentum", 0.1))
    assert made.running_mean is not None and made.running_var is not None
    made.running_mean.copy_(mean)
    made.running_var.copy_(var)
    if isinstance(fields.get("weight"), Tensor):
        return _with_weights(made, fields["weight"], fields.get("bias"))
    return made


def _with_weights(module: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    module.weight.data.copy_(weight.detach())
    if bias is not None:
        module.bias.data.copy_(bias.detach())
    assert isinstance(module, nn.Module)
    return module


def _only(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


_MAKERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "conv": _conv,
    "linear": _linear,
    "norm": _norm,
    "max": lambda fields: nn.MaxPool2d(
        **_only(fields, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"))
    ),
    "average": lambda fields: nn.AvgPool2d(
        **_only(fields, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"))
    ),
}


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
