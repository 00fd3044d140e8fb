"""Run a bitsmith accelerator from Python, on NumPy and pynq alone.

from bitsmith_driver import Accelerator

with Accelerator("resnet20.zip") as acc:
    logits = acc.predict(images)    # uint8 (N, H, W, C) or (N, C, H, W) -> int32 (N, classes)
    print(acc.stats)
"""

from .accelerator import Accelerator
from .bundle import Bundle
from .errors import AcceleratorError, BundleError, DeviceError, DeviceTimeoutError, ImageError

__all__ = [
    "Accelerator",
    "AcceleratorError",
    "Bundle",
    "BundleError",
    "DeviceError",
    "DeviceTimeoutError",
    "ImageError",
]
