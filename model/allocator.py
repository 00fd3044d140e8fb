"""The C library's allocator, told to keep what training frees."""

from __future__ import annotations

import ctypes

# From <malloc.h>: give memory back above so many bytes free, ask for so many at a time, map large blocks apart at most so often.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let large tensors reuse freed memory of this process: fresh pages from the system cost a CPU step more than some of its layers.

    Returns:
        Whether the C library has been told; only glibc can be.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be opened by no name
        return False
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 28))
    return all(bool(mallopt(option, value)) for option, value in options)
