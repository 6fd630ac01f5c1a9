"""LUFFY: peers' rollouts through a shaped probability."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Lesson, NamedLoss, PolicyGradient
from sharing.advantages import group_advantages
from sharing.pooling import drawn, pools, rewards_of, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class Luffy(SharingWrapper):
    """Advantages r - mean over own and peers' rollouts together, without the std.

    Peers' tokens go through f(π) = π / (π + gamma): no ratio, no clip. Own rollouts: GRPO's ratio and clip. `external`
    bounds how many peers' rollouts a prompt takes, drawn uniformly (seeded by run, round, reader and task); None: all.
    No peers on a prompt: GRPO without the std.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        gamma: float = 0.1,
        external: int | None = None,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if not gamma > 0 or (external is not None and external < 0):
            raise ConfigError(f"gamma must be above 0 and external at least 0, got {gamma} and {external}")
        self._own = PolicyGradient(clip_low, clip_high)
        self._borrowed = NamedLoss.of("shaped_probability", gamma=gamma)
        self._external = external

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        lessons: list[Lesson] = []
        for pool in pooled:
            borrowed = drawn(pool.borrowed, self._external, situation, "luffy", pool.own[0].task.id)
            advantages = group_advantages(rewards_of(pool.own + borrowed), std=False)
            lessons.extend(Lesson(e, a, self._own) for e, a in zip(pool.own, advantages, strict=False))
            lessons.extend(
                Lesson(e, a, self._borrowed) for e, a in zip(borrowed, advantages[len(pool.own) :], strict=True)
            )
        return Shared(tuple(lessons), {"untraced": untraced(situation)})
