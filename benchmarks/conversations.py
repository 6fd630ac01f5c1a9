"""What turns cost the torch sampler: the same tokens in eight turns and in one, and each turn by itself.

    python -m benchmarks.conversations [--models models] [--repeats 5] [--only tiny | smollm2]

writes docs/figures/data/conversations.json; with `--only` the other model's figures stay as they are. Sixteen
conversations (two for SmolLM2), each of eight turns of 24 sampled tokens with a reply of 24 tokens between two, and
what the chat template puts around it; in one turn as many tokens are part of the prompt and 192 are sampled. Stop
tokens are off, so that both are the same number of tokens. `one_turn`: the time of the turns over that of one turn;
`recomputed`: the same where nothing is kept from turn to turn. `last_over_second`: the eighth turn's time over the
second's (the first has no reply); `attention`: the same of the tokens at those places where all are sampled in one
turn, which grows with the context alone; `growth` is the first over the second: what conversations add to it. One
thread, its processor time, the median of the ratios: what can be compared on a busy machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from benchmarks.figures import DATA, machine, write
from benchmarks.tables import figures, put, table
from benchmarks.torch_sampler import NO_STOP, loaded, tiny
from learners.torch import sampler
from learners.torch.learner import TorchLearner
from mutual_env.types import Completion, Context, Reply, Turn
from tokenizers_bridge.replies import Conversing

PAGE, NAME = "turns.md", "cost of turns"
ROWS, FEW_ROWS, TURNS, WRITTEN, REPLY = 16, 2, 8, 24, 24
MODELS = ("tiny", "smollm2")


def replies() -> list[Reply]:
    """Each of REPLY characters, which are as many tokens to the models here."""
    return [Reply("".join("0123456789"[(i * 7 + j) % 10] for j in range(REPLY))) for i in range(TURNS - 1)]


def reply_size(learner: TorchLearner) -> int:
    """Tokens of a reply, with what the chat template puts around it."""
    return Conversing(learner.tokenizer).reply(replies()[0], is_chat=False).size


def in_turns(learner: TorchLearner, prompts: Sequence[str]) -> list[float]:
    """Seconds of each turn."""
    contexts = [Context(prompt) for prompt in prompts]
    seconds: list[float] = []
    for turn in range(TURNS):
        start = time.process_time()
        written: list[Completion] = [group[0] for group in learner.act(contexts, 1, seed=turn)]
        seconds.append(time.process_time() - start)
        if turn + 1 < TURNS:
            pairs = zip(contexts, written, strict=True)
            contexts = [Context(c.prompt, (*c.turns, Turn(w, replies()[turn]))) for c, w in pairs]
    return seconds


def in_one(learner: TorchLearner, prompts: Sequence[str]) -> float:
    """Seconds of as many tokens where the replies are said before."""
    said = "".join(reply.text for reply in replies()) + "7" * (reply_size(learner) - REPLY) * (TURNS - 1)
    long = [prompt + said for prompt in prompts]
    before = learner.sampling
    learner.sampling = dataclasses.replace(before, max_new_tokens=TURNS * WRITTEN)
    start = time.process_time()
    learner.act(long, 1, seed=0)
    learner.sampling = before
    return time.process_time() - start


def by_place(learner: TorchLearner, prompts: Sequence[str]) -> float:
    """The time of the tokens where the eighth turn's lie over that of those where the second's lie, in one turn."""
    marks: list[float] = []
    before = learner.sampling
    between = WRITTEN + reply_size(learner)
    learner.sampling = dataclasses.replace(before, max_new_tokens=TURNS * between)
    record = sampler.Track.record

    def marked(track: sampler.Track, *given: Any, **named: Any) -> None:
        record(track, *given, **named)
        marks.append(time.process_time())

    try:
        with patch.object(sampler.Track, "record", marked):
            learner.act(prompts, 1, seed=0)
    finally:
        learner.sampling = before
    second, last = (turn * between for turn in (1, TURNS - 1))
    return (marks[last + WRITTEN - 1] - marks[last]) / (marks[second + WRITTEN - 1] - marks[second])


def asked(rows: int) -> list[str]:
    return [f"{i}+{i * i}=" for i in range(rows)]


def to_the_limit(learner: TorchLearner) -> TorchLearner:
    """Every turn of as many tokens."""
    learner.sampling = dataclasses.replace(learner.sampling, stop_id=NO_STOP, also_stops=(), max_new_tokens=WRITTEN)
    return learner


def measured(keeping: TorchLearner, forgetting: TorchLearner, rows: int, repeats: int) -> dict[str, Any]:
    for learner in (keeping, forgetting):
        to_the_limit(learner)
    prompts = asked(rows)
    kept, again, growth, second, attention = [], [], [], [], []
    for _ in range(repeats):
        one = in_one(keeping, prompts)
        turns = in_turns(keeping, prompts)
        kept.append(sum(turns) / one)
        growth.append(turns[-1] / turns[1])
        second.append(turns[1])
        attention.append(by_place(keeping, prompts))
        again.append(sum(in_turns(forgetting, prompts)) / one)
    return {
        "one_turn": statistics.median(kept),
        "recomputed": statistics.median(again),
        "last_over_second": statistics.median(growth),
        "attention": statistics.median(attention),
        "growth": statistics.median(growth) / statistics.median(attention),
        "seconds_of_second_turn": statistics.median(second),
    }


def differences(keeping: TorchLearner, forgetting: TorchLearner, rows: int) -> dict[str, float]:
    """How far what is kept takes the samples: share of sampled ids that are others, largest difference of a
    log-probability where they are the same."""
    contexts = [Context(prompt) for prompt in asked(rows)]
    changed, tokens, furthest = 0, 0, 0.0
    for turn in range(TURNS):
        pairs = [[g[0] for g in learner.act(contexts, 1, seed=turn)] for learner in (keeping, forgetting)]
        for ours, theirs in zip(*pairs, strict=True):
            same = ours.token_ids == theirs.token_ids
            first = int(np.argmin(same)) if not same.all() else same.size
            changed += same.size - first
            tokens += same.size
            furthest = max(furthest, float(np.abs(ours.logprobs[:first] - theirs.logprobs[:first]).max(initial=0.0)))
        if turn + 1 < TURNS:
            said = zip(contexts, pairs[0], strict=True)
            contexts = [Context(c.prompt, (*c.turns, Turn(w, replies()[turn]))) for c, w in said]
    return {"share_of_ids_changed": changed / tokens, "largest_logprob_difference": furthest, "tokens": float(tokens)}


@pytest.mark.parametrize("kept", [512, 0], ids=["kept", "recomputed"])
def test_turns(benchmark: Any, kept: int) -> None:
    learner = to_the_limit(tiny(conversation_mb=kept))
    seconds = benchmark.pedantic(in_turns, (learner, asked(FEW_ROWS)), rounds=3, warmup_rounds=1)
    assert len(seconds) == TURNS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversations", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=MODELS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.models / "smollm2"
    if args.only != "smollm2":
        keep("tiny", tiny(), tiny(conversation_mb=0), ROWS, args.repeats)
    if args.only != "tiny" and path.is_dir():
        keep("smollm2", loaded(path), loaded(path, conversation_mb=0), FEW_ROWS, args.repeats)


def keep(name: str, keeping: TorchLearner, forgetting: TorchLearner, rows: int, repeats: int) -> None:
    """Measure a model, and write its figures beside those of the other one: what is known after some minutes is not
    lost with the rest."""
    found: dict[str, Any] = {}
    for part in (partial(measured, repeats=repeats), differences):
        found |= part(keeping, forgetting, rows)
        path = DATA / "conversations.json"
        before = json.loads(path.read_text()) if path.is_file() else {}
        write("conversations", together(before, {name: found}, machine()))
        put(PAGE, NAME, cost_table(figures("conversations")))


def together(before: Mapping[str, Any], found: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """What was just measured beside what was, and what processor each model's figures are of."""
    was = before.get("machine", {}).get("processor")
    processors = before.get("processors") or {name: was for name in MODELS if name in before}
    return {**before, **found, "machine": here, "processors": {**processors, **dict.fromkeys(found, here["processor"])}}


def cost_table(measured: Mapping[str, Any]) -> str:
    names = {"tiny": "tiny, 110 thousand parameters", "smollm2": "SmolLM2, 135 million"}
    keys = ("one_turn", "recomputed", "last_over_second", "attention", "growth")
    rows = [
        [name, *(f"{of[k]:.2f}" for k in keys), f"{of.get('largest_logprob_difference', math.nan):.0e}"]
        for key, name in names.items()
        if (of := measured.get(key))
    ]
    head = [
        "same tokens in one",
        "all computed again",
        "eighth / second",
        "attention alone",
        "the rest",
        "largest Δ log p",
    ]
    return table(["eight turns", *head], rows)


if __name__ == "__main__":
    main()
