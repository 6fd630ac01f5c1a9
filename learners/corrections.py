"""What stands in for the author's absence: each correction is one short function from a draft to an example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from learners.example import Example
from learners.losses import MAX_LOG_RATIO, needs_of
from learners.units import Ints, Mask, Units, units_of
from mutual_env.types import (
    AuthorMean,
    AuthorPolicy,
    AuthorWeight,
    CompatibilityGate,
    Floats,
    Ids,
    Lesson,
    OldPolicy,
    TeacherDivergence,
    TeacherMixture,
    TeacherReward,
)
from tokenizers_bridge.types import Translation

PLAUSIBLE_LOG_RATIO = 20.0
"""How much likelier a reader may find a peer's sample than its author claims to. Under the author's own distribution
the ratio of any other to it has a mean of at most 1, so an honest author exceeds e^20 once in e^20 samples."""

MEASURED, OF_SO_MANY = 4, 8
"""Where log π_old enters no loss, it is computed for so many rows of an author, or for one of so many if that is more:
it is a forward pass over what the update is about to compute anyway."""

MAX_LOG_WEIGHT = 50.0
"""A log-ratio counts as no further from 0 than this before it becomes a weight: what a peer claims never overflows."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A lesson in the reader's tokens, before its correction.

    `author_logprobs` (T) are the author's on the reader's tokens, comparable where `exact` (T) is True, and there as
    sums over `chunks` (T; -1 outside); None: the author left no trace. `author_mean` is the mean over the author's own
    tokens. `written` (T) is False where the world answered, in an episode of several turns; None: all was written.
    `credit` (T) is what each token is worth, where the lesson has spans or a teacher gave some; None: the lesson's
    advantage.
    """

    lesson: Lesson
    prompt_ids: Ids
    response_ids: Ids
    author_logprobs: Floats | None
    author_mean: float
    exact: Mask
    chunks: Ints
    is_borrowed: bool
    written: Mask | None = None
    credit: Floats | None = None

    @property
    def last_turn(self) -> int:
        """Where what was written last begins."""
        return 0 if self.written is None else int(np.flatnonzero(~self.written)[-1]) + 1

    @classmethod
    def own(cls, lesson: Lesson, prompt_ids: Ids) -> Draft:
        completion = lesson.experience.completion
        size = completion.token_ids.size
        return cls(
            lesson,
            prompt_ids,
            completion.token_ids,
            completion.logprobs,
            _mean(completion.logprobs),
            exact=np.ones(size, dtype=np.bool_),
            chunks=np.arange(size),
            is_borrowed=False,
        )

    @classmethod
    def borrowed(cls, lesson: Lesson, prompt_ids: Ids, translation: Translation) -> Draft:
        logprobs = translation.logprobs if translation.has_logprobs else None
        return cls(
            lesson,
            prompt_ids,
            translation.token_ids,
            logprobs,
            _mean(lesson.experience.completion.logprobs),
            exact=translation.exact,
            chunks=translation.chunks,
            is_borrowed=True,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Log-probabilities of a draft's tokens: under the reader now, and under its teacher."""

    old: Floats | None
    teacher: Taught | None


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A teacher's log-probabilities on the reader's tokens (T), NaN where they cannot be carried over: comparable as
    sums over `chunks` (T; -1 outside)."""

    logprobs: Floats
    chunks: Ints


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a draft becomes no example."""

    reason: str


def wanting_old(drafts: Sequence[Draft]) -> list[int]:
    """The drafts that the reader must score before the update, and a few of those that are only measured."""
    by_author: dict[str, dict[str, list[int]]] = {}
    for i, draft in enumerate(drafts):
        if _is_measured(draft):
            told = draft.lesson.experience
            by_author.setdefault(told.author, {}).setdefault(told.task.id, []).append(i)
    some = {i for by_task in by_author.values() for i in _a_few([*by_task.values()])}
    return [i for i, draft in enumerate(drafts) if i in some or _needs_old(draft)]


