"""PRP: the peers' rollouts join the reader's group."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.options import Unbounded
from mutual_env.types import AuthorPolicy, Lesson, OldPolicy, PolicyGradient
from sharing.advantages import Std, checked_std
from sharing.pooling import Pool, check_normalise, pooled_advantages, pools, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class PeerRolloutPooling(SharingWrapper):
    """The group is the union over all policies, and advantages are normalised in the union.

    Own rollouts: GRPO's ratio against the old policy. A peer's: the ratio π / β against its author, which the bridge
    carries onto the reader's tokens; tokens in no exact chunk are masked. `ratio_cap` bounds that ratio from above, as
    the field does: β is what the author says it is, and a lie would otherwise be a factor of millions. Above it a term
    keeps no gradient (`above_cap="clamp"`), that of a truncated weight ("weight"), or is left out ("mask").
    `normalise="author"` takes each author's own group as the baseline and scale instead of the union.
    `naive`: a peer's rollouts are taken for the reader's own, ratio against π_old: the pooling without correction that
    the field reports to harm, as a control.

    No peers, no peer rollouts on a prompt: GRPO on it, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        std: Std = True,
        clip_low: Unbounded = 0.2,
        clip_high: Unbounded = 0.2,
        ratio_cap: Unbounded = 8.0,
        above_cap: Literal["clamp", "weight", "mask"] = "clamp",
        normalise: Literal["union", "author"] = "union",
        naive: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if not ratio_cap > 0:
            raise ConfigError(f"ratio_cap must be above 0, got {ratio_cap}: .inf leaves the ratio as it is")
        self._std = checked_std(std)
        self._own = PolicyGradient(clip_low, clip_high)
        if above_cap not in ("clamp", "weight", "mask"):
            raise ConfigError(f"above_cap must be 'clamp', 'weight' or 'mask', got {above_cap!r}")
        self._borrowed = PolicyGradient(clip_low, clip_high, ratio_cap=ratio_cap, above_cap=above_cap)
        self._naive = naive
        self._by_author = check_normalise(normalise) == "author"

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        lessons = tuple(lesson for pool in pooled for lesson in self._lessons(pool))
        pooled_rollouts = float(sum(len(pool.borrowed) for pool in pooled))
        return Shared(lessons, {"pooled": pooled_rollouts, "untraced": untraced(situation)})

    def _lessons(self, pool: Pool) -> list[Lesson]:
        own, borrowed = pooled_advantages(pool, by_author=self._by_author, std=self._std)
        loss, correction = (self._own, OldPolicy()) if self._naive else (self._borrowed, AuthorPolicy())
        return [
            *(Lesson(e, a, self._own) for e, a in zip(pool.own, own, strict=True)),
            *(Lesson(e, a, loss, correction) for e, a in zip(pool.borrowed, borrowed, strict=True)),
        ]
