"""The group sampler against `model.generate`, side by side: 16 prompts x 8 samples x 48 new tokens.

    python -m benchmarks.torch_sampler [--models models] [--repeats 9] [--processor-time]

writes docs/figures/data/torch_sampler.json; `pytest benchmarks/torch_sampler.py` runs both of the tiny model under
pytest-benchmark. Both sample at temperature 1 from the same model and the same rendered
prompts: for the tiny model the env's own arithmetic tasks (7 tokens), for SmolLM2 the word problems of reasoning-gym's
gsm_symbolic in its chat template (80 to 180 tokens). `generate` gets all prompts in one call, padded on the left, with
`num_return_sequences`, and the dynamic or the static cache, whichever is faster here. In the case `different_lengths`
a sample ends at the stop token: the tiny model's own, and for SmolLM2, whose own hardly comes within 48 tokens, the
full stop. Ours and theirs run in turn, and the median of the ratios counts. Tokens are counted up to and including the
stop token. The sampler also records log-probabilities; `generate` is not asked to.

The arithmetic limit is the time of the matrix products with the model's weights alone, each prompt token and each new
token once, at the speed at which this machine multiplies matrices of these shapes. With `--processor-time` one thread
is used and its processor time counted, which is what can be compared on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mutual_env
from benchmarks.figures import machine, write
from learners.seeds import sample_seeds
from learners.torch.learner import TorchLearner
from learners.torch.make import make_torch
from learners.torch.options import TorchOptions
from learners.torch.sampler import sample_groups
from mutual_env.types import Ids, Prompt
from tokenizers_bridge import CharTokenizer

PROMPTS, GROUP, NEW_TOKENS = 16, 8, 48
NO_STOP = -1
TINY_TASKS, WORD_PROBLEMS = "mutual/arithmetic-v0", "reasoning_gym/gsm_symbolic-v0"

Clock: TypeAlias = Callable[[], float]


def tiny(**changes: Any) -> TorchLearner:
    """110 thousand parameters, as in the quickstart; untrained, so that it stops after 45 tokens on average."""
    tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz0123456789+-*%()=?")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    options = TorchOptions(max_new_tokens=NEW_TOKENS, **changes)
    return TorchLearner(LlamaForCausalLM(config), tokenizer, name="tiny", options=options)


def loaded(path: Path, **options: Any) -> TorchLearner:
    learner = make_torch(path=str(path), name=path.name, max_new_tokens=NEW_TOKENS, **options)
    assert isinstance(learner, TorchLearner)
    return learner


def prompts(env_id: str) -> list[Prompt]:
    """What a round of this env asks."""
    env = mutual_env.make(env_id, agents=1, group_size=1, prompts_per_round=PROMPTS, seed=0)
    env.reset(seed=0)
    asked: list[Prompt] = [task.prompt for task in env.tasks]
    env.close()
    return asked


def sample(learner: TorchLearner, rendered: Sequence[Ids], stop_id: int, seed: int) -> int:
    """Our sampler; returns how many tokens it made."""
    sampling = dataclasses.replace(learner.sampling, stop_id=stop_id, max_new_tokens=NEW_TOKENS)
    seeds = sample_seeds(seed, "bench", [str(i) for i in range(len(rendered))], GROUP)
    groups = sample_groups(learner.language_model, rendered, seeds, sampling, PROMPTS * GROUP)
    return sum(one.token_ids.size for group in groups for one in group)


def generate(
    learner: TorchLearner,
    rendered: Sequence[Ids],
    stop_id: int,
    seed: int,
    *,
    cache: str = "dynamic",
    new_tokens: int = NEW_TOKENS,
) -> int:
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
        max_new_tokens=new_tokens,
        cache_implementation=cache,
        eos_token_id=None if stop_id == NO_STOP else stop_id,
        pad_token_id=0,
        use_cache=True,
    )[:, width:].cpu()
    if stop_id == NO_STOP:
        return int(out.numel())
    stopped: torch.Tensor = (out == stop_id).int().cumsum(1)
    return int(((stopped == 0) | ((stopped == 1) & (out == stop_id))).sum())


def tokens_per_second(make: Callable[[], int], clock: Clock) -> float:
    start = clock()
    made = make()
    return made / (clock() - start)


def faster_cache(learner: TorchLearner, rendered: Sequence[Ids], clock: Clock) -> str:
    """Of transformers' caches, on a few prompts and tokens."""
    few = partial(generate, learner, rendered[:4], NO_STOP, 0, new_tokens=8)
    speeds = {}
    for cache in ("dynamic", "static"):
        few(cache=cache)
        speeds[cache] = tokens_per_second(partial(few, cache=cache), clock)
    return max(speeds, key=lambda cache: speeds[cache])