def _a_few(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Some of one author's rows, from prompts all over the batch, and of those what there is: a prompt is computed once
    for all of its rows."""
    rows = sum(map(len, prompts))
    most = max(MEASURED, rows // OF_SO_MANY)
    return [i for prompt in prompts[:: max(1, rows // most)] for i in prompt][:most]


def _is_measured(draft: Draft) -> bool:
    """Whether log π_old would say how far the author is, and no more."""
    known = draft.is_borrowed and draft.author_logprobs is not None
    return known and isinstance(draft.lesson.correction, AuthorPolicy) and not _needs_old(draft)


def _needs_old(draft: Draft) -> bool:
    """Whether what is trained on depends on the reader's score of this draft."""
    match draft.lesson.correction:
        case AuthorPolicy():
            return draft.is_borrowed and _could_be_implausible(draft)
        case CompatibilityGate() | AuthorWeight():
            return draft.author_logprobs is not None
        case TeacherMixture(alpha=alpha):
            return alpha != 1.0
        case OldPolicy() | AuthorMean() | TeacherDivergence() | TeacherReward():
            return False
        case other:
            assert_never(other)


def teacher_of(draft: Draft) -> str | None:
    """The teacher that must score this draft."""
    match draft.lesson.correction:
        case TeacherMixture(teacher=name, alpha=alpha):
            return name if alpha != 1.0 else None
        case TeacherDivergence(teacher=name, coefficient=coefficient):
            return name if coefficient != 0.0 else None
        case TeacherReward(teacher=name, alpha=alpha):
            return name if alpha != 0.0 else None
        case OldPolicy() | AuthorPolicy() | AuthorWeight() | AuthorMean() | CompatibilityGate():
            return None
        case other:
            assert_never(other)


def correct(draft: Draft, scores: Scores) -> Example | Drop:
    """Apply the correction that the lesson names."""
    if draft.response_ids.size == 0:
        return Drop("empty")
    if draft.is_borrowed and _log_ratio(draft, scores) > PLAUSIBLE_LOG_RATIO:
        return Drop("implausible_logprobs")
    match draft.lesson.correction:
        case OldPolicy() | TeacherReward():  # what a teacher's reward makes of the credit stands in the draft
            return _as_sampled(draft, _example(draft))
        case AuthorPolicy():
            return _author_policy(draft)
        case AuthorWeight() as correction:
            return _author_weight(draft, scores, correction)
        case AuthorMean() as correction:
            return _author_mean(draft, correction)
        case CompatibilityGate() as correction:
            return _compatibility_gate(draft, scores, correction)
        case TeacherMixture() as correction:
            return _as_sampled(draft, _teacher_mixture(draft, scores, correction))
        case TeacherDivergence() as correction:
            return _as_sampled(draft, _teacher_divergence(draft, scores, correction))
        case other:
            assert_never(other)


def _log_ratio(draft: Draft, scores: Scores) -> float:
    """Of the whole sample, the reader's to what its author claims, where both are known and can be compared."""
    if scores.old is None or draft.author_logprobs is None:
        return 0.0
    compared = draft.exact & np.isfinite(draft.author_logprobs)
    return float((scores.old - draft.author_logprobs)[compared].sum())


def _could_be_implausible(draft: Draft) -> bool:
    """Whether the reader could find this sample that much likelier, its own log-probabilities being at most 0."""
    if draft.author_logprobs is None:
        return False
    compared = draft.exact & np.isfinite(draft.author_logprobs)
    return float(-draft.author_logprobs[compared].sum()) > PLAUSIBLE_LOG_RATIO


def _example(draft: Draft, anchor: Floats | None = None, mask: Mask | None = None) -> Example:
    size = draft.response_ids.size
    written = np.ones(size, dtype=np.bool_) if draft.written is None else draft.written
    return Example(
        prompt_ids=draft.prompt_ids,
        response_ids=draft.response_ids,
        mask=written if mask is None else mask,
        advantages=np.full(size, draft.lesson.advantage) if draft.credit is None else draft.credit,
        loss=draft.lesson.loss,
        weight=draft.lesson.weight,
        order=draft.lesson.order,
        anchor=anchor,
        own=not draft.is_borrowed,
        aggregation=draft.lesson.aggregation,
    )


def _as_sampled(draft: Draft, example: Example) -> Example:
    """With the log-probabilities that the reader's own sampler recorded, where the loss is an expectation under it."""
    if draft.is_borrowed or not needs_of(draft.lesson.loss).advantage:
        return example
    return replace(example, behaviour=draft.author_logprobs)


def _author_policy(draft: Draft) -> Example | Drop:
    """The ratio is taken against the author, chunk by chunk; what cannot be compared with it is masked."""
    if draft.author_logprobs is None:
        return Drop("no_author_logprobs")
    mask = draft.exact & np.isfinite(draft.author_logprobs)
    if not mask.any():
        return Drop("nothing_aligned")
    return replace(_example(draft, anchor=draft.author_logprobs, mask=mask), units=units_of(draft.chunks))


def _author_weight(draft: Draft, scores: Scores, correction: AuthorWeight) -> Example | Drop:
    """The credit of each chunk is weighed by its truncated ratio to the author; what cannot be compared is masked."""
    if scores.old is None or draft.author_logprobs is None:
        return Drop("no_author_logprobs")
    mask = draft.exact & np.isfinite(draft.author_logprobs)
    if not mask.any():
        return Drop("nothing_aligned")
    among = Units.among(mask, units_of(draft.chunks))
    log_ratio = among.sums(scores.old[mask]) - among.sums(draft.author_logprobs[mask])
    log_ratio = np.clip(log_ratio, -MAX_LOG_WEIGHT, MAX_LOG_WEIGHT)
    if draft.lesson.advantage <= 0.0 and _divergence(log_ratio) > correction.max_kl:
        return Drop("too_far_from_author")
    example = _example(draft, mask=mask)
    credit = np.array(example.advantages)
    credit[mask] *= among.spread(np.minimum(np.exp(log_ratio), correction.ratio_cap))
    return replace(example, advantages=credit)


def _author_mean(draft: Draft, correction: AuthorMean) -> Example | Drop:
    """Only means are compared: the anchor of every token is the author's mean."""
    if draft.author_logprobs is None:
        return Drop("no_author_logprobs")
    mean = draft.author_mean if correction.lengths == "own" else _mean_written(draft, draft.author_logprobs)
    return _example(draft, anchor=np.full(draft.response_ids.size, mean))


def _compatibility_gate(draft: Draft, scores: Scores, correction: CompatibilityGate) -> Example | Drop:
    """The weight falls with how unlikely the reader finds what the author found likely."""
    if scores.old is None or draft.author_logprobs is None:
        return Drop("no_author_logprobs")
    author = draft.author_mean if correction.lengths == "own" else _mean_written(draft, draft.author_logprobs)
    gap = _mean_written(draft, scores.old) - author
    s = math.exp(min(gap, MAX_LOG_RATIO))
    if not s > correction.floor:
        return Drop("gate_closed")
    example = _example(draft)
    return replace(example, weight=example.weight * min(s, correction.cap) ** correction.power)


def _teacher_mixture(draft: Draft, scores: Scores, correction: TeacherMixture) -> Example:
    """The anchor lies between the reader's old policy and the teacher; alpha = 1 is the old policy itself."""
    if scores.old is None or scores.teacher is None:
        return _example(draft)
    taught, units = scores.teacher, units_of(scores.teacher.chunks)
    known = np.isfinite(taught.logprobs)
    teacher = np.where(known, taught.logprobs, scores.old)
    if math.isfinite(correction.log_ratio_limit):
        teacher = _within(correction.log_ratio_limit, scores.old, teacher, units)
    mixed = correction.alpha * scores.old + (1.0 - correction.alpha) * teacher
    return replace(_example(draft, anchor=np.where(known, mixed, scores.old)), units=units)


def _within(limit: float, old: Floats, teacher: Floats, units: Ints | None) -> Floats:
    """The teacher, no further from the old policy than the limit on any chunk; spread evenly where it was."""
    among = Units.among(np.ones(old.size, np.bool_), units)
    apart = among.sums(teacher) - among.sums(old)
    moved = np.clip(apart, -limit, limit) - apart
    return np.where(among.spread(moved) == 0.0, teacher, teacher + among.spread(moved / among.sizes))


def _teacher_divergence(draft: Draft, scores: Scores, correction: TeacherDivergence) -> Example:
    """A KL term pulls to the teacher where it can be aligned, chunk by chunk."""
    example = _example(draft)
    if scores.teacher is None:
        return example
    return replace(
        example,
        reference=scores.teacher.logprobs,
        reference_units=units_of(scores.teacher.chunks),
        kl_weight=correction.coefficient,
    )


def _divergence(log_ratio: Floats) -> float:
    """KL(author || reader) of one sample that the author wrote: the sum of ρ - 1 - log ρ, never negative. The other
    divergence would need ρ log ρ, which one chunk that the reader finds likelier by a few nats decides alone."""
    return float((np.exp(log_ratio) - 1.0 - log_ratio).sum())


def _mean_written(draft: Draft, values: Floats) -> float:
    return _mean(values if draft.written is None else values[draft.written])


def _mean(values: Floats) -> float:
    with np.errstate(over="ignore"):  # a peer may claim anything; no example may hold what is not finite
        return float(values.mean()) if values.size else 0.0
