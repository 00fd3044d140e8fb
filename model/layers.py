"""What the integer network demands of each layer, and layers made of the arguments of a function call."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from torch import Tensor, nn

from hwgen.network import MAX_KERNEL, MAX_PADDING, MAX_STRIDE


class UnsupportedError(Exception):
    """A layer that the integer network cannot hold; the text says why, as the end of a sentence about the layer."""


def _pair(value: Any) -> tuple[int, int]:
    """A size in both directions."""
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,)
    return sizes[0], sizes[-1]


def _both(value: Any, what: str) -> int:
    """A size that must be the same in both directions."""
    pair = _pair(value)
    if pair[0] != pair[1]:
        raise UnsupportedError(f"its {what} {pair[0]}x{pair[1]} must be the same in both directions")
    return int(pair[0])


def padding_of(conv: nn.Conv2d) -> int:
    """Pixels of padding on each side."""
    if conv.padding == "valid":
        return 0
    if conv.padding == "same":
        kernel = _both(conv.kernel_size, "kernel")
        if kernel % 2 == 0 or _both(conv.stride, "stride") != 1:
            raise UnsupportedError("padding 'same' needs an odd kernel and stride 1")
        return kernel // 2
    return _both(conv.padding, "padding")


def check_stride(stride: int) -> None:
    """Raises where a stride is longer than those of the integer network."""
    if stride > MAX_STRIDE:
        raise UnsupportedError(
            f"strides reach up to {MAX_STRIDE}, and its is {stride}; pool before it, or stride in two layers"
        )


def _check_padding(padding: int, kernel: tuple[int, ...]) -> None:
    if padding >= max(kernel):
        raise UnsupportedError(
            f"its padding {padding} must be less than its kernel; a wider border holds no pixel of the map"
        )
    if padding > MAX_PADDING:
        raise UnsupportedError(f"padding reaches up to {MAX_PADDING}, and its is {padding}; pool in two layers")


def check_conv(module: nn.Module) -> None:
    """Raises where a convolution is none that the integer network has."""
    assert isinstance(module, nn.Conv2d)
    check_stride(_both(module.stride, "stride"))
    _check_padding(padding_of(module), module.kernel_size)
    if _both(module.dilation, "dilation") != 1:
        raise UnsupportedError("dilation must be 1; use a larger kernel or a stride")
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"padding mode '{module.padding_mode}' must be 'zeros'")
    if max(module.kernel_size) > MAX_KERNEL:
        raise UnsupportedError(f"kernels reach up to {MAX_KERNEL}x{MAX_KERNEL}")
    if module.groups != 1 and not module.groups == module.in_channels == module.out_channels:
        raise UnsupportedError(
            f"{module.groups} groups of {module.in_channels} channels to {module.out_channels}; groups must be 1, or all"
            " three equal (depthwise)"
        )


def check_norm(module: nn.Module, source: tuple[int, int, int]) -> None:
    """Raises where a batch norm cannot be folded."""
    assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    if module.running_mean is None:
        raise UnsupportedError("it needs running statistics (track_running_stats=True)")
    if module.num_features != source[0]:
        raise UnsupportedError(f"it has {module.num_features} channels, its input {source[0]}; put it before flatten")


def ceiling_of(module: nn.Module, known: str, fields: dict[str, Any]) -> float:
    """Where a ReLU6 or clamp cuts above; infinite where it does not."""
    if known == "relu6":
        return 6.0
    least, most = fields.get("min", -1.0), fields.get("max", 1.0 if "min" not in fields else None)
    if isinstance(module, nn.Hardtanh):
        least, most = module.min_val, module.max_val
    if isinstance(least, Tensor) or isinstance(most, Tensor) or least != 0:
        raise UnsupportedError("it must clip at 0 below and at one number above; use ReLU or ReLU6")
    return inf if most is None else float(most)


def pool_of(module: nn.Module, known: str, fields: dict[str, Any], source: tuple[int, int, int]) -> nn.Module:
    """A max or average pool of plain numbers."""
    if known == "mean":
        dims = fields.get("dim")
        if not isinstance(dims, tuple | list) or sorted(d % 4 for d in dims) != [2, 3]:
            raise UnsupportedError("the mean must be that of the whole map, dim=(2, 3)")
        return nn.AvgPool2d(source[1:], 1)
    if known == "global":
        size = module.output_size if isinstance(module, nn.AdaptiveAvgPool2d) else fields.get("output_size")
        pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
        if pair != (1, 1):
            raise UnsupportedError(f"adaptive pooling works to 1x1 only, not {pair}; use AvgPool2d")
        return nn.AvgPool2d(source[1:], 1)
    assert isinstance(module, nn.MaxPool2d | nn.AvgPool2d)
    if module.ceil_mode:
        raise UnsupportedError("ceil_mode must be off; use padding")
    padding = _both(module.padding, "padding")
    whole = not padding and _pair(module.kernel_size) == source[1:]  # one window: its stride is never taken
    stride = 1 if whole else _both(module.stride, "stride")
    kernel = _pair(module.kernel_size)
    if max(kernel) > MAX_KERNEL and kernel != source[1:]:
        raise UnsupportedError(
            f"kernels reach up to {MAX_KERNEL}x{MAX_KERNEL}, or over the whole map; pool in two layers, or the whole map"
        )
    check_stride(stride)
    _check_padding(padding, kernel)
    if isinstance(module, nn.MaxPool2d):
        if module.return_indices or _both(module.dilation, "dilation") != 1:
            raise UnsupportedError("it must have dilation 1 and return no indices")
        return nn.MaxPool2d(_both(module.kernel_size, "kernel"), stride, padding)
    if module.divisor_override is not None:
        raise UnsupportedError("the mean divides by the pixels of the window: leave divisor_override off")
    if padding and not module.count_include_pad:
        raise UnsupportedError("the mean counts every pixel of the window, padding too: leave count_include_pad on")
    return nn.AvgPool2d(_pair(module.kernel_size), stride, padding)


def _conv(fields: dict[str, Any]) -> nn.Module:
    weight, bias, groups = fields["weight"], fields.get("bias"), fields.get("groups", 1)
    if not isinstance(weight, Tensor):
        raise UnsupportedError("its weight must be a parameter of the module")
    made = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), fields.get("stride", 1),  # type: ignore[arg-type]
        fields.get("padding", 0), fields.get("dilation", 1), groups, bias is not None,
    )  # fmt: skip
    return _with_weights(made, weight, bias)


def _linear(fields: dict[str, Any]) -> nn.Module:
    weight, bias = fields["weight"], fields.get("bias")
    if not isinstance(weight, Tensor):
        raise UnsupportedError("its weight must be a parameter of the module")
    return _with_weights(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def _norm(fields: dict[str, Any]) -> nn.Module:
    mean, var = fields.get("running_mean"), fields.get("running_var")
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        raise UnsupportedError("it needs running statistics")
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


MAKERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
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
