"""Time and memory of a search step: EBS, a DNAS-style supernet and a uniform network, on ResNet-20, candidates 2 to 5 per operand.

    python -m benchmarks.bench_search

A step is one weight update: forward, backward, optimiser. Each case runs in fresh processes, and each figure is the least of
theirs: where an allocator happens to place things moves a peak by a tenth. Bytes saved are those of all
distinct storages that autograd keeps for backward, parameters left out; peak bytes are the process's largest resident set (on a
GPU: the allocator's peak) beyond what it held before the first step. Time is the least of several steps, in CPU time of the
process where there is no GPU (other programs on the machine then do not count), with wall time beside it. Rows go to
build/bench/search.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.rows import write_rows
from model import choose, dnas
from model.allocator import keep_freed_memory
from model.networks import residual_network
from model.nodes import Context, Mode

CANDIDATES = {2: (2, 5), 3: (2, 3, 5), 4: (2, 3, 4, 5), 5: (1, 2, 3, 4, 5)}
UNIFORM_BITS = 3
FIGURES = ("step_ms", "saved_bytes", "peak_bytes")
SAVED_LIMIT, PEAK_LIMIT, TIME_LIMIT, TIME_STRETCH = 1.03, 1.10, 1.5, 1.25


def resident() -> int:
    """Resident set of this process in bytes, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(method: str, candidates: int, batch: int, steps: int, device: str, threads: int) -> dict[str, Any]:
    """One case in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    keep_freed_memory()
    bits = CANDIDATES.get(candidates, (UNIFORM_BITS,))
    net = residual_network(
        "resnet20", (32, 32, 3), 8, 10, 16, [(16, 3, 1), (32, 3, 2), (64, 3, 2)], shortcut="a", weight_bits=bits,
        activation_bits=bits,
    )  # fmt: skip
    if method == "uniform":
        choose.fix_bits(net, choose.uniform_bits(net, UNIFORM_BITS, UNIFORM_BITS))
    elif method == "dnas":
        dnas.expand(net)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for strengths in net.strengths():
        strengths.requires_grad_(False)  # trained in turn with the weights, not in this step
    images = torch.randint(0, 256, (batch, 3, 32, 32)).float().to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,)).to(device)
    optimiser = torch.optim.AdamW([*net.meta_weights(), *net.clips()], lr=1e-3)
    context = Context(Mode.QUANTISED, branches=method == "dnas")

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(net(images, context), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else resident()
    own = {item.untyped_storage().data_ptr() for item in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    times, wall = [], []
    for _ in range(steps + 1):  # the first one warms up
        began, clock = time.process_time(), time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.process_time() - began)
        wall.append(time.perf_counter() - clock)
    peak = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(images, context)
    assert logits.requires_grad
    seconds = wall if device == "cuda" else times
    return {
        "method": method,
        "candidates": list(bits),
        "step_ms": round(1e3 * min(seconds[1:]), 2),
        "wall_ms": round(1e3 * min(wall[1:]), 2),
        "saved_bytes": sum(kept.values()),
        "peak_bytes": peak - before,
    }


def case(method: str, candidates: int, options: argparse.Namespace) -> dict[str, Any]:
    """One case in fresh processes, each figure the least of theirs."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench_search",
        "--case",
        method,
        str(candidates),
        "--batch",
        str(options.batch),
    ]
    command += ["--steps", str(options.steps), "--device", options.device, "--threads", str(options.threads)]
    found: list[dict[str, Any]] = []
    for _ in range(options.processes):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{method} with {candidates} candidates failed:\n{done.stderr}")
        found.append(json.loads(done.stdout))
    return found[0] | {key: min(row[key] for row in found) for key in (*FIGURES, "wall_ms")}


def growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """How time, bytes saved and peak grow from 2 to 5 candidates, by method."""
    by_case = {(row["method"], len(row["candidates"])): row for row in rows}
    return {
        method: {key: round(by_case[method, 5][key] / by_case[method, 2][key], 4) for key in FIGURES}
        for method in ("ebs", "dnas")
    }


def main() -> int:
    """Run every case, print a table, write the figures; 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=5, help="steps to take the fastest of")
    parser.add_argument("--processes", type=int, default=3, help="processes to take the least figures of")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", nargs=2, metavar=("METHOD", "CANDIDATES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        made = measure(
            options.case[0], int(options.case[1]), options.batch, options.steps, options.device, options.threads
        )
        print(json.dumps(made))
        return 0
    about = {"network": "resnet20", "batch": options.batch, "device": options.device, "threads": options.threads,
             "torch": torch.__version__}  # fmt: skip
    cases = [("uniform", 1), *[("ebs", n) for n in CANDIDATES], *[("dnas", n) for n in CANDIDATES]]
    rows: list[dict[str, Any]] = []
    for method, candidates in cases:
        row = case(method, candidates, options)
        rows.append(about | row | {"step_ratio": round(row["step_ms"] / (rows[0] if rows else row)["step_ms"], 3)})
        print(
            f"{method:8} {row['candidates']!s:16} {row['step_ms']:9.1f} ms  {rows[-1]['step_ratio']:6.2f} x uniform"
            f"  saved {row['saved_bytes'] / 1e6:8.1f} MB  peak {row['peak_bytes'] / 1e6:8.1f} MB",
            flush=True,
        )
    grown = growth(rows)
    slowest = max(row["step_ratio"] for row in rows if row["method"] == "ebs")
    held = {
        "saved": grown["ebs"]["saved_bytes"] <= SAVED_LIMIT,
        "peak": grown["ebs"]["peak_bytes"] <= PEAK_LIMIT,
        "step": slowest <= TIME_LIMIT,
        "step_stretch": slowest <= TIME_STRETCH,
    }
    print(f"From 2 to 5 candidates: {grown}")
    print(f"Limits held: {held}. Wrote {write_rows('search', rows)}.")
    return 0 if all(value for name, value in held.items() if name != "step_stretch") else 1


if __name__ == "__main__":
    sys.exit(main())
