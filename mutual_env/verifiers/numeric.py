"""The same number, however it is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from mutual_env.errors import InvalidInputError
from mutual_env.types import Task, Verdict
from mutual_env.verifiers.answers import Extraction, check_extraction, final_answer
from mutual_env.verifiers.spec import MAX_CHARS, spec_id

_MAX_DIGITS = 400
_NUMBER = re.compile(
    r"(?<![\w.)\]])[-+]?"  # a sign counts only where it cannot be a minus between two operands
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?"
    r"(?:[eE][-+]?\d{1,3}(?!\d))?"
    r"(?:\s*/\s*(?:\d+))?"
    r"|(?<=[\w)\]])\d+(?:\.\d+)?"
)


@dataclass(frozen=True, slots=True)
class Numeric:
    """1 where the last number of the final answer is the task's, within `abs_tol` or `rel_tol` of it; else 0.

    Numbers are compared as exact fractions: 0.5, .50, 1/2 and 5e-1 are one number, and with both tolerances 0 nothing
    else is. Thousands separators ("1,234") are read; a percent sign is not. Degenerate: no number, one of more than 400
    digits, or a zero denominator is `wrong_format`; a task whose own answer holds no number is refused.
    """

    abs_tol: float = 0.0
    rel_tol: float = 0.0
    extraction: Extraction = "auto"
    inline: bool = True

    def __post_init__(self) -> None:
        check_extraction("numeric", self.extraction)
        for name, value in (("abs_tol", self.abs_tol), ("rel_tol", self.rel_tol)):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInputError(f"numeric.{name} must be a finite number >= 0, got {value!r}")

    @property
    def id(self) -> str:
        return spec_id("numeric", {"abs_tol": self.abs_tol, "extraction": self.extraction, "rel_tol": self.rel_tol})

    def verify(self, task: Task, text: str) -> Verdict:
        answer = final_answer(text[-MAX_CHARS:], self.extraction)
        got = None if answer is None else last_number(answer)
        if got is None:
            return Verdict.wrong_format(detail="no number found")
        expected = last_number(final_answer(task.answer) or "")
        if expected is None:
            raise InvalidInputError(
                f"task {task.id!r}: its answer {task.answer[:80]!r} holds no number, so `numeric` cannot check it"
            )
        allowed = max(Fraction(self.abs_tol), Fraction(self.rel_tol) * abs(expected))
        correct = abs(got - expected) <= allowed
        return Verdict.scored(float(correct), correct=correct)


def last_number(text: str) -> Fraction | None:
    """The last number in the text, exactly; None where there is none that can be read."""
    found = [match.group() for match in _NUMBER.finditer(text.replace("\N{MINUS SIGN}", "-"))]
    if not found or len(found[-1]) > _MAX_DIGITS:
        return None
    numerator, _, denominator = found[-1].replace(",", "").partition("/")
    bottom = Fraction(denominator.strip() or 1)
    return Fraction(numerator.strip()) / bottom if bottom else None
