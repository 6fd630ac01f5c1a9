"""Successes to imitate: which of several, and how strongly. What SGT, the memory and the placebo have in common."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutual_env.errors import ConfigError
from mutual_env.seeding import generator
from mutual_env.types import (
    JSON,
    CompatibilityGate,
    Completion,
    CrossEntropy,
    Experience,
    Group,
    Lesson,
    Message,
    Metrics,
    Prompt,
    Task,
    Verdict,
)
from sharing.edges import Edges, PerEdge, at_least_0
from sharing.records import Kind, reward_of
from sharing.situation import Situation


@dataclass(frozen=True, slots=True)
class Imitation:
    """A success as cross-entropy with `weight` λ, that of the edge it came over.

    `compatible`: the weight is multiplied by min(1, s), s = exp(mean log π_old - mean log β), so that what the reader
    finds unlikely is imitated less; this needs the author's log-probabilities, and so its rollouts instead of its
    successes.
    `per_rescue`: λ is what a rescue weighs against an own sample of its length with |A| = 1, whatever their number and
    whatever the optimizer step; otherwise what all rescues of a step weigh together, against all own samples.
    """

    weight: Edges
    compatible: bool = False
    per_rescue: bool = False

    @classmethod
    def of(cls, weight: PerEdge, readers: Collection[str], *, compatible: bool, per_rescue: bool) -> Imitation:
        return cls(Edges.of("weight", weight, readers, at_least_0), compatible, per_rescue)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The records that it is made of."""
        return ("rollout",) if self.compatible else ("success",)

    @property
    def is_off(self) -> bool:
        return self.weight.is_always(0.0)

    def offered(self, situation: Situation, task_id: str) -> Group:
        """Peers' verified successes on a task that this reader would imitate, author after author."""
        if self.compatible:
            by_author = situation.rollouts.get(task_id, {})
            found = [e for a in sorted(by_author) for e in by_author[a] if e.verdict.correct and e.completion.has_trace]
        else:
            by_author = situation.successes.get(task_id, {})
            found = [e for a in sorted(by_author) for e in by_author[a]]
        return tuple(e for e in found if self.weight.at(situation.reader, e.author) > 0.0)

    def lesson(self, reader: str, experience: Experience, factor: float = 1.0) -> Lesson:
        weight = factor * self.weight.at(reader, experience.author)
        loss = CrossEntropy("policy_gradient" if self.per_rescue else "own")
        if self.compatible:
            return Lesson(experience, 1.0, loss, CompatibilityGate(floor=0.0), weight=weight)
        return Lesson(experience, 1.0, loss, weight=weight)


@dataclass(slots=True)
class ShareController:
    """Holds a target share of the gradient, for each reader by itself. Without a target λ stays as it was given.

    A share s of pulls that are in proportion to λ has odds s / (1 - s) in proportion to λ. So after an update with the
    measured share s, λ is multiplied by (odds of the target / odds of s)^(1/2): half of the way, in logarithms, because
    what a round measures is that round's. It stays within 2^10 of what was given. A round in which nothing else had a
    gradient, or the rescues had none, says nothing.
    """

    target: float | None
    factors: dict[str, float]

    @classmethod
    def of(cls, target: float | None, imitation: Imitation) -> ShareController:
        if target is not None and not 0.0 < target < 1.0:
            raise ConfigError(f"target_share must lie between 0 and 1, got {target}: it is a share of the gradient")
        if target is not None and imitation.is_off:
            raise ConfigError(
                f"target_share={target} multiplies the weight of rescues, 0: give a weight above 0 to begin with"
            )
        return cls(target, {})

    def factor(self, reader: str) -> float:
        return self.factors.get(reader, 1.0)

    def learnt(self, reader: str, metrics: Metrics) -> None:
        """What an update says of it."""
        if SHARE in metrics:
            self.measured(reader, metrics[SHARE])

    def metrics(self, reader: str) -> Metrics:
        return {} if self.target is None else {"weight_factor": self.factor(reader)}

    def state(self) -> dict[str, JSON]:
        return {} if self.target is None else {"factors": dict(self.factors)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if self.target is not None:
            self.factors = {reader: float(factor) for reader, factor in state["factors"].items()}

    def measured(self, reader: str, share: float) -> None:
        if self.target is not None and 0.0 < share < 1.0:
            step = math.sqrt(self.target / (1.0 - self.target) * (1.0 - share) / share)
            self.factors[reader] = min(max(self.factor(reader) * step, 1.0 / _FARTHEST), _FARTHEST)


def failed(group: Group) -> bool:
    """Something was tried and nothing of it was right."""
    return bool(group) and not any(e.verdict.correct for e in group)


def drawn_one(offered: Sequence[Experience], situation: Situation, what: str, task_id: str) -> Experience:
    """One of them, uniformly, seeded by run, round, reader and task."""
    draw = generator(situation.seed, what, situation.round, situation.reader, task_id)
    return offered[int(draw.integers(len(offered)))]


def as_json(experience: Experience) -> JSON:
    """What must be kept of a success to imitate it in a later round, exactly."""
    task, completion = experience.task, experience.completion
    said: JSON = (
        task.prompt
        if isinstance(task.prompt, str)
        else [{"role": message["role"], "content": message["content"]} for message in task.prompt]
    )
    return {
        "task": {"id": task.id, "prompt": said, "answer": task.answer, "metadata": dict(task.metadata)},
        "author": experience.author,
        "round": experience.round,
        "reward": reward_of(experience),
        "text": completion.text,
        "token_ids": completion.token_ids.tolist(),
        "logprobs": completion.logprobs.tolist(),
        "finish_reason": completion.finish_reason,
        "policy_version": completion.policy_version,
        "tokenizer": completion.tokenizer,
    }


def from_json(kept: Mapping[str, Any]) -> Experience:
    task, prompt = kept["task"], kept["task"]["prompt"]
    said: Prompt = (
        prompt if isinstance(prompt, str) else tuple(Message(role=m["role"], content=m["content"]) for m in prompt)
    )
    completion = Completion(
        kept["text"],
        np.array(kept["token_ids"], np.int32),
        np.array(kept["logprobs"], np.float64),
        kept["finish_reason"],
        kept["policy_version"],
        kept["tokenizer"],
    )
    return Experience(
        Task(task["id"], said, task["answer"], task["metadata"]),
        kept["author"],
        completion,
        Verdict.scored(kept["reward"], correct=True),
        kept["round"],
    )


SHARE = "batch/imitation_gradient_share"
_FARTHEST = 2.0**10
