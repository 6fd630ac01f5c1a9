"""The same number, however it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import JSON, Task, Verdict
from mutual_env.verifiers.answers import Extraction, check_extraction, final_answer, readable
from mutual_env.verifiers.spec import MAX_CHARS, spec_id

Which: TypeAlias = Literal["last", "first", "only"]
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
    """1 where the number of the final answer is the task's, within `abs_tol` or `rel_tol` of it; else 0.

    `number` says which one is meant where the final answer holds several: the "last" (after a chain of thought), the
    "first" (of a policy that goes on writing), or the "only" one: an answer that is anything but a number, apart from
    white space and a full stop, cannot be read.

    Numbers are compared as exact fractions: 0.5, .50, 1/2 and 5e-1 are one number, and with both tolerances 0 nothing
    else is. Thousands separators ("1,234") are read; a percent sign is not. Degenerate: no number, one of more than 400
    digits, or a zero denominator is `wrong_format`; a task whose own answer holds no number is refused.
    """

    abs_tol: float = 0.0
    rel_tol: float = 0.0
    extraction: Extraction = "auto"
    number: Which = "last"
    inline: bool = True

    def __post_init__(self) -> None:
        check_extraction("numeric", self.extraction)
        if self.number not in _CHOICES:
            raise UnknownNameError.of("numeric number", self.number, _CHOICES)
        for name, value in (("abs_tol", self.abs_tol), ("rel_tol", self.rel_tol)):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInputError(f"numeric.{name} must be a finite number >= 0, got {value!r}")

    @property
    def id(self) -> str:
        options: dict[str, JSON] = {"abs_tol": self.abs_tol, "extraction": self.extraction, "rel_tol": self.rel_tol}
        return spec_id("numeric", options if self.number == "last" else {**options, "number": self.number})

    def verify(self, task: Task, text: str) -> Verdict:
        answer = final_answer(readable(text, self.extraction, MAX_CHARS), self.extraction)
        got = None if answer is None else _CHOICES[self.number](answer)
        if got is None:
            detail = "more than a number, or none" if self.number == "only" else "no number found"
            return Verdict.wrong_format(detail=detail)
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
    found = _numbers(text)
    return _value(found[-1]) if found else None


def first_number(text: str) -> Fraction | None:
    """The first number in the text, likewise."""
    found = _numbers(text)
    return _value(found[0]) if found else None


def only_number(text: str) -> Fraction | None:
    """The number that the text is; None where it is more, or none."""
    found = _numbers(text)
    bare = text.replace("\N{MINUS SIGN}", "-").strip()
    return _value(found[0]) if len(found) == 1 and bare in (found[0], f"{found[0]}.") else None


def _numbers(text: str) -> list[str]:
    return [match.group() for match in _NUMBER.finditer(text.replace("\N{MINUS SIGN}", "-"))]


def _value(number: str) -> Fraction | None:
    if len(number) > _MAX_DIGITS:
        return None
    numerator, _, denominator = number.replace(",", "").partition("/")
    bottom = Fraction(denominator.strip() or 1)
    return Fraction(numerator.strip()) / bottom if bottom else None


_CHOICES: Mapping[Which, Callable[[str], Fraction | None]] = {
    "last": last_number,
    "first": first_number,
    "only": only_number,
}
