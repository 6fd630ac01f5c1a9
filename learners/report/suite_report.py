"""The report of a suite: every arm against every other, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from learners.report.chart import Line, line_chart
from learners.report.page import charts, folded, preformatted, section, table, write_page
from learners.run.config import to_yaml
from learners.run.results import SuiteResults


def write_suite_report(results: SuiteResults) -> Path:
    config = results.config
    root = Path(config.output) / config.name
    size = f"{len(results.runs)} arms, {len(config.seeds)} seeds, {config.base.rounds} rounds"
    lead = f"{size}; mean ± standard deviation over seeds"
    sections = [
        section("Held-out accuracy", _accuracies(results)),
        section("Over the rounds", charts(_curves(results))),
        section("Counted, and seconds", _counts(results)),
        section("Configuration", folded("suite", preformatted(to_yaml(config)))),
    ]
    return write_page(root / "report.html", config.name, lead, sections)


def _accuracies(results: SuiteResults) -> str:
    rows = [
        (
            policy,
            measure,
            *map(str, (results.before(policy, measure), *(results.after(a, policy, measure) for a in results.runs))),
        )
        for policy in results.policies
        for measure in results.measures()
    ]
    return table(("policy", "measure", "before", *results.runs), rows)


def _curves(results: SuiteResults) -> Iterator[str]:
    for policy in results.policies:
        for measure in results.measures():
            lines = []
            for arm in results.runs:
                curve = results.mean_curve(arm, policy, measure)
                lines.append(Line(arm, [(x, s.mean) for x, s in curve], [s.deviation for _, s in curve]))
            yield line_chart(f"{policy}: {measure}", lines, bounds=(0.0, 1.0))


def _counts(results: SuiteResults) -> str:
    rows = [
        (f"{policy}: {metric}", *(f"{results.total(arm, policy, metric)}" for arm in results.runs))
        for metric in results.config.totals
        for policy in results.policies
    ]
    rows.append(("seconds a run", *(str(results.seconds(arm)) for arm in results.runs)))
    return table(("", *results.runs), rows)
