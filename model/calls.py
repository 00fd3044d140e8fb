"""What torch's functions and methods are among the supported layers, and what to use instead of those that are none."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F

_WORKING = (
    "the layers that work are convolution, linear, batch norm, ReLU, ReLU6, addition, max, average and global average"
    " pooling, flatten and dropout"
)
_ADVICE = {  # the first that fits: "matmul" before "mul", "replicationpad" before "cat"
    ("parametrized",): "bake it into its weights with torch.nn.utils.parametrize.remove_parametrizations",
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


def advice(what: str) -> str:
    """What to use instead of a call, or which layers work."""
    plain = what.lower()
    return next((text for words, text in _ADVICE.items() if any(word in plain for word in words)), _WORKING)


FUNCTIONS: dict[Any, tuple[str, tuple[str, ...]]] = {
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
FUNCTIONS |= {
    torch.conv2d: FUNCTIONS[F.conv2d],
    torch.relu: FUNCTIONS[F.relu],
    torch.relu_: FUNCTIONS[F.relu],
    F.relu_: FUNCTIONS[F.relu],
    torch.max_pool2d: FUNCTIONS[F.max_pool2d],
    operator.iadd: FUNCTIONS[operator.add],
    F.dropout2d: FUNCTIONS[F.dropout],
    torch.dropout: FUNCTIONS[F.dropout],
    torch.clamp_: FUNCTIONS[torch.clamp],
    torch.clip: FUNCTIONS[torch.clamp],
    torch.clip_: FUNCTIONS[torch.clamp],
    torch.clamp_min: ("clamp", ("input", "min")),
    torch.clamp_min_: ("clamp", ("input", "min")),
    torch.squeeze: ("same", ("input", "dim")),
    torch.reshape: ("same", ("input", "shape")),
}
METHODS = {
    "relu": FUNCTIONS[F.relu], "relu_": FUNCTIONS[F.relu], "add": FUNCTIONS[torch.add], "add_": FUNCTIONS[torch.add],
    "clamp": FUNCTIONS[torch.clamp], "clamp_": FUNCTIONS[torch.clamp],
    "clip": FUNCTIONS[torch.clamp], "clip_": FUNCTIONS[torch.clamp],
    "clamp_min": FUNCTIONS[torch.clamp_min], "clamp_min_": FUNCTIONS[torch.clamp_min],
    "mean": FUNCTIONS[torch.mean], "flatten": FUNCTIONS[torch.flatten],
    "view": ("same", ("input",)), "reshape": ("same", ("input",)), "squeeze": ("same", ("input",)),
    "contiguous": ("same", ("input",)),
}  # fmt: skip
