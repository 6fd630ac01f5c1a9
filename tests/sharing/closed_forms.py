"""The oracle of the closed forms: a round of three tabular policies, the terms from the formulas, one update by hand.

It knows a policy as rows of log-probabilities, one for each (prompt, position, previous token), read through the
learner's public `score`. One optimizer step moves a row's logits by
learning rate · sum over its tokens of c · (onehot(token) - softmax(row)), c = d objective / d log π(token), which the
test of each strategy states. Policy-gradient terms are divided by the step's policy-gradient tokens, cross-entropy
terms by its cross-entropy tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import sharing
from learners.batch import build_batch
from learners.example import Example
from learners.tabular import TabularLearner
from mutual_env.seeding import generator
from mutual_env.types import Completion, CrossEntropy, Floats, Ids
from sharing.testing import ScriptedEnv, scripted_verdict
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

READER, PEER, THIRD = "policy_0", "policy_1", "policy_2"
AGENTS = (READER, PEER, THIRD)
PROMPTS = ("t0.0?", "t0.1?", "t0.2?", "t0.3?")
RATE = 2.0
ALPHABET = "yesno.t?012345"
TEXTS = ("yes", "yess", "no", "noo", "0.5", "nono")
# Prompt by prompt: mixed; failed with both peers partly right; failed with one peer all right; solved where PEER fails.
WRITTEN = {
    READER: [["yes", "no"], ["no", "noo"], ["noo", "nono"], ["yess", "no"]],
    PEER: [["no", "noo"], ["yes", "no"], ["no", "noo"], ["no", "noo"]],
    THIRD: [["0.5", "yes"], ["no", "nono"], ["yes", "yess"], ["no", "yes"]],
}


def learner(name: str, merges: tuple[tuple[str, str], ...] = ()) -> TabularLearner:
    """A policy of its own: every text is made more or less likely than in the others, by a few seeded steps."""
    tokenizer = PairTokenizer(ALPHABET, merges) if merges else CharTokenizer(ALPHABET)
    policy = TabularLearner(tokenizer, name=name, learning_rate=RATE, minibatches=2)
    draw = generator("closed forms", name)
    for _ in range(4):
        policy.update(
            [
                Example(
                    policy.tokenizer.render_prompt(prompt),
                    ids(policy, text),
                    np.ones(len(ids(policy, text)), np.bool_),
                    np.zeros(len(ids(policy, text))),
                    CrossEntropy(),
                    weight=float(draw.uniform(0.0, 60.0)),
                )
                for prompt in PROMPTS
                for text in TEXTS
            ]
        )
    return policy


def ids(policy: TabularLearner, text: str) -> Ids:
    return np.append(policy.tokenizer.encode_batch([text])[0], policy.tokenizer.stop_id).astype(np.int32)


def wrote(policy: TabularLearner, prompt: str, text: str) -> Completion:
    """A completion that the policy could have sampled, with its own log-probabilities."""
    tokens = ids(policy, text)
    (logprobs,) = policy.score([policy.tokenizer.render_prompt(prompt)], [tokens])
    return Completion(text, tokens, logprobs, "stop", policy.version, policy.tokenizer.fingerprint)


@dataclass
class Sample:
    """One sequence of the oracle. `slope(log π, m)` is d objective / d log π of each token in the m-th step."""

    prompt: str
    ids: Ids
    slope: Callable[[Floats, int], Floats]
    weight: float = 1.0
    order: int = 0
    cross: bool = False


class Oracle:
    def __init__(self, policy: TabularLearner) -> None:
        self.policy = policy
        self.rows: dict[tuple[str, int, int], Floats] = {}
        vocabulary = np.arange(policy.tokenizer.vocab_size, dtype=np.int32)
        for prompt in PROMPTS:
            rendered = policy.tokenizer.render_prompt(prompt)
            for text in TEXTS:
                tokens = ids(policy, text)
                for t in range(tokens.size):
                    if self.key(prompt, tokens, t) in self.rows:
                        continue
                    asked = [np.append(tokens[:t], v).astype(np.int32) for v in vocabulary]
                    scores = policy.score([rendered] * len(asked), asked)
                    self.rows[self.key(prompt, tokens, t)] = np.array([s[-1] for s in scores])

    @staticmethod
    def key(prompt: str, tokens: Ids, t: int) -> tuple[str, int, int]:
        return prompt, t, int(tokens[t - 1]) if t else -1

    def logprobs(self, prompt: str, tokens: Ids) -> Floats:
        return np.array([self.rows[self.key(prompt, tokens, t)][tokens[t]] for t in range(tokens.size)])

    def update(self, samples: list[Sample], *, sequences: bool = False) -> None:
        for m, step in enumerate(halves(samples)):
            moves: dict[tuple[str, int, int], Floats] = {}
            for sample in step:
                alike = [s for s in step if s.cross == sample.cross]
                denominator = sample.ids.size * len(alike) if sequences else sum(s.ids.size for s in alike)
                slopes = sample.slope(self.logprobs(sample.prompt, sample.ids), m)
                for t, slope in enumerate(slopes):
                    key = self.key(sample.prompt, sample.ids, t)
                    move = -np.exp(self.rows[key])
                    move[sample.ids[t]] += 1.0
                    moves[key] = moves.get(key, 0.0) + sample.weight * slope / denominator * move
            for key, move in moves.items():
                logits = self.rows[key] + RATE * move
                self.rows[key] = logits - np.log(np.exp(logits).sum())


def halves(samples: list[Sample]) -> list[list[Sample]]:
    """Prompt by prompt, those of a higher order last; what is imitated is where its prompt is."""
    asked = [s for s in samples if not s.cross] or samples
    prompts = sorted(dict.fromkeys(s.prompt for s in asked), key=lambda p: max(s.order for s in asked if s.prompt == p))
    half = round(len(prompts) / 2)
    return [[s for s in samples if s.prompt in part] for part in (prompts[:half], prompts[half:])]


# -- the terms, from the formulas -------------------------------------------------------------------------------------


def clipped(advantage: float, anchor: Floats, low: float = 0.2, high: float = 0.2, cap: float = np.inf) -> Any:
    """min(ρ A, clip(ρ) A): slope A ρ where the unclipped side is the smaller, and 0 beyond the cap of ρ."""

    def slope(logprobs: Floats, m: int) -> Floats:
        ratio = np.exp(logprobs - anchor)
        live = (ratio <= 1 + high if advantage >= 0 else ratio >= 1 - low) & (ratio <= cap)
        return np.where(live, advantage * ratio, 0.0)

    return slope


def weighed(advantage: float, weights: Floats, anchor: Floats) -> Any:
    """w min(ρ A, clip(ρ) A): w is a number, so that a chunk above the cap goes on teaching."""
    gradient = clipped(advantage, anchor)
    return lambda logprobs, m: weights * gradient(logprobs, m)


def sequence_clipped(advantage: float, anchor: Floats, low: float, high: float) -> Any:
    """The same with s = exp(mean log ratio): each of the n tokens' terms has slope A s / n by each of the n tokens."""

    def slope(logprobs: Floats, m: int) -> Floats:
        s = np.exp((logprobs - anchor).mean())
        live = s <= 1 + high if advantage >= 0 else s >= 1 - low
        return np.full(logprobs.size, advantage * s if live else 0.0)

    return slope


