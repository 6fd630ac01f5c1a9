"""SymPy's simplification while scorers are compared: once for each difference, and for few that a number decides."""

from __future__ import annotations

import contextlib
import functools
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest

LONGEST_SECONDS = 20.0  # of a processor, for one simplification: it may take any time


@dataclass(frozen=True)
class Simplified:
    """Differences on which it took too long, which count as not simplified; and those that became 0 and are not."""

    late: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)


@contextlib.contextmanager
def simplifying_once(patch: pytest.MonkeyPatch, share: int) -> Iterator[Simplified]:
    """A difference that comes a second time is remembered. One that is not 0 at some point is simplified if `share` is
    1; else for one in `share` alone."""
    import sympy

    simplify, found = sympy.simplify, Simplified()

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    @functools.cache
    def simplified(expression: Any) -> Any:
        is_other = share > 1 and not_zero_somewhere(expression)
        if is_other and zlib.crc32(str(expression).encode()) % share:
            return expression
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_SECONDS)
        try:
            simple = simplify(expression)
            if is_other and simple == 0:
                found.vanished.append(str(expression))
            return simple
        except TimeoutError:
            found.late.append(str(expression))
            return expression
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    patch.setattr(sympy, "simplify", simplified)
    before = signal.signal(signal.SIGVTALRM, interrupted)
    try:
        yield found
    finally:
        signal.signal(signal.SIGVTALRM, before)


def not_zero_somewhere(expression: Any) -> bool:
    """To forty digits, at points that the rule itself does not look at."""
    import sympy

    if not isinstance(expression, sympy.Expr) or expression.has(sympy.Integral, sympy.Derivative, sympy.Subs):
        return False
    symbols = sorted(expression.free_symbols, key=str)
    for start in ("0.613", "2.291", "-0.477"):
        value = expression.evalf(40, subs={s: sympy.Float(start, 40) + i for i, s in enumerate(symbols)})
        if value.is_number and value.is_finite and abs(value) > 1e-25:
            return True
    return False
