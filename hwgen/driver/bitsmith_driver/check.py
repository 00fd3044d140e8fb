"""A bundle's samples on the board, compared with their golden logits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .accelerator import Accelerator

_LATENCY_IMAGES = 20


def check(
    bundle: str | Path,
    *,
    images: int | None = None,
    device: Any = None,
    timeout_s: float = 60.0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Run sample images in one go, then some of them one by one for their latency.

    Args:
        images: how many samples; all if None.
        progress: called with a stage, what is done of it and all of it.

    Returns:
        images, wrong_images (a logit differs), accuracy (None without labels), latency_ms (p50, p90, p99 of single images),
        and the figures of ``Accelerator.stats``.

    Raises:
        ValueError: more images than the bundle holds, or fewer than one.
    """
    with Accelerator(bundle, device, timeout_s=timeout_s) as acc:
        samples, labels, golden = acc.bundle.samples()
        count = len(samples) if images is None else images
        if not 1 <= count <= len(samples):
            raise ValueError(f"{count} images were asked for; the bundle holds {len(samples)}.")
        progress("images, all at once", 0, count)
        logits = acc.predict(samples[:count])
        progress("images, all at once", count, count)
        figures = dict(acc.stats)
        spans: list[float] = []
        alone = min(count, _LATENCY_IMAGES)
        for at in range(alone):
            progress("images, one by one", at, alone)
            begun = time.perf_counter()
            single = acc.predict(samples[at : at + 1])
            spans.append(1000 * (time.perf_counter() - begun))
            logits[at] = np.where((single[0] == golden[at]).all(), logits[at], single[0])
        progress("images, one by one", alone, alone)
    wrong = int((logits != golden[:count]).any(axis=1).sum())
    accuracy = None if labels is None else float(np.mean(logits.argmax(axis=1) == labels[:count]))
    latency = {f"p{share}": float(np.percentile(spans, share)) for share in (50, 90, 99)}
    return {"images": count, "wrong_images": wrong, "accuracy": accuracy, "latency_ms": latency, **figures}
