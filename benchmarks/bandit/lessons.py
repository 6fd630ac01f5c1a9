"""The update that Lessons ask of a softmax policy over arms: a small reference, so that the analysis can be held
against what the strategies really hand out, with neither tokens nor a learner in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import numpy as np

from learners.losses import Arrays, loss_of
from learners.teacher_reward import returns_of, rewards_of
from mutual_env.types import (
    AuthorMean,
    AuthorPolicy,
    AuthorWeight,
    CompatibilityGate,
    Experience,
    Floats,
    Lesson,
    OldPolicy,
    TeacherDivergence,
    TeacherMixture,
    TeacherReward,
)
from sharing.advantages import group_advantages
from sharing.analysis.bandit import Context


def lesson_update(
    lessons: Sequence[Lesson],
    context: Context,
    agents: Mapping[str, int],
    arm_of: Callable[[Experience], int],
    is_aligned: Callable[[Experience], bool],
) -> Floats:
    """u of one optimizer step on these lessons: the mean over policy-gradient samples that are not dropped, plus the
    mean over cross-entropy samples; a weight enters no denominator.

    `agents` maps names to rows of the context, the reader's is 0. `is_aligned`: whether the copy of an experience in
    the other party's tokens has an exact chunk.
    """
    sums = {True: np.zeros(context.reader_K.size), False: np.zeros(context.reader_K.size)}
    counts = {True: 0, False: 0}
    gained = _gained(lessons, context, agents, arm_of, is_aligned)
    scores_KK, slopes = context.scores_KK, dict[tuple[object, ...], float | None]()
    for index, lesson in enumerate(lessons):
        arm, author = arm_of(lesson.experience), agents[lesson.experience.author]
        aligned, extra = is_aligned(lesson.experience), gained.get(index, 0.0)
        alike = (lesson.loss, lesson.correction, lesson.weight, lesson.advantage, arm, author, aligned, extra)
        if alike not in slopes:  # groups hold the same arm several times
            slopes[alike] = _slope(lesson, context, agents, arm, author, aligned, extra)
        slope = slopes[alike]
        if slope is not None:
            kind = loss_of(lesson.loss).needs.denominator == "own"
            sums[kind] += slope * scores_KK[arm]
            counts[kind] += 1
    return sums[True] / max(counts[True], 1) + sums[False] / max(counts[False], 1)


def _gained(
    lessons: Sequence[Lesson],
    context: Context,
    agents: Mapping[str, int],
    arm_of: Callable[[Experience], int],
    is_aligned: Callable[[Experience], bool],
) -> dict[int, float]:
    """What a teacher's reward adds to the advantage of a response: its mean over the chunks that carry the choice."""
    carries = np.arange(context.units + context.tokens - context.places) < context.units
    found: dict[int, Floats] = {}
    scale: bool | str = True
    for index, lesson in enumerate(lessons):
        if isinstance(lesson.correction, TeacherReward) and is_aligned(lesson.experience):
            policies_A, scale = context.policies_AK[:, arm_of(lesson.experience)], lesson.correction.std
            log_ratio = np.log(policies_A[agents[lesson.correction.teacher]] / policies_A[0]) / context.units
            found[index] = returns_of(rewards_of(log_ratio * carries, lesson.correction.alpha))
    advantages = iter(group_advantages([r for returns in found.values() for r in returns.tolist()], std=scale))  # type: ignore[arg-type]
    return {
        index: float(np.mean([next(advantages) for _ in returns][: context.units])) for index, returns in found.items()
    }


def _slope(
    lesson: Lesson, context: Context, agents: Mapping[str, int], arm: int, author: int, aligned: bool, gained: float
) -> float | None:
    """-d loss / d log π of one response, in units of its whole score; None: dropped or masked."""
    whole_A = np.log(context.policies_AK[:, arm])
    log_A, mean_A = whole_A / context.units, whole_A / context.tokens
    # What is compared with nobody is a token by itself.
    old = float(whole_A[0]) / (context.units if loss_of(lesson.loss).needs.anchor else context.places)
    anchor, weight, pull = old, lesson.weight, 0.0
    match lesson.correction:
        case AuthorPolicy():
            anchor = float(log_A[author])
            if not aligned:
                return None
        case AuthorWeight(ratio_cap=cap, max_kl=bound):
            log_ratio = old - float(log_A[author])
            kl = context.units * (math.exp(log_ratio) - 1.0 - log_ratio)
            if not aligned or (lesson.advantage <= 0.0 and kl > bound):
                return None
            weight *= min(math.exp(log_ratio), cap)
        case AuthorMean():
            old, anchor = float(mean_A[0]), float(mean_A[author])
        case CompatibilityGate(floor=floor, cap=cap, power=power):
            s = math.exp(float(mean_A[0] - mean_A[author]))
            if s <= floor:
                return None
            weight *= min(s, cap) ** power
        case TeacherMixture(teacher=name, alpha=alpha, log_ratio_limit=limit) if aligned:
            teacher = min(max(float(log_A[agents[name]]), old - limit), old + limit)
            anchor = alpha * old + (1.0 - alpha) * teacher
        case TeacherDivergence(teacher=name, coefficient=coefficient) if aligned:
            pull = coefficient * (math.exp(float(log_A[agents[name]]) - old) - 1.0)
        case OldPolicy() | TeacherMixture() | TeacherDivergence() | TeacherReward():
            pass  # against the old policy; of what is not aligned a teacher has no opinion
        case other:
            assert_never(other)
    at = Arrays(np.array([old]), np.array([anchor]), np.array([lesson.advantage + gained]))
    _, slope = loss_of(lesson.loss).slope(at)
    return pull - weight * float(slope[0])
