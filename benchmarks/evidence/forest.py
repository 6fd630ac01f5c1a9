"""A forest plot as a small SVG: a row an arm, a dot and an interval a policy, zero as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from learners.evaluation.comparison import Difference

_COLOURS = ("#2a6fb0", "#c45a1a", "#3c8c4a", "#8a4fa3")
_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 22, 150, 420, 20, 34
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}line.zero{stroke:#888}line.grid{stroke:#ddd}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}line.grid{stroke:#444}}"
)


def forest(rows: Sequence[Difference], policies: Sequence[str], title: str) -> str:
    arms = list(dict.fromkeys(row.arm for row in rows))
    by_place: Mapping[tuple[str, str], Difference] = {(row.arm, row.policy): row for row in rows}
    low = min([-0.1, *(row.low for row in rows if row.low == row.low)])
    high = max([0.1, *(row.high for row in rows if row.high == row.high)])
    marks = [n / 10 for n in range(int(low * 10 - 1), int(high * 10 + 1) + 1, 1 if high - low < 0.6 else 2)]
    low, high = min(low, marks[0]), max(high, marks[-1])

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * _WIDTH, 1)

    bottom = _TOP + len(arms) * _ROW
    out = [f'<text x="{_LEFT}" y="14">{escape(title)}</text>', *_legend(policies)]
    for mark in marks:
        kind = "zero" if abs(mark) < 1e-9 else "grid"
        out.append(f'<line class="{kind}" x1="{x(mark)}" x2="{x(mark)}" y1="{_TOP}" y2="{bottom}"/>')
        out.append(f'<text x="{x(mark)}" y="{bottom + 14}" text-anchor="middle">{mark:+.1f}</text>')
    for i, arm in enumerate(arms):
        middle = _TOP + i * _ROW + _ROW / 2
        out.append(f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(arm)}</text>')
        for j, policy in enumerate(policies):
            if (row := by_place.get((arm, policy))) is not None:
                out += _interval(row, x, middle + 6 * (j - (len(policies) - 1) / 2), _COLOURS[j % len(_COLOURS)])
    size = f'viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {bottom + 22}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>' + "".join(out) + "</svg>\n"


def _legend(policies: Sequence[str]) -> list[str]:
    return [
        f'<circle cx="{_LEFT + 6 + 90 * j}" cy="24" r="3.5" fill="{_COLOURS[j % len(_COLOURS)]}"/>'
        f'<text x="{_LEFT + 14 + 90 * j}" y="28">{escape(policy)}</text>'
        for j, policy in enumerate(policies)
    ]


def _interval(row: Difference, x: object, y: float, colour: str) -> list[str]:
    assert callable(x)
    return [
        f'<line x1="{x(row.low)}" x2="{x(row.high)}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{x(row.difference)}" cy="{y}" r="3.5" fill="{colour}"/>',
    ]
