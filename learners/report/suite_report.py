"""The report of a suite: every arm against every other, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from learners.report.chart import Line, line_chart
from learners.report.page import charts, folded, preformatted, section, table, write_page
from learners.run.config import to_yaml
from learners.run.results import SuiteResults
from mutual_env.metrics import ACCURACY


def write_suite_report(results: SuiteResults) -> Path:
    config = results.config
    root = Path(config.output) / config.name
    size = f"{len(results.runs)} arms, {results.seeds}, {config.base.rounds} rounds"
    lead = f"{size}; mean ± standard deviation over seeds"
    sections = [
        section("Held-out accuracy", _accuracies(results)),
        section("Over the rounds", charts(_curves(results))),
        section("Counted, and seconds", _counts(results)),
        section("Runs", _runs(results)),
        section("Configuration", folded("suite", preformatted(to_yaml(config)))),
    ]
    return write_page(root / "report.html", config.name, lead, sections)


def _accuracies(results: SuiteResults) -> str:
    """A row an arm: there may be many of them."""
    measures = results.measures()
    rows = []
    for policy in results.policies:
        rows.append((policy, "before", *(str(results.before(policy, measure)) for measure in measures)))
        rows += [("", arm, *(str(results.after(arm, policy, m)) for m in measures)) for arm in results.runs]
    return table(("policy", "arm", *measures), rows)


def _runs(results: SuiteResults) -> str:
    """Each run with its last accuracies, and the way to its own report."""
    root = Path(results.config.output) / results.config.name
    rows, links = [], []
    for arm, runs in results.runs.items():
        for run in runs:
            curves = (run.evaluations.get(policy, {}).get(ACCURACY, ()) for policy in results.policies)
            last = (f"{curve[-1][1]:.3f}" if curve else "–" for curve in curves)
            rows.append((f"{arm}, seed {run.info['seed']}", str(run.info["status"]), *last, f"{run.seconds:.1f}"))
            links.append((run.path / "report.html").relative_to(root).as_posix())
    return table(("run", "status", *results.policies, "seconds"), rows, links)


def _curves(results: SuiteResults) -> Iterator[str]:
    for policy in results.policies:
        for measure in results.measures():
            lines = []
            for arm in results.runs:
                curve = results.mean_curve(arm, policy, measure)
                lines.append(Line(arm, [(x, s.mean) for x, s in curve], [s.deviation for _, s in curve]))
            yield line_chart(f"{policy}: {measure}", lines, bounds=(0.0, 1.0))


def _counts(results: SuiteResults) -> str:
    totals = results.config.totals
    rows = [
        (policy, arm, *(str(results.total(arm, policy, metric)) for metric in totals))
        for policy in results.policies
        for arm in results.runs
    ]
    counted = table(("policy", "arm", *totals), rows) if totals else ""
    return counted + table(("arm", "seconds a run"), [(arm, str(results.seconds(arm))) for arm in results.runs])
