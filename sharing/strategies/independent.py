"""GRPO: every policy on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Group, Lesson, PolicyGradient
from sharing.advantages import Std, checked_std, group_advantages
from sharing.records import reward_of
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class Independent(SharingWrapper):
    """Each rollout against its own group: A_i = (r_i - mean) / (std + 1e-6), ratio and clip against the old policy.

    A group without spread gives 0. `std=False` leaves the scale out. The sampling budget is the env's
    `group_size`: the baselines with two and four times the rollouts are this strategy with a larger group.
    `dual_clip` bounds the ratio of what is to become less likely, in several optimizer steps an update.
    """

    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        ratio: Literal["token", "sequence", "none"] = "token",
        dual_clip: float = math.inf,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        self._std = checked_std(std)
        if not dual_clip > 1.0:
            raise ConfigError(f"dual_clip must be above 1, got {dual_clip}: .inf is none, 3 is usual")
        self._loss = PolicyGradient(clip_low, clip_high, ratio, dual_clip=dual_clip)

    def share(self, situation: Situation) -> Shared:
        return Shared(own_lessons(situation.groups, self._loss, std=self._std), {})


def own_lessons(groups: Sequence[Group], loss: PolicyGradient, *, std: Std) -> tuple[Lesson, ...]:
    """GRPO's lessons on one's own groups."""
    return tuple(
        Lesson(experience, advantage, loss)
        for group in groups
        for experience, advantage in zip(group, group_advantages([reward_of(e) for e in group], std=std), strict=True)
    )
