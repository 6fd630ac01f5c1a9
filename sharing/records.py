"""What policies exchange: three record kinds, each with where it comes from.

    Rollout      a whole verified completion with its token trace      kind "rollout"      most bytes
    Statistics   n, sum r and sum r^2 of one author's group            kind "statistics"   fewest bytes
    Success      the text of a completion that the verifier passed     kind "success"

A record's key is (task, kind, author, round, index): publishing the same key again replaces what stood there, so a
run that is killed and resumed publishes its last round twice without anybody seeing it twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from mutual_env.types import Completion, Experience, FinishReason, Group, Turn

SCHEMA_VERSION = 1
"""Of the bytes of records without earlier turns. It rises when a reader of the old one could misread the new one."""

TURNS_SCHEMA = 2
"""Of the bytes of records with earlier turns: a reader that knows none of them refuses them."""

Kind: TypeAlias = Literal["rollout", "statistics", "success"]
KINDS: tuple[Kind, ...] = ("rollout", "statistics", "success")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made a record, of which task, when, and with what. `tokenizer` is "" where there is no token trace."""

    task_id: str
    author: str
    round: int
    policy_version: int
    tokenizer: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """One scored sample of an episode, trace included: what was written last, and the turns before it."""

    kind: ClassVar[Kind] = "rollout"
    origin: Origin
    index: int
    completion: Completion
    reward: float
    correct: bool
    earlier: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a baseline needs to know of a group, and nothing else."""

    kind: ClassVar[Kind] = "statistics"
    index: ClassVar[int] = 0
    origin: Origin
    count: int
    reward_sum: float
    square_sum: float


@dataclass(frozen=True, slots=True)
class Success:
    """The text of a completion that was verified as correct, and the turns before it. No trace: it is learnt from as
    text."""

    kind: ClassVar[Kind] = "success"
    origin: Origin
    index: int
    text: str
    finish_reason: FinishReason
    reward: float
    earlier: tuple[Turn, ...] = ()


Record: TypeAlias = Rollout | Statistics | Success
Shape: TypeAlias = Callable[[Experience], Experience]


class Stored(NamedTuple):
    """A record as an exchange returns it. The id is the exchange's own: nobody who publishes can choose it."""

    id: int
    record: Record


def as_it_is(experience: Experience) -> Experience:
    return experience


def records_of(group: Group, kinds: Sequence[Kind], verifier: str, shape: Shape = as_it_is) -> list[Record]:
    """The records of these kinds that an author publishes of its group. Experience without a verdict is left out.

    Rollouts and successes hold the verifier's reward, which a reader can check; statistics, which nobody can check, are
    of the rewards as their author's strategy sees them (`shape`).
    """
    scored = [(i, e) for i, e in enumerate(group) if e.verdict.reward is not None]
    records: list[Record] = []
    for origin, members in groupby(scored, key=lambda item: _origin(item[1], verifier)):
        for index, experience in members:
            if "rollout" in kinds:
                records.append(_rollout(origin, index, experience))
            if "success" in kinds and experience.verdict.correct:
                records.append(_success(origin, index, experience))
    if "statistics" in kinds and scored:
        records.append(_statistics(_origin(scored[0][1], verifier), [shape(e) for _, e in scored]))
    return records


def reward_of(experience: Experience) -> float:
    """The reward of an experience that was scored."""
    reward = experience.verdict.reward
    if reward is None:
        raise ValueError(f"{experience.task.id}: no verdict was reached ({experience.verdict.status})")
    return reward


def _origin(experience: Experience, verifier: str) -> Origin:
    completion = experience.completion
    return Origin(
        experience.task.id,
        experience.author,
        experience.round,
        completion.policy_version,
        completion.tokenizer,
        verifier,
    )


def _rollout(origin: Origin, index: int, experience: Experience) -> Rollout:
    reward, correct = reward_of(experience), experience.verdict.correct
    return Rollout(origin, index, experience.completion, reward, correct, experience.earlier)


def _success(origin: Origin, index: int, experience: Experience) -> Success:
    completion = experience.completion
    earlier = tuple(replace(turn, completion=_text_of(turn.completion)) for turn in experience.earlier)
    return Success(origin, index, completion.text, completion.finish_reason, reward_of(experience), earlier)


def _text_of(completion: Completion) -> Completion:
    """Without its trace."""
    text = Completion.from_text(completion.text, policy_version=completion.policy_version)
    return replace(text, finish_reason=completion.finish_reason)


def _statistics(origin: Origin, experiences: Sequence[Experience]) -> Statistics:
    rewards = [reward_of(e) for e in experiences]
    return Statistics(origin, len(rewards), math.fsum(rewards), math.fsum(r * r for r in rewards))
