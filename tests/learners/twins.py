"""Policies that give every string the reader's own probability, under tokenizers of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import sharing
from learners.batch import Batch, build_batch
from learners.example import Example
from learners.protocol import Learner
from learners.tabular import TabularLearner
from learners.torch.tiny import make_model
from learners.units import units_of
from mutual_env.types import Completion, Floats, Ids, Lesson
from sharing.registry import OWN
from sharing.testing import ScriptedEnv, scripted_task
from tokenizers_bridge import Tokenizer, TokenizerBridge, align

READER, PEER = "reader", "peer"
# Two prompts; the reader fails on the second, where its peer has one success and one failure.
WROTE = {
    READER: [["yes, 12345 is odd.", "no: it isn't"], ["no", "nothing to say, really"]],
    PEER: [["no, unbelievably not 1,000", "yes (of course)"], ["yes: 3.14159 > 3", "no way, naïve reader"]],
}
PROMPTS = ("t0.0", "t0.1")


# The same for Co-RL, which takes of a peer its texts alone: votes that some own answers agree with.
VOTED = {
    READER: [["yes", "no: it isn't"], ["no", "12,345"]],
    PEER: [["no: it isn't", "no: it isn't"], ["12,345", "yes: 3.14159 > 3"]],
}


def strategies(**more: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every strategy by its registered name, with what it must be told."""
    taught = {name: {"teacher": PEER} for name in ("trrd", "kdrl", "offline")}
    told = {
        "topd": {"teacher": PEER, "verified": 1.0},
        "graft": {"stored": True},
        "sapo": {"local": 1, "external": 1},
        "frozen": {"agents": [PEER]},
    }
    return {**{name: {} for name in OWN}, **taught, **told, **more}


# Options that change what is compared, or with what: name of the strategy and options.
VARIANTS: list[tuple[str, Mapping[str, Any]]] = [
    ("independent", {"ratio": "sequence"}),
    ("prp", {"normalise": "author", "ratio_cap": 1.5, "above_cap": "weight"}),
    ("prp", {"clip_low": math.inf, "clip_high": math.inf, "ratio_cap": math.inf}),
    ("ftis", {"normalise": "union", "max_kl": 1e-3}),
    ("xgrpo", {"eta": 1.0, "std": "sample"}),
    ("sgt", {"compatible": True}),
    ("sgt", {"per_rescue": True, "compatible": True, "aggregation": "sequence_mean"}),
    ("memory", {"compatible": True, "own_weight": 1.0}),
    ("placebo", {"per_rescue": True}),
    ("auto", {"graft_above": 0.0}),
    ("auto", {"per_rescue": True, "std": False}),
    ("graft", {"stored": True, "pooled": True, "peers_at": "first"}),
    ("graft", {"stored": True, "success_only": True, "gate": False}),
    ("hacpo", {"aggregation": None, "alpha": 0.0}),
    ("luffy", {"gamma": 0.5}),
    ("trrd", {"teacher": PEER, "alpha": 0.0, "log_ratio_limit": 1e-3}),
    ("kdrl", {"teacher": PEER, "coefficient": 2.0}),
    ("topd", {"teacher": PEER, "alpha": 1.0, "verified": 0.5}),
]


@dataclass
class Twin:
    """A teacher with a tokenizer of its own that scores what the reader wrote as the reader does."""

    name: str
    tokenizer: Tokenizer
    known: dict[tuple[bytes, bytes], Floats] = field(default_factory=dict)

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        return [self.known[p.tobytes(), r.tobytes()] for p, r in zip(prompt_ids, response_ids, strict=True)]


