"""Names beside points, where they cover as little as possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mutual_env.types import Floats

Spot: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]

RADII = (12.0, 18.0, 26.0, 36.0, 48.0, 62.0, 78.0)
ANGLES = 24


def place_labels(
    axis: Any, names: Mapping[str, str], ends: Mapping[str, Spot], trails: Sequence[Floats]
) -> dict[str, Spot]:
    """The offset of each label from its point, in typographic points: the cheapest of a ring of candidates, in turn.

    The figure must have been laid out. Covering another label or leaving the axes costs most, then covering a point,
    then a trail, then distance.
    """
    scale = 72.0 / axis.figure.dpi
    spots = {name: tuple(axis.transData.transform(end) * scale) for name, end in ends.items()}
    lines = [axis.transData.transform(trail) * scale for trail in trails]
    dots = np.concatenate([_along(line) for line in lines])
    corners = axis.get_window_extent()
    frame = (corners.x0 * scale, corners.y0 * scale, corners.x1 * scale, corners.y1 * scale)
    taken: list[Box] = []
    placed: dict[str, Spot] = {}
    for name in sorted(ends, key=lambda n: (-spots[n][1], n)):
        candidates = [
            (radius * math.cos(turn), radius * math.sin(turn))
            for radius in RADII
            for turn in np.linspace(0.0, 2 * math.pi, ANGLES, endpoint=False)
        ]
        costs = []
        for offset in candidates:
            box = _box(spots[name], offset, names[name])
            points = np.array(list(spots.values()))
            cost = 60.0 * sum(_overlap(box, other) for other in taken) + 60.0 * _outside(box, frame)
            cost += 12.0 * _inside(points, box, 6.0) + 0.6 * _inside(dots, box, 1.0) + 0.12 * math.hypot(*offset)
            costs.append(cost + (0.5 if offset[0] < 0 else 0.0))
        placed[name] = candidates[int(np.argmin(costs))]
        taken.append(_box(spots[name], placed[name], names[name]))
    return placed


def _box(spot: Spot, offset: Spot, text: str) -> Box:
    """Where the text would stand: to the right of its anchor, or to the left where the offset points there."""
    width, height = 5.0 * len(text), 11.0
    x, y = spot[0] + offset[0], spot[1] + offset[1]
    left = x if offset[0] >= 0 else x - width
    return (left, y - height / 2, left + width, y + height / 2)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _outside(box: Box, frame: Box) -> bool:
    return box[0] < frame[0] or box[2] > frame[2] or box[1] < frame[1] or box[3] > frame[3]


def _inside(points: Floats, box: Box, margin: float) -> int:
    x, y = points[:, 0], points[:, 1]
    across = (x > box[0] - margin) & (x < box[2] + margin)
    return int(np.sum(across & (y > box[1] - margin) & (y < box[3] + margin)))


def _along(line: Floats) -> Floats:
    """Points on a polyline, close together."""
    steps = np.linspace(0.0, 1.0, 12)[:, None]
    pieces = [a + (b - a) * steps for a, b in itertools.pairwise(line)]
    return np.concatenate(pieces) if pieces else line
