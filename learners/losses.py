"""What an update minimises, as pure functions of log-probabilities: the reference that every backend is tested against.

An optimizer step minimises `sum over examples of scale · sum over masked tokens of term`. The scale holds the example's
weight and its denominator, counted over the whole step before anything is computed: how the step is then cut into
micro-batches changes nothing. A policy-gradient denominator counts the tokens of all policy-gradient examples of the
step, those with a zero advantage among them; a cross-entropy term is averaged over cross-entropy tokens alone. Weights
enter no denominator.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from learners.example import Example
from mutual_env.errors import InvalidInputError
from mutual_env.types import CappedSequence, CrossEntropy, Floats, Loss, PolicyGradient, ShapedProbability

Aggregation: TypeAlias = Literal["token_mean", "sequence_mean"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped here: e^20 is beyond every clip, and its gradient (zero) is not a NaN."""


def minibatches(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """The examples of each optimizer step: lower `order` first, otherwise as they came, cut into `count` even parts."""
    if count < 1:
        raise InvalidInputError(f"minibatches must be at least 1, got {count}")
    ordered = sorted(examples, key=lambda example: example.order)
    borders = [round(i * len(ordered) / count) for i in range(count + 1)]
    parts = (ordered[start:end] for start, end in itertools.pairwise(borders))
    return [part for part in parts if part]


def teaches(example: Example, kl_coefficient: float = 0.0) -> bool:
    """Whether this example can move the policy: something is masked in, and a term of it is not identically zero."""
    mask = example.mask
    if example.weight == 0.0 or not mask.any():
        return False
    if isinstance(example.loss, CrossEntropy) or kl_coefficient != 0.0:
        return True
    pulled = (
        example.kl_weight != 0.0 and example.reference is not None and bool(np.isfinite(example.reference[mask]).any())
    )
    return pulled or bool(np.any(example.advantages[mask] != 0.0))


def scales(examples: Sequence[Example], aggregation: Aggregation = "token_mean") -> Floats:
    """weight / denominator of each example of one optimizer step."""
    cross = np.array([isinstance(example.loss, CrossEntropy) for example in examples], dtype=np.bool_)
    tokens = np.array([int(example.mask.sum()) for example in examples], dtype=np.float64)
    weights = np.array([example.weight for example in examples], dtype=np.float64)
    denominators = np.ones(len(examples))
    for kind in (cross, ~cross):
        if aggregation == "token_mean":
            denominators[kind] = max(tokens[kind].sum(), 1.0)
        else:
            denominators[kind] = np.maximum(tokens[kind], 1.0) * max(int((tokens[kind] > 0).sum()), 1)
    scale: Floats = weights / denominators
    return scale


def example_loss(
    example: Example,
    logprobs: Floats,
    anchor: Floats,
    minibatch: int = 0,
    kl_coefficient: float = 0.0,
    reference: Floats | None = None,
) -> tuple[float, Floats]:
    """The unscaled loss of one example, summed over its masked tokens, and its gradient by `logprobs`.

    `anchor` is what ratios are taken against; `reference` with `kl_coefficient` is the learner's own KL term, beside
    the example's.
    """
    mask = example.mask
    values = np.zeros(logprobs.shape)
    gradient = np.zeros(logprobs.shape)
    if not mask.any():
        return 0.0, gradient
    term, slope = _term(example.loss, logprobs[mask], anchor[mask], example.advantages[mask], minibatch)
    values[mask], gradient[mask] = term, slope
    for target, coefficient in ((example.reference, example.kl_weight), (reference, kl_coefficient)):
        if target is not None and coefficient != 0.0:
            pulled = mask & np.isfinite(target)
            value, slope = kl_k3(logprobs[pulled], target[pulled])
            values[pulled] += coefficient * value
            gradient[pulled] += coefficient * slope
    return float(values.sum()), gradient


def kl_k3(logprobs: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """exp(d) - d - 1 with d = reference - log π, which estimates KL(π || reference), is never negative; its slope."""
    raw = reference - logprobs
    d = np.clip(raw, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    inside = np.abs(raw) <= MAX_LOG_RATIO
    return np.exp(d) - d - 1.0, np.where(inside, 1.0 - np.exp(d), 0.0)


def _term(loss: Loss, logprobs: Floats, anchor: Floats, advantages: Floats, minibatch: int) -> tuple[Floats, Floats]:
    """The term of each masked token, and the gradient of their sum."""
    match loss:
        case CrossEntropy():
            return -logprobs, -np.ones_like(logprobs)
        case ShapedProbability(gamma=gamma):
            p = np.exp(logprobs)
            return -p / (p + gamma) * advantages, -p * gamma / (p + gamma) ** 2 * advantages
        case CappedSequence():
            return _capped_sequence(loss, logprobs, anchor, advantages, minibatch)
        case PolicyGradient(ratio="none"):
            return -advantages * np.ones_like(logprobs), -advantages
        case PolicyGradient(ratio="token"):
            ratio, d_ratio = _ratio(logprobs - anchor, loss.ratio_cap)
            term, d_term = _clipped(loss, ratio, advantages)
            return term, d_term * d_ratio
        case PolicyGradient(ratio="sequence"):
            ratio, d_ratio = _ratio(np.full_like(logprobs, (logprobs - anchor).mean()), loss.ratio_cap)
            term, d_term = _clipped(loss, ratio, advantages)
            return term, np.full_like(logprobs, (d_term * d_ratio).mean())
    raise InvalidInputError(f"Example.loss must be one of the losses of mutual_env.types, got {loss!r}")


def _ratio(log_ratio: Floats, cap: float) -> tuple[Floats, Floats]:
    clamped = np.clip(log_ratio, -MAX_LOG_RATIO, min(MAX_LOG_RATIO, math.log(cap) if cap < math.inf else MAX_LOG_RATIO))
    ratio = np.exp(clamped)
    return ratio, np.where(clamped == log_ratio, ratio, 0.0)


def _clipped(loss: PolicyGradient, ratio: Floats, advantages: Floats) -> tuple[Floats, Floats]:
    """-min(ρA, clip(ρ)A) and its slope by ρ: -A where the unclipped side is taken, 0 where the clipped one is."""
    clipped = np.clip(ratio, 1.0 - loss.clip_low, 1.0 + loss.clip_high)
    plain, bounded = ratio * advantages, clipped * advantages
    return -np.minimum(plain, bounded), np.where(plain <= bounded, -advantages, 0.0)


def _capped_sequence(
    loss: CappedSequence, logprobs: Floats, anchor: Floats, advantages: Floats, minibatch: int
) -> tuple[Floats, Floats]:
    mean = float((logprobs - anchor).mean())
    s = math.exp(min(max(mean, -MAX_LOG_RATIO), MAX_LOG_RATIO))
    floor = min(loss.floor + loss.floor_step * minibatch, loss.cap)
    capped = min(max(s, floor), loss.cap)
    inside = floor <= s <= loss.cap
    term = -capped * capped**loss.alpha * advantages
    slope = -(capped**loss.alpha) * (s if inside else 0.0) * advantages
    return term, np.full_like(logprobs, slope.mean())
