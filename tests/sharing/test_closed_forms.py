"""The update of every strategy on tabular policies equals a closed form that is written here from the papers' formulas.

The oracle is that of `closed_forms`. Two optimizer steps an update, so that ratios leave 1 and clips bite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharing
from mutual_env.seeding import generator
from mutual_env.types import Completion, Floats
from sharing.testing import ScriptedEnv
from tests.sharing.closed_forms import (
    AGENTS,
    PEER,
    PROMPTS,
    READER,
    THIRD,
    Round,
    Sample,
    agree,
    capped_sequence,
    clipped,
    cross_entropy,
    normalised,
    sequence_clipped,
    shaped,
    start,
    updated,
    weighed,
    wrote,
)


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
            for c, a in zip(here.borrowed(p), advantages[2:], strict=True)
        ]
    agree(here, samples)


def test_prp_that_takes_peers_for_itself() -> None:
    here = start()
    updated(here, "prp", naive=True)
    samples = []
    for p in range(4):
        advantages = normalised(here.pooled(p))
        samples += here.own(p, advantages)
        samples += [
            here.sample(p, c, clipped(a, here.old(p, c)))  # ρ = π / π_old, as if the reader had written it
            for c, a in zip(here.borrowed(p), advantages[2:], strict=True)
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
    agree(here, samples, sequences=True)


@pytest.mark.parametrize("filtered", [False, True])
def test_ftis(filtered: bool) -> None:
    here = start()
    updated(here, "ftis", ratio_cap=1.1, max_kl=0.0 if filtered else np.inf)
    samples = []
    for p in range(4):
        samples += here.own(p, normalised(here.rewards(READER, p)))
        samples += [
            here.sample(p, c, weighed(a, np.minimum(np.exp(here.old(p, c) - c.logprobs), 1.1), here.old(p, c)))
            for agent in (PEER, THIRD)
            for c, a in zip(here.written[agent][p], normalised(here.rewards(agent, p)), strict=True)
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
        samples += [here.sample(p, c, shaped(a)) for c, a in zip(here.borrowed(p), advantages[2:], strict=True)]
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
@pytest.mark.parametrize("limit", [1.0, np.inf])
def test_trrd(alpha: float, limit: float) -> None:
    here = start()

    def mixed(p: int, i: int, c: Completion) -> Floats:
        old = here.old(p, c)
        return alpha * old + (1 - alpha) * np.clip(taught[p, i], old - limit, old + limit)

    taught = {
        (p, i): here.learners[THIRD].score([here.learners[THIRD].tokenizer.render_prompt(PROMPTS[p])], [c.token_ids])[0]
        for p in range(4)
        for i, c in enumerate(here.written[READER][p])
    }
    updated(here, "trrd", teacher=THIRD, alpha=alpha, **({} if limit == 1.0 else {"log_ratio_limit": limit}))
    agree(
        here,
        [
            here.sample(p, c, clipped(a, mixed(p, i, c)))
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