def limit_seconds(learner: TorchLearner, rendered: Sequence[Ids], clock: Clock) -> float:
    """Of the products alone: the layers for each prompt token, layers and head for each new token."""
    head = learner.model.get_output_embeddings().weight
    shapes: dict[tuple[int, ...], int] = {}
    for name, weight in learner.language_model.decoder.named_parameters():
        if weight.dim() == 2 and "embed" not in name:
            shapes[tuple(weight.shape)] = shapes.get(tuple(weight.shape), 0) + 1
    rows = PROMPTS * GROUP
    layers = sum(count * _product_seconds(rows, shape, learner, clock) for shape, count in shapes.items()) / rows
    last = _product_seconds(rows, tuple(head.shape), learner, clock) / rows
    asked = sum(ids.size for ids in rendered)
    return asked * layers + rows * NEW_TOKENS * (layers + last)


def _product_seconds(rows: int, shape: Sequence[int], learner: TorchLearner, clock: Clock) -> float:
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


def compare(
    learner: TorchLearner, asked: Sequence[Prompt], stop_id: int, repeats: int, clock: Clock
) -> dict[str, float | str]:
    """Both samplers in turn, for both kinds of lengths."""
    rendered = [learner.tokenizer.render_prompt(prompt) for prompt in asked]
    cache = faster_cache(learner, rendered, clock)
    figures: dict[str, float | str] = {"generate_cache": cache}
    figures["prompt_tokens"] = sum(ids.size for ids in rendered) / len(rendered)
    for case, stop in (("different_lengths", stop_id), ("to_the_limit", NO_STOP)):
        figures[f"{case}_mean_length"] = sample(learner, rendered, stop, seed=99) / (PROMPTS * GROUP)
        pairs = [
            (
                tokens_per_second(partial(sample, learner, rendered, stop, seed), clock),
                tokens_per_second(partial(generate, learner, rendered, stop, seed, cache=cache), clock),
            )
            for seed in range(repeats)
        ]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        figures[f"{case}_tokens_per_second"] = ours
        figures[f"{case}_generate_tokens_per_second"] = theirs
        figures[f"{case}_times_generate"] = statistics.median(mine / other for mine, other in pairs)
    with torch.no_grad():
        fastest = PROMPTS * GROUP * NEW_TOKENS / limit_seconds(learner, rendered, clock)
    figures["limit_tokens_per_second"] = fastest
    figures["share_of_limit"] = float(figures["to_the_limit_tokens_per_second"]) / fastest
    return figures


@pytest.mark.parametrize("sampler", [sample, generate], ids=lambda sampler: sampler.__name__)
def test_sampling(benchmark: Any, sampler: Callable[..., int]) -> None:
    learner = tiny()
    rendered = [learner.tokenizer.render_prompt(prompt) for prompt in prompts(TINY_TASKS)]
    made = benchmark.pedantic(sampler, (learner, rendered, NO_STOP, 0), rounds=5, warmup_rounds=1)
    assert made == PROMPTS * GROUP * NEW_TOKENS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--repeats", type=int, default=9, help="of the tiny model; larger ones run once")
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    if arguments.processor_time:
        torch.set_num_threads(1)
    figures: dict[str, Any] = {"machine": machine(), "clock": clock.__name__, "threads": torch.get_num_threads()}
    learner = tiny()
    figures["tiny"] = compare(learner, prompts(TINY_TASKS), learner.tokenizer.stop_id, arguments.repeats, clock)
    print(figures["tiny"], flush=True)
    if (arguments.models / "smollm2").is_dir():
        learner = loaded(arguments.models / "smollm2")
        full_stop = int(learner.tokenizer.encode_batch(["."])[0][0])
        figures["smollm2"] = compare(learner, prompts(WORD_PROBLEMS), full_stop, 1, clock)
        print(figures["smollm2"], flush=True)
    write("torch_sampler", figures)


if __name__ == "__main__":
    main()
