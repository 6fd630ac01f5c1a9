"""The update of every strategy on tabular policies equals a closed form that is written here from the papers' formulas.

The oracle knows a policy as rows of log-probabilities, one for each (prompt, position, previous token), read
through the learner's public `score`. One optimizer step moves a row's logits by
learning rate · sum over its tokens of c · (onehot(token) - softmax(row)), c = d objective / d log π(token), which each
strategy below states. Policy-gradient terms are divided by the step's policy-gradient tokens, cross-entropy terms
by its cross-entropy tokens. Two optimizer steps an update, so that ratios leave 1 and clips bite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

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

    def update(self, samples: list[Sample]) -> None:
        ordered = sorted(samples, key=lambda s: s.order)
        half = round(len(ordered) / 2)
        for m, step in enumerate((ordered[:half], ordered[half:])):
            moves: dict[tuple[str, int, int], Floats] = {}
            for sample in step:
                denominator = sum(s.ids.size for s in step if s.cross == sample.cross)
                slopes = sample.slope(self.logprobs(sample.prompt, sample.ids), m)
                for t, slope in enumerate(slopes):
                    key = self.key(sample.prompt, sample.ids, t)
                    move = -np.exp(self.rows[key])
                    move[sample.ids[t]] += 1.0
                    moves[key] = moves.get(key, 0.0) + sample.weight * slope / denominator * move
            for key, move in moves.items():
                logits = self.rows[key] + RATE * move
                self.rows[key] = logits - np.log(np.exp(logits).sum())


# -- the terms, from the formulas -------------------------------------------------------------------------------------


def clipped(advantage: float, anchor: Floats, low: float = 0.2, high: float = 0.2, cap: float = np.inf) -> Any:
    """min(ρ A, clip(ρ) A): slope A ρ where the unclipped side is the smaller, and 0 beyond the cap of ρ."""

    def slope(logprobs: Floats, m: int) -> Floats:
        ratio = np.exp(logprobs - anchor)
        live = (ratio <= 1 + high if advantage >= 0 else ratio >= 1 - low) & (ratio <= cap)
        return np.where(live, advantage * ratio, 0.0)

    return slope


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

    def lent(self, prompt: int) -> list[Completion]:
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


def agree(here: Round, samples: list[Sample]) -> None:
    """The oracle's update and the learner's are the same on every row, and something moved."""
    before = dict(here.oracle.rows)
    here.oracle.update(samples)
    after = Oracle(here.learners[READER]).rows
    assert max(np.abs(after[key] - row).max() for key, row in here.oracle.rows.items()) < 1e-9
    assert max(np.abs(after[key] - row).max() for key, row in before.items()) > 1e-3


# -- the strategies ---------------------------------------------------------------------------------------------------


def test_grpo() -> None:
    here = start()
    updated(here, "grpo")
    agree(here, here.grpo())


def test_grpo_without_the_std() -> None:
    here = start()
    updated(here, "grpo", std=False)
    samples = []
    for p in range(4):
        r = here.rewards(READER, p)
        samples += here.own(p, [x - sum(r) / len(r) for x in r])
    agree(here, samples)


def test_prp() -> None:
    here = start()
    updated(here, "prp")
    samples = []
    for p in range(4):
        advantages = normalised(here.pooled(p))
        samples += here.own(p, advantages)
        samples += [
            here.sample(p, c, clipped(a, c.logprobs))  # ρ = π / β: the author's own log-probabilities
            for c, a in zip(here.lent(p), advantages[2:], strict=True)
        ]
    agree(here, samples)


def test_prp_normalised_by_author_with_a_capped_ratio() -> None:
    here = start()
    updated(here, "prp", normalise="author", ratio_cap=1.1)
    samples = []
    for p in range(4):
        samples += here.own(p, normalised(here.rewards(READER, p)))
        for agent in (PEER, THIRD):
            advantages = normalised(here.rewards(agent, p))
            samples += [
                here.sample(p, c, clipped(a, c.logprobs, cap=1.1))
                for c, a in zip(here.written[agent][p], advantages, strict=True)
            ]
    agree(here, samples)


@pytest.mark.parametrize("eta", [None, 0.3, 1.0])
def test_xgrpo(eta: float | None) -> None:
    here = start()
    updated(here, "xgrpo", eta=eta)
    samples = []
    for p in range(4):
        own, peers = np.array(here.rewards(READER, p)), np.array(here.pooled(p)[2:])
        weight = 4 / 6 if eta is None else eta  # two peers' four rollouts of six in all
        baseline = (1 - weight) * own.mean() + weight * peers.mean()
        second = (1 - weight) * (own**2).mean() + weight * (peers**2).mean()
        scale = np.sqrt(max(second - baseline**2, 0.0)) + 1e-6
        samples += here.own(p, [(r - baseline) / scale for r in own])
    agree(here, samples)


def test_sgt() -> None:
    here = start()
    # Failed prompts of the reader: 1, where PEER wrote one success, and 2, where THIRD wrote two. Keep one of those.
    here.written[THIRD][2][1] = wrote(here.learners[THIRD], PROMPTS[2], "no")
    updated(here, "sgt", weight=0.1)
    rescues = [(1, here.written[PEER][1][0]), (2, here.written[THIRD][2][0])]
    agree(here, here.grpo() + [here.sample(p, c, cross_entropy, weight=0.1, cross=True) for p, c in rescues])


def graft(here: Round, floor: float = 0.8, order: int = 1) -> list[Sample]:
    """Candidates from PEER: {1} here, {0, 3} there: m = 1, prompt 1. From THIRD: prompt 2 is all right and never moves,
    prompt 1 is all wrong; no candidates."""
    samples = [s for p in (0, 2, 3) for s in here.own(p, normalised(here.rewards(READER, p)), high=0.28)]
    for c, a in zip(here.written[PEER][1], normalised(here.rewards(PEER, 1)), strict=True):
        old = here.old(1, c)
        s = np.exp(old.mean() - c.logprobs.mean())
        if s > floor:
            samples.append(here.sample(1, c, clipped(a, old, high=0.28), weight=min(s, 1.0), order=order))
    return samples


def test_graft() -> None:
    here = start()
    updated(here, "graft")
    agree(here, graft(here))


def test_graft_with_a_gate_that_lets_one_of_two_through() -> None:
    here = start()
    here.written[PEER][1] = [wrote(here.learners[PEER], PROMPTS[1], text) for text in ("yess", "nono")]
    ratios = sorted(float(np.exp(here.old(1, c).mean() - c.logprobs.mean())) for c in here.written[PEER][1])
    floor = (ratios[0] + min(ratios[1], 1.0)) / 2
    assert ratios[0] < floor < min(ratios[1], 1.0)
    updated(here, "graft", floor=floor)
    agree(here, graft(here, floor))


def test_graft_with_the_peers_first() -> None:
    here = start()
    updated(here, "graft", peers_at="first", floor=0.0)
    agree(here, graft(here, floor=0.0, order=-1))


def test_graft_shuffled_takes_the_prompts_in_a_drawn_order() -> None:
    here = start()
    updated(here, "graft", peers_at="shuffled", floor=0.0)
    samples = graft(here, floor=0.0, order=0)  # two of each prompt: 0, 2, 3, and 1 as it was replaced
    by_prompt = [samples[:2], samples[6:], samples[2:4], samples[4:6]]
    drawn = generator(3, "graft order", 0, READER).permutation(4)
    assert list(drawn) != [0, 1, 2, 3]
    agree(here, [sample for p in drawn for sample in by_prompt[p]])


def test_hacpo() -> None:
    here = start()
    env = sharing.make("hacpo", ScriptedEnv(AGENTS, prompts=4, group=2))
    env.load_state_dict(
        {
            "seen": {},
            "shares": {
                READER: {
                    READER: {"-3": 0.9, "-2": 0.2, "-1": 0.4},
                    PEER: {"-2": 0.5, "-1": 0.25},
                    THIRD: {"-1": 0.01},
                }
            },
        }
    )
    updated(here, "hacpo", env=env)
    capability = {READER: 0.5, PEER: 0.375, THIRD: 0.01}
    ratio = {a: np.clip(capability[READER] / capability[a], 0.1, 10.0) for a in AGENTS}  # 1, 4/3, 10 (50, clamped)
    samples = []
    for p in range(4):
        pooled = here.pooled(p)
        weighted = [ratio[a] * r for a in AGENTS for r in here.rewards(a, p)]
        baseline = np.mean(weighted)
        if baseline > max(pooled):  # no reward: the reader's own mean
            baseline = np.mean(here.rewards(READER, p))
        scale = np.std(pooled) + 1e-6
        samples += [
            here.sample(p, c, sequence_clipped((r - baseline) / scale, here.old(p, c), 3e-4, 4e-4))
            for c, r in zip(here.written[READER][p], here.rewards(READER, p), strict=True)
        ]
        samples += [
            here.sample(p, c, capped_sequence((r - baseline) / scale, c.logprobs.mean()), weight=1.0 / ratio[agent])
            for agent in (PEER, THIRD)
            for c, r in zip(here.written[agent][p], here.rewards(agent, p), strict=True)
        ]
    agree(here, samples)


@pytest.mark.parametrize("filtered", [False, True])
def test_ftis(filtered: bool) -> None:
    here = start()
    updated(here, "ftis", ratio_cap=1.1, max_kl=0.0 if filtered else np.inf)
    samples = []
    for p in range(4):
        advantages = normalised(here.pooled(p))
        samples += here.own(p, advantages)
        samples += [
            here.sample(p, c, clipped(a, c.logprobs, cap=1.1))
            for c, a in zip(here.lent(p), advantages[2:], strict=True)
            if a > 0 or not filtered  # no two of these policies have a divergence of 0
        ]
    agree(here, samples)


def test_luffy() -> None:
    here = start()
    updated(here, "luffy")
    samples = []
    for p in range(4):
        advantages = [r - np.mean(here.pooled(p)) for r in here.pooled(p)]
        samples += here.own(p, advantages)
        samples += [here.sample(p, c, shaped(a)) for c, a in zip(here.lent(p), advantages[2:], strict=True)]
    agree(here, samples)


def test_sapo() -> None:
    # As many borrowed questions as own ones, if there are: of the peers' eight groups three have spread. Each group is
    # normalised by itself.
    here = start()
    updated(here, "sapo")
    groups = [(0, READER), (0, THIRD), (1, READER), (1, PEER), (2, READER), (3, READER), (3, THIRD)]
    agree(
        here,
        [
            here.sample(p, c, lambda logprobs, m, a=a: np.full(logprobs.size, a))
            for p, agent in groups
            for c, a in zip(here.written[agent][p], normalised(here.rewards(agent, p)), strict=True)
        ],
    )


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_trrd(alpha: float) -> None:
    here = start()
    taught = {
        (p, i): here.learners[THIRD].score([here.learners[THIRD].tokenizer.render_prompt(PROMPTS[p])], [c.token_ids])[0]
        for p in range(4)
        for i, c in enumerate(here.written[READER][p])
    }
    updated(here, "trrd", teacher=THIRD, alpha=alpha)
    agree(
        here,
        [
            here.sample(p, c, clipped(a, alpha * here.old(p, c) + (1 - alpha) * taught[p, i]))
            for p in range(4)
            for i, (c, a) in enumerate(zip(here.written[READER][p], normalised(here.rewards(READER, p)), strict=True))
        ],
    )


def test_kdrl() -> None:
    here = start()
    teacher = here.learners[PEER]

    def pulled(p: int, c: Completion, advantage: float) -> Any:
        target = teacher.score([teacher.tokenizer.render_prompt(PROMPTS[p])], [c.token_ids])[0]
        gradient = clipped(advantage, here.old(p, c))
        # KL_k3 = e^d - d - 1 with d = target - log π, subtracted: slope (e^d - 1)
        return lambda logprobs, m: gradient(logprobs, m) + 0.3 * (np.exp(target - logprobs) - 1.0)

    samples = [
        here.sample(p, c, pulled(p, c, a))
        for p in range(4)
        for c, a in zip(here.written[READER][p], normalised(here.rewards(READER, p)), strict=True)
    ]
    updated(here, "kdrl", teacher=PEER, coefficient=0.3)
    agree(here, samples)


def test_offline_distillation() -> None:
    here = start()
    updated(here, "offline", teacher=THIRD, weight=0.7)
    # THIRD is right on prompt 0 (second), 2 (both) and 3 (second)
    traces = [(0, 1), (2, 0), (2, 1), (3, 1)]
    agree(
        here,
        [here.sample(p, here.written[THIRD][p][i], cross_entropy, weight=0.7, cross=True) for p, i in traces],
    )


# -- across tokenizers ------------------------------------------------------------------------------------------------


def pieces(policy: TabularLearner, text: str) -> list[int]:
    """How many characters each of its pieces has; the stop token counts as one."""
    return [len(policy.tokenizer.decode([i])) for i in ids(policy, text)[:-1]] + [1]


def spread(policy: TabularLearner, text: str, logprobs: Floats) -> Floats:
    """Each piece's log-probability, in equal parts on its characters, then the stop token's."""
    sizes = pieces(policy, text)
    return np.repeat(logprobs / np.array(sizes), sizes)


def clipped_chunks(advantage: float, anchor: Floats, sizes: list[int]) -> Any:
    """min(ρ_c A, clip(ρ_c) A) once a chunk, log ρ_c the sum over its characters: slope A ρ_c at each of them, or 0."""
    borders = np.cumsum([0, *sizes[:-1]])

    def slope(logprobs: Floats, m: int) -> Floats:
        ratio = np.exp(np.add.reduceat(logprobs - anchor, borders))
        live = ratio <= 1.2 if advantage >= 0 else ratio >= 0.8
        return np.repeat(np.where(live, advantage * ratio, 0.0), sizes)

    return slope


def test_prp_with_a_peer_of_another_tokenizer() -> None:
    here = start(policy_1=(("y", "e"), ("n", "o")))
    peer = here.learners[PEER]
    assert here.written[PEER][1][0].token_ids.size == 3  # ye|s|stop, where the reader has y|e|s|stop
    updated(here, "prp")
    samples = []
    for p in range(4):
        advantages = normalised(here.pooled(p))
        samples += here.own(p, advantages)
        for c, a in zip(here.lent(p), advantages[2:], strict=True):
            other = c.tokenizer == peer.tokenizer.fingerprint
            author = spread(peer, c.text, c.logprobs) if other else c.logprobs
            sizes = pieces(peer, c.text) if other else [1] * c.token_ids.size
            slope = clipped_chunks(a, author, sizes)
            samples.append(Sample(PROMPTS[p], ids(here.learners[READER], c.text), slope))
    agree(here, samples)


def test_trrd_with_a_teacher_of_another_tokenizer() -> None:
    here = start(policy_1=(("y", "e"), ("n", "o")))
    teacher = here.learners[PEER]
    taught = {
        (p, i): spread(teacher, c.text, wrote(teacher, PROMPTS[p], c.text).logprobs)
        for p in range(4)
        for i, c in enumerate(here.written[READER][p])
    }
    updated(here, "trrd", teacher=PEER, alpha=0.3)
    agree(
        here,
        [
            here.sample(p, c, clipped_chunks(a, 0.3 * here.old(p, c) + 0.7 * taught[p, i], pieces(teacher, c.text)))
            for p in range(4)
            for i, (c, a) in enumerate(zip(here.written[READER][p], normalised(here.rewards(READER, p)), strict=True))
        ],
    )
