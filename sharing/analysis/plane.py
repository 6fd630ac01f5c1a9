"""The sweep over disagreement, residual and response length, and the two coordinates of the stability-support plane.

    stability  alignment with ∇J, the true policy gradient
    support    alignment with growth on the starved contexts, those where GRPO's own expected update is shorter than
               0.02: ∇ log p there, zero on the others

The alignment of an update u with a direction v is <E u, v> / (||v|| sqrt(E ||u||²)). It is the cosine of E u and v
(what bias takes) times sqrt(||E u||² / E ||u||²) (what variance takes), and no scale of the update is in it. ∇J all but
vanishes on starved contexts, so the two directions are orthogonal and a strategy lies inside the unit circle: what it
lacks is spent on noise and on other directions. Updates are of the whole bandit: the concatenation over contexts, one
prompt each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mutual_env.types import Floats
from sharing.analysis.bandit import Context, contexts
from sharing.analysis.closed_form import STRATEGIES, Options, independent
from sharing.analysis.outcomes import Moments

STARVED = 0.02
"""A context is starved where GRPO's expected update is shorter than this."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place of the sweep."""

    disagreement: float
    residual: float
    tokens: int
    divergent: int = 0
    chunk: int = 1

    def contexts(self) -> tuple[Context, ...]:
        return contexts(
            self.disagreement, self.residual, tokens=self.tokens, divergent=self.divergent, chunk=self.chunk
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """One strategy at one place.

    `cosine`, `bias` and `variance` are of the whole update: cosine of E u to ∇J, ||E u - ∇J||, trace of the covariance.
    By context: `growth` is <E u, ∇ log p>, how fast log p rises per unit of learning rate; `length` is ||E u||.
    """

    stability: float
    support: float
    cosine: float
    bias: float
    variance: float
    growth: dict[str, float]
    length: dict[str, float]


def sweep(steps: int = 5, lengths: Sequence[int] = (1, 64)) -> tuple[Point, ...]:
    """Disagreement from 0 to 1 without residual, then residual from 0 to 1 at full disagreement; for each length."""
    points = [Point(i / steps, 0.0, tokens) for tokens in lengths for i in range(steps + 1)]
    return (*points, *(Point(1.0, i / steps, tokens) for tokens in lengths for i in range(1, steps + 1)))


def divergent_sweep(counts: Sequence[int] = (1, 2, 4, 8, 16, 32, 64), tokens: int = 64) -> tuple[Point, ...]:
    """How many tokens of a response carry the disagreement, at full disagreement."""
    return tuple(Point(1.0, 0.0, tokens, count) for count in counts)


def chunks_sweep(sizes: Sequence[int] = (1, 4, 16, 64), tokens: int = 64) -> tuple[Point, ...]:
    """How many of them are compared as one, where all carry it."""
    return tuple(Point(1.0, 0.0, tokens, tokens, size) for size in sizes)


def lengths_sweep(lengths: Sequence[int] = (4, 8, 16, 32, 64, 128, 256), divergent: int = 4) -> tuple[Point, ...]:
    """Response length alone: so many tokens carry the disagreement, the others follow from them."""
    return tuple(Point(1.0, 0.0, tokens, divergent) for tokens in lengths)


def starved(where: Sequence[Context], size: int, options: Options) -> tuple[str, ...]:
    """The contexts on which GRPO learns nothing to speak of."""
    lengths = {c.name: float(np.linalg.norm(independent(c, size, options).mean_K)) for c in where}
    return tuple(name for name, length in lengths.items() if length < STARVED)


def alignment(moments: Sequence[Moments], direction: Floats) -> float:
    """<E u, v> / (||v|| sqrt(E ||u||²)); 0 where nothing ever moves."""
    mean = np.concatenate([m.mean_K for m in moments])
    length = math.sqrt(sum(m.second_moment for m in moments))
    return float(mean @ direction) / (float(np.linalg.norm(direction)) * length) if length else 0.0


def place(where: Sequence[Context], moments: Sequence[Moments], starving: Collection[str]) -> Placed:
    """The coordinates of one strategy, from its moments on each context."""
    gradient = np.concatenate([c.gradient_K for c in where])
    growth = np.concatenate([c.growth_K * (c.name in starving) for c in where])
    mean = np.concatenate([m.mean_K for m in moments])
    each = {c.name: (c, m) for c, m in zip(where, moments, strict=True)}
    return Placed(
        stability=alignment(moments, gradient),
        support=alignment(moments, growth),
        cosine=float(mean @ gradient) / (float(np.linalg.norm(mean) * np.linalg.norm(gradient)) or 1.0),
        bias=float(np.linalg.norm(mean - gradient)),
        variance=sum(m.variance for m in moments),
        growth={name: float(c.growth_K @ m.mean_K) for name, (c, m) in each.items()},
        length={name: float(np.linalg.norm(m.mean_K)) for name, (_, m) in each.items()},
    )


def analyse(points: Sequence[Point], size: int, options: Options) -> dict[Point, dict[str, Placed]]:
    """Every strategy at every point, exactly."""
    placed: dict[Point, dict[str, Placed]] = {}
    for point in points:
        where = point.contexts()
        starving = starved(where, size, options)
        placed[point] = {
            name: place(where, [exact(context, size, options) for context in where], starving)
            for name, exact in STRATEGIES.items()
        }
    return placed
