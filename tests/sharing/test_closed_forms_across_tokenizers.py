"""Closed forms where a peer has another tokenizer: the terms stand once a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from learners.tabular import TabularLearner
from mutual_env.types import Floats
from tests.sharing.closed_forms import PEER, PROMPTS, READER, Sample, agree, ids, normalised, start, updated, wrote


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
        for c, a in zip(here.borrowed(p), advantages[2:], strict=True):
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
