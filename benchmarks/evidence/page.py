"""`docs/evidence.md` and its figures, made of the hypotheses and the result files: nothing on it is typed by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.analysis import (
    ALPHA,
    BASELINE,
    Verdict,
    at_equal,
    at_equal_rollouts,
    at_equal_seconds,
    at_the_end,
    differences,
    verdicts,
)
from benchmarks.evidence.costs_section import times_alone
from benchmarks.evidence.forest import forest
from benchmarks.evidence.hypotheses import HYPOTHESES, Hypothesis
from benchmarks.evidence.markdown import wrapped
from benchmarks.evidence.plane_section import plane_figure
from benchmarks.evidence.results import RESCUED, Family, result_file, runs_of, setting_of
from benchmarks.evidence.sections import sections
from benchmarks.figures import DATA
from learners.evaluation.comparison import Difference, holm
from learners.evaluation.measures import scipy_stats

DOCS = DATA.parent.parent
SWEPT = {
    "λ = 0.03": "sgt-weight-0.03",
    "λ = 0.1": "sgt-weight-0.1",
    "λ = 1": "sgt-weight-1",
    "n = 2": "sgt-half-n",
    "n = 8": "sgt-2n",
}
"""The weight of a rescue and the size of a group, one at a time."""
POOLED = {"naive-pooling", "prp"}
PUBLISHED = "sgt-weight-0.1"
SWEPT_FROM = "λ = 0.3, n = 4"
FAMILIES = ("letters", "letters-intel", "retries", "triple", "sums", "real", "teacher", "knights")

INTRODUCTION = """# Evidence

What sharing does to small policies, with the controls that say why. `make evidence-tiny` runs all of it (hours; it goes
on where it was stopped), `mutual-env suite configs/evidence/letters.yaml --arm sgt --seed 0` a part;
`python -m benchmarks.evidence collect letters` writes the result file, and `python -m benchmarks.evidence page` writes
this page from the result files in `docs/figures/data`.
"""
PROTOCOL = """## How it is measured

- Ten seeds; of pretrained models as many as there was time for. Under one seed every arm starts from the same weights,
  sees the same prompts in the same order and is evaluated on the same held-out tasks, so arms are compared in pairs.
- The checkpoint is the last one, fixed beforehand. No hyperparameter was chosen on these seeds: learning rate, length
  and number of rounds were tried on seed 100.
- Under one seed, processors of two makers give two runs ([reproducing](reproducing.md)). Arms are compared where both
  were run on one; a hypothesis is looked up in the result file in which most seeds have both of its arms, the first
  where several have as many. The others are beside it, as what they are: the same experiment once more.
- Intervals: percentile bootstrap of the mean paired difference over seeds, 95 %. p: paired t over seeds, corrected by
  Holm over all arms and policies of a family. Effect: Hedges' g of the paired differences.
- *Equal rollouts*: the arms as they are, and GRPO with 2n and 4n rollouts after a half and a quarter of the rounds.
  *Equal compute*: each arm where it has trained on as many tokens as GRPO has in all its rounds, its own and borrowed.
  *Equal seconds*: each arm after as many rounds as GRPO's processor seconds pay for, at what a round of it costs
  (below; measured side by side, because the runs were made at different times on machines that others used). Between
  two evaluations the accuracy is taken to move in a straight line; an arm that stops short of the budget counts with
  its last value.
"""
UNSEEN = """## What cannot be seen at this size

- Two policies of some 100,000 weights, answers of a few tokens, tasks that are learnt or not learnt: effects are larger
  than on language models, and what depends on long responses (ratios of many tokens, cost of sampling) is not there.
- Seeds are of training: ten of them bound the mean of this setting, not of settings.
- Of pretrained models: long answers, many rounds, full parameters, and effects of a few points, which five seeds
  cannot tell from none.
- Which arm is best among those whose intervals overlap. `auto` is compared with SGT, not with what is listed above as
  not run.
- Knights and knaves with thoughts before the answers, as RLAD has them, GSM8K and full parameters: they want a GPU.
  None of them was run.
