"""SAPO: some of the questions trained on are peers', and nothing is corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.seeding import generator
from mutual_env.types import Group, PolicyGradient
from sharing.advantages import Std, checked_std
from sharing.pooling import pools, rewards_of, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.strategies.independent import own_lessons
from sharing.wrapper import SharingWrapper


class Sapo(SharingWrapper):
    """`local` own and `external` peers' questions, each with its whole group of completions, each group normalised by
    itself, ratio 1 for all: A ∇ log π.

    The counts are of questions: with local = external, half of the groups trained on are borrowed (the paper's 4/4).
    `local=None`: all own questions of the round; `external=None`: as many as are local. Both are drawn uniformly
    (seeded by run, round and reader), a peer's group on a question being one candidate; all where there are fewer.
    `informative`: a peer's group without spread, which teaches nothing, is no candidate.

    external = 0, or no peers: REINFORCE with the group's baseline on the local questions.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        local: int | None = None,
        external: int | None = None,
        informative: bool = True,
        std: Std = True,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        for name, count in (("local", local), ("external", external)):
            if count is not None and count < 0:
                raise ConfigError(f"{name} counts questions and must be at least 0, or null, got {count}")
        if local == 0 and not external:
            raise ConfigError(f"local and external must give at least 1 question, got {local} and {external}")
        self._local = local
        self._external = external
        self._informative = informative
        self._std = checked_std(std)
        self._loss = PolicyGradient(ratio="none")

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        own = _drawn([pool.own for pool in pooled], self._local, situation, "sapo local")
        offered = [
            group for pool in pooled for group in pool.peers.values() if not self._informative or has_spread(group)
        ]
        borrowed = _drawn(offered, len(own) if self._external is None else self._external, situation, "sapo external")
        # Question by question, in the order of the round: one's own group, then what was borrowed on it.
        at = {pool.own[0].task.id: place for place, pool in enumerate(pooled)}
        groups = sorted([*own, *borrowed], key=lambda group: at[group[0].task.id])
        metrics = {"local": float(len(own)), "external": float(len(borrowed)), "untraced": untraced(situation)}
        return Shared(own_lessons(groups, self._loss, std=self._std), metrics)


def has_spread(group: Group) -> bool:
    """Whether its rewards differ, so that it teaches something by itself."""
    rewards = rewards_of(group)
    return min(rewards) != max(rewards)


def _drawn(groups: Sequence[Group], count: int | None, situation: Situation, what: str) -> list[Group]:
    """So many of the groups without replacement, uniformly, in their order; all where there are no more."""
    if count is None or count >= len(groups):
        return list(groups)
    draw = generator(situation.seed, what, situation.round, situation.reader)
    return [groups[i] for i in sorted(draw.choice(len(groups), size=count, replace=False))]
