"""When drawn updates agree with a closed form: at every point at once, and not only for large samples.

There are M comparisons (each component of each expected update, and each E ||u||²). With L = ln(4 M / α), all of

    |mean of x - E x| <= sqrt(2 Var x · L / D) + b L / D · 2/3        Bernstein, x in an interval of length b
    |mean of y - E y| <= sqrt(2 V̂ · L / D) + b L / (D - 1) · 7/3      Maurer and Pontil, V̂ the variance of the draws

hold together with probability at least 1 - α if the closed forms are right: a union bound over the M comparisons, each
valid for any D. The first term is sqrt(2 L) standard errors; the second keeps the criterion honest where an event is so
rare that D draws see it a few times, and no normal approximation holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.bandit.shipped import SHIPPED, shipped, shipped_update
from mutual_env.seeding import generator
from mutual_env.types import Floats
from sharing.analysis.bandit import Context
from sharing.analysis.closed_form import STRATEGIES, Options
from sharing.analysis.outcomes import Moments
from sharing.analysis.plane import Point

ROUNDING = 1e-12
"""What is constant may differ by this."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Drawn updates against their closed form: how far off, in limits of the criterion and in standard errors.

    `excess` is the largest |difference| / limit (at most 1 is agreement); `z` holds difference / standard error of each
    component that D draws can say something about: whose rarest direction is expected at least 30 times.
    """

    excess: float
    z: Floats


def compare(exact: Moments, updates_DK: Floats, comparisons: int, alpha: float = 1e-3) -> Comparison:
    """Hold the criterion against one strategy on one prompt."""
    draws = updates_DK.shape[0]
    log_term = math.log(4.0 * comparisons / alpha)
    error_K = np.abs(updates_DK.mean(axis=0) - exact.mean_K)
    limit_K = np.sqrt(2.0 * exact.variance_K * log_term / draws) + 2.0 * exact.bound * log_term / draws * 2.0 / 3.0
    squares_D = (updates_DK**2).sum(axis=1)
    error = abs(float(squares_D.mean()) - exact.second_moment)
    limit = math.sqrt(2.0 * float(squares_D.var(ddof=1)) * log_term / draws)
    limit += exact.bound**2 * log_term / (draws - 1) * 7.0 / 3.0
    excess = max(float(np.max(error_K / (limit_K + ROUNDING))), error / (limit + ROUNDING))
    return Comparison(excess, _z(exact, updates_DK))


def _z(exact: Moments, updates_DK: Floats) -> Floats:
    """Differences in standard errors, where the component took enough different sides for a normal law to hold."""
    draws = updates_DK.shape[0]
    typical_K = (np.abs(updates_DK - exact.mean_K) > np.sqrt(exact.variance_K)).sum(axis=0)
    enough_K = (exact.variance_K > ROUNDING) & (typical_K >= 30)
    error_K = (updates_DK.mean(axis=0) - exact.mean_K)[enough_K]
    return np.asarray(error_K / np.sqrt(exact.variance_K[enough_K] / draws), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Drawn updates against closed forms: every |difference| is within its limit iff `worst` is at most 1."""

    comparisons: int
    draws: int
    worst: float
    within_two_errors: float
    normal_components: int


def summary(found: Sequence[Comparison], comparisons: int, draws: int) -> Agreement:
    """What all comparisons come to."""
    z = np.concatenate([comparison.z for comparison in found])
    within = float((np.abs(z) <= 2.0).mean()) if z.size else 1.0  # a handful of draws says nothing of a normal law
    return Agreement(comparisons, draws, max(comparison.excess for comparison in found), within, z.size)


def comparisons_at(points: Sequence[Point], strategies: int) -> int:
    """Each component of each expected update, and each E ||u||²."""
    return strategies * sum(context.reader_K.size + 1 for point in points for context in point.contexts())


def shipped_agreement(points: Sequence[Point], size: int, draws: int, options: Options, *, seed: int = 0) -> Agreement:
    """Draw groups on every context of the points, hand them to each shipped strategy through its real wrapper, and hold
    the updates that its lessons ask for against its closed form."""
    comparisons = comparisons_at(points, len(SHIPPED))
    found = []
    for point in points:
        for context in point.contexts():
            source = generator(seed, "bandit", repr(point), context.name)
            for strategy in SHIPPED:
                updates_DK = _shipped_updates(strategy, context, size, draws, source)
                found.append(compare(STRATEGIES[strategy](context, size, options), updates_DK, comparisons))
    return summary(found, comparisons, draws)


def _shipped_updates(strategy: str, context: Context, size: int, draws: int, source: np.random.Generator) -> Floats:
    """The updates (D, K) of as many first rounds, which differ in the seed that strategies draw their lots from."""
    wrapper = shipped(strategy, context, size)
    blank = wrapper.state_dict()
    made = []
    for draw in range(draws):
        arms_AG = np.stack([source.choice(row.size, size=size, p=row) for row in context.policies_AK])
        aligned_AG = source.random(arms_AG.shape) >= context.residual_K[arms_AG]
        wrapper.load_state_dict(blank)
        made.append(shipped_update(wrapper, context, arms_AG, aligned_AG, seed=draw))
    return np.stack(made)
