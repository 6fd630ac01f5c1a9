"""The report of one run: how it went, where its time went, and what its policies wrote."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from learners.report.chart import Line, line_chart
from learners.report.page import charts, folded, preformatted, section, table, write_page
from learners.report.timeline import planned_and_actual
from learners.run.directory import RunDirectory, read_lines
from learners.run.results import Curve, read_run
from mutual_env.metrics import HELD_OUT, describe

Policies: TypeAlias = Mapping[str, Mapping[str, Curve]]

SHOWN_ROUNDS = 6  # of the samples, spread over the run


def write_run_report(path: Path) -> Path:
    run = read_run(path)
    directory = RunDirectory(path)
    status = f"{directory.status()}, {run.rounds} rounds in {run.seconds:.1f} s, seed {run.info['seed']}"
    sections = [
        section("Held-out accuracy", charts(_by_metric(run.evaluations, HELD_OUT, bounds=(0.0, 1.0)))),
        section("Training", charts(_by_metric(run.metrics)), _constants(run.metrics)),
        section("Where the time went", _phases(directory), _paces(directory)),
        section("Predicted and actual timeline", planned_and_actual(path)),
        section("What they wrote", *_samples(directory)),
        section(
            "Configuration and versions",
            folded("configuration", preformatted(directory.config.read_text())),
            table(("part", "version"), [(k, str(v)) for k, v in run.info["versions"].items()]),
        ),
    ]
    return write_page(directory.report, str(run.info["name"]), status, sections)


def _by_metric(curves: Policies, prefix: str = "", bounds: tuple[float, float] | None = None) -> Iterator[str]:
    """One chart a metric, one line a policy; what never changes is no chart. `prefix` goes before the names."""
    for metric, of in sorted(_metrics(curves).items(), key=lambda item: (item[0].count("/"), item[0])):
        if bounds is not None or not _constant(of):
            says = describe(f"{prefix}{metric}")
            yield line_chart(metric, [Line(policy, points) for policy, points in of.items()], bounds=bounds, says=says)


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
    for line in read_lines(directory.timings):
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
    for line in read_lines(directory.timings):
        if line["type"] == "pace":
            paces[line["policy"]].append((line["lead"], line["waited"]))
    rows = []
    for policy, found in sorted(paces.items()):
        leads, waits = zip(*found, strict=True)
        rows.append((policy, f"{sum(leads) / len(leads):.2f}", f"{max(leads):g}", f"{sum(waits):.2f}"))
    return table(("policy", "rounds ahead, mean", "most", "seconds waited for the slowest"), rows) if rows else ""


def _samples(directory: RunDirectory) -> Iterator[str]:
    """A few rounds spread over the run; within one, the policies' completions of the same prompt side by side."""
    rounds: dict[int, dict[str, list[dict[str, object]]]] = defaultdict(dict)
    for line in read_lines(directory.samples):
        rounds[line["round"]][line["policy"]] = line["groups"]
    numbers = sorted(rounds)
    if len(numbers) > SHOWN_ROUNDS:
        numbers = [numbers[round(i * (len(numbers) - 1) / (SHOWN_ROUNDS - 1))] for i in range(SHOWN_ROUNDS)]
    for number in numbers:
        yield folded(f"round {number}", "".join(_side_by_side(rounds[number])))


def _side_by_side(policies: Mapping[str, list[dict[str, object]]]) -> Iterator[str]:
    by_prompt: dict[str, dict[str, dict[str, object]]] = defaultdict(dict)
    for policy, groups in policies.items():
        for group in groups:
            by_prompt[str(group["prompt"])][policy] = group
    for prompt, of in by_prompt.items():
        answer = next(iter(of.values()))["answer"]
        heads = "".join(f'<th class="text">{html.escape(policy)}</th>' for policy in of)
        cells = "".join(f'<td class="text">{_completions(group["completions"])}</td>' for group in of.values())
        yield (
            f"<p><code>{html.escape(prompt)}</code> &rarr; <code>{html.escape(str(answer))}</code></p>"
            f'<div class="scroll"><table><tr>{heads}</tr><tr>{cells}</tr></table></div>'
        )


def _completions(completions: object) -> str:
    assert isinstance(completions, list)
    rows = []
    for text, reward, status, *_ in completions:
        verdict = status if reward is None else f"{reward:g}"
        good = ' class="good"' if reward else ""
        rows.append(f"<div{good}><code>{html.escape(text)}</code> {html.escape(verdict)}</div>")
    return "".join(rows)
