"""What GPUs can do, by their makers' data sheets: dense bfloat16, no sparsity."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mutual_env.errors import UnknownNameError

GB = 10**9


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory` in bytes, `bandwidth` of it in bytes a second, `flops` a second in bfloat16; `host`: bytes a second to
    the machine's memory and back (half of what the bus promises)."""

    name: str
    memory: int
    bandwidth: float
    flops: float
    host: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("H100", 80 * GB, 3.35e12, 989e12, 32e9),  # SXM5; PCIe 5.0 x16
        Gpu("H200", 141 * GB, 4.8e12, 989e12, 32e9),
        Gpu("B200", 180 * GB, 8.0e12, 2250e12, 32e9),
        Gpu("A100-80", 80 * GB, 2.04e12, 312e12, 16e9),  # SXM4; PCIe 4.0 x16
        Gpu("A100-40", 40 * GB, 1.56e12, 312e12, 16e9),
        Gpu("L40S", 48 * GB, 0.86e12, 362e12, 16e9),
        Gpu("RTX4090", 24 * GB, 1.01e12, 165e12, 16e9),
        Gpu("L4", 24 * GB, 0.30e12, 121e12, 16e9),
    )
}


def gpu_named(name: str) -> Gpu:
    """By our name for it, or by what the driver calls it ("NVIDIA H100 80GB HBM3")."""
    if name in GPUS:
        return GPUS[name]
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    for gpu in GPUS.values():
        kind, _, size = gpu.name.partition("-")
        if kind in plain and size in plain:
            return gpu
    raise UnknownNameError.of("GPU", name, GPUS)


def gpu_of_size(memory: int) -> Gpu:
    """The first in the table whose memory comes nearest: what is taken for a GPU of which only the memory is known."""
    return min(GPUS.values(), key=lambda gpu: abs(gpu.memory - memory))
