"""A line chart as inline SVG: lines with an optional band, smoothed where they are noisy, their values for page.js."""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from learners.report.ticks import Axis, axis

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30
COLOURS = 8  # classes c0..c7 of the page's style sheet; what comes after them is dotted, in the same colours
MOST_BANDS = 6  # of more lines they would be one grey block, with the lines in it
MAX_POINTS = 240  # beyond what a chart of this width can show
NOISY, WINDOW = 40, 20  # a line of more points is also shown as a mean over a 20th of them


@dataclass(frozen=True, slots=True)
class Line:
    """One series. `deviation` (same length, or empty) is drawn as a band around it."""

    label: str
    points: Sequence[tuple[float, float]]
    deviation: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(title: str, lines: Sequence[Line], *, bounds: tuple[float, float] | None = None, says: str = "") -> str:
    """`bounds` fixes the vertical axis (an accuracy is best read from 0 to 1); else it fits the data. `says` explains
    the title where a pointer rests on it."""
    full = [line for line in lines if line.points]
    if not full:
        return ""
    drawn = [_thinned(line) for line in full]
    xs = [x for line in drawn for x, _ in line.points]
    low, high = bounds or _fit([y for line in drawn for _, y in line.points])
    across = _Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, WIDTH - RIGHT)
    up = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    body = [*_grid(across, up)]
    banded = len(drawn) <= MOST_BANDS
    body += [_band(line, index, across, up) for index, line in enumerate(drawn) if line.deviation and banded]
    for index, (line, whole) in enumerate(zip(drawn, full, strict=True)):
        smooth = bounds is None and len(whole.points) > NOISY
        body.append(_stroke(line.points, index, across, up, "raw" if smooth else ""))
        body += [_stroke(_thinned(_smoothed(whole)).points, index, across, up, "smooth")] if smooth else []
    return (
        f'<figure><figcaption title="{html.escape(says)}">{html.escape(title)}</figcaption>'
        f'<div class="legend">{legend([line.label for line in drawn])}</div>'
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" '
        f'data-chart="{html.escape(_data(drawn, across))}">{"".join(body)}</svg></figure>'
    )


def legend(labels: Sequence[str]) -> str:
    """Beside each label a piece of its line, dashed as the line is."""
    return "".join(
        f'<span class="key {_class(i)}"><svg viewBox="0 0 26 4"><line class="line {_class(i)}" x2="26" y1="2" y2="2"/>'
        f'</svg><span class="name">{html.escape(label)}</span></span>'
        for i, label in enumerate(labels)
    )


def _class(index: int) -> str:
    return f"c{index % COLOURS}{' again' if index >= COLOURS else ''}"


def _data(lines: Sequence[Line], across: _Scale) -> str:
    """What is read off the chart where a pointer or finger is: rounds, values, and where the rounds stand."""
    return json.dumps(
        {
            "from": [across.low, across.high, across.start, across.end],
            "lines": [
                [line.label, [x for x, _ in line.points], [float(f"{y:.4g}") for _, y in line.points]] for line in lines
            ],
        },
        separators=(",", ":"),
    )


def _thinned(line: Line) -> Line:
    if len(line.points) <= MAX_POINTS:
        return line
    keep = [round(i * (len(line.points) - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)]
    return Line(line.label, [line.points[i] for i in keep], [line.deviation[i] for i in keep] if line.deviation else ())


def _smoothed(line: Line) -> Line:
    """The mean of what lies around each point: at the ends there is less of it."""
    half = max(1, len(line.points) // WINDOW // 2)
    values = [y for _, y in line.points]
    means = [statistics.fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    return Line(line.label, [(x, mean) for (x, _), mean in zip(line.points, means, strict=True)])


def _fit(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 0.5
        return low - margin, high + margin
    margin = (high - low) * 0.05
    return (0.0 if 0 <= low < high * 0.5 else low - margin), high + margin


def _grid(across: _Scale, up: _Scale) -> list[str]:
    values: Axis = axis(up.low, up.high, about=6)
    parts = []
    for value, label in values.ticks:
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_tick(LEFT - 6, y + 3.5, "end", label))
    parts += [_tick(LEFT, TOP - 3, "start", values.base)] if values.base else []
    bottom = HEIGHT - BOTTOM + 14
    rounds = axis(across.low, across.high, whole=True).ticks
    return [*parts, *(_tick(across(x), bottom, "middle", label) for x, label in rounds), _round_label()]


def _round_label() -> str:
    return _tick(WIDTH - RIGHT, HEIGHT - 3, "end", "round")


def _tick(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _band(line: Line, index: int, across: _Scale, up: _Scale) -> str:
    pairs = list(zip(line.points, line.deviation, strict=True))
    upper = [f"{across(x)},{up(min(y + d, up.high))}" for (x, y), d in pairs]
    lower = [f"{across(x)},{up(max(y - d, up.low))}" for (x, y), d in reversed(pairs)]
    return f'<polygon class="band c{index % COLOURS}" points="{" ".join(upper + lower)}"/>'


def _stroke(points: Sequence[tuple[float, float]], index: int, across: _Scale, up: _Scale, kind: str) -> str:
    """A single point is a short dash, so that it can be seen."""
    spots = [(across(x), up(y)) for x, y in points]
    if len(spots) == 1:
        spots = [(spots[0][0] - 3, spots[0][1]), (spots[0][0] + 3, spots[0][1])]
    path = " ".join(f"{x},{y}" for x, y in spots)
    return f'<polyline class="line {_class(index)}{f" {kind}" if kind else ""}" points="{path}"/>'
