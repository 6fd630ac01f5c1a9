"""Forward and backward of a trainer's micro-batch, its layers compiled and not: the same model, the same ids.

    python -m benchmarks.compiled [--models models] [--repeats 3]    writes docs/figures/data/compiled.json

Each type of weights has a process of its own; in it both ways are timed in turn, and the median of each is kept.
Seconds are those of the processor, of one thread, and hold no compiling; `first_s` is how long the first call of a kind
took, by the clock, with compiling and with an empty cache of the compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import machine, write
from learners.torch.attention import CausalRows
from learners.torch.compiled import CompiledLayers
from learners.torch.model import LanguageModel, load_pretrained
from learners.torch.options import TorchOptions

SHAPES = ((4, 128), (1, 512))
DTYPES = ("float32", "bfloat16")
MODEL = "smollm2"


def once(model: LanguageModel, ids: torch.Tensor) -> float:
    """Seconds of the processor that a forward and a backward take."""
    positions = torch.arange(ids.shape[1]).repeat(ids.shape[0], 1)
    start = time.process_time()
    with model.computing(ids.shape, CausalRows()):
        model.hidden(ids, positions, CausalRows()).sum().backward()
    seconds = time.process_time() - start
    for parameter in model.parameters():
        parameter.grad = None
    return seconds


def measure(path: Path, dtype: str, repeats: int) -> dict[str, Any]:
    """In this process, with one thread."""
    torch.set_num_threads(1)
    options = TorchOptions.of({"device": "cpu", "dtype": dtype, "compile": True})
    loaded = load_pretrained(path)
    model = LanguageModel(loaded, loaded.config.vocab_size, options)
    ways: dict[str, CompiledLayers | None] = {"eager": None, "compiled": model.compiled}
    figures: dict[str, Any] = {}
    for rows, length in SHAPES:
        ids = torch.randint(10, 40_000, (rows, length), generator=torch.Generator().manual_seed(0))
        start = time.perf_counter()
        once(model, ids)
        first = time.perf_counter() - start
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, compiled in ways.items():
                model.compiled = compiled
                seconds[way].append(once(model, ids))
        medians = {f"{way}_s": statistics.median(found) for way, found in seconds.items()}
        ratio = medians["eager_s"] / medians["compiled_s"]
        figures[f"{rows}x{length}"] = {**medians, "speedup": ratio, "first_s": first}
    return figures


def in_a_process(path: Path, dtype: str, repeats: int) -> dict[str, Any]:
    request = json.dumps([str(path), dtype, repeats])
    with tempfile.TemporaryDirectory() as cache:
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.compiled", "--measure", request],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=3600,
        )
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    print(dtype, figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        path, dtype, repeats = json.loads(arguments.measure)
        print(json.dumps(measure(Path(path), dtype, repeats)))
        return
    path = arguments.models / MODEL
    found = {dtype: in_a_process(path, dtype, arguments.repeats) for dtype in DTYPES}
    write("compiled", {"machine": machine(), "clock": "process_time, one thread", MODEL: found})


if __name__ == "__main__":
    main()
