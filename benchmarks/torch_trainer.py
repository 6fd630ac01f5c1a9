"""One optimizer step against TRL's `GRPOTrainer`: the same model, the same batch, AdamW, clipping, float32.

    python -m benchmarks.torch_trainer [--models models] [--longest 96]     writes docs/figures/data/torch_trainer.json

Each trainer runs in a process of its own, in turn, and only its step is timed: loss, backward, optimizer, no sampling.
The batch is 2 prompts x 8 samples whose lengths differ. `tokens_per_second` counts trained tokens in the fastest of the
steps; `peak_mib` is the most memory the process held. TRL runs with its defaults beside precision, batch size (the
whole batch in one forward) and learning rate; ours with its defaults. The same lengths, doubled again and again, show
how time and memory grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import machine, write
from learners.example import Example
from learners.torch.learner import make_torch

GROUP, PROMPTS = 8, 2
STEPS = 1


def batch(vocab_size: int, longest: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(prompt, response, advantage) of each sample; responses from a quarter of `longest` to all of it."""
    numbers = np.random.default_rng(0)
    high = min(vocab_size, 40_000)
    rows = []
    for _ in range(PROMPTS):
        prompt = numbers.integers(10, high, 40)
        for index in range(GROUP):
            size = longest * (2 + index) // (1 + GROUP)
            rows.append((prompt, numbers.integers(10, high, size), float(numbers.normal())))
    return rows


def ours(path: Path, longest: int) -> Callable[[], int]:
    learner = make_torch(path=str(path), name="bench", learning_rate=1e-6)
    rows = batch(learner.tokenizer.vocab_size, longest)
    examples = [
        Example(p.astype(np.int32), r.astype(np.int32), np.ones(r.size, np.bool_), np.full(r.size, a))
        for p, r, a in rows
    ]

    def step() -> int:
        learner.update(examples)
        return sum(r.size for _, r, _ in rows)

    return step


def trl(path: Path, longest: int) -> Callable[[], int]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = batch(model.config.vocab_size, longest)
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=len(rows),
        num_generations=GROUP,
        max_completion_length=longest,
        learning_rate=1e-6,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * len(rows)}),
        processing_class=tokenizer,
    )
    inputs = _as_trl(rows, trainer.accelerator.device)
    trainer._prepare_inputs = lambda _: inputs
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer()

    def step() -> int:
        trainer.model.train()
        trainer.training_step(trainer.model, inputs, None)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        return int(inputs["completion_mask"].sum())

    return step


def _as_trl(rows: list[tuple[np.ndarray, np.ndarray, float]], device: torch.device) -> dict[str, Any]:
    width = max(r.size for _, r, _ in rows)
    completions = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(completions)
    for index, (_, response, _) in enumerate(rows):
        completions[index, : response.size] = torch.from_numpy(response)
        mask[index, : response.size] = 1
    prompts = torch.from_numpy(np.stack([p for p, _, _ in rows]))
    return {
        "prompt_ids": prompts.to(device),
        "prompt_mask": torch.ones_like(prompts).to(device),
        "completion_ids": completions.to(device),
        "completion_mask": mask.to(device),
        "advantages": torch.tensor([a for _, _, a in rows], device=device),
        "num_items_in_batch": mask.sum().to(device),
    }


def measure(which: str, path: Path, longest: int, processor_time: bool) -> dict[str, float]:
    """In this process: the fastest of the steps, and the peak."""
    clock = time.process_time if processor_time else time.perf_counter
    if processor_time:
        torch.set_num_threads(1)
    step = {"ours": ours, "trl": trl}[which](path, longest)
    step()
    fastest, tokens = float("inf"), 0
    for _ in range(STEPS):
        start = clock()
        tokens = step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        fastest = min(fastest, clock() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": fastest, "tokens": tokens, "tokens_per_second": tokens / fastest, "peak_mib": peak}


def in_a_process(which: str, path: Path, longest: int, processor_time: bool) -> dict[str, float]:
    request = json.dumps([which, str(path), longest, processor_time])
    command = [sys.executable, "-m", "benchmarks.torch_trainer", "--measure", request]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    print(which, path.name, longest, figures, flush=True)
    return figures


def compare(path: Path, longest: int, processor_time: bool) -> dict[str, Any]:
    """Theirs, then ours."""
    best = {which: in_a_process(which, path, longest, processor_time) for which in ("trl", "ours")}
    return {
        **best,
        "speedup": best["ours"]["tokens_per_second"] / best["trl"]["tokens_per_second"],
        "memory_share": best["ours"]["peak_mib"] / best["trl"]["peak_mib"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--longest", type=int, default=96)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        which, path, longest, processor_time = json.loads(arguments.measure)
        print(json.dumps(measure(which, Path(path), longest, processor_time)))
        return
    clock = "process_time, one thread" if arguments.processor_time else "perf_counter"
    figures: dict[str, Any] = {"machine": machine(), "clock": clock, "longest": arguments.longest}
    for name in ("smollm2", "gemma3"):
        if (arguments.models / name).is_dir():
            figures[name] = compare(arguments.models / name, arguments.longest, arguments.processor_time)
    if (arguments.models / "smollm2").is_dir():
        path = arguments.models / "smollm2"
        lengths = [arguments.longest * factor for factor in (1, 2, 4)]
        growth = [in_a_process("ours", path, longest, arguments.processor_time) for longest in lengths]
        figures["growth"] = {str(run["tokens"]): run for run in growth}
    write("torch_trainer", figures)


if __name__ == "__main__":
    main()
