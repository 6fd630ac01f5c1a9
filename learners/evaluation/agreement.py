"""Two policies on the same tasks: how far they are right together, and how far they are wrong in the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from learners.evaluation.outcomes import Answered, Judged
from learners.evaluation.votes import vote


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of pairs: the i-th sample of the one beside the i-th of the other, task by task.

    `kappa`           Cohen's, of right and wrong: 0 as if independent, 1 the same; NaN where neither varies
    `complementarity` exactly one of the two is right: what there is to learn from one another
    `wrong_agreement` both are wrong and give the same answer: what a vote of the two would be taken in by
    """

    first: str
    second: str
    both: float
    only_first: float
    only_second: float
    neither: float
    kappa: float
    wrong_agreement: float
    pairs: int

    @property
    def complementarity(self) -> float:
        return self.only_first + self.only_second


def agreements(evaluation: Mapping[str, Sequence[Answered]]) -> list[Agreement]:
    """Every pair of policies that have samples of the same tasks."""
    found = []
    for first, second in combinations(evaluation, 2):
        pairs = _paired(evaluation[first], evaluation[second])
        if pairs:
            found.append(agreement(first, second, pairs))
    return found


def agreement(first: str, second: str, pairs: Sequence[tuple[Judged, Judged]]) -> Agreement:
    n = len(pairs)
    both = sum(a.correct and b.correct for a, b in pairs) / n
    only_first = sum(a.correct and not b.correct for a, b in pairs) / n
    only_second = sum(b.correct and not a.correct for a, b in pairs) / n
    neither = sum(not a.correct and not b.correct for a, b in pairs) / n
    p, q = both + only_first, both + only_second
    expected = p * q + (1 - p) * (1 - q)
    kappa = (both + neither - expected) / (1 - expected) if expected < 1 - 1e-12 else math.nan
    same = sum(not a.correct and not b.correct and vote(a) is not None and vote(a) == vote(b) for a, b in pairs)
    return Agreement(first, second, both, only_first, only_second, neither, kappa, same / n, n)


def _paired(first: Sequence[Answered], second: Sequence[Answered]) -> list[tuple[Judged, Judged]]:
    others = {item.task: item.samples for item in second}
    return [pair for item in first for pair in zip(item.samples, others.get(item.task, ()), strict=False)]
