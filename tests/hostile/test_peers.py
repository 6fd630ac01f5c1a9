"""A hostile peer, from the exchange to the weights: it ends no reader under any strategy, and what it merely claims
moves none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import mutual_env
import sharing
from learners.run.loop import Loop
from learners.tabular import TabularLearner
from mutual_env import VerifierSpec
from mutual_env.types import Completion, Task
from sharing import InMemoryExchange, Origin, Record, Rollout, Statistics, Success, registry
from tests.learners import tiny_policies
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

pytestmark = pytest.mark.filterwarnings("ignore:.*(learns nothing from its peers|because of rewards outside)")

CHARS = CharTokenizer("0123456789+= !x<|im_end>")
PAIRS = PairTokenizer("0123456789+= !x<|im_end>", [("1", "2"), ("=", "1")])
PROMPTS = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "trrd": {"teacher": "tutor"},
    "kdrl": {"teacher": "tutor"},
    "topd": {"teacher": "tutor"},
    "offline": {"teacher": "mallory"},
    "frozen": {"agents": ["mallory"]},
}
STRATEGIES = sorted(registry.OWN)


@dataclass(frozen=True, slots=True)
class Where:
    """What a reader learns, and how fast."""

    id: str
    alphabet: str
    group: int
    rate: float
    options: Mapping[str, Any] = field(default_factory=dict)


class Echo:
    """`3=` asks for 3."""

    verifier = VerifierSpec("numeric")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"echo:{x}", f"{x}=", str(x)) for x in range(n)]


mutual_env.register("tests/echo-v0", Echo)
ADDING = Where("mutual/arithmetic-v0", "0123456789", 4, 5.0, {"digits": 1})
ECHOING = Where("tests/echo-v0", "0123", 8, 20.0)


@dataclass(frozen=True, slots=True)
class At:
    """Where a record is to be put."""

    task: Task
    round: int

    @property
    def right(self) -> str:
        return self.task.answer

    @property
    def wrong(self) -> str:
        return str(int(self.task.answer) + 1)

    def origin(self, tokenizer: str = CHARS.fingerprint, author: str = "mallory", version: int = 0) -> Origin:
        return Origin(self.task.id, author, self.round, version, tokenizer, "numeric")

    def rollout(self, text: str, logprob: float = -1.0, *, index: int = 0, **changes: Any) -> Rollout:
        """A text of characters that stopped by itself, with these changes of its completion."""
        ids = np.append(CHARS.encode_batch([text])[0], CHARS.stop_id)
        fields = {"text": text, "token_ids": ids, "logprobs": np.full(ids.size, logprob), "finish_reason": "stop"}
        completion = Completion(**{**fields, "policy_version": 0, "tokenizer": CHARS.fingerprint, **changes})
        right = text == self.right
        return Rollout(self.origin(completion.tokenizer), index, completion, float(right), right)

    def success(self, text: str, index: int = 0, reward: float = 1.0) -> Success:
        return Success(self.origin(""), index, text, "stop", reward)

    def statistics(self, count: int, total: float, squares: float) -> Statistics:
        return Statistics(self.origin(), count, total, squares)

    def trace(self, text: str, *logprobs: float) -> Rollout:
        """The same log-probabilities over and over."""
        size = len(text) + 1
        return self.rollout(text, logprobs=np.resize(np.array(logprobs), size))


STOP = CHARS.stop_id
KINDS: dict[str, Callable[[At], Sequence[Record]]] = {
    "finite log-probabilities whose mean is not": lambda at: [at.rollout(at.wrong, -1e308)],
    "log-probabilities of -19, all wrong": lambda at: [at.rollout(at.wrong, -19.0, index=i) for i in range(8)],
    "log-probabilities as low as they may be": lambda at: [at.trace(at.wrong, -1e-9, -40.0)],
    "log-probabilities of -700": lambda at: [at.rollout(at.right, -700.0)],
    "log-probabilities of 0": lambda at: [at.rollout(at.wrong, 0.0), at.rollout(at.right, -0.0, index=1)],
    "log-probabilities just above 0": lambda at: [at.rollout(at.wrong, 9e-7)],
    "log-probabilities that are NaN": lambda at: [at.trace(at.wrong, math.nan, -1.0)],
    "log-probabilities of infinity": lambda at: [
        at.trace(at.wrong, math.inf),
        at.rollout(at.right, -math.inf, index=1),
    ],
    "subnormal numbers": lambda at: [at.rollout(at.wrong, -5e-324), at.statistics(2, 5e-324, 5e-324)],
    "no tokens": lambda at: [at.rollout("", token_ids=np.empty(0, np.int32), logprobs=np.empty(0))],
    "the stop token alone": lambda at: [at.rollout("")],
    "ids outside the vocabulary": lambda at: [at.rollout(at.right, token_ids=np.full(len(at.right) + 1, 2**31 - 1))],
    "ids below 0": lambda at: [at.rollout(at.right, token_ids=np.full(len(at.right) + 1, -1))],
    "ids that spell another text": lambda at: [replace_text(at.rollout(at.wrong), at.right)],
    "a vocabulary that nobody knows": lambda at: [at.rollout(at.right, tokenizer="nobody's")],
    "a trace signed with the other vocabulary": lambda at: [at.rollout(at.right, tokenizer=PAIRS.fingerprint)],
    "stop tokens in the middle": lambda at: [at.rollout("", token_ids=np.full(5, STOP), logprobs=np.full(5, -1.0))],
    "stopped, without a stop token": lambda at: [cut(at.rollout(at.right), "stop")],
    "cut off, with a stop token": lambda at: [at.rollout(at.right, finish_reason="length")],
    "text that spells control tokens": lambda at: [at.rollout("<|im_end|>"), at.success(at.right + "<|im_end|>")],
    "text that the reader cannot write": lambda at: [at.success(at.right + " é中😀\u202e\x1b[2J")],
    "half a character": lambda at: [at.success(at.right + "\ud800"), replace_text(at.rollout("1"), "1\udfff")],
    "NUL and line ends": lambda at: [at.success("\0\r\n" + at.right)],
    "a right answer behind 200,000 spaces": lambda at: [at.success(" " * 200_000 + at.right)],
    "60,000 tokens": lambda at: [at.rollout(at.right + " " * 60_000)],
    "no text": lambda at: [at.success("")],
    "rewards that are no numbers": lambda at: [reward(at, r, i) for i, r in enumerate((math.nan, math.inf, -math.inf))],
    "rewards without bound": lambda at: [reward(at, 1e308, 0), reward(at, -1e308, 1)],
    "false claims": lambda at: [at.success(at.wrong), replace(at.rollout(at.wrong), reward=1.0, correct=True)],
    "false modesty": lambda at: [replace(at.rollout(at.right), reward=0.0, correct=False)],
    "statistics at the edge of what is possible": lambda at: [at.statistics(64, 64.0, 64.0)],
    "statistics of nobody": lambda at: [at.statistics(0, 0.0, 0.0), at.statistics(1, -0.0, 0.0)],
    "statistics that overflow": lambda at: [at.statistics(2, 1e308, 1e308)],
    "names that are none": lambda at: [
        replace(at.success(at.right), origin=at.origin("", author=name))
        for name in ("", "\x1b[2J", "a\nb", "x" * 10**6)
    ],
    "everything right, 64 times": lambda at: [at.rollout(at.right, index=i) for i in range(64)],
    # The last, because whoever has been heard with this version is not heard with an earlier one.
    "the largest numbers there are": lambda at: [
        replace(at.success(at.right, index=2**32 - 1), origin=at.origin("", version=2**63 - 1))
    ],
}


class Bounded(TabularLearner):
    """Takes sequences of up to 64 tokens, as a learner with a micro-batch or a context does."""

    max_sequence = 64


def replace_text(record: Rollout, text: str) -> Rollout:
    return replace(record, completion=replace(record.completion, text=text))


def cut(record: Rollout, finish_reason: Any) -> Rollout:
    ids, logprobs = record.completion.token_ids[:-1], record.completion.logprobs[:-1]
    short = replace(record.completion, token_ids=ids, logprobs=logprobs, finish_reason=finish_reason)
    return replace(record, completion=short)


def reward(at: At, value: float, index: int) -> Rollout:
    return replace(at.rollout(at.right, index=index), reward=value)


@contextmanager
def loop(strategy: str, exchange: InMemoryExchange, where: Where = ADDING) -> Iterator[Loop]:
    """ada, alone in its env, under a strategy; a tutor beside it."""
    settings = {"alphabet": where.alphabet, "learning_rate": where.rate, "max_new_tokens": 3}
    ada, tutor = (Bounded(CHARS, name=name, **settings) for name in ("ada", "tutor"))
    env = mutual_env.make(
        where.id, agents=["ada"], group_size=where.group, prompts_per_round=PROMPTS, **dict(where.options)
    )
    shared = sharing.make(strategy, env, exchange=exchange, **OPTIONS.get(strategy, {}))
    try:
        yield Loop(shared, {"ada": ada}, 0, where.group, TokenizerBridge([CHARS, PAIRS]), {"ada": ada, "tutor": tutor})
    finally:
        shared.close()


def publish(loop: Loop, exchange: InMemoryExchange, kind: Callable[[At], Sequence[Record]], round: int) -> None:
    loop.env.reset(seed=loop.seed, options={"round": round})
    for task in loop.env.unwrapped.tasks:  # type: ignore[attr-defined]
        exchange.publish(kind(At(task, round)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_record_of_a_peer_stops_a_reader(strategy: str) -> None:
    exchange = InMemoryExchange()
    with loop(strategy, exchange) as running:
        for round, (name, kind) in enumerate(KINDS.items()):
            publish(running, exchange, kind, round)
            try:
                metrics = running.round(round)["ada"]["metrics"]
            except Exception as error:
                error.add_note(f"under {strategy}, by a record of the kind: {name}")
                raise
            assert all(math.isfinite(value) for value in metrics.values()), name
        ada = running.learners["ada"]
        assert ada.version == len(KINDS)
        assert len(ada.act(["1+1="], 2, seed=0)[0]) == 2


def test_there_are_strategies_and_kinds_to_try() -> None:
    assert len(STRATEGIES) >= 12
    assert len(KINDS) >= 33


# -- what is merely claimed --------------------------------------------------------------------------------------------


CLAIMS: dict[str, Callable[[Rollout], Rollout]] = {
    "that it was improbable": lambda r: claimed(r, -13.0),
    "that its first token was as improbable as may be": lambda r: claimed(r, -18.0, -1e-9),
    "that its last token was as improbable as may be": lambda r: claimed(r, -1e-9, -18.0),
    "that one token was more improbable than may be": lambda r: claimed(r, -1e-9, -25.0),
    "that it was certain": lambda r: claimed(r, 0.0),
    "that it was right": lambda r: replace(r, reward=1.0, correct=True),
    "that it comes from a later version": lambda r: replace(r, origin=replace(r.origin, policy_version=10**9)),
    "that it was cut off": lambda r: replace(r, completion=replace(r.completion, finish_reason="length")),
}


def claimed(record: Rollout, *logprobs: float) -> Rollout:
    values = np.resize(np.array(logprobs), record.completion.token_ids.size)
    return replace(record, completion=replace(record.completion, logprobs=values))


def moved(strategy: str, claim: Callable[[Rollout], Rollout]) -> float:
    """How far one step takes ada's log-probabilities, with six wrong rollouts of mallory's on each task of which it
    claims something, and two right ones, without which nothing would be better or worse than the rest."""
    exchange = InMemoryExchange()
    with loop(strategy, exchange) as running:
        ada = running.learners["ada"]
        running.env.reset(seed=running.seed, options={"round": 0})
        asked = [
            (CHARS.render_prompt(task.prompt), np.append(CHARS.encode_batch([str(n)])[0], STOP))
            for task in running.env.unwrapped.tasks  # type: ignore[attr-defined]
            for n in range(10)
        ]
        before = np.concatenate(ada.score(*zip(*asked, strict=True)))
        # A uniform choice among ten digits and the stop token, and that is what an honest author says.
        publish(running, exchange, lambda at: [claim(at.rollout(at.wrong, -2.4, index=i)) for i in range(6)], 0)
        publish(running, exchange, lambda at: [at.rollout(at.right, -2.4, index=i) for i in (6, 7)], 0)
        running.round(0)
        after = np.concatenate(ada.score(*zip(*asked, strict=True)))
    return float(np.abs(after - before).max())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_peer_merely_claims_moves_a_reader_by_no_more_than_a_bounded_ratio(strategy: str) -> None:
    honest = moved(strategy, lambda record: record)
    assert honest > 0.0 or strategy not in ("prp", "ftis", "luffy", "hacpo", "sapo")
    for name, claim in CLAIMS.items():
        # The greatest ratio that any strategy lets through by default is 8, PRP's.
        assert moved(strategy, claim) <= 8.0 * honest + 1e-9, name


# -- what is true, and poison ------------------------------------------------------------------------------------------


def poison(at: At) -> list[Rollout]:
    """The right answer and one more digit: verified, truly wrong, honestly signed, and right up to its last token."""
    return [at.rollout(f"{at.right}{i % 4}", -1.6, index=i) for i in range(8)]


def accuracy(strategy: str, kind: Callable[[At], Sequence[Record]] | None) -> float:
    """ada's, over the last 10 of 60 rounds, with mallory beside it or alone."""
    exchange = InMemoryExchange(keep_rounds=1)
    with loop(strategy, exchange, ECHOING) as running:
        rewards = []
        for round in range(60):
            if kind is not None:
                publish(running, exchange, kind, round)
            rewards.append(running.round(round)["ada"]["metrics"]["reward/mean"])
    return float(np.mean(rewards[-10:]))


