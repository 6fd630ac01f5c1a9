"""Advantages of groups. One set of functions, so that equal groups get equal numbers to the last bit in every
strategy.

The scale is the population's standard deviation (divided by n, not n - 1): it is what the exchanged moments (n,
sum r, sum r^2) determine. Sums are exact (`math.fsum`), so that no number depends on the order of agents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EPSILON = 1e-6
"""Added to the scale, so that it is never 0."""


@dataclass(frozen=True, slots=True)
class Moments:
    """How many rewards, their mean and their variance."""

    count: int
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
    def of_sums(cls, count: int, reward_sum: float, square_sum: float) -> Moments:
        mean = reward_sum / count
        return cls(count, mean, max(0.0, square_sum / count - mean * mean))

    def mixed(self, other: Moments, weight: float) -> Moments:
        """Of the distribution that is this one with 1 - weight and the other one with weight."""
        mean = (1.0 - weight) * self.mean + weight * other.mean
        variance = (1.0 - weight) * (self.variance + (self.mean - mean) ** 2) + weight * (
            other.variance + (other.mean - mean) ** 2
        )
        return Moments(self.count + other.count, mean, variance)

    def advantages(self, rewards: Sequence[float], *, std: bool = True) -> list[float]:
        """(r - mean) / (std + EPSILON), or r - mean where the scale is left out.

        Where there is no spread there is no scale to measure a reward in: 0, also for one that is not the mean (a
        baseline of peers alone who all got the same), which EPSILON would turn into a million.
        """
        if not std:
            return [r - self.mean for r in rewards]
        if self.variance == 0.0:
            return [0.0] * len(rewards)
        scale = math.sqrt(self.variance) + EPSILON
        return [(r - self.mean) / scale for r in rewards]


def group_advantages(rewards: Sequence[float], *, std: bool = True) -> list[float]:
    """Each reward against its own group. A group without spread gives 0."""
    return Moments.of(rewards).advantages(rewards, std=std)
