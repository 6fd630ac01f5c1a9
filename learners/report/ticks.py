"""Where an axis is marked, and what the marks say: never the same text twice."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Marked values with their labels; `base` is what must be added to a label ("" as a rule)."""

    ticks: tuple[tuple[float, str], ...]
    base: str = ""


def axis(low: float, high: float, about: int = 5, *, whole: bool = False) -> Axis:
    """Round numbers between low and high, about as many as asked. `whole`: of things that are counted."""
    step = _step((high - low) / about)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [i * step for i in range(first, last + 1)]
    if _magnitude(high - low) < _magnitude(max(abs(low), abs(high))) - 4:  # what differs is far behind the point
        base = values[0]
        return Axis(tuple((value, _short(value - base, step)) for value in values), f"+ {base:.10g}")
    return Axis(tuple((value, _short(value, step)) for value in values))


def _step(rough: float) -> float:
    unit = 10.0 ** _magnitude(rough)
    return next(unit * m for m in (1.0, 2.0, 5.0, 10.0) if unit * m >= rough * (1 - 1e-9))


def _magnitude(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0


def _short(value: float, step: float) -> str:
    """As many decimals as the step has; powers of ten where that would be long."""
    if abs(value) < step * 1e-6:
        return "0"
    if abs(value) >= 1e5 or step < 1e-3:
        digits = max(0, _magnitude(abs(value)) - _magnitude(step))
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{max(0, -_magnitude(step * (1 + 1e-9)))}f}"
