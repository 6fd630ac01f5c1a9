"""mean@n, pass@k and maj@k of one policy, each with an interval over tasks and one over samples.

bootstrap   were other tasks drawn from the same family: percentile bootstrap over tasks (scipy)
credible    were the same tasks sampled again: each task's success rate has a Beta posterior from a uniform prior,
            carried to the mean over tasks (scorio, arXiv 2510.04265)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from learners.evaluation.outcomes import Answered
from learners.evaluation.votes import majority_of
from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.seeding import generator
from mutual_env.types import Floats

Interval: TypeAlias = tuple[float, float]
CONFIDENCE = 0.95
RESAMPLES = 2000
SAMPLES_A_DRAW = 8  # for each of the k of pass@k: with fewer, its posterior is mostly the prior


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of one policy over some tasks. `credible` is None where the samples have no such model (maj@k), or
    are too few for it to say more than its prior (pass@k with n below 8 k)."""

    policy: str
    part: str
    name: str
    value: float
    bootstrap: Interval
    credible: Interval | None
    tasks: int
    left_out: int


def measure(answered: Sequence[Answered], ks: Sequence[int] = (), *, seed: int = 0) -> list[Measure]:
    """The figures over all tasks and, where they are split, over each part. `ks`: default, powers of two."""
    found: list[Measure] = []
    for policy in dict.fromkeys(item.policy for item in answered):
        mine = [item for item in answered if item.policy == policy]
        parts = sorted({item.part for item in mine} - {""})
        for part in ("", *parts):
            found += _of(policy, part, [item for item in mine if part in ("", item.part)], ks, seed)
    return found


def _of(policy: str, part: str, items: Sequence[Answered], ks: Sequence[int], seed: int) -> list[Measure]:
    size = max((len(item.samples) for item in items), default=0)
    whole = [item for item in items if item.samples and len(item.samples) == size]
    if not whole:
        raise InvalidInputError(f"{policy}: no task was answered and scored: there is nothing to measure")
    for k in ks:
        if not 1 <= k <= size:
            raise InvalidInputError(f"k={k} is not from 1 to the {size} samples of each task: sample more, or lower k")
    correct_PG = np.array([[sample.correct for sample in item.samples] for item in whole], dtype=np.int64)
    named: dict[str, tuple[Floats, Interval | None]] = {
        f"mean@{size}": (correct_PG.mean(axis=1), _credible("avg_ci", correct_PG))
    }
    for k in ks or powers_of_two(size):
        if k > 1:
            known = size >= SAMPLES_A_DRAW * k
            credible = _credible("pass_at_k_ci", correct_PG, k=k) if known else None
            named[f"pass@{k}"] = (pass_at(correct_PG, k), credible)
            named[f"maj@{k}"] = (np.array([majority_of(item.samples, k) for item in whole]), None)
    left_out = len(items) - len(whole)
    return [
        Measure(policy, part, name, float(v.mean()), over_tasks(v, seed), credible, len(whole), left_out)
        for name, (v, credible) in named.items()
    ]


def powers_of_two(size: int) -> list[int]:
    return [2**i for i in range(size.bit_length()) if 2**i <= size]


def pass_at(correct_PG: npt.NDArray[np.int64], k: int) -> Floats:
    """1 - C(n-c, k) / C(n, k) of each task: the chance that one of k of its n samples, c of them right, is right."""
    n, c_P = correct_PG.shape[1], correct_PG.sum(axis=1)
    factors = [1.0 - k / np.maximum(n - np.arange(c), 1) for c in c_P]
    return np.array([1.0 - float(np.prod(np.clip(factor, 0.0, 1.0))) for factor in factors])


def over_tasks(values: Floats, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean; (NaN, NaN) for a single task, of which there is nothing to resample."""
    if values.size < 2:
        return (float("nan"), float("nan"))
    found = (
        scipy_stats()
        .bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=generator(seed, "bootstrap"),
        )
        .confidence_interval
    )
    return (float(found.low), float(found.high))


def scipy_stats() -> Any:
    """scipy.stats, or the sentence that says how to get it."""
    try:
        import scipy.stats
    except ImportError as error:
        raise MissingExtraError.of("statistics of evaluations", "stats") from error
    return scipy.stats


def require_statistics() -> None:
    """Say that the extra is missing before hours of sampling, not after them."""
    scipy_stats()
    _scorio_estimators()


def _scorio_estimators() -> Any:
    try:
        from scorio import eval as estimators
    except ImportError as error:
        raise MissingExtraError.of("credible intervals of evaluations", "stats") from error
    return estimators


def _credible(estimator: str, correct_PG: npt.NDArray[np.int64], **options: Any) -> Interval:
    interval: Callable[..., Any] = getattr(_scorio_estimators(), estimator)
    *_, low, high = interval(correct_PG, confidence=CONFIDENCE, bounds=(0.0, 1.0), **options)
    return (float(low), float(high))
