"""The report of one run: how it went, where its time went, and what its policies wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from learners.report.browser import browser
from learners.report.chart import Line, line_chart
from learners.report.page import charts, folded, preformatted, section, table, write_page
from learners.report.timeline import planned_and_actual
from learners.report.who import stability_and_support, who_solves_what, who_taught_whom
from learners.run import lines
from learners.run.directory import RunDirectory
from learners.run.lines import read_lines
from learners.run.recorded import read_shares
from learners.run.results import Curve, read_run
from mutual_env.errors import StorageError
from mutual_env.metrics import ACCURACY, HELD_OUT, REWARD, describe

Policies: TypeAlias = Mapping[str, Mapping[str, Curve]]

_SMOOTH = '<label class="bar"><input type="checkbox" id="smooth" checked="checked"/> smoothed lines</label>'
_FIRST = (REWARD, ACCURACY, "solved", "share/rescued", "loss")  # what is looked for first


def write_run_report(path: Path) -> Path:
    run = read_run(path)
    directory = RunDirectory(path)
    status = f"{directory.status()}, {run.rounds} rounds in {run.seconds:.1f} s, seed {run.info['seed']}"
    shares = read_shares(path)
    sections = [
        section("Held-out accuracy", charts(_by_metric(run.evaluations, HELD_OUT, bounds=(0.0, 1.0)))),
        section("Who solves what", who_solves_what(path, shares)),
        section("Who taught whom", who_taught_whom(shares)),
        section("Stability and support", stability_and_support(run)),
        section("What they wrote", browser(path)),
        section("Training", _SMOOTH if run.metrics else "", charts(_by_metric(run.metrics)), _constants(run.metrics)),
        section("Where the time went", _phases(directory), _paces(directory)),
        section("Predicted and actual timeline", planned_and_actual(path)),
        section(
            "Configuration and versions",
            folded("configuration", preformatted(_written(directory.config))),
            table(("part", "version"), [(k, str(v)) for k, v in run.info["versions"].items()]),
        ),
    ]
    return write_page(directory.report, str(run.info["name"]), status, sections)


def _written(config: Path) -> str:
    """A configuration is shown even where what stands in it now is no text."""
    try:
        return config.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StorageError(f"{config} cannot be read: {error.strerror}") from error


def _by_metric(curves: Policies, prefix: str = "", bounds: tuple[float, float] | None = None) -> Iterator[str]:
    """One chart a metric, one line a policy; what never changes is no chart. `prefix` goes before the names."""
    for metric, of in sorted(_metrics(curves).items(), key=lambda item: _rank(item[0])):
        if bounds is not None or not _constant(of):
            says = describe(f"{prefix}{metric}")
            yield line_chart(metric, [Line(policy, points) for policy, points in of.items()], bounds=bounds, says=says)


def _rank(metric: str) -> tuple[int, int, str]:
    return _FIRST.index(metric) if metric in _FIRST else len(_FIRST), metric.count("/"), metric


def _constants(curves: Policies) -> str:
    """The metrics that stayed where they were, in a table of their own."""
    constant = {metric: of for metric, of in sorted(_metrics(curves).items()) if _constant(of)}
    rows = [(metric, f"{next(iter(of.values()))[0][1]:g}", describe(metric)) for metric, of in constant.items()]
    return folded(f"{len(rows)} metrics that never changed", table(("metric", "value", "says"), rows)) if rows else ""


def _metrics(curves: Policies) -> dict[str, dict[str, Curve]]:
    by_metric: dict[str, dict[str, Curve]] = defaultdict(dict)
    for policy, of in curves.items():
        for metric, points in of.items():
            by_metric[metric][policy] = points
    return by_metric


def _constant(of: Mapping[str, Curve]) -> bool:
    return len({value for points in of.values() for _, value in points}) == 1


def _phases(directory: RunDirectory) -> str:
    totals: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in read_lines(directory.timings, lines.timings):
        if line["type"] == "span":
            totals[line["policy"], line["phase"]].append(line["ended"] - line["began"])
    if not totals:
        return ""
    rows = [
        (policy, phase, f"{sum(seconds):.2f}", str(len(seconds)), f"{1000 * sum(seconds) / len(seconds):.1f}")
        for (policy, phase), seconds in sorted(totals.items())
    ]
    return table(("policy", "phase", "seconds", "calls", "ms a call"), rows)


def _paces(directory: RunDirectory) -> str:
    """Of asynchronous rounds: how far ahead of the slowest each policy was, and how long it waited for it."""
    paces: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in read_lines(directory.timings, lines.timings):
        if line["type"] == "pace":
            paces[line["policy"]].append((line["lead"], line["waited"]))
    rows = []
    for policy, found in sorted(paces.items()):
        leads, waits = zip(*found, strict=True)
        rows.append((policy, f"{sum(leads) / len(leads):.2f}", f"{max(leads):g}", f"{sum(waits):.2f}"))
    return table(("policy", "rounds ahead, mean", "most", "seconds waited for the slowest"), rows) if rows else ""
