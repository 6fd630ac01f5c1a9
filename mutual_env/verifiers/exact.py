"""The same string, apart from spacing and Unicode form."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from mutual_env.types import Task, Verdict
from mutual_env.verifiers.answers import Extraction, check_extraction, final_answer, readable
from mutual_env.verifiers.spec import MAX_CHARS, spec_id


@dataclass(frozen=True, slots=True)
class Exact:
    """1 where the final answer equals the task's, both in NFC and with runs of white space as one space; else 0.

    Degenerate: no answer at all is `wrong_format`; a task whose own answer is blank can only be met by an empty answer
    tag or box, which is `wrong_format` too.
    """

    extraction: Extraction = "auto"
    ignore_case: bool = False
    inline: bool = True

    def __post_init__(self) -> None:
        check_extraction("exact", self.extraction)

    @property
    def id(self) -> str:
        return spec_id("exact", {"extraction": self.extraction, "ignore_case": self.ignore_case})

    def verify(self, task: Task, text: str) -> Verdict:
        answer = final_answer(readable(text, self.extraction, MAX_CHARS), self.extraction)
        if answer is None:
            return Verdict.wrong_format(detail="no answer found")
        right, collapsed = self._normal(task.answer), " ".join(answer.split())
        correct = len(collapsed) <= _SHRINKS * len(right) and self._normal(collapsed) == right
        return Verdict.scored(float(correct), correct=correct)

    def _normal(self, text: str) -> str:
        collapsed = " ".join(unicodedata.normalize("NFC", text).split())
        return collapsed.casefold() if self.ignore_case else collapsed


_SHRINKS = 4
"""NFC makes one character of at most so many. It takes a quarter of a second on thousands of accents in a row, so what
is too long to be the answer is not put into it."""
