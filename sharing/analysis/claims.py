"""Three claims about the probes, as numbers that can turn out either way.

1. PRP's variance grows with the χ² divergence between reader and author.
2. XGRPO leaves the actor's support unchanged and only moves the baseline.
3. SGT adds a score direction on the rescue set and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mutual_env.types import JSON, Floats
from sharing.analysis.bandit import CORRECT_K, Context, chi_square, contexts
from sharing.analysis.closed_form import Options, independent, prp, prp_unclipped, sgt, xgrpo

WRONG_MASS_K: Floats = np.array([0.0, 0.0, 0.6, 0.3, 0.1])
RIGHT_MASS_K: Floats = np.array([0.5, 0.5, 0.0, 0.0, 0.0])


def pair(reader: float, peer: float) -> Context:
    """A prompt with these two success probabilities, and one policy apart from that."""
    rows = [p * RIGHT_MASS_K + (1.0 - p) * WRONG_MASS_K for p in (reader, peer)]
    return Context("pair", np.stack(rows), CORRECT_K, np.zeros(CORRECT_K.size))


# -- 1: PRP and χ² ----------------------------------------------------------------------------------------------------


def score_chi_square(context: Context) -> tuple[float, float]:
    """Σ π²/β ||∇ log π||² over the wrong and over the correct arms: 1 + χ², each term by its score's length."""
    terms_K = context.reader_K**2 / context.policies_AK[1] * (context.scores_KK**2).sum(axis=1)
    return float(terms_K[~context.correct_K].sum()), float(terms_K[context.correct_K].sum())


@dataclass(frozen=True, slots=True)
class PooledAuthor:
    """What one author costs PRP. `predicted` is the affine law's variance, its coefficients from other authors."""

    chi_square: float
    wrong: float
    correct: float
    variance: float
    clipped_variance: float
    predicted: float


def pooled_authors(count: int, size: int, options: Options, *, seed: int = 0) -> list[PooledAuthor]:
    """Authors with one success probability who distribute it differently over the arms.

    Then the law of all group statistics is the same for all, and so is E u: what is left is that Var u is affine in the
    two parts of the score-weighted 1 + χ². Three authors fix the three coefficients, the others are predicted.
    """
    draws = np.random.default_rng(seed)
    reader_K = 0.3 * np.array([0.7, 0.3, 0.0, 0.0, 0.0]) + 0.7 * np.array([0.0, 0.0, 0.5, 0.3, 0.2])
    found = []
    for _ in range(count):
        right, wrong = draws.dirichlet(np.full(2, 1.5)), draws.dirichlet(np.full(3, 1.5))
        author_K = np.concatenate([0.5 * right, 0.5 * wrong]) * 0.98 + 0.02 * np.array(
            [0.25, 0.25, 1 / 6, 1 / 6, 1 / 6]
        )
        found.append(Context("author", np.stack([reader_K, author_K]), CORRECT_K, np.zeros(CORRECT_K.size)))
    parts = np.array([(1.0, *score_chi_square(c)) for c in found])
    variances = np.array([prp_unclipped(c, size, options).variance for c in found])
    law = np.linalg.solve(parts[:3], variances[:3])
    return [
        PooledAuthor(
            chi_square(c.reader_K, c.policies_AK[1]),
            float(part[1]),
            float(part[2]),
            float(variance),
            prp(c, size, options).variance,
            float(part @ law),
        )
        for c, part, variance in zip(found, parts, variances, strict=True)
    ]


# -- 2: XGRPO and support ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Baseline:
    """One reader beside one peer: E u = `gain` ∇ log p, up to `off_axis`; and the standard deviation of u."""

    reader: float
    peer: float
    gain: float
    off_axis: float
    deviation: float
    grpo_gain: float
    grpo_deviation: float


def baselines(readers: Sequence[float], peers: Sequence[float], size: int, options: Options) -> list[Baseline]:
    rows = []
    for reader in readers:
        for peer in peers:
            context = pair(reader, peer)
            shared, plain = xgrpo(context, size, options), independent(context, size, options)
            axis_K = context.growth_K / float(context.growth_K @ context.growth_K)
            gain = float(shared.mean_K @ axis_K)
            off = float(np.linalg.norm(shared.mean_K - gain * context.growth_K))
            deviations = float(np.sqrt(shared.variance)), float(np.sqrt(plain.variance))
            rows.append(Baseline(reader, peer, gain, off, deviations[0], float(plain.mean_K @ axis_K), deviations[1]))
    return rows


# -- 3: SGT and the rescue set ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rescue:
    """What SGT adds to GRPO's expectation: its length, that of λ P(rescue) E ∇ log π(Y), and that of GRPO's own."""

    reader: float
    peer: float
    chance: float
    added: float
    predicted: float
    difference: float
    grpo: float


def rescues(readers: Sequence[float], peers: Sequence[float], size: int, options: Options) -> list[Rescue]:
    rows = []
    for reader in readers:
        for peer in peers:
            context = pair(reader, peer)
            chance = (1.0 - reader) ** size * (1.0 - (1.0 - peer) ** size)
            success_K = context.policies_AK[1] * context.correct_K / float(context.policies_AK[1] @ context.correct_K)
            predicted_K = options.rescue_weight * chance * (success_K - context.reader_K)
            plain_K = independent(context, size, options).mean_K
            added_K = sgt(context, size, options).mean_K - plain_K
            lengths = [float(np.linalg.norm(v)) for v in (added_K, predicted_K, added_K - predicted_K, plain_K)]
            rows.append(Rescue(reader, peer, chance, *lengths))
    return rows


# -- all of it, for the page ------------------------------------------------------------------------------------------


def headline(size: int, options: Options) -> dict[str, JSON]:
    """The numbers that the page states in words."""
    authors = pooled_authors(200, size, options)
    relative = [abs(a.predicted / a.variance - 1.0) for a in authors]
    correlation = np.corrcoef([a.chi_square for a in authors], [a.variance for a in authors])[0, 1]
    where = {c.name: c for c in contexts(1.0, 0.0)}
    rescue = where["rescue"]
    return {
        "prp_law_worst_relative_error": max(relative),
        "prp_variance_chi_square_correlation": float(correlation),
        "prp_clipped_chi_square_correlation": float(
            np.corrcoef([a.chi_square for a in authors], [a.clipped_variance for a in authors])[0, 1]
        ),
        "xgrpo_rescue_variance_over_grpo": xgrpo(rescue, size, options).variance
        / independent(rescue, size, options).variance,
        "sgt_added_length": {
            name: float(np.linalg.norm(sgt(c, size, options).mean_K - independent(c, size, options).mean_K))
            for name, c in where.items()
        },
    }
