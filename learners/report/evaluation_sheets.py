"""What `eval` and `compare` found, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from learners.evaluation.agreement import Agreement
from learners.evaluation.comparison import Difference
from learners.evaluation.measures import Measure
from learners.evaluation.scores import Scores
from learners.report.sheets import Sheet


def measured(title: str, measures: Sequence[Measure]) -> Sheet:
    parts = any(item.part for item in measures)
    columns = ("policy", *(("part",) if parts else ()), "measure", "value", "over tasks", "over samples", "tasks")
    rows = tuple(
        (
            item.policy,
            *((item.part or "all",) if parts else ()),
            item.name,
            item.value,
            item.bootstrap,
            item.credible,
            item.tasks,
        )
        for item in measures
    )
    left_out = {item.policy: item.left_out for item in measures if item.left_out and not item.part}
    notes = [
        "95 % intervals. Over tasks: bootstrap, had other tasks been drawn. Over samples: credible, had these tasks "
        "been sampled again."
    ]
    notes += [
        f"{policy}: {count} tasks left out, of which a sample got no verdict" for policy, count in left_out.items()
    ]
    return Sheet(title, columns, rows, tuple(notes))


def agreed(agreements: Sequence[Agreement], title: str = "Pairs of policies") -> Sheet:
    rows = tuple(
        (
            f"{a.first}, {a.second}",
            a.kappa,
            a.complementarity,
            a.both,
            a.only_first,
            a.only_second,
            a.neither,
            a.wrong_agreement,
        )
        for a in agreements
    )
    columns = ("pair", "κ", "complementarity", "both", "only first", "only second", "neither", "same wrong answer")
    return Sheet(title, columns, rows, ("Shares of sample pairs. Complementarity: exactly one of the two is right.",))


def differences(found: Sequence[Difference], scores: Scores, baseline: str) -> Sheet:
    rows = tuple(
        (
            item.arm,
            item.policy,
            item.measure,
            item.baseline,
            item.value,
            item.difference,
            (item.low, item.high),
            item.effect,
            item.p,
            item.p_holm,
            item.pairs,
        )
        for item in found
    )
    columns = ("arm", "policy", "measure", baseline, "value", "difference", "95 %", "effect", "p", "p (Holm)", "pairs")
    when = f" after {scores.rounds} rounds" if scores.rounds is not None else ""
    notes = [
        f"Against {baseline}{when}, paired by {scores.unit}. Effect: Hedges' g of the differences. Holm: over the arms "
        "and policies of a measure."
    ]
    unpaired = [arm for arm in scores.arms if arm not in (baseline, *(item.arm for item in found))]
    notes += [f"Left out: {scores.held(arm)}, none of them in common with {baseline}." for arm in unpaired]
    if scores.unit == "seed" and found and max(item.pairs for item in found) < 5:
        notes.append("Fewer than five seeds: an interval this wide and a p this large say little; add seeds.")
    return Sheet("Difference to the baseline", columns, rows, tuple(notes))
