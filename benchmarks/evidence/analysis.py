"""From a family's results to differences with intervals, at equal rollouts, equal compute and equal seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.evidence.hypotheses import HYPOTHESES, Hypothesis
from benchmarks.evidence.results import Family
from learners.evaluation.comparison import Difference, compare, holm
from learners.evaluation.measures import over_tasks
from learners.evaluation.scores import Scores

BASELINE = "grpo"
ALPHA = 0.05
ROLLOUTS = {"grpo-2n": 2, "grpo-4n": 4, "sgt-2n": 2, "sgt-half-n": 0.5}
"""How many times the rollouts of the others an arm samples in a round."""
LEAST_SEEDS = 3

Value = Callable[[str, str, str], float]
"""Arm, policy, seed -> accuracy."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a hypothesis for one policy. `found`: None where an arm was not run on enough seeds; `where`: the
    result file that was looked into."""

    hypothesis: Hypothesis
    policy: str
    found: Difference | None
    says: str
    where: str = ""


def at_the_end(family: Family, measure: str = "accuracy") -> Value:
    return lambda arm, policy, seed: family.arms[arm][policy][measure][seed][-1]


def at_equal_rollouts(family: Family) -> Value:
    def value(arm: str, policy: str, seed: str) -> float:
        of = family.arms[arm][policy]["accuracy"][seed]
        return _between(family.at, of, family.at[-1] / ROLLOUTS.get(arm, 1))

    return value


def at_equal(family: Family, spent: str) -> Value:
    """Where an arm has spent what the baseline has in all its rounds, under the same seed; `spent`: tokens."""

    def value(arm: str, policy: str, seed: str) -> float:
        budget = family.arms[BASELINE][policy][spent][seed][-1]
        of = family.arms[arm][policy]
        return _between(of[spent][seed], of["accuracy"][seed], budget)

    return value


def at_equal_seconds(family: Family, times: Mapping[str, float]) -> Value:
    """Each arm after as many rounds as the baseline's seconds pay for. `times`: what a round of it costs over one of
    the baseline's, measured side by side: clocks of runs made on different days say nothing of each other."""

    def value(arm: str, policy: str, seed: str) -> float:
        return _between(family.at, family.arms[arm][policy]["accuracy"][seed], family.at[-1] / times[arm])

    return value


def _between(spent: Sequence[float], values: Sequence[float], budget: float) -> float:
    """In a straight line between two evaluations; beyond the last, the last."""
    return float(np.interp(budget, spent, values))


def differences(family: Family, value: Value, baseline: str = BASELINE) -> list[Difference]:
    """Every arm against the baseline, on the seeds that both have; Holm over arms and policies. None, where the
    baseline was not run on enough of them."""
    if baseline not in family.arms or not _shared(family, baseline, baseline):
        return []
    scored = _scores(family, value, [arm for arm in family.arms if _shared(family, arm, baseline)], baseline)
    rows = compare(scored, baseline, ["accuracy"], "t")
    return [_with_bootstrap(row, scored, baseline) for row in rows]


def _shared(family: Family, arm: str, baseline: str) -> bool:
    return len({*family.seeds(arm)} & {*family.seeds(baseline)}) >= LEAST_SEEDS


def _scores(family: Family, value: Value, arms: Sequence[str], baseline: str) -> Scores:
    with_baseline = set(family.seeds(baseline))
    values = {
        (arm, policy, "accuracy"): {s: value(arm, policy, s) for s in family.seeds(arm) if s in with_baseline}
        for arm in arms
        for policy in family.policies
    }
    return Scores("seed", tuple(arms), values)


def _with_bootstrap(row: Difference, scored: Scores, baseline: str) -> Difference:
    before, after = (scored.values[arm, row.policy, "accuracy"] for arm in (baseline, row.arm))
    low, high = over_tasks(np.array([after[seed] - before[seed] for seed in before if seed in after]))
    return replace(row, low=low, high=high)


def verdicts(families: Mapping[str, Family]) -> list[Verdict]:
    """Every hypothesis for each policy it is about; Holm over all that could be tested."""
    asked = [
        (hypothesis, policy, family)
        for hypothesis, family in ((h, _where(families, h)) for h in HYPOTHESES)
        for policy in hypothesis.policies or (family.policies if family is not None else ("each policy",))
    ]
    rows = [_row(family, h, policy) for h, policy, family in asked]
    corrected = iter(holm([row.p for row in rows if row is not None]))
    found = [row if row is None else replace(row, p_holm=next(corrected)) for row in rows]
    return [
        Verdict(h, policy, row, _says(h, row, family), "" if family is None else family.name)
        for (h, policy, family), row in zip(asked, found, strict=True)
    ]


def _where(families: Mapping[str, Family], hypothesis: Hypothesis) -> Family | None:
    """The family that it is about. Of one that was run on processors of several makers, the result file in which most
    seeds have both arms; the first of them, where there are several."""
    there = [family for family in families.values() if family.suite == hypothesis.family]
    return max(there, key=lambda family: _pairs(family, hypothesis), default=None)


def _pairs(family: Family, hypothesis: Hypothesis) -> int:
    if not {hypothesis.arm, hypothesis.baseline} <= family.arms.keys():
        return 0
    return len({*family.seeds(hypothesis.arm)} & {*family.seeds(hypothesis.baseline)})


def _row(family: Family | None, hypothesis: Hypothesis, policy: str) -> Difference | None:
    if family is None or not {hypothesis.arm, hypothesis.baseline} <= family.arms.keys():
        return None
    if not _shared(family, hypothesis.arm, hypothesis.baseline):
        return None
    scored = _scores(family, at_the_end(family), [hypothesis.baseline, hypothesis.arm], hypothesis.baseline)
    rows = compare(scored, hypothesis.baseline, ["accuracy"], "t")
    return next(_with_bootstrap(row, scored, hypothesis.baseline) for row in rows if row.policy == policy)


def _says(hypothesis: Hypothesis, row: Difference | None, family: Family | None) -> str:
    """Who looks before all seeds are in may stop where it suits: an unfinished comparison has no verdict."""
    if row is None or family is None:
        return "unfinished" if family is not None and _pairs(family, hypothesis) else "not run"
    if row.pairs < len(family.about["seeds"]):
        return "unfinished"
    if math.isnan(row.p_holm) or row.p_holm >= ALPHA:
        return "open"
    return "holds" if (row.difference > 0) == (hypothesis.direction == "above") else "contradicted"
