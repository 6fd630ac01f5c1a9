"""XGRPO: only statistics move, and they move the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Group, Lesson, PolicyGradient
from sharing.advantages import Moments
from sharing.pooling import rewards_of
from sharing.records import Kind, Statistics
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class CrossPolicyAdvantageSharing(SharingWrapper):
    """The reader trains on its own rollouts alone, against a baseline in which its peers take part.

    Each policy publishes (n, sum r, sum r^2) of each prompt. With the mixing weight η, the baseline is
    (1 - η) mean_own + η mean_peers, and the scale is the standard deviation of the likewise mixed distribution:
    the root of the mixed second moment minus the baseline squared. `eta=None`: each prompt's η is the peers' share
    of all rollouts, so that every rollout counts the same.

    η = 0, no peers, no statistics on a prompt: GRPO on it, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("statistics",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        eta: float | None = None,
        std: bool = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if eta is not None and not 0.0 <= eta <= 1.0:
            raise ConfigError(f"eta must lie in [0, 1], or be null for the peers' share of all rollouts, got {eta}")
        self._eta = eta
        self._std = std
        self._loss = PolicyGradient(clip_low, clip_high)

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        return () if self._eta == 0.0 else super().asks(groups)

    def share(self, situation: Situation) -> Shared:
        lessons: list[Lesson] = []
        shifts: list[float] = []
        for group in situation.groups:
            if not group:
                continue
            rewards = rewards_of(group)
            own = Moments.of(rewards)
            mixed = self._mixed(own, list(situation.statistics.get(group[0].task.id, {}).values()))
            shifts.append(abs(mixed.mean - own.mean))
            advantages = mixed.advantages(rewards, std=self._std)
            lessons.extend(Lesson(e, a, self._loss) for e, a in zip(group, advantages, strict=True))
        return Shared(tuple(lessons), {"baseline_shift": math.fsum(shifts) / max(len(shifts), 1)})

    def _mixed(self, own: Moments, peers: Sequence[Statistics]) -> Moments:
        if not peers:
            return own
        pooled = Moments.of_sums(
            sum(s.count for s in peers), math.fsum(s.reward_sum for s in peers), math.fsum(s.square_sum for s in peers)
        )
        eta = pooled.count / (own.count + pooled.count) if self._eta is None else self._eta
        return own.mixed(pooled, eta)
