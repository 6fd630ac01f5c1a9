"""GRPO: every policy on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Aggregation, Group, Lesson, PolicyGradient
from sharing.advantages import Std, checked_std, group_advantages
from sharing.records import reward_of
from sharing.situation import Common, Credit, Shared, Situation
from sharing.turn_credit import TurnCredit, checked_credit, turn_spans
from sharing.wrapper import SharingWrapper


class Independent(SharingWrapper):
    """Each rollout against its own group: A_i = (r_i - mean) / (std + 1e-6), ratio and clip against the old policy.

    A group without spread gives 0. `std=False` leaves the scale out. The sampling budget is the env's
    `group_size`: the baselines with two and four times the rollouts are this strategy with a larger group.
    `ratio="sequence"` is GSPO, whose mean is over sequences; `aggregation` says how to average where the learner is not
    to decide. `dual_clip` bounds the ratio of what is to become less likely, in several optimizer steps an update.

    `credit="turns"`: in episodes of several turns each turn has an advantage of its own. The state after a turn is
    scored (what the world says it was worth, or as before; the verdict after the last), a turn earns the difference,
    and its return is the sum of what it and the later turns earn, each later one counted `gamma` times less:
    R_t = Σ_k γ^k (s_{t+k} - s_{t+k-1}). It is normalised among the group's returns of that turn. With γ = 1 the first
    turn has GRPO's advantage; with γ = 0 each turn has what it changed.
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
        credit: TurnCredit = "conversation",
        gamma: float = 1.0,
        aggregation: Aggregation | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        self._std = checked_std(std)
        if not dual_clip > 1.0:
            raise ConfigError(f"dual_clip must be above 1, got {dual_clip}: .inf is none, 3 is usual")
        self._loss = PolicyGradient(clip_low, clip_high, ratio, dual_clip=dual_clip)
        self._aggregation = aggregation or ("sequence_mean" if ratio == "sequence" else None)
        self._by_turns = checked_credit(credit, gamma) == "turns"
        self._gamma = gamma

    def share(self, situation: Situation) -> Shared:
        lessons = own_lessons(situation.groups, self._loss, std=self._std, aggregation=self._aggregation)
        if self._by_turns:
            spans = [s for group in situation.groups for s in turn_spans(group, gamma=self._gamma, std=self._std)]
            lessons = tuple(replace(lesson, spans=s) for lesson, s in zip(lessons, spans, strict=True))
        return Shared(lessons, {})


def own_lessons(
    groups: Sequence[Group], loss: PolicyGradient, *, std: Std, aggregation: Aggregation | None = None
) -> tuple[Lesson, ...]:
    """GRPO's lessons on one's own groups."""
    return tuple(
        Lesson(experience, advantage, loss, aggregation=aggregation)
        for group in groups
        for experience, advantage in zip(group, group_advantages([reward_of(e) for e in group], std=std), strict=True)
    )
