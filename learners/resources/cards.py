"""The GPUs that this process may use, as NVIDIA's driver lists them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from learners.placement import visible

MIB = 1024**2
ASK_SECONDS = 20.0
_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Card:
    """`memory` in bytes (0: unknown). `index` and `uuid` are what CUDA_VISIBLE_DEVICES may call it."""

    index: str
    uuid: str = ""
    memory: int = 0
    name: str = ""


def cards() -> tuple[Card, ...]:
    """Those that CUDA_VISIBLE_DEVICES shows to this process, in its order; all where it says nothing."""
    there = _listed()
    shown = visible()
    if shown is None:
        return there
    found: list[Card] = []
    for name in shown:
        card = next((c for c in there if name == c.index or (c.uuid and c.uuid.startswith(name))), None)
        if card is None:  # CUDA looks no further either
            break
        found.append(card)
    return tuple(found)


def _listed() -> tuple[Card, ...]:
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = [program, "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
            return tuple(_card(line) for line in answer.splitlines() if line.strip())
        except (OSError, ValueError, subprocess.SubprocessError):
            pass  # a driver that does not answer: what the kernel lists is left
    count = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    return tuple(Card(str(index)) for index in range(count))


def _card(line: str) -> Card:
    index, uuid, memory, name = (part.strip() for part in line.split(",", 3))
    return Card(index, uuid, int(memory) * MIB if memory.isdecimal() else 0, name)
