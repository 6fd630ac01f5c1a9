"""What the groups of one prompt can turn out as, enumerated exactly, and the moments of an update over all of it.

Group statistics see counts only, so the joint outcome of all groups is a vector of counts, and given the counts the
samples are independent. Letters: O outcomes, A agents, C cells, K arms. A sample falls in one of four cells:

    0 wrong, not trained on     1 wrong, trained on     2 correct, not trained on     3 correct, trained on

(not trained on: masked for want of an exact chunk, or dropped by a strategy's gate).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from mutual_env.types import Floats
from sharing.analysis.bandit import Context

Counts = npt.NDArray[np.int64]

REWARD_C: Floats = np.array([0.0, 0.0, 1.0, 1.0])
TRAINED_C: Floats = np.array([0.0, 1.0, 0.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Every joint outcome of the groups, its probability and its counts; `arms_ACK` = P(arm | author, cell)."""

    context: Context
    probability_O: Floats
    counts_OAC: Counts
    arms_ACK: Floats

    @property
    def sizes_A(self) -> Counts:
        sizes: Counts = self.counts_OAC[0].sum(axis=-1)
        return sizes

    @property
    def successes_OA(self) -> Floats:
        return self.counts_OAC @ REWARD_C

    @property
    def trained_OA(self) -> Floats:
        return self.counts_OAC @ TRAINED_C


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of one update: its expectation, the variance of each component, and a length it never exceeds."""

    mean_K: Floats
    variance_K: Floats
    bound: float

    @property
    def variance(self) -> float:
        """The trace of the covariance."""
        return float(self.variance_K.sum())

    @property
    def second_moment(self) -> float:
        """E ||u||²."""
        return float(self.mean_K @ self.mean_K) + self.variance


@cache
def compositions(total: int, parts: int) -> Counts:
    """Every way to write `total` as an ordered sum of `parts` counts, one a row: stars and bars."""
    rows = list(itertools.combinations(range(total + parts - 1), parts - 1))
    bars = np.array(rows, dtype=np.int64).reshape(len(rows), parts - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, total + parts - 1)))
    found: Counts = np.diff(edges, axis=1) - 1
    found.flags.writeable = False  # it is kept, and handed out again
    return found


def multinomial(counts_OC: Counts, chances_C: Floats) -> Floats:
    """n! / Π n_c! Π p_c^n_c, in logarithms; every chance is positive."""
    log_factorial = np.array([math.lgamma(n + 1.0) for n in range(int(counts_OC[0].sum()) + 1)])
    log_p = log_factorial[-1] - log_factorial[counts_OC].sum(axis=1) + counts_OC @ np.log(chances_C)
    return np.asarray(np.exp(log_p), dtype=np.float64)


def group_outcomes(chances_C: Floats, size: int) -> tuple[Floats, Counts]:
    """The outcomes of one agent's group; a cell that cannot occur is not enumerated."""
    possible = np.flatnonzero(chances_C > 0)
    found = compositions(size, possible.size)
    counts_OC = np.zeros((found.shape[0], chances_C.size), dtype=np.int64)
    counts_OC[:, possible] = found
    return multinomial(found, chances_C[possible]), counts_OC


def enumerate_outcomes(context: Context, sizes_A: Sequence[int], trained_AK: Floats) -> Outcomes:
    """The groups of the first len(sizes) agents. `trained_AK`: the chance that a sample is trained on."""
    correct, trained = context.correct_K.astype(np.float64), trained_AK
    split_CAK = np.stack(
        [(1 - correct) * (1 - trained), (1 - correct) * trained, correct * (1 - trained), correct * trained]
    )
    mass_ACK = np.swapaxes(split_CAK * context.policies_AK[: len(sizes_A)], 0, 1)
    chances_AC = mass_ACK.sum(axis=-1)
    arms_ACK = np.divide(mass_ACK, chances_AC[..., None], out=np.zeros_like(mass_ACK), where=chances_AC[..., None] > 0)
    groups = [group_outcomes(chances, size) for chances, size in zip(chances_AC, sizes_A, strict=True)]
    picks = np.meshgrid(*[np.arange(p.size) for p, _ in groups], indexing="ij")
    rows = [pick.ravel() for pick in picks]
    probability_O = np.prod([p[row] for (p, _), row in zip(groups, rows, strict=True)], axis=0)
    counts_OAC = np.stack([counts[row] for (_, counts), row in zip(groups, rows, strict=True)], axis=1)
    return Outcomes(context, probability_O, counts_OAC, arms_ACK)


def branched(outcomes: Outcomes, chance_OB: Floats) -> tuple[Outcomes, Counts]:
    """Each outcome split into those of its branches that can occur, and the branch of each."""
    rows, branches = np.nonzero(chance_OB)
    probability = outcomes.probability_O[rows] * chance_OB[rows, branches]
    return Outcomes(outcomes.context, probability, outcomes.counts_OAC[rows], outcomes.arms_ACK), branches


def moments(
    outcomes: Outcomes, weight_OACK: Floats, extra_OAC: Floats | None = None, extra_weight: float = 0.0
) -> Moments:
    """Of u = Σ samples weight · score, plus `extra_weight` · score of one extra sample drawn from cell (a, c) with
    probability `extra_OAC` (from none with the rest). Given the counts every sample is independent, so

        E[u | n]   = Σ_ac n_ac μ_ac,                 μ_ac = Σ_k P(k | a, c) w_k score_k
        Var[u | n] = Σ_ac n_ac (Σ_k P(k | a, c) (w_k score_k)² - μ_ac²)

    and the law of total variance adds the outcomes up.
    """
    scores, arms, n = outcomes.context.scores_KK, outcomes.arms_ACK, outcomes.counts_OAC[..., None]
    weight = np.broadcast_to(weight_OACK, (*outcomes.counts_OAC.shape, scores.shape[0]))
    cell_mean = (arms * weight) @ scores
    mean_OK = (n * cell_mean).sum(axis=(1, 2))
    within_OK = (n * ((arms * weight**2) @ scores**2 - cell_mean**2)).sum(axis=(1, 2))
    reach = np.where(arms > 0, np.abs(weight), 0.0) * np.linalg.norm(scores, axis=1)
    bound = float((n[..., 0] * reach.max(axis=-1)).sum(axis=(1, 2)).max()) + abs(extra_weight) * math.sqrt(2.0)
    if extra_OAC is not None:
        extra_mean = extra_weight * np.einsum("oac,ack,kj->oj", extra_OAC, arms, scores)
        mean_OK = mean_OK + extra_mean
        square = extra_weight**2 * np.einsum("oac,ack,kj->oj", extra_OAC, arms, scores**2)
        within_OK = within_OK + square - extra_mean**2
    mean_K = outcomes.probability_O @ mean_OK
    variance_K = outcomes.probability_O @ (within_OK + (mean_OK - mean_K) ** 2)
    return Moments(mean_K, np.maximum(variance_K, 0.0), bound)  # a constant update has rounding for a variance
