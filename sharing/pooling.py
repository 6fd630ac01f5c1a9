"""A reader's group together with its peers' groups on the same task: what pooling strategies start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mutual_env.errors import ConfigError
from mutual_env.seeding import generator
from mutual_env.types import Group
from sharing.advantages import Std, group_advantages
from sharing.records import reward_of
from sharing.situation import Situation


@dataclass(frozen=True, slots=True)
class Pool:
    """One prompt: the reader's own group, and the groups of peers, by author in the order of their names."""

    own: Group
    peers: Mapping[str, Group]

    @property
    def borrowed(self) -> Group:
        """All peers' rollouts, author after author."""
        return tuple(experience for group in self.peers.values() for experience in group)

    @property
    def all(self) -> Group:
        """The reader's own rollouts first, then the peers'."""
        return self.own + self.borrowed


def pools(situation: Situation) -> list[Pool]:
    """One for each prompt on which the reader has scored rollouts. A peer's rollout without a token trace is left out:
    nothing could stand in for its author's log-probabilities."""
    pooled = []
    for group in situation.groups:
        if not group:
            continue
        found = situation.rollouts.get(group[0].task.id, {})
        traced = {author: tuple(e for e in found[author] if e.completion.has_trace) for author in sorted(found)}
        pooled.append(Pool(group, {author: rollouts for author, rollouts in traced.items() if rollouts}))
    return pooled


def untraced(situation: Situation) -> float:
    """How many peers' rollouts `pools` leaves out."""
    return float(
        sum(
            not experience.completion.has_trace
            for by_author in situation.rollouts.values()
            for group in by_author.values()
            for experience in group
        )
    )


def check_normalise(normalise: str) -> str:
    """A strategy's option `normalise`, or a sentence that says what it may be."""
    if normalise not in ("union", "author"):
        raise ConfigError(f"normalise must be 'union' or 'author', got {normalise!r}")
    return normalise


def pooled_advantages(pool: Pool, *, by_author: bool, std: Std) -> tuple[list[float], list[float]]:
    """Of the reader's own rollouts, and of those borrowed: against all of them, or each against its author's group."""
    groups = [pool.own, *pool.peers.values()] if by_author else [pool.all]
    advantages = [a for group in groups for a in group_advantages(rewards_of(group), std=std)]
    return advantages[: len(pool.own)], advantages[len(pool.own) :]


def rewards_of(group: Group) -> list[float]:
    return [reward_of(experience) for experience in group]


def successes(group: Group) -> int:
    return sum(experience.verdict.correct for experience in group)


def drawn(group: Group, n: int | None, situation: Situation, strategy: str, task_id: str) -> Group:
    """n of the group without replacement, uniformly, in their order; all where n is None or there are no more."""
    if n is None or n >= len(group):
        return group
    draw = generator(situation.seed, strategy, situation.round, situation.reader, task_id)
    return tuple(group[i] for i in sorted(draw.choice(len(group), size=n, replace=False)))