"""


def text(families: Mapping[str, Family]) -> str:
    found = verdicts(families)
    parts = [INTRODUCTION, _headline(families), _expected_and_found(found), PROTOCOL]
    parts += [_family(family) for family in families.values()]
    return "\n".join([*parts, *sections(), UNSEEN])


def write_page(docs: Path = DOCS) -> list[Path]:
    """What was written."""
    families = read_families()
    written = {docs / "evidence.md": text(families)}
    for family in families.values():
        rows = differences(family, at_the_end(family))
        if rows:
            title = f"{family.name}: held-out accuracy after the last round, minus that of GRPO"
            written[docs / "figures" / f"evidence-{family.name}.svg"] = forest(rows, family.policies, title)
    if (plane := plane_figure()) is not None:
        written[docs / "figures" / "evidence-plane.svg"] = plane
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return list(written)


def read_families() -> dict[str, Family]:
    return {name: Family.read(result_file(name)) for name in FAMILIES if result_file(name).is_file()}


def _headline(families: Mapping[str, Family]) -> str:
    said = headline(families).values()
    return "## In short\n\n" + "\n".join(wrapped(f"- {line}", "  ") for line in said) + "\n"


def headline(families: Mapping[str, Family]) -> dict[str, str]:
    """By verdict, the sentence that says of what."""
    asked: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts(families):
        asked.setdefault(verdict.says, {}).setdefault(verdict.hypothesis.question, []).append(verdict.policy)
    by_state = {
        state: [f"{question} ({', '.join(policies)})" for question, policies in of.items()]
        for state, of in asked.items()
    }
    words = {
        "holds": "Holds",
        "contradicted": "The opposite holds",
        "open": "Open: no difference that the seeds can tell from none",
        "unfinished": "Unfinished, and so without a verdict",
        "not run": "Not run (yet)",
    }
    return {key: f"{word}: {'; '.join(by_state[key])}." for key, word in words.items() if key in by_state}


def _expected_and_found(found: list[Verdict]) -> str:
    head = "## What was expected, and what was found\n\n" + wrapped(
        "Each expectation was written before any run of its family; the history of this file shows it. Differences are "
        "of the overall held-out accuracy after the last round; p is corrected by Holm over this table, and "
        f"{ALPHA} is the limit."
    )
    rows = [_verdict_row(verdict) for verdict in found]
    table = "| | for | difference [95 %] | g | p (Holm) | seeds | |\n|---|---|---|---:|---:|---:|---|\n"
    return "\n".join([head, "", *map(_expected, HYPOTHESES), "", table + "\n".join(rows), ""])


def _expected(hypothesis: Hypothesis) -> str:
    who = " and ".join(hypothesis.policies) or "each policy"
    said = f"- **{hypothesis.name}** ({hypothesis.family}, {who}). {hypothesis.question}: `{hypothesis.arm}` "
    return wrapped(f"{said}{hypothesis.direction} `{hypothesis.baseline}`. {hypothesis.why}", "  ")


def _verdict_row(verdict: Verdict) -> str:
    row = verdict.found
    apart = verdict.where not in ("", verdict.hypothesis.family)
    who = f"{verdict.policy} ({verdict.where})" if apart else verdict.policy
    if row is None:
        return f"| {verdict.hypothesis.name} | {who} | | | | | {verdict.says} |"
    cells = (_interval(row), _number(row.effect), _p(row.p_holm), str(row.pairs), f"**{verdict.says}**")
    return f"| {verdict.hypothesis.name} | {who} | {' | '.join(cells)} |"


def _family(family: Family) -> str:
    about = family.about
    planned = [arm for arm in about["arms_planned"] if arm not in family.arms]
    setting = setting_of(family.suite)
    run = (
        f"{setting[0].upper()}{setting[1:]}: "
        f"`{about['env']}`, {about['rounds']} rounds of {about['prompts']} prompts, n = {about['group']}. Run on "
        f"{', '.join(about['processor'])}, instructions {', '.join(about['instructions'])}, threads "
        f"{', '.join(about['threads'])}; "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + f"; commit {', '.join(about['commits'])}; `{runs_of(family.suite)}`."
    )
    lines = [f"## {_title(family)}\n", wrapped(run + _again(about)), ""]
    unfinished = [a for a in family.arms if len(family.seeds(a)) < len(about["seeds"])]
    if unfinished:
        counted = ", ".join(f"`{arm}` {len(family.seeds(arm))}" for arm in unfinished)
        lines += [wrapped(f"Unfinished, with so many of {len(about['seeds'])} seeds: {counted}."), ""]
    if planned:
        lines += [wrapped(f"Not run: {', '.join(f'`{arm}`' for arm in planned)}."), ""]
    if differences(family, at_the_end(family)):
        lines += [f"![Differences to GRPO](figures/evidence-{family.name}.svg)\n"]
    lines += [_arms_table(family), *_alike(family), *_rescues(family), _budgets_table(family), *_sweep(family)]
    return "\n".join(lines)


def _alike(family: Family) -> list[str]:
    """Arms that were one arm in the end."""
    pairs = [
        (one, other)
        for one, other in combinations(family.arms, 2)
        if all(family.arms[one][p]["accuracy"] == family.arms[other][p]["accuracy"] for p in family.policies)
    ]
    if not pairs:
        return []
    named = ", ".join(f"`{one}` and `{other}`" for one, other in pairs)
    said = f"The same accuracies at every evaluation of every seed: {named}."
    if all({*pair} == POOLED for pair in pairs):
        said += (
            " Where policies begin alike and learn from the same pool they stay the same policy: every ratio is 1, and "
            "nothing is left to correct."
        )
    return [wrapped(said), ""]


def _rescues(family: Family) -> list[str]:
    """How much there was to rescue."""
    found = {policy: of[RESCUED] for policy, of in family.arms.get("sgt", {}).items() if RESCUED in of}
    if not found:
        return []
    asked = family.about["rounds"] * family.about["prompts"]
    told = ", ".join(f"{policy} {_last_mean(of):.0f}" for policy, of in found.items())
    return [wrapped(f"Prompts rescued under `sgt`, of {asked} in a run, mean over seeds: {told}."), ""]


def _title(family: Family) -> str:
    if family.name == family.suite:
        return family.name.capitalize()
    return f"{family.suite.capitalize()}, on {', '.join(family.about['processor'])}"


def _again(about: Mapping[str, Any]) -> str:
    """What joins the runs of several commits."""
    runs = ", ".join(f"`{run}`" for run in about.get("again", ()))
    return f" Runs made again later, with the same numbers to the last digit kept: {runs}." if runs else ""


def _arms_table(family: Family) -> str:
    rows = {(row.arm, row.policy): row for row in differences(family, at_the_end(family))}
    parts = family.parts
    head = ["arm", "policy", "seeds", "accuracy", *parts, "minus GRPO [95 %]", "g", "p (Holm)"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (2 + len(parts)) + "---|---:|---:|"]
    for arm in family.arms:
        for policy in family.policies:
            of = family.arms[arm][policy]
            means = [_mean(of[f"accuracy{part}"]) for part in ("", *(f"/{part}" for part in parts))]
            row = rows.get((arm, policy))
            told = [_interval(row), _number(row.effect), _p(row.p_holm)] if row else ["", "", ""]
            lines.append(f"| {' | '.join([f'`{arm}`', policy, str(len(family.seeds(arm))), *means, *told])} |")
    return "\n".join(lines) + "\n"


def _mean(by_seed: Mapping[str, Sequence[float]]) -> str:
    return f"{_last_mean(by_seed):.2f}"


def _last_mean(by_seed: Mapping[str, Sequence[float]]) -> float:
    return float(np.mean([values[-1] for values in by_seed.values()]))


def _budgets_table(family: Family) -> str:
    if not differences(family, at_equal_rollouts(family)):
        return ""
    times = times_alone(family.name, family.suite)
    timed = replace(family, arms={arm: of for arm, of in family.arms.items() if arm in times})
    columns = {
        "equal rollouts": differences(family, at_equal_rollouts(family)),
        "equal compute": differences(family, at_equal(family, "tokens")),
        "equal seconds": differences(timed, at_equal_seconds(timed, times)) if BASELINE in timed.arms else [],
    }
    cells = {name: {(row.arm, row.policy): _interval(row) for row in rows} for name, rows in columns.items()}
    lines = [
        wrapped(
            "Minus GRPO at equal budgets, and what a round costs both policies together, in processor seconds over "
            "those of GRPO:"
        ),
        "",
        f"| arm | policy | {' | '.join(columns)} | cost |",
        "|---|---|---|---|---|---:|",
    ]
    for arm, policy in cells["equal rollouts"]:
        row = [cells[name].get((arm, policy), "–") for name in columns]
        lines.append(f"| `{arm}` | {policy} | {' | '.join(row)} | {_number(times.get(arm, math.nan))} |")
    return "\n".join(lines) + "\n"


def _sweep(family: Family) -> list[str]:
    """SGT against SGT, where its weight and its group size were varied."""
    arms = {said: arm for said, arm in SWEPT.items() if arm in family.arms}
    swept = replace(family, arms={arm: family.arms[arm] for arm in ("sgt", *arms.values()) if arm in family.arms})
    rows = {(row.arm, row.policy): row for row in differences(swept, at_the_end(swept), "sgt")}
    if not rows:
        return []
    head = ["SGT with", *(f"{policy}, minus {SWEPT_FROM} [95 %] (p)" for policy in family.policies)]
    lines = [
        wrapped(
            "The weight of a rescue (λ) and the group size (n), one at a time; what is not named is as in "
            f"{SWEPT_FROM}. p is corrected by Holm over this table:"
        ),
        "",
        f"| {' | '.join(head)} |",
        "|---|" + "---|" * len(family.policies),
    ]
    for said, arm in arms.items():
        told = [f"{_interval(row)} ({_p(row.p_holm)})" for p in family.policies if (row := rows.get((arm, p)))]
        lines.append(f"| {said} | {' | '.join(told or ['–'] * len(family.policies))} |")
    return ["\n".join(lines) + "\n"]


def _interval(row: Difference) -> str:
    return f"{row.difference:+.2f} [{_signed(row.low)}, {_signed(row.high)}]"


def _signed(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "–"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}"


def in_readme(families: Mapping[str, Family]) -> list[str]:
    """What the first screen says of the letters family: differences of SGT, its controls, and skill by skill."""
    family = families["letters"]
    at_end = {(row.arm, row.policy): row for row in differences(family, at_the_end(family))}
    said, opened = headline(families), _open(verdicts(families))
    seeds = min(len(family.seeds(arm)) for arm in ("sgt", "grpo"))
    overall = ", ".join(f"{p} {_interval(at_end['sgt', p])}" for p in family.policies)
    placebo = ", ".join(f"{p} {_interval(at_end['placebo-prompt', p])}" for p in family.policies)
    pooled = ", ".join(f"{p} {_interval(at_end['naive-pooling', p])}" for p in family.policies)
    return [
        f"Over {seeds} paired seeds, SGT minus GRPO in overall accuracy: {overall}",
        *_once_more(families),
        f"with a placebo, a peer's success on another prompt: {placebo}",
        f"with pooling and no correction: {pooled}",
        *_of_pretrained(families),
        *(said[state] for state in ("holds", "contradicted") if state in said),
        *([f"open, no difference that the seeds can tell from none: {opened}"] if opened else []),
    ]


def _open(found: Sequence[Verdict]) -> str:
    """How many of the comparisons say nothing, and which."""
    asked: dict[str, list[Verdict]] = {}
    for verdict in found:
        asked.setdefault(verdict.hypothesis.name, []).append(verdict)
    count, named = 0, []
    for name, of in asked.items():
        if policies := [verdict.policy for verdict in of if verdict.says == "open"]:
            count += len(policies)
            named.append(name if len(policies) == len(of) else f"{name} {', '.join(policies)}")
    return f"{count} of {len(found)} comparisons ({', '.join(named)})" if named else ""


def _once_more(families: Mapping[str, Family]) -> list[str]:
    """The same difference in runs on another processor, whatever it came to there."""
    said = []
    for family in families.values():
        rows = {(row.arm, row.policy): row for row in differences(family, at_the_end(family))}
        if family.suite == "letters" and family.name != "letters" and ("sgt", family.policies[0]) in rows:
            found = ", ".join(f"{p} {_interval(rows['sgt', p])}" for p in family.policies)
            p = ", ".join(_p(rows["sgt", p].p_holm) for p in family.policies)
            said.append(f"the same seeds on {', '.join(family.about['processor'])}: {found}, by themselves p = {p}")
            if (PUBLISHED, family.policies[0]) in rows:
                weak = ", ".join(f"{p} {_interval(rows[PUBLISHED, p])}" for p in family.policies)
                said.append(f"with the paper's λ of 0.1 instead of 0.3, there: {weak}")
    return said


def _of_pretrained(families: Mapping[str, Family]) -> list[str]:
    """SGT minus GRPO where policies are language models, and over how many seeds."""
    if (family := families.get("real")) is None or not {"sgt", BASELINE} <= family.arms.keys():
        return []
    rows = [row for row in differences(family, at_the_end(family)) if row.arm == "sgt"]
    if not rows:
        return []
    found = ", ".join(f"{row.policy} {_interval(row)}" for row in rows)
    seeds, asked = min(row.pairs for row in rows), len(family.about["seeds"])
    verdict = "" if seeds == asked else f" of {asked}, so without a verdict"
    return [f"pretrained models, {family.about['rounds']} rounds with LoRA ({seeds} seeds{verdict}): {found}"]


def quickstart_says(results: Mapping[str, Any]) -> list[str]:
    """SGT minus alone, skill by skill, over the quickstart's own seeds: paired t, Holm over policies and skills."""
    rows = [row for row in results["rows"] if row["measure"] != "accuracy"]
    tested = []
    for row in rows:
        d = np.array(row["after"]["sgt"]) - np.array(row["after"]["alone"])
        tested.append((row, d, float(scipy_stats().ttest_1samp(d, 0.0).pvalue)))
    corrected = holm([p for _, _, p in tested])
    return [
        f"{row['policy']}, {row['measure'].removeprefix('accuracy/')}: {d.mean():+.2f} (p = {p:.3f})"
        for (row, d, _), p in zip(tested, corrected, strict=True)
    ]
