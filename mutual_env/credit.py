"""Credit finer than a completion: spans of what was written, each with an advantage of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mutual_env.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Span:
    """The advantage of the characters `start` to `end` of the text that was written in a turn (0 is the first); without
    an `end`, to the end of the turn, its stop token included."""

    turn: int
    advantage: float
    start: int = 0
    end: int | None = None


def checked_spans(spans: Sequence[Span], texts: Sequence[str]) -> tuple[Span, ...]:
    """The spans, if they lie in the texts of the turns."""
    for span in spans:
        if not isinstance(span, Span):
            raise InvalidInputError(f"Lesson.spans must hold Spans, got {span!r:.200}")
        if not isinstance(span.turn, int) or not 0 <= span.turn < len(texts):
            raise InvalidInputError(f"{span}: turn must be one of the {len(texts)} that were written, counted from 0")
        end = len(texts[span.turn]) if span.end is None else span.end
        if not 0 <= span.start <= end <= len(texts[span.turn]):
            raise InvalidInputError(f"{span}: start and end must lie in the text of {len(texts[span.turn])} characters")
        if not math.isfinite(span.advantage):
            raise InvalidInputError(f"{span}: advantage must be finite")
    return tuple(spans)
