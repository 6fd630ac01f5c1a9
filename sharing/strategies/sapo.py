"""SAPO: some own and some external rollouts an update, and no correction at all."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Lesson, PolicyGradient
from sharing.advantages import group_advantages
from sharing.pooling import drawn, pools, rewards_of, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class Sapo(SharingWrapper):
    """Of each prompt `local` own and `external` peers' rollouts, drawn uniformly (seeded by run, round, reader and
    task), advantages normalised among them, ratio 1 for all: A ∇ log π.

    Where there are fewer, all are taken. external = 0: REINFORCE with the group's baseline on `local` own rollouts.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self, env: Any, *, local: int = 4, external: int = 4, std: bool = True, **common: Unpack[Common]
    ) -> None:
        super().__init__(env, **common)
        if local < 0 or external < 0 or local + external < 2:
            raise ConfigError(f"local and external must give a group of at least 2, got {local} and {external}")
        self._local = local
        self._external = external
        self._std = std
        self._loss = PolicyGradient(ratio="none")

    def share(self, situation: Situation) -> Shared:
        lessons: list[Lesson] = []
        external = 0
        for pool in pools(situation):
            task_id = pool.own[0].task.id
            own = drawn(pool.own, self._local, situation, "sapo local", task_id)
            lent = drawn(pool.lent, self._external, situation, "sapo external", task_id)
            external += len(lent)
            group = own + lent
            advantages = group_advantages(rewards_of(group), std=self._std)
            lessons.extend(Lesson(e, a, self._loss) for e, a in zip(group, advantages, strict=True))
        return Shared(tuple(lessons), {"external": float(external), "untraced": untraced(situation)})
