"""The group sampler against `model.generate`, side by side: 16 prompts x 8 samples x 48 new tokens.

    python -m benchmarks.torch_sampler [--models models] [--repeats 3] [--processor-time]

writes docs/figures/data/torch_sampler.json. Both sample at temperature 1 from the same model and prompts, in turn; the
fastest of the repeats counts, since nothing makes a run faster than it is. Tokens are counted up to and including the
stop token. The sampler also records log-probabilities; `generate` is not asked to. The arithmetic limit counts two
operations for each weight that a new token passes, at the speed at which this machine multiplies matrices of these
shapes. With `--processor-time` one thread is used and its processor time counted, which is what can be compared on a
machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.figures import machine, write
from learners.seeds import sample_seeds
from learners.torch.learner import TorchLearner, make_torch
from learners.torch.options import TorchOptions
from learners.torch.sampler import sample_groups
from mutual_env.types import Ids
from tokenizers_bridge import CharTokenizer

PROMPTS, GROUP, NEW_TOKENS = 16, 8, 48
NO_STOP = -1


Clock: TypeAlias = Callable[[], float]


def tiny() -> TorchLearner:
    """110 thousand parameters, as in the quickstart; untrained, so that it stops after 45 tokens on average."""
    tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz0123456789+=?: .")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    options = TorchOptions(max_new_tokens=NEW_TOKENS)
    return TorchLearner(LlamaForCausalLM(config), tokenizer, name="tiny", options=options)


def prompts(learner: TorchLearner) -> list[Ids]:
    texts = [f"what is {3 * i} + {5 * i + 2}?" for i in range(PROMPTS)]
    return [learner.tokenizer.render_prompt(text) for text in texts]


def sample(learner: TorchLearner, rendered: Sequence[Ids], stop_id: int, seed: int) -> int:
    """Our sampler; returns how many tokens it made."""
    sampling = dataclasses.replace(learner.sampling, stop_id=stop_id, max_new_tokens=NEW_TOKENS)
    seeds = sample_seeds(seed, "bench", [str(i) for i in range(len(rendered))], GROUP)
    groups = sample_groups(learner.language_model, rendered, seeds, sampling)
    return sum(one.token_ids.size for group in groups for one in group)


def generate(learner: TorchLearner, rendered: Sequence[Ids], stop_id: int, seed: int) -> int:
    """transformers' own; returns how many tokens it made, padding after the stop token left out."""
    torch.manual_seed(seed)
    width = max(ids.size for ids in rendered)
    ids = torch.zeros(len(rendered), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(rendered):
        ids[row, width - prompt.size :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, width - prompt.size :] = 1
    model = learner.model
    out = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=True,
        top_k=0,
        num_return_sequences=GROUP,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=None if stop_id == NO_STOP else stop_id,
        pad_token_id=0,
        use_cache=True,
    )[:, width:].cpu()
    if stop_id == NO_STOP:
        return out.numel()
    stopped = (out == stop_id).int().cumsum(1)
    return int(((stopped == 0) | ((stopped == 1) & (out == stop_id))).sum())


def tokens_per_second(make: Callable[[], int], clock: Clock) -> float:
    start = clock()
    made = make()
    return made / (clock() - start)


def limit(learner: TorchLearner, clock: Clock) -> float:
    """Tokens a second if nothing but the matrix products of the weights took time."""
    rows = PROMPTS * GROUP
    shapes: dict[tuple[int, int], int] = {}
    for name, weight in learner.model.named_parameters():
        if weight.dim() == 2 and "embed_tokens" not in name and "embed_in" not in name:
            shapes[tuple(weight.shape)] = shapes.get(tuple(weight.shape), 0) + 1
    if learner.model.config.tie_word_embeddings:
        shapes[tuple(learner.model.get_output_embeddings().weight.shape)] = 1
    seconds = sum(count * _product_seconds(rows, shape, learner, clock) for shape, count in shapes.items())
    return rows / seconds


def _product_seconds(rows: int, shape: tuple[int, int], learner: TorchLearner, clock: Clock) -> float:
    weight = learner.model.get_output_embeddings().weight
    a = torch.randn(rows, shape[1], device=weight.device, dtype=weight.dtype)
    b = torch.randn(*shape, device=weight.device, dtype=weight.dtype)
    best = float("inf")
    for _ in range(12):
        start = clock()
        torch.nn.functional.linear(a, b)
        if weight.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


def compare(learner: TorchLearner, repeats: int, clock: Clock) -> dict[str, float]:
    """Both samplers in turn, for both kinds of lengths."""
    rendered = prompts(learner)
    stop_id = learner.tokenizer.stop_id
    figures: dict[str, float] = {}
    with torch.no_grad():
        figures["limit_tokens_per_second"] = limit(learner, clock)
    for case, stop in (("different_lengths", stop_id), ("to_the_limit", NO_STOP)):
        figures[f"{case}_mean_length"] = sample(learner, rendered, stop, seed=99) / (PROMPTS * GROUP)
        ours, theirs = 0.0, 0.0
        for seed in range(repeats):
            ours = max(ours, tokens_per_second(partial(sample, learner, rendered, stop, seed), clock))
            theirs = max(theirs, tokens_per_second(partial(generate, learner, rendered, stop, seed), clock))
        figures[f"{case}_tokens_per_second"] = ours
        figures[f"{case}_generate_tokens_per_second"] = theirs
        figures[f"{case}_times_generate"] = ours / theirs
    figures["share_of_limit"] = figures["to_the_limit_tokens_per_second"] / figures["limit_tokens_per_second"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    if arguments.processor_time:
        torch.set_num_threads(1)
    figures: dict[str, Any] = {"machine": machine(), "clock": clock.__name__, "threads": torch.get_num_threads()}
    figures["tiny"] = compare(tiny(), 3 * arguments.repeats, clock)
    print(figures["tiny"], flush=True)
    if (arguments.models / "smollm2").is_dir():
        smollm2 = make_torch(path=str(arguments.models / "smollm2"), name="smollm2", max_new_tokens=NEW_TOKENS)
        figures["smollm2"] = compare(smollm2, arguments.repeats, clock)
        print(figures["smollm2"], flush=True)
    write("torch_sampler", figures)


if __name__ == "__main__":
    main()