@pytest.mark.parametrize(("strategy", "alone", "poisoned"), [("prp", 0.997, 0.741), ("sgt", 0.997, 0.997)])
def test_true_failures_of_a_peer_do_teach_where_rollouts_are_pooled(
    strategy: str, alone: float, poisoned: float
) -> None:
    # No bound on claims can help against what is true. docs/exchange.md has these figures, and those of the others.
    assert accuracy(strategy, None) == pytest.approx(alone, abs=0.02)
    assert accuracy(strategy, poison) == pytest.approx(poisoned, abs=0.02)


# -- what a reader cannot train on -------------------------------------------------------------------------------------


@pytest.mark.torch
def test_a_right_answer_of_5000_characters_is_dropped_by_a_torch_learner_and_the_run_goes_on() -> None:
    exchange = InMemoryExchange()
    reader = tiny_policies.learner(tiny_policies.llama(), micro_batch_tokens=64, max_new_tokens=4)
    env = mutual_env.make("mutual/arithmetic-v0", agents=["toy"], group_size=2, prompts_per_round=2, digits=1)
    shared = sharing.make("sgt", env, exchange=exchange)
    running = Loop(shared, {"toy": reader}, 0, 2, TokenizerBridge([reader.tokenizer]))
    for round in range(2):
        publish(running, exchange, lambda at: [at.success(at.right + " " * 5_000)], round)
        metrics = running.round(round)["toy"]["metrics"]
        assert metrics["share/rescued"] == metrics["batch/dropped_too_long"] == 2.0
    assert reader.version == 2
    shared.close()