class Pair:
    """A reader, and the round that it had with a twin of this tokenizer."""

    def __init__(self, reader: Learner, twin: Tokenizer, wrote: Mapping[str, list[list[str]]] = WROTE) -> None:
        self.reader = reader
        self.tokenizer = twin
        self.bridge = TokenizerBridge([reader.tokenizer, twin])
        self._numbers = np.random.default_rng(5)
        own = [[self._own(p, text) for text in group] for p, group in zip(PROMPTS, wrote[READER], strict=True)]
        borrowed = [[self._borrowed(p, text) for text in group] for p, group in zip(PROMPTS, wrote[PEER], strict=True)]
        self.written = {READER: own, PEER: borrowed}

    def batch(self, strategy: str, **options: Any) -> Batch:
        """The reader's examples of one round under this strategy."""
        env = sharing.make(strategy, ScriptedEnv((READER, PEER), prompts=2, group=2), **options)
        env.reset(seed=3, options={"round": 0})
        lessons: tuple[Lesson, ...] = env.step(self.written)[-1][READER]["lessons"]
        return build_batch(lessons, self.reader, self.bridge, {PEER: self._teacher()})  # type: ignore[dict-item]

    def _own(self, prompt: str, text: str) -> Completion:
        return self._completion(self.reader.tokenizer, text, self._ids(self.reader.tokenizer, text), prompt)

    def _borrowed(self, prompt: str, text: str) -> Completion:
        return self._completion(self.tokenizer, text, self._ids(self.tokenizer, text), prompt)

    def _completion(self, tokenizer: Tokenizer, text: str, ids: Ids, prompt: str) -> Completion:
        return Completion(text, ids, self._logprobs(prompt, tokenizer, ids, text), "stop", 0, tokenizer.fingerprint)

    @staticmethod
    def _ids(tokenizer: Tokenizer, text: str) -> Ids:
        return np.append(tokenizer.encode_batch([text])[0], tokenizer.stop_id).astype(np.int32)

    def _logprobs(self, prompt: str, tokenizer: Tokenizer, ids: Ids, text: str) -> Floats:
        """The reader's on these ids of any tokenizer: the sum over each chunk is the reader's, its parts are random."""
        reader = self.reader.tokenizer
        mine = ids if tokenizer.fingerprint == reader.fingerprint else self._ids(reader, text)
        (scores,) = self.reader.score([reader.render_prompt(scripted_task(prompt).prompt)], [mine])
        alignment = align(ids, tokenizer, mine, reader)
        assert alignment.exact.all()
        chunks = alignment.chunk_ids("author")
        if np.array_equal(ids, mine):
            return scores
        shares = self._numbers.uniform(0.1, 1.0, ids.size)
        shares /= np.bincount(chunks, shares)[chunks]
        return alignment.chunk_sums(scores, "reader")[chunks] * shares

    def _teacher(self) -> Twin:
        twin = Twin(PEER, self.tokenizer)
        for prompt, group in zip(PROMPTS, self.written[READER], strict=True):
            for completion in group:
                ids = self.bridge.translate([completion], self.tokenizer)[0].token_ids
                logprobs = self._logprobs(prompt, self.tokenizer, ids, completion.text)
                rendered = self.tokenizer.render_prompt(scripted_task(prompt).prompt)
                twin.known[rendered.tobytes(), ids.tobytes()] = logprobs
        return twin


def model_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The options of a learner around a small model that finds some tokens likelier than others."""
    model = make_model("llama", tokenizer, width=8, layers=1, heads=2, seed=1)
    model.get_output_embeddings().weight.data.mul_(40.0)
    return {"model": model, "tokenizer": tokenizer, "device": "cpu", "max_gradient_norm": 0.0}


def gradients(learner: Learner, examples: tuple[Example, ...]) -> dict[str, torch.Tensor]:
    """Of the update's one optimizer step, which is not applied. A table's gradient is what it moves by."""
    if isinstance(learner, TabularLearner):
        before = {key: row.copy() for key, row in learner._table.items()}
        learner.update(examples)
        moved = {str(k): torch.from_numpy(row - before.get(k, learner._initial)) for k, row in learner._table.items()}
        learner._table = before
        return moved
    caught: dict[str, torch.Tensor] = {}
    optimizer = learner._optimizer  # type: ignore[attr-defined]

    def capture(loss: float) -> float:
        caught.update({name: p.grad.clone() for name, p in optimizer._parameters.items() if p.grad is not None})
        optimizer.zero_grad()
        return 0.0

    optimizer.step, step = capture, optimizer.step
    learner.update(examples)
    optimizer.step = step
    return caught


def assert_same_update(reader: Learner, other: Tokenizer, strategy: str, options: Any) -> None:
    """What a twin of another tokenizer teaches is what a twin of the reader's own tokenizer teaches."""
    wrote = VOTED if strategy == "corl" else WROTE
    foreign = Pair(reader, other, wrote).batch(strategy, **options)
    alike = Pair(reader, reader.tokenizer, wrote).batch(strategy, **options)
    if "batch/ratio_variance" in foreign.metrics:
        assert foreign.metrics["batch/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
        assert foreign.metrics["batch/ratio_variance"] < 1e-12
        assert foreign.metrics["batch/log_ratio_variance"] < 1e-12
        cut = any(o.draft is not None and units_of(o.draft.chunks) is not None for o in foreign.outcomes)
        assert (foreign.metrics["batch/spread_variance"] > 1e-4) == cut
        assert alike.metrics["batch/spread_variance"] == 0.0
    assert foreign.metrics.get("batch/gate_mean", 1.0) == pytest.approx(1.0, abs=1e-6)
    assert foreign.metrics.get("batch/teacher_reward", 0.0) == 0.0
    first, second = gradients(reader, foreign.examples), gradients(reader, alike.examples)
    assert first.keys() == second.keys()
    largest = max(float(g.norm()) for g in second.values())
    assert largest > 1e-4
    for name, gradient in first.items():
        assert float((gradient - second[name]).norm()) <= 1e-5 * max(float(gradient.norm()), 1e-2 * largest), name
