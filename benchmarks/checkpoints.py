"""How long a checkpoint keeps a run from going on, in the foreground and in the background.

    python -m benchmarks.checkpoints [--pairs 7] [--width 512] [--layers 6]

writes docs/figures/data/checkpoints.json. One torch policy of random weights in float32 (its state is 12 bytes a
parameter: weights and two moments), in this process and in a worker process. A checkpoint is followed by one update, as
in a run; both ways in turn, in the order a, b, b, a, and medians count. `held` is the time until the run may go on,
`update` that of the update which then goes on beside the writing, or after it, and `whole` the time until both are
done. One thread computes; writing, hashing and flushing are what the other core does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.figures import machine, write
from learners.protocol import Learner
from learners.resources import Demand, Needs, ProcessExecutor
from learners.resources.testing import examples_of
from learners.run.checkpoint import Checkpoints
from learners.run.saving import Saver
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from tokenizers_bridge import CharTokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789+-*%()=?"
PROMPTS = ("1+1=", "2+3=", "4+4=")


def policy(width: int, layers: int, name: str = "policy") -> TorchLearner:
    tokenizer = CharTokenizer(ALPHABET)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        max_position_embeddings=256,
    )
    options = TorchOptions(max_new_tokens=16, device="cpu", learning_rate=1e-4)
    return TorchLearner(LlamaForCausalLM(config), tokenizer, name=name, options=options)


def measured(learner: Learner, pairs: int) -> dict[str, dict[str, float]]:
    examples = examples_of(learner.act(PROMPTS, 16, seed=0), learner)
    learner.update(examples)
    learner.update(examples)
    seconds: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(dir=".") as place:
        for pair in range(pairs):
            for background in (False, True) if pair % 2 else (True, False):
                seconds[background].append(_once(learner, examples, Path(place), background))
    names = "held", "update", "whole"
    return {
        ("background" if background else "foreground"): {
            name: statistics.median(column) for name, column in zip(names, zip(*found, strict=True), strict=True)
        }
        for background, found in seconds.items()
    }


def _once(learner: Learner, examples: Any, place: Path, background: bool) -> tuple[float, float, float]:
    saver = Saver(Checkpoints(place, keep=1), background=background, took=lambda took: None)
    began = time.perf_counter()
    saver.save(learner.version, {}, {"policy": learner}, {}, [])
    held = time.perf_counter()
    learner.update(examples)
    updated = time.perf_counter()
    saver.settled()
    whole = time.perf_counter()
    saver.close()
    return held - began, updated - held, whole - began


def in_a_worker(make: Callable[[], Learner], pairs: int) -> dict[str, dict[str, float]]:
    executor = ProcessExecutor([Demand("policy", {"act": Needs(), "update": Needs()})], threads=1)
    try:
        return measured(executor.host({"policy": make})["policy"], pairs)
    finally:
        executor.close()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_checkpoint(benchmark: Any, background: bool, tmp_path: Path) -> None:
    learner = policy(64, 2)
    examples = examples_of(learner.act(PROMPTS, 16, seed=0), learner)
    held, update, whole = benchmark.pedantic(_once, (learner, examples, tmp_path, background), rounds=3)
    assert whole >= held + update > 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make = partial(policy, arguments.width, arguments.layers)
    here = make()
    parameters = sum(p.numel() for p in here.model.parameters())
    figures = {
        "machine": machine(),
        "state_mb": 12 * parameters / 1e6,
        "pairs": arguments.pairs,
        "in_this_process": measured(here, arguments.pairs),
        "in_a_worker": in_a_worker(make, arguments.pairs),
    }
    for where in ("in_this_process", "in_a_worker"):
        ways = figures[where]
        ways["held_share"] = ways["background"]["held"] / ways["foreground"]["held"]
    write("checkpoints", figures)


if __name__ == "__main__":
    main()
