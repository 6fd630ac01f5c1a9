"""The torch learner on a GPU, in one run: sampler against `generate`, trainer against TRL, share of the card's peak.

    python -m benchmarks.gpu [--models models] [--model DIRECTORY]     writes docs/figures/data/gpu.json

`--model` names a further local model directory, say of 1 to 3 billion parameters. The peak is what the card
reaches on large square products in the same precision; a decoded token counts two operations for each weight, a trained
one six.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import torch_sampler, torch_trainer
from benchmarks.figures import machine, write

SIDE = 8192


def peak_flops(dtype: torch.dtype) -> float:
    """Operations a second of the fastest of a few large products."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.matmul(a, b)
        torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return 2.0 * SIDE**3 / fastest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_products(benchmark: Any) -> None:
    assert benchmark.pedantic(peak_flops, (torch.bfloat16,), rounds=1) > 0.0


def figures_of(path: Path, peak: dict[str, float]) -> dict[str, Any]:
    """Of one model: sampling in both precisions, training in float32 beside TRL."""
    figures: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        learner = torch_sampler.loaded(path, device="cuda", dtype=dtype)
        parameters = sum(p.numel() for p in learner.model.parameters())
        asked = torch_sampler.prompts(torch_sampler.WORD_PROBLEMS)
        full_stop = int(learner.tokenizer.encode_batch(["."])[0][0])
        sampled = torch_sampler.compare(learner, asked, full_stop, 3, time.perf_counter)
        speed = float(sampled["to_the_limit_tokens_per_second"])
        sampled["share_of_peak"] = 2.0 * parameters * speed / peak[dtype]
        figures[f"sampler_{dtype}"] = sampled
        learner.close()
        del learner
        torch.cuda.empty_cache()
    trained = torch_trainer.compare(path, 256, processor_time=False)
    trained["share_of_peak"] = 6.0 * parameters * trained["ours"]["tokens_per_second"] / peak["float32"]
    figures["trainer_float32"] = trained
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "bench-gpu needs a CUDA device, and PyTorch sees none here: run it on a machine with one\n")
    peak = {name: peak_flops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    figures: dict[str, Any] = {"machine": {**machine(), "gpu": torch.cuda.get_device_name()}, "peak_flops": peak}
    for path in (arguments.models / "smollm2", arguments.models / "gemma3", *arguments.model):
        if path.is_dir():
            figures[path.name] = figures_of(path, peak)
    write("gpu", figures)


if __name__ == "__main__":
    main()
