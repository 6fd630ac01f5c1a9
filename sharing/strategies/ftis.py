"""F-TIS: peers' rollouts, with filtered truncated importance sampling."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.options import Unbounded
from mutual_env.types import AuthorWeight, Lesson, PolicyGradient
from sharing.advantages import Std, checked_std
from sharing.pooling import Pool, check_normalise, pooled_advantages, pools, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class FilteredTruncatedSampling(SharingWrapper):
    """Own and peers' rollouts, each against its own author's group.

    A peer's chunk weighs w = min(π_old / β, ratio_cap), a number without gradient, so that what is above the cap goes
    on teaching; ratio and clip within the update are against π_old, as for own rollouts. A peer's sample is kept if its
    advantage is positive or its KL(β || π_old), estimated over the whole sample, is at most `max_kl` nats.

    `normalise="union"` takes all policies' rollouts on a prompt as one group: the ablation that the paper calls
    horizontal, and PRP's advantages. No peers on a prompt: GRPO on it, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        max_kl: Unbounded = 50.0,
        ratio_cap: Unbounded = 2.0,
        normalise: Literal["author", "union"] = "author",
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if not (max_kl >= 0 and ratio_cap > 0):
            raise ConfigError(f"max_kl must be at least 0 and ratio_cap above 0, got {max_kl} and {ratio_cap}")
        self._by_author = check_normalise(normalise) == "author"
        self._std = checked_std(std)
        self._loss = PolicyGradient(clip_low, clip_high)
        self._weight = AuthorWeight(ratio_cap=ratio_cap, max_kl=max_kl)

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        lessons = tuple(lesson for pool in pooled for lesson in self._lessons(pool))
        pooled_rollouts = float(sum(len(pool.borrowed) for pool in pooled))
        return Shared(lessons, {"pooled": pooled_rollouts, "untraced": untraced(situation)})

    def _lessons(self, pool: Pool) -> list[Lesson]:
        own, borrowed = pooled_advantages(pool, by_author=self._by_author, std=self._std)
        return [
            *(Lesson(e, a, self._loss) for e, a in zip(pool.own, own, strict=True)),
            *(Lesson(e, a, self._loss, self._weight) for e, a in zip(pool.borrowed, borrowed, strict=True)),
        ]
