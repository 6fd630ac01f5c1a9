"""A line chart as inline SVG: lines with an optional band, direct labels, values on hover."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30
COLOURS = 6  # classes c0..c5 of the page's style sheet
MAX_POINTS = 240  # beyond what a chart of this width can show


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
    drawn = [_thinned(line) for line in lines if line.points]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    low, high = bounds or _fit([y for line in drawn for _, y in line.points])
    across = _Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, WIDTH - RIGHT)
    up = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    body = [*_grid(across, up)]
    body += [_band(line, index, across, up) for index, line in enumerate(drawn) if line.deviation]
    body += [_stroke(line, index, across, up) for index, line in enumerate(drawn)]
    legend = "".join(
        f'<span class="key c{i % COLOURS}">{html.escape(line.label)}</span>' for i, line in enumerate(drawn)
    )
    return (
        f'<figure><figcaption title="{html.escape(says)}">{html.escape(title)}</figcaption>'
        f'<div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(body)}</svg></figure>"
    )


def _thinned(line: Line) -> Line:
    if len(line.points) <= MAX_POINTS:
        return line
    keep = [round(i * (len(line.points) - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)]
    return Line(line.label, [line.points[i] for i in keep], [line.deviation[i] for i in keep] if line.deviation else ())


def _fit(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 0.5
        return low - margin, high + margin
    margin = (high - low) * 0.05
    return (0.0 if 0 <= low < high * 0.5 else low - margin), high + margin


def _grid(across: _Scale, up: _Scale) -> list[str]:
    parts = []
    for value in _ticks(up.low, up.high):
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_tick(LEFT - 6, y + 3.5, "end", f"{value:g}"))
    bottom = HEIGHT - BOTTOM + 14
    parts += [_tick(across(value), bottom, "middle", f"{value:g}") for value in _ticks(across.low, across.high)]
    return [*parts, _tick(WIDTH - RIGHT, HEIGHT - 3, "end", "round")]


def _tick(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between low and high."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _band(line: Line, index: int, across: _Scale, up: _Scale) -> str:
    pairs = list(zip(line.points, line.deviation, strict=True))
    upper = [f"{across(x)},{up(min(y + d, up.high))}" for (x, y), d in pairs]
    lower = [f"{across(x)},{up(max(y - d, up.low))}" for (x, y), d in reversed(pairs)]
    return f'<polygon class="band c{index % COLOURS}" points="{" ".join(upper + lower)}"/>'


def _stroke(line: Line, index: int, across: _Scale, up: _Scale) -> str:
    colour = f"c{index % COLOURS}"
    path = " ".join(f"{across(x)},{up(y)}" for x, y in line.points)
    dots = "".join(_dot(across(x), up(y), colour, f"{line.label}, {x:g}: {y:.4g}") for x, y in line.points)
    return f'<polyline class="line {colour}" points="{path}"/>{dots}'


def _dot(x: float, y: float, colour: str, label: str) -> str:
    return f'<circle class="dot {colour}" cx="{x}" cy="{y}" r="4"><title>{html.escape(label)}</title></circle>'
