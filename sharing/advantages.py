"""Advantages of groups. One set of functions, so that equal groups get equal numbers to the last bit in every
strategy.

The scale is the population's standard deviation (divided by n) unless the sample's (divided by n - 1) is asked for, or
none; the exchanged moments (n, sum r, sum r^2) determine both. Sums are exact (`math.fsum`), so that no number depends
on the order of agents.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mutual_env.errors import ConfigError

EPSILON = 1e-6
"""Added to the scale, so that it is never 0."""

ROUNDING = 64 * sys.float_info.epsilon
"""A variance below this share of the mean square is what rounding left of a difference of two equal numbers: each of
the two is wrong by a few units in the last place, or by one for each reward where a peer adds up one by one."""

Std: TypeAlias = bool | Literal["population", "sample"]
"""What centred rewards are divided by: True or "population", "sample" (divided by n - 1), or False: nothing."""


@dataclass(frozen=True, slots=True)
class Moments:
    """How many rewards (not a whole number where peers count by trust), their mean and their variance."""

    count: float
    mean: float
    variance: float

    @classmethod
    def of(cls, rewards: Sequence[float]) -> Moments:
        """Without spread the mean is the reward itself and the variance is 0, whatever rounding would have made of
        them.
        """
        n = len(rewards)
        if n == 0:
            return cls(0, 0.0, 0.0)
        if min(rewards) == max(rewards):
            return cls(n, rewards[0], 0.0)
        mean = math.fsum(rewards) / n
        return cls(n, mean, math.fsum((r - mean) ** 2 for r in rewards) / n)

    @classmethod
    def of_sums(cls, count: float, reward_sum: float, square_sum: float) -> Moments:
        """From exchanged sums. What cannot be told from rounding is no variance."""
        mean, mean_square = reward_sum / count, square_sum / count
        variance = mean_square - mean * mean
        return cls(count, mean, variance if variance > ROUNDING * mean_square else 0.0)

    def mixed(self, other: Moments, weight: float) -> Moments:
        """Of the distribution that is this one with 1 - weight and the other one with weight."""
        mean = (1.0 - weight) * self.mean + weight * other.mean
        variance = (1.0 - weight) * (self.variance + (self.mean - mean) ** 2) + weight * (
            other.variance + (other.mean - mean) ** 2
        )
        return Moments(self.count + other.count, mean, variance)

    def with_peers(self, peers: Sequence[tuple[float, Sequence[float]]], weight: float | None = None) -> Moments:
        """Mixed with these peers' rewards, each counted so often; `weight`: None is their share of all rewards."""
        sums = [(t * len(r), t * math.fsum(r), t * math.fsum(x * x for x in r)) for t, r in peers]
        return self.with_sums(sums, weight)

    def with_sums(self, sums: Sequence[tuple[float, float, float]], weight: float | None = None) -> Moments:
        """The same from exchanged sums: n, sum r and sum r^2 of each peer."""
        pooled = Moments.of_sums(*(math.fsum(column) for column in zip(*sums, strict=True)))
        return self.mixed(pooled, pooled.count / (self.count + pooled.count) if weight is None else weight)

    def scale(self, std: Std = True) -> float:
        """The standard deviation of one kind, EPSILON added; 1 where none is asked for."""
        if not std:
            return 1.0
        bessel = self.count / max(self.count - 1.0, 1.0) if std == "sample" else 1.0
        return math.sqrt(self.variance * bessel) + EPSILON

    def advantages(self, rewards: Sequence[float], *, std: Std = True) -> list[float]:
        """(r - mean) / (std + EPSILON), or r - mean where the scale is left out.

        Where there is no spread there is no scale to measure a reward in: 0, also for one that is not the mean (a
        baseline of peers alone who all got the same), which EPSILON would turn into a million.
        """
        if not std:
            return [r - self.mean for r in rewards]
        if self.variance == 0.0:
            return [0.0] * len(rewards)
        scale = self.scale(std)
        return [(r - self.mean) / scale for r in rewards]


def group_advantages(rewards: Sequence[float], *, std: Std = True) -> list[float]:
    """Each reward against its own group. A group without spread gives 0."""
    return Moments.of(rewards).advantages(rewards, std=std)


def checked_std(std: Std) -> Std:
    """A strategy's option `std`, or a sentence that says what it may be."""
    if std not in (True, False, "population", "sample"):
        raise ConfigError(f"std must be true (or 'population'), 'sample' or false, got {std!r}")
    return std
