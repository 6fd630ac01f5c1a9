"""Predicted and actual timeline of a run: what leases on its machines would have done, and what was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from learners.report.page import preformatted
from learners.report.plan_report import as_picture, compare
from learners.resources import Rounds, Span, UsageRecord
from learners.resources.plan import make_plan
from learners.run.config import load_run
from learners.run.directory import RunDirectory
from learners.run.places import read_places
from learners.run.results import read_spans

SHOWN_ROUNDS = 2


def planned_and_actual(path: Path) -> str:
    """Two rounds from the middle of the run under the same two as planned with the measured seconds of each phase."""
    directory = RunDirectory(path)
    spans = read_spans(path)
    if not spans:
        return ""
    places = read_places(load_run(directory.config)).as_measured(spans)
    record = UsageRecord()
    for span in spans:
        record.add(span)
    plan = make_plan(places.demands, places.supply, Rounds(SHOWN_ROUNDS, places.staleness), meeting="phase")
    if plan.simulation is None:
        return ""
    text = f"executor {places.executor}\n{compare(plan.simulation, record)}"
    return as_picture(plan, _middle(spans, len(plan.demands)), alone=False) + preformatted(text)


def _middle(spans: Sequence[Span], policies: int) -> list[Span]:
    """The spans of two rounds, shifted to begin at 0."""
    starts = [i for i, span in enumerate(spans) if span.phase == "act"][::policies]
    first = max(0, len(starts) // 2 - 1)
    end = starts[first + SHOWN_ROUNDS] if first + SHOWN_ROUNDS < len(starts) else len(spans)
    shown = spans[starts[first] : end] if starts else spans
    zero = min(span.requested for span in shown)
    return [
        dataclasses.replace(span, requested=span.requested - zero, began=span.began - zero, ended=span.ended - zero)
        for span in shown
    ]
