"""HACPO: pooled rollouts, corrected for how capable their authors are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import JSON, Aggregation, AuthorMean, Lesson, NamedLoss, PolicyGradient
from sharing.advantages import Moments, Std, checked_std
from sharing.pooling import Pool, pools, rewards_of, untraced
from sharing.records import Kind, reward_of
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper

_WINDOW = 5
_LEAST_RATIO = 0.1
_LEAST_CAPABILITY = 1e-8


class Hacpo(SharingWrapper):
    """Own and peers' rollouts in one group, with a capability-aware baseline, weight and ratio.

    Capability P of a policy: the mean over the reader's last 5 steps of its mean reward, or with
    `capability="positive_share"` of the share of its rollouts that had a positive reward (the two are one where rewards
    are 0 or 1); the current step is not in it, and a capability of 0 or less counts as 1e-8. The ratio P_k / P_j is
    clamped to [0.1, 10], and 1 while nothing is known.

    Advantage for reader k, its own and its peers' samples alike: (r - mean over all samples of (P_k / P_j) r),
    divided by the standard deviation of the raw pooled rewards; 0 where they have no spread. `baseline_guard`: a
    baseline above the highest or below the lowest of the pooled rewards (all capability ratios, no reward) falls back
    to the reader's own mean.
    Own samples: sequence ratio, clip (3e-4, 4e-4). Peers': weight P_j / P_k, s_c stopgrad(s_c)^alpha A with
    s = exp(mean log π - mean log β) clamped to [floor + floor_step m, 1 + cap_tolerance], m = minibatch of the step.
    Published is a cap of 1, at which half of the samples of an equal policy would lose their gradient to rounding; the
    tolerance lets what differs by rounding pass (float32; bfloat16 needs about 1e-2). The loss is a mean over
    sequences (`aggregation`; null: as the learner averages).

    No peers on a prompt: GRPO on it with the sequence ratio.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        alpha: float = 1.0,
        floor: float = 0.8,
        floor_step: float = 0.025,
        clip_low: float = 3e-4,
        clip_high: float = 4e-4,
        cap_tolerance: float = 1e-4,
        capability: Literal["mean_reward", "positive_share"] = "mean_reward",
        baseline_guard: bool = True,
        std: Std = True,
        aggregation: Aggregation | None = "sequence_mean",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if alpha < 0 or not 0.0 <= floor <= 1.0:
            raise ConfigError(f"alpha must be at least 0 and floor lie in [0, 1], got {alpha} and {floor}")
        if capability not in _CAPABILITIES:
            raise ConfigError(f"capability must be one of {', '.join(_CAPABILITIES)}, got {capability!r}")
        if floor_step < 0:
            raise ConfigError(f"floor_step must be at least 0, got {floor_step}: the floor rises from step to step")
        if cap_tolerance < 0:
            raise ConfigError(f"cap_tolerance must be at least 0, got {cap_tolerance}: 0 is the published cap")
        self._own = PolicyGradient(clip_low, clip_high, ratio="sequence")
        cap = 1.0 + cap_tolerance
        self._borrowed = NamedLoss.of("capped_sequence", floor=floor, floor_step=floor_step, cap=cap, alpha=alpha)
        self._capability_of = _CAPABILITIES[capability]
        self._guard = baseline_guard
        self._aggregation = aggregation
        self._std = checked_std(std)
        self._shares: dict[str, dict[str, dict[int, float]]] = {}  # reader -> author -> round -> capability

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        ratios = self._ratios(situation, pooled)
        lessons = tuple(lesson for pool in pooled for lesson in self._lessons(pool, ratios))
        self._remember(situation, pooled)
        metrics = {"untraced": untraced(situation)}
        metrics.update({f"capability_ratio/{author}": ratio for author, ratio in sorted(ratios.items())})
        return Shared(lessons, metrics)

    def state_dict(self) -> dict[str, JSON]:
        shares: JSON = {
            reader: {author: {str(r): share for r, share in steps.items()} for author, steps in authors.items()}
            for reader, authors in self._shares.items()
        }
        return {**super().state_dict(), "shares": shares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._shares = {
            reader: {author: {int(r): share for r, share in steps.items()} for author, steps in authors.items()}
            for reader, authors in state["shares"].items()
        }

    def _ratios(self, situation: Situation, pooled: list[Pool]) -> dict[str, float]:
        """P_k / P_j for each peer j of this round."""
        mine = self._capability(situation, situation.reader)
        ratios = {}
        for author in sorted({author for pool in pooled for author in pool.peers}):
            theirs = self._capability(situation, author)
            ratio = 1.0 if mine is None or theirs is None else mine / theirs
            ratios[author] = min(max(ratio, _LEAST_RATIO), 1.0 / _LEAST_RATIO)
        return ratios

    def _capability(self, situation: Situation, author: str) -> float | None:
        steps = self._shares.get(situation.reader, {}).get(author, {})
        past = [steps[r] for r in sorted(steps) if r < situation.round][-_WINDOW:]
        return max(math.fsum(past) / len(past), _LEAST_CAPABILITY) if past else None

    def _lessons(self, pool: Pool, ratios: Mapping[str, float]) -> list[Lesson]:
        rewards = rewards_of(pool.all)
        raw = Moments.of(rewards)
        baseline = self._baseline(pool, ratios, rewards) if raw.variance else raw.mean
        scale = raw.scale(self._std)
        means = self._aggregation
        own = [Lesson(e, (reward_of(e) - baseline) / scale, self._own, aggregation=means) for e in pool.own]
        return own + [
            Lesson(
                e,
                (reward_of(e) - baseline) / scale,
                self._borrowed,
                AuthorMean(),
                weight=1.0 / ratios[e.author],
                aggregation=means,
            )
            for e in pool.borrowed
        ]

    def _baseline(self, pool: Pool, ratios: Mapping[str, float], rewards: Sequence[float]) -> float:
        mine = rewards_of(pool.own)
        if not pool.peers:
            return Moments.of(mine).mean
        adjusted = [*mine, *(ratios[e.author] * reward_of(e) for e in pool.borrowed)]
        baseline = math.fsum(adjusted) / len(adjusted)
        outside = not min(rewards) <= baseline <= max(rewards)
        return Moments.of(mine).mean if self._guard and outside else baseline

    def _remember(self, situation: Situation, pooled: list[Pool]) -> None:
        rewards: dict[str, list[float]] = {}
        for pool in pooled:
            for experience in pool.all:
                rewards.setdefault(experience.author, []).append(reward_of(experience))
        for author, earned in rewards.items():
            steps = self._shares.setdefault(situation.reader, {}).setdefault(author, {})
            steps[situation.round] = self._capability_of(earned)
            for old in sorted(steps)[: -(_WINDOW + 1)]:
                del steps[old]


def _mean_reward(earned: Sequence[float]) -> float:
    return math.fsum(earned) / len(earned)


def _positive_share(earned: Sequence[float]) -> float:
    return sum(r > 0 for r in earned) / len(earned)


_CAPABILITIES = {"mean_reward": _mean_reward, "positive_share": _positive_share}