def capped_sequence(advantage: float, author_mean: float) -> Any:
    """s_c stopgrad(s_c)^1 A, s_c = clamp(s, 0.8 + 0.025 m, 1.0001): slope s^2 A inside, 0 outside."""

    def slope(logprobs: Floats, m: int) -> Floats:
        s = np.exp(logprobs.mean() - author_mean)
        return np.full(logprobs.size, s * s * advantage if 0.8 + 0.025 * m <= s <= 1.0001 else 0.0)

    return slope


def cross_entropy(logprobs: Floats, m: int) -> Floats:
    return np.ones(logprobs.size)


def shaped(advantage: float) -> Any:
    """f(p) A with f(p) = p / (p + 0.1): slope A p 0.1 / (p + 0.1)^2."""
    return lambda logprobs, m: advantage * np.exp(logprobs) * 0.1 / (np.exp(logprobs) + 0.1) ** 2


def normalised(rewards: list[float]) -> list[float]:
    return [(r - np.mean(rewards)) / (np.std(rewards) + 1e-6) if np.ptp(rewards) else 0.0 for r in rewards]


# -- one round --------------------------------------------------------------------------------------------------------


@dataclass
class Round:
    """What was written, and the reader's oracle before its update."""

    learners: dict[str, TabularLearner]
    oracle: Oracle
    written: dict[str, list[list[Completion]]]

    def rewards(self, agent: str, prompt: int) -> list[float]:
        return [scripted_verdict(c.text).reward or 0.0 for c in self.written[agent][prompt]]

    def old(self, prompt: int, completion: Completion) -> Floats:
        return self.oracle.logprobs(PROMPTS[prompt], completion.token_ids)

    def sample(self, prompt: int, completion: Completion, slope: Any, **how: Any) -> Sample:
        return Sample(PROMPTS[prompt], completion.token_ids, slope, **how)

    def own(self, prompt: int, advantages: list[float], high: float = 0.2) -> list[Sample]:
        return [
            self.sample(prompt, c, clipped(a, self.old(prompt, c), high=high))
            for c, a in zip(self.written[READER][prompt], advantages, strict=False)
        ]

    def borrowed(self, prompt: int) -> list[Completion]:
        return self.written[PEER][prompt] + self.written[THIRD][prompt]

    def pooled(self, prompt: int) -> list[float]:
        return [r for agent in AGENTS for r in self.rewards(agent, prompt)]

    def grpo(self) -> list[Sample]:
        return [s for p in range(len(PROMPTS)) for s in self.own(p, normalised(self.rewards(READER, p)))]


def start(**merges: tuple[tuple[str, str], ...]) -> Round:
    learners = {name: learner(name, merges.get(name, ())) for name in AGENTS}
    written = {
        name: [[wrote(learners[name], p, text) for text in group] for p, group in zip(PROMPTS, groups, strict=True)]
        for name, groups in WRITTEN.items()
    }
    return Round(learners, Oracle(learners[READER]), written)


def updated(here: Round, strategy: str, *, env: Any = None, **options: Any) -> None:
    """One round with this strategy, and the reader's update with the lessons it got."""
    env = env or sharing.make(strategy, ScriptedEnv(AGENTS, prompts=len(PROMPTS), group=2), **options)
    env.reset(seed=3, options={"round": 0})
    infos = env.step(here.written)[-1]
    bridge = TokenizerBridge([x.tokenizer for x in here.learners.values()])
    reader = here.learners[READER]
    reader.update(build_batch(infos[READER]["lessons"], reader, bridge, here.learners).examples)


def agree(here: Round, samples: list[Sample], *, sequences: bool = False) -> None:
    """The oracle's update and the learner's are the same on every row, and something moved; `sequences`: the loss is a
    mean over sequences."""
    before = dict(here.oracle.rows)
    here.oracle.update(samples, sequences=sequences)
    after = Oracle(here.learners[READER]).rows
    assert max(np.abs(after[key] - row).max() for key, row in here.oracle.rows.items()) < 1e-9
    assert max(np.abs(after[key] - row).max() for key, row in before.items()) > 1e-3
