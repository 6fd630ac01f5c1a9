"""What chunks and behaviour weights add to an update: the same examples with and without them, on the same weights.

    python -m benchmarks.corrections [--models models] [--only small]    writes docs/figures/data/corrections.json

Half of the samples are own ones, with the log-probabilities that another engine recorded; half are borrowed, with the
author's on chunks of two tokens. Without, the same samples have the same ratios token by token, and no record. Both are
timed in turn, in processor time on one thread, and the figure is the median of the ratios of neighbours, with the 95 %
interval that resampling the pairs gives; on a machine that others use, the fastest of each says more. `small` is the
quickstart's model and batch, where a step is over in milliseconds; `SmolLM2-135M` a real one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.figures import DATA, machine, write
from learners.example import Example
from learners.protocol import Learner
from learners.torch.make import make_torch
from learners.torch.tiny import make_model
from mutual_env.types import Ids
from tokenizers_bridge import CharTokenizer

GROUP, PROMPT_TOKENS = 8, 16


def samples(vocab_size: int, prompts: int, longest: int) -> list[tuple[Ids, Ids]]:
    """Prompt and response of each sample; responses from half of `longest` to all of it."""
    numbers = np.random.default_rng(0)
    rows = []
    for _ in range(prompts):
        prompt = numbers.integers(10, vocab_size, PROMPT_TOKENS).astype(np.int32)
        for index in range(GROUP):
            size = longest * (GROUP + index + 1) // (2 * GROUP)
            rows.append((prompt, numbers.integers(10, vocab_size, size).astype(np.int32)))
    return rows


def examples_of(learner: Learner, prompts: int, longest: int) -> tuple[list[Example], list[Example]]:
    """Without and with."""
    rows = samples(min(learner.tokenizer.vocab_size, 40_000), prompts, longest)
    known = learner.score([p for p, _ in rows], [r for _, r in rows])
    numbers = np.random.default_rng(1)
    plain, corrected = [], []
    for index, ((prompt, response), logprobs) in enumerate(zip(rows, known, strict=True)):
        said = logprobs + numbers.normal(scale=0.04, size=response.size)
        one = Example(prompt, response, np.ones(response.size, np.bool_), np.full(response.size, (-1.0) ** index))
        if index % 2:
            plain.append(replace(one, anchor=said, own=False))
            corrected.append(replace(one, anchor=said, own=False, units=np.arange(response.size) // 2))
        else:
            plain.append(one)
            corrected.append(replace(one, behaviour=said))
    return plain, corrected


def added(learner: Learner, prompts: int, longest: int, pairs: int) -> Mapping[str, Any]:
    plain, corrected = examples_of(learner, prompts, longest)
    for warm in (plain, corrected):
        learner.update(warm)
    ratios: list[float] = []
    times: dict[int, list[float]] = {id(plain): [], id(corrected): []}
    for pair in range(pairs):
        first, second = (plain, corrected) if pair % 2 else (corrected, plain)
        for which in (first, second):
            times[id(which)].append(timed(learner, which))
        ratios.append(times[id(corrected)][-1] / times[id(plain)][-1])
    return {
        "pairs": pairs,
        "tokens": sum(e.response_ids.size for e in plain),
        "seconds_without": statistics.median(times[id(plain)]),
        "times_without": statistics.median(ratios),
        **dict(zip(("times_without_from", "times_without_to"), interval(ratios), strict=True)),
        "times_without_fastest_of_each": min(times[id(corrected)]) / min(times[id(plain)]),
    }


def interval(ratios: Sequence[float]) -> list[float]:
    """95 % of the medians of as many pairs, drawn from these."""
    draws = np.random.default_rng(2).choice(np.array(ratios), size=(2000, len(ratios)))
    return [float(q) for q in np.quantile(np.median(draws, axis=1), (0.025, 0.975))]


def timed(learner: Learner, examples: Sequence[Example]) -> float:
    start = time.process_time()
    learner.update(examples)
    return time.process_time() - start


@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "corrected"])
def test_update(benchmark: Any, corrected: bool) -> None:
    learner = small()
    examples = examples_of(learner, prompts=16, longest=16)[int(corrected)]
    benchmark.pedantic(learner.update, (examples,), rounds=9, warmup_rounds=1)
    assert learner.version > 0


def small() -> Learner:
    """The quickstart's model."""
    tokenizer = CharTokenizer("0123456789+= abcdefghijklmnopqrstuvwxyz")
    model = make_model("llama", tokenizer, width=64, layers=2, heads=4, seed=0)
    return make_torch(model=model, tokenizer=tokenizer, name="small", device="cpu", learning_rate=1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corrections", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--only", choices=("small", "SmolLM2-135M"), help="the other figures stay as they are")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = DATA / "corrections.json"
    figures = json.loads(kept.read_text()) if args.only and kept.is_file() else {}
    if args.only != "SmolLM2-135M":
        figures["small"] = added(small(), prompts=16, longest=16, pairs=151)
    if args.only != "small" and (args.models / "smollm2").is_dir():
        real = make_torch(path=str(args.models / "smollm2"), name="real", device="cpu", learning_rate=1e-6)
        figures["SmolLM2-135M"] = added(real, prompts=1, longest=24, pairs=31)
    write("corrections", {**figures, "machine": machine()})


if __name__ == "__main__":
    main()
