"""Who is a knight and who is a knave, scored as in Logic-RL."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import Task, Verdict
from mutual_env.verifiers.spec import spec_id

Opening: TypeAlias = Literal["either", "written", "given"]
_TAGS = ("</think>", "<answer>", "</answer>")
_LINE = re.compile(r"\b([^\W\d_]+)\b\s+is\s+a\s+\b(knight|knave)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnightsKnaves:
    """The form is worth `form` or -`form`; the answer `right`, `wrong`, or `unreadable`; a reward is the sum of both.

    Form: `<think>`, `</think>`, `<answer>`, `</answer>` once each and in this order, whatever stands between and around
    them. `opening` says where `<think>` comes from: "written" by the policy, "given" as the last word of the prompt, so
    that the policy must not write another, or "either". Answer: between the last `<answer>` tags there are as many
    knights and knaves as persons, and "NAME is a knight" or "NAME is a knave" for each of them. An answer in the wrong
    form counts as unreadable. Only an answer that is right in every person and in form is correct.

    With Logic-RL's numbers (1; 2, -1.5, -2) rewards are 3, -0.5, -1 and -3.
    """

    form: float = 1.0
    right: float = 2.0
    wrong: float = -1.5
    unreadable: float = -2.0
    opening: Opening = "either"
    inline: bool = True

    def __post_init__(self) -> None:
        for name in ("form", "right", "wrong", "unreadable"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise InvalidInputError(f"knights_knaves.{name} must be a finite number, got {value!r}")
        if self.opening not in get_args(Opening):
            raise UnknownNameError.of("knights_knaves opening", self.opening, get_args(Opening))

    @property
    def id(self) -> str:
        return spec_id("knights_knaves", {f.name: getattr(self, f.name) for f in fields(self) if f.name != "inline"})

    @property
    def reward_range(self) -> tuple[float, float]:
        out_of_form = self.unreadable - abs(self.form)
        given = [out_of_form, *(self.form + answer for answer in (self.right, self.wrong, self.unreadable))]
        return min(given), max(given)

    def verify(self, task: Task, text: str) -> Verdict:
        expected = roles_of(task.answer)
        if not expected:
            raise InvalidInputError(f"task {task.id!r}: its answer {task.answer[:80]!r} names no knight and no knave")
        if not self._is_in_form(text):
            return self._unreadable(-abs(self.form), "tags")
        answer = text[text.index("<answer>") + len("<answer>") : text.index("</answer>")]
        said = _said(answer, list(expected))
        if said is None:
            return self._unreadable(self.form, "not each person's role, once")
        correct = said == expected
        return Verdict.scored(self.form + (self.right if correct else self.wrong), correct=correct)

    def _unreadable(self, form: float, detail: str) -> Verdict:
        return Verdict(float(form + self.unreadable), False, "wrong_format", detail=detail)

    def _is_in_form(self, text: str) -> bool:
        opened = text.count("<think>")
        allowed = {"either": (0, 1), "written": (1,), "given": (0,)}[self.opening]
        places = [text.find("<think>"), *(text.find(tag) for tag in _TAGS)]  # -1 where the prompt has it
        once = all(text.count(tag) == 1 for tag in _TAGS)
        return opened in allowed and once and places == sorted(places)


def roles_of(solution: str) -> dict[str, str]:
    """Each person's role, in lower case, by a solution with one line a person."""
    found = [_LINE.search(line) for line in solution.splitlines()]
    return {match[1].lower(): match[2].lower() for match in found if match}


def _said(answer: str, names: list[str]) -> dict[str, str] | None:
    """The role that the answer gives each person; None if it speaks of more or fewer roles, or leaves somebody out."""
    lowered = answer.lower()
    if lowered.count("knight") + lowered.count("knave") != len(names):
        return None
    said: dict[str, str] = {}
    for match in _LINE.finditer(answer):
        said.setdefault(match[1].lower(), match[2].lower())
    return {name: said[name] for name in names} if all(name in said for name in names) else None
