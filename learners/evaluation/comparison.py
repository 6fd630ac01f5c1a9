"""Whether an arm differs from the baseline: paired by seed or by task, corrected over arms and policies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from learners.evaluation.measures import CONFIDENCE, over_tasks, scipy_stats
from learners.evaluation.scores import Scores
from mutual_env.errors import UnknownNameError
from mutual_env.seeding import generator
from mutual_env.types import Floats

Test: TypeAlias = Literal["t", "permutation"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm minus baseline over pairs. `effect` is Hedges' g of the paired differences (NaN where they do not vary);
    `p_holm` is corrected over all arms and policies of the measure."""

    arm: str
    policy: str
    measure: str
    baseline: float
    value: float
    difference: float
    low: float
    high: float
    effect: float
    p: float
    p_holm: float
    pairs: int


def compare(
    scores: Scores, baseline: str = "", measures: Sequence[str] = (), test: Test | None = None
) -> list[Difference]:
    """Every other arm against the baseline (default: the first), policy by policy.

    Seeds are few: a paired t-test and its interval. Tasks are many and their scores bounded: a sign-flipping
    permutation test and a percentile bootstrap. `test` chooses otherwise.
    """
    base = baseline or scores.arms[0]
    if base not in scores.arms:
        raise UnknownNameError.of("arm", base, scores.arms)
    for measure in measures:
        if measure not in scores.measures:
            raise UnknownNameError.of("measure", measure, scores.measures)
    chosen = test or ("t" if scores.unit == "seed" else "permutation")
    found: list[Difference] = []
    for measure in measures or scores.measures:
        rows = [
            _difference(arm, policy, measure, pair, chosen)
            for arm in scores.arms
            for policy in scores.policies
            if arm != base and (pair := _pairs(scores, base, arm, policy, measure))
        ]
        corrected = holm([row.p for row in rows])
        found += [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down: the i-th smallest of m times m - i + 1, never below the one before, at most 1. NaN stays."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(order) - rank)))
        corrected[index] = highest
    return corrected


def _pairs(scores: Scores, base: str, arm: str, policy: str, measure: str) -> list[tuple[float, float]]:
    before: Mapping[str, float] = scores.values.get((base, policy, measure), {})
    after = scores.values.get((arm, policy, measure), {})
    return [(before[unit], after[unit]) for unit in before if unit in after]


def _difference(arm: str, policy: str, measure: str, pairs: Sequence[tuple[float, float]], test: Test) -> Difference:
    before, after = (np.array(side) for side in zip(*pairs, strict=True))
    d = after - before
    low, high, p = _test(d, test)
    return Difference(
        arm,
        policy,
        measure,
        float(before.mean()),
        float(after.mean()),
        float(d.mean()),
        low,
        high,
        hedges(d),
        p,
        p,
        d.size,
    )


def hedges(d: Floats) -> float:
    """Mean difference over its standard deviation, times 1 - 3 / (4 df - 1): the correction for few pairs."""
    spread = float(d.std(ddof=1)) if d.size > 1 else 0.0
    if spread == 0.0:
        return math.nan
    return float(d.mean()) / spread * (1.0 - 3.0 / (4.0 * (d.size - 1) - 1.0))


def _test(d: Floats, test: Test) -> tuple[float, float, float]:
    """The interval of the mean difference, and the p-value of there being none; NaN where pairs cannot say."""
    if d.size < 2:
        return math.nan, math.nan, math.nan
    if not d.any():
        return 0.0, 0.0, 1.0
    if test == "permutation":
        return (*over_tasks(d), _by_signs(d))
    if np.ptp(d) == 0.0:  # no spread: a t-test would call one seed's luck certain
        return math.nan, math.nan, math.nan
    found = scipy_stats().ttest_1samp(d, 0.0)
    interval = found.confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high), float(found.pvalue)


def _by_signs(d: Floats) -> float:
    """Every difference could as well have had the other sign: exact for up to 13 pairs, 9,999 draws beyond."""
    found = scipy_stats().permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=9999, rng=generator("signs")
    )
    return float(found.pvalue)
