"""Random engine shapes for the soak: small, awkward, each one quick to compile."""

from __future__ import annotations

import random

from hwgen.engine import EngineConfig
from hwgen.errors import InputError

_MOST_PRODUCTS = 12_288  # rows * columns * word bits: what compiles and simulates in seconds


def random_engines(count: int) -> dict[str, EngineConfig]:
    """``count`` distinct shapes by name; a larger count begins with the shapes of a smaller one.

    Buffers are sometimes small, so that weights stream and maps are cut into bands; what does not fit is no mistake.
    """
    rng = random.Random(1)
    found: dict[str, EngineConfig] = {}
    while len(found) < count:
        try:
            engine = EngineConfig(
                rows=rng.choice([2, 4, 8, 16]),
                columns=rng.choice([4, 8, 16, 32]),
                slots=rng.choice([3, 6, 9, 12]),
                slot_channels=rng.choice([8, 16]),
                lane_rows=rng.choice([1, 2, 4, 8]),
                acc_bits=rng.choice([24, 26, 28, 32]),
                weight_depth=rng.choice([256, 1024, 4096, 8192]),
                column_depth=rng.choice([512, 1024]),
                plane_depth=rng.choice([512, 2048]),
                byte_depth=rng.choice([512, 2048]),
                logit_depth=rng.choice([64, 512]),
            )
        except InputError:
            continue
        name = f"{engine.name}-{engine.slot_channels}-{engine.lane_rows}"
        if engine.macs_per_cycle <= _MOST_PRODUCTS and name not in found:
            found[name] = engine
    return found
