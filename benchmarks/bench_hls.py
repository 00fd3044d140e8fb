"""Speed of the C simulation of the HLS kernel: ResNet-20 W2A2 with random weights, one process on one core.

    python benchmarks/bench_hls.py --images 60

Only the kernel's own run counts, not its compilation nor the golden model; every logit is compared. Result:
build/bench/hls.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from networks import resnet_cifar

from hwgen.board import load_board
from hwgen.build import generate
from hwgen.engine import EngineConfig
from sim import golden
from sim.hls import compile_kernel, run_kernel

ENGINE = EngineConfig(weight_depth=1024, plane_depth=1024, byte_depth=1024)
BITS = 2
OUT = Path("build/bench/hls.json")
_PAGE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    images = parser.parse_args().images
    network = resnet_cifar(20, BITS, BITS)
    shape = network.tensors[network.input].shape
    codes = np.random.default_rng(1).integers(0, 256, (images, *shape), np.uint8)
    with tempfile.TemporaryDirectory(prefix="bitsmith-bench-") as scratch:
        build = generate(network, ENGINE, load_board("pynq-z2"), Path(scratch) / "b", backend="hls")
        program = build.program.read_bytes()
        kernel = compile_kernel(build.hls)
        stride, out_stride = codes[0].size, -(-build.schedule.logits_rows * 4 // 8) * 8
        image_addr = -(-len(program) // _PAGE) * _PAGE
        output_addr = image_addr + -(-stride * images // _PAGE) * _PAGE
        memory = np.zeros(output_addr + out_stride * images, np.uint8)
        memory[: len(program)] = np.frombuffer(program, np.uint8)
        memory[image_addr : image_addr + codes.size] = codes.ravel()
        registers = {"image_addr": image_addr, "image_stride": stride, "output_addr": output_addr}
        registers |= {"output_stride": out_stride, "image_count": images}
        start = time.perf_counter()
        done = run_kernel(kernel, build.engine, memory, registers)
        seconds = time.perf_counter() - start
    classes = network.tensors[network.output].shape[2]
    found = done.memory[output_addr:].view("<i4").reshape(images, -1)[:, :classes]
    if done.registers["error"] or not np.array_equal(found, golden.logits(network, codes)):
        raise SystemExit("bench-hls: the logits are not the golden model's.")
    row = {
        "network": network.name,
        "weight_bits": BITS,
        "activation_bits": BITS,
        "engine": ENGINE.name,
        "images": images,
        "images_per_s": round(images / seconds, 1),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(f"{row['images_per_s']} images/s of {network.name} W{BITS}A{BITS} on {ENGINE.name}; wrote {OUT}.")


if __name__ == "__main__":
    main()
