"""Credit from a teacher: what it thinks of each chunk that a policy wrote, against the policy's whole group (TOP-D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from learners.behaviour import DEADBAND
from learners.corrections import Draft, Scores
from learners.units import Mask, Units, units_of
from mutual_env.types import Floats, Metrics, TeacherReward
from sharing.advantages import group_advantages


def rewarded(drafts: Sequence[Draft], scores: Sequence[Scores]) -> tuple[list[Draft], Metrics]:
    """The drafts, those that ask for a teacher's reward with the credit that it makes; and what there is to know."""
    judged: dict[tuple[str, str, TeacherReward], list[_Judged]] = {}
    for at, (draft, known) in enumerate(zip(drafts, scores, strict=True)):
        correction = draft.lesson.correction
        if isinstance(correction, TeacherReward) and not draft.is_borrowed and known.teacher is not None:
            experience = draft.lesson.experience
            group = judged.setdefault((experience.task.id, experience.author, correction), [])
            group.append(_Judged.of(at, draft, known, correction.alpha))
    if not judged:
        return list(drafts), {}
    credited = list(drafts)
    for (_, _, correction), group in judged.items():
        returns = [float(r) for each in group for r in each.returns]
        advantages = iter(group_advantages(returns, std=correction.std))
        for each in group:
            gained = np.array([next(advantages) for _ in each.returns])
            credited[each.at] = _with(drafts[each.at], each, gained)
    rewards = np.concatenate([each.rewards for group in judged.values() for each in group])
    return credited, {"batch/teacher_reward": float(rewards.mean())} if rewards.size else {}


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """The `at`-th draft: the tokens that are judged (`chosen`, T), in what units, the reward and return of each (U)."""

    at: int
    chosen: Mask
    units: Units
    rewards: Floats
    returns: Floats

    @classmethod
    def of(cls, at: int, draft: Draft, known: Scores, alpha: float) -> _Judged:
        if known.teacher is None or draft.author_logprobs is None:
            nothing = np.zeros(draft.response_ids.size, np.bool_)
            return cls(at, nothing, Units.among(nothing, None), np.empty(0), np.empty(0))
        log_ratio = known.teacher.logprobs - draft.author_logprobs
        chosen = np.isfinite(log_ratio)
        units = Units.among(chosen, units_of(known.teacher.chunks))
        rewards = rewards_of(units.sums(log_ratio[chosen]), alpha)
        return cls(at, chosen, units, rewards, returns_of(rewards))


def rewards_of(log_ratio: Floats, alpha: float) -> Floats:
    """log(alpha ρ + 1 - alpha). A ratio that rounding alone keeps from 1 is 1: scaled by their own deviation, the
    returns of a teacher that is the policy itself would otherwise be noise of the size of any other's."""
    with np.errstate(divide="ignore"):  # alpha = 1: log 0 is -inf, and adds nothing
        rewards: Floats = np.logaddexp(log_ratio + np.log(alpha), np.log1p(-alpha))
    return np.where(np.abs(log_ratio) > DEADBAND, rewards, 0.0)


def returns_of(rewards: Floats) -> Floats:
    """Each reward plus the mean of the later ones."""
    later = rewards[::-1].cumsum()[::-1] - rewards
    returns: Floats = rewards + later / np.maximum(np.arange(rewards.size)[::-1], 1)
    return returns


def _with(draft: Draft, judged: _Judged, gained: Floats) -> Draft:
    size = draft.response_ids.size
    credit = np.full(size, draft.lesson.advantage) if draft.credit is None else draft.credit.copy()
    credit[judged.chosen] += judged.units.spread(gained)
    return replace(draft, credit=credit)
