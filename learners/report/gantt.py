"""Spans as a picture: in text for a terminal, as SVG for a report. Predicted or actual, it is the same type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from learners.report.chart import COLOURS
from learners.resources.record import Span

_ALONE = (
    "svg{background:#fcfcfa}text{fill:#1c1c1a}.c0{fill:#2a6fc9}.c1{fill:#d9622b}.c2{fill:#16915f}.c3{fill:#7a4fc0}"
    ".c4{fill:#b58400}.c5{fill:#c23a6b}.c6{fill:#0e8a9c}.c7{fill:#7d7b72}"
)
LETTERS = {"act": "a", "verify": "v", "score": "s", "update": "u", "sync": "y", "evaluate": "e"}


def as_text(spans: Sequence[Span], width: int = 72, most_rows: int = 24) -> str:
    """A row per policy, a letter per phase: a act, v verify, s score, u update, y sync, . waiting, x lost or failed."""
    if not spans:
        return "(nothing ran)"
    end = max(span.ended for span in spans) or 1.0
    rows = {span.policy: [" "] * width for span in sorted(spans, key=lambda span: span.requested)}
    for span in spans:
        first = int(span.began / end * width)
        for column in range(int(span.requested / end * width), min(first, width)):
            if rows[span.policy][column] == " ":
                rows[span.policy][column] = "."
    for span in sorted(spans, key=lambda span: span.ran):  # the longest last: it wins a shared column
        first, last = int(span.began / end * width), max(1, round(span.ended / end * width))
        letter = LETTERS.get(span.phase, "?") if span.outcome == "done" else "x"
        for column in range(min(first, width - 1), min(max(last, first + 1), width)):
            rows[span.policy][column] = letter
    label = max(len(policy) for policy in rows)
    lines = [f"{policy:>{label}} |{''.join(row)}|" for policy, row in list(rows.items())[:most_rows]]
    if len(rows) > most_rows:
        lines.append(f"{'':>{label}}  and {len(rows) - most_rows} more")
    scale = f"{'':>{label}} 0{seconds(end):>{width}}"
    return "\n".join([*lines, scale, f"{'':>{label}} a act, v verify, s score, u update, y sync, . waiting, x lost"])


def as_svg(panels: Sequence[tuple[str, Sequence[Span]]], width: int = 960, *, alone: bool = True) -> str:
    """One panel under the other, on one time axis: e.g. predicted and actual. A row per device, a colour per policy,
    that of its lines in the charts. `alone`: a file of its own, which brings the colours that a page has already."""
    end = max((span.ended for _, spans in panels for span in spans), default=0.0) or 1.0
    policies = list(dict.fromkeys(span.policy for _, spans in panels for span in spans))
    colours = {policy: f"c{index % COLOURS}" for index, policy in enumerate(policies)}
    body: list[str] = []
    top = 8
    for title, spans in panels:
        body.append(f'<text x="8" y="{top + 12}" font-weight="bold">{escape(title)}</text>')
        top += 20
        for name, items in _lanes(spans):
            body.append(f'<text x="8" y="{top + 12}">{escape(name)}</text>')
            body += [_bar(span, top, end, width, colours[span.policy]) for span in items]
            top += 18
        top += 10
    body.append(f'<text x="{width - 8}" y="{top + 4}" text-anchor="end">{seconds(end)}</text>')
    for index, policy in enumerate(policies[:12]):
        left, y = 8 + 150 * (index % 6), top + 12 + 18 * (index // 6)
        body.append(f'<rect class="fill {colours[policy]}" x="{left}" y="{y}" width="12" height="12"/>')
        body.append(f'<text x="{left + 18}" y="{y + 10}">{escape(policy)}</text>')
    height = top + 20 + 18 * (1 + min(len(policies), 12) // 6)
    style = f"<style>{_ALONE}</style>" if alone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="sans-serif" font-size="11">{style}{"".join(body)}</svg>\n'
    )


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def _lanes(spans: Iterable[Span]) -> list[tuple[str, list[Span]]]:
    """Rows in which nothing overlaps: a device that several share at one time gets as many as it takes."""
    by_device: dict[str, list[list[Span]]] = {}
    for span in sorted(spans, key=lambda span: span.began):
        for device in span.devices:
            lanes = by_device.setdefault(device, [])
            free = next((lane for lane in lanes if lane[-1].ended <= span.began + 1e-9), None)
            if free is None:
                lanes.append([span])
            else:
                free.append(span)
    return [
        (device if index == 0 else "", lane)
        for device, lanes in sorted(by_device.items())
        for index, lane in enumerate(lanes)
    ]


def _bar(span: Span, top: int, end: float, width: int, colour: str) -> str:
    left = 130 + span.began / end * (width - 140)
    wide = max(0.5, span.ran / end * (width - 140))
    opacity = {"act": 1.0, "update": 0.75}.get(span.phase, 0.5) if span.outcome == "done" else 0.2
    tip = escape(f"{span.policy} {span.phase}: {seconds(span.began)} to {seconds(span.ended)}, {span.outcome}")
    return (
        f'<rect class="fill {colour}" x="{left:.1f}" y="{top}" width="{wide:.1f}" height="15" fill-opacity="{opacity}">'
        f"<title>{tip}</title></rect>"
    )
