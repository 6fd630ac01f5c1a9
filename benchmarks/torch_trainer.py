"""One optimizer step against TRL's `GRPOTrainer`: the same model, the same batch, AdamW, clipping, float32.

    python -m benchmarks.torch_trainer [--models models] [--longest 256]    writes docs/figures/data/torch_trainer.json

Each trainer runs in a process of its own, in turn, and only its step is timed: loss, backward, optimizer, no sampling.
The batch is TRL's default for one device: one prompt of 40 tokens with 8 samples, here of lengths from a quarter of
`--longest` to all of it. `tokens_per_second` counts trained tokens in the fastest of the steps; `peak_mib` is the most
memory the process held. TRL runs with its defaults beside precision and learning rate, gradient checkpointing among
them (`--without-checkpointing` measures it without that too); ours with its defaults. The same batch with lengths
doubled again and again shows how time and memory grow: `off_the_line` is the largest relative distance from a straight
line through the points. `pytest benchmarks/torch_trainer.py` runs a step of each under pytest-benchmark, where the
models are.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.figures import machine, write
from benchmarks.torch_sampler import tiny
from learners.example import Example
from learners.torch.make import make_torch

GROUP, PROMPTS, PROMPT_TOKENS = 8, 1, 40
STEPS = 1
NAMES = ("smollm2", "gemma3")
MODELS = Path("models")
"""Where pytest looks for them."""
LENGTHS = (64, 128, 256, 512)
TRL_OPTIONS: dict[str, dict[str, bool]] = {"trl": {}, "trl_without_checkpointing": {"gradient_checkpointing": False}}


def batch(vocab_size: int, longest: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(prompt, response, advantage) of each sample; responses from a quarter of `longest` to all of it."""
    numbers = np.random.default_rng(0)
    high = min(vocab_size, 40_000)
    rows = []
    for _ in range(PROMPTS):
        prompt = numbers.integers(10, high, PROMPT_TOKENS)
        for index in range(GROUP):
            size = longest * (2 + index) // (1 + GROUP)
            rows.append((prompt, numbers.integers(10, high, size), float(numbers.normal())))
    return rows


def ours(path: Path, longest: int) -> Callable[[], int]:
    learner = make_torch(path=str(path), name="bench", learning_rate=1e-6)
    examples = _examples(learner.tokenizer.vocab_size, longest)

    def step() -> int:
        learner.update(examples)
        return sum(example.response_ids.size for example in examples)

    return step


def _examples(vocab_size: int, longest: int) -> list[Example]:
    return [
        Example(p.astype(np.int32), r.astype(np.int32), np.ones(r.size, np.bool_), np.full(r.size, a))
        for p, r, a in batch(vocab_size, longest)
    ]


def trl(path: Path, longest: int, options: Mapping[str, bool]) -> Callable[[], int]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = batch(model.config.vocab_size, longest)
    sizes = {"per_device_train_batch_size": len(rows), "num_generations": GROUP, "max_completion_length": longest}
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        learning_rate=1e-6,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        report_to=[],
        **sizes,
        **options,
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
    step = trl(path, longest, TRL_OPTIONS[which]) if which in TRL_OPTIONS else ours(path, longest)
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
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1800)
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    print(which, path.name, longest, figures, flush=True)
    return figures


def compare(path: Path, longest: int, processor_time: bool, others: Sequence[str] = ("trl",)) -> dict[str, Any]:
    """Theirs, then ours."""
    runs = {which: in_a_process(which, path, longest, processor_time) for which in (*others, "ours")}
    figures: dict[str, Any] = dict(runs)
    for other in others:
        suffix = other.removeprefix("trl")
        figures[f"speedup{suffix}"] = runs["ours"]["tokens_per_second"] / runs[other]["tokens_per_second"]
        figures[f"memory_share{suffix}"] = runs["ours"]["peak_mib"] / runs[other]["peak_mib"]
    return figures


def growth(path: Path, processor_time: bool) -> dict[str, Any]:
    """Ours, over lengths."""
    runs = [in_a_process("ours", path, longest, processor_time) for longest in LENGTHS]
    figures: dict[str, Any] = {str(run["tokens"]): run for run in runs}
    tokens = np.array([run["tokens"] for run in runs])
    for name in ("seconds", "peak_mib"):
        values = np.array([run[name] for run in runs])
        slope, start = np.polyfit(tokens, values, 1)
        figures[name] = {
            "at_zero": float(start),
            "each_thousand_tokens": float(1000 * slope),
            "off_the_line": float(np.max(np.abs(values / (start + slope * tokens) - 1.0))),
        }
    return figures


@pytest.mark.parametrize("which", ["ours", "trl"])
@pytest.mark.parametrize("name", NAMES)
def test_step(benchmark: Any, which: str, name: str) -> None:
    if not (MODELS / name).is_dir():
        pytest.skip(f"no {MODELS / name}: make models")
    if which == "trl":
        pytest.importorskip("trl", reason="no TRL: pip install 'mutual-env[bench]'")
    step = trl(MODELS / name, 32, {}) if which == "trl" else ours(MODELS / name, 32)
    assert benchmark.pedantic(step, rounds=STEPS, warmup_rounds=1) == sum(r.size for _, r, _ in batch(40_000, 32))


def test_small_step(benchmark: Any) -> None:
    learner = tiny(learning_rate=1e-6)
    examples = _examples(learner.tokenizer.vocab_size, 64)
    benchmark.pedantic(learner.update, (examples,), rounds=5, warmup_rounds=1)
    assert learner.version > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--longest", type=int, default=256)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--without-checkpointing", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        which, path, longest, processor_time = json.loads(arguments.measure)
        print(json.dumps(measure(which, Path(path), longest, processor_time)))
        return
    clock = "process_time, one thread" if arguments.processor_time else "perf_counter"
    figures: dict[str, Any] = {"machine": machine(), "clock": clock, "longest": arguments.longest}
    for name in NAMES:
        if (arguments.models / name).is_dir():
            path = arguments.models / name
            others = tuple(TRL_OPTIONS) if arguments.without_checkpointing else ("trl",)
            figures[name] = compare(path, arguments.longest, arguments.processor_time, others)
    if (arguments.models / "smollm2").is_dir():
        figures["growth"] = growth(arguments.models / "smollm2", arguments.processor_time)
    write("torch_trainer", figures)


if __name__ == "__main__":
    main()
