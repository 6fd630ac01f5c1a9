"""F-TIS: pooled rollouts, with filtered truncated importance sampling."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import AuthorPolicy, Lesson, PolicyGradient
from sharing.advantages import Std, checked_std, group_advantages
from sharing.pooling import Pool, pools, rewards_of, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class FilteredTruncatedSampling(SharingWrapper):
    """Advantages in the pooled group; a peer's sample has the ratio π / β against its author, at most `ratio_cap`,
    and is kept if its advantage is positive or its estimated KL(π || β) is below `max_kl`.

    `max_kl=.inf` is PRP with the same `ratio_cap`; no peers on a prompt: GRPO on it, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        max_kl: float = 0.1,
        ratio_cap: float = 2.0,
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if not (max_kl >= 0 and ratio_cap > 0):
            raise ConfigError(f"max_kl must be at least 0 and ratio_cap above 0, got {max_kl} and {ratio_cap}")
        self._std = checked_std(std)
        self._own = PolicyGradient(clip_low, clip_high)
        self._lent = PolicyGradient(clip_low, clip_high, ratio_cap=ratio_cap)
        self._filter = AuthorPolicy(max_kl=max_kl)

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        lessons = tuple(lesson for pool in pooled for lesson in self._lessons(pool))
        pooled_rollouts = float(sum(len(pool.lent) for pool in pooled))
        return Shared(lessons, {"pooled": pooled_rollouts, "untraced": untraced(situation)})

    def _lessons(self, pool: Pool) -> list[Lesson]:
        advantages = group_advantages(rewards_of(pool.all), std=self._std)
        n = len(pool.own)
        own = [Lesson(e, a, self._own) for e, a in zip(pool.own, advantages[:n], strict=True)]
        lent = [Lesson(e, a, self._lent, self._filter) for e, a in zip(pool.lent, advantages[n:], strict=True)]
        return own + lent
