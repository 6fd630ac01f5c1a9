"""A verifier that can be made to run what it reads, and does not say so; and functions and verifiers that say so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mutual_env.types import JSON, Task, Verdict
from mutual_env.verifiers import Outcome, make


@dataclass(frozen=True)
class Gullible:
    """Right where the text is the task's answer; what follows "run:" is run first, as library code does by mistake."""

    id: str = "gullible"
    inline: bool = False

    def verify(self, task: Task, text: str) -> Verdict:
        command, _, code = text.partition(":")
        if command == "run":
            exec(code, {})
        return Verdict.scored(float(text == task.answer), correct=text == task.answer, detail=f"read {len(text)}")


class _Wrapped:
    """A real verifier, behind a hole: what follows "run:" is run first."""

    inline = False
    name = ""

    @property
    def id(self) -> str:
        return f"gullible-{self.name}"

    def warm(self) -> None:
        """Else each worker would load the libraries anew, and there is a new one after each payload."""
        make(self.name).warm()  # type: ignore[attr-defined]

    def verify(self, task: Task, text: str) -> Verdict:
        command, _, code = text.partition(":")
        if command == "run":
            exec(code, {})
        return make(self.name).verify(task, text)


class Formulas(_Wrapped):
    name = "math_verify"


class Puzzles(_Wrapped):
    name = "reasoning_gym"


@dataclass(frozen=True)
class Frank:
    """Runs what it reads, and says so. The detail is the process that it ran in."""

    id: str = "frank"
    inline: bool = False
    runs_code: bool = True

    def verify(self, task: Task, text: str) -> Verdict:
        exec(text, {})
        return Verdict.scored(1.0, correct=True, detail=str(os.getpid()))


@dataclass(frozen=True)
class Trusted:
    """Evaluates, and vouches for what reaches its evaluation. The detail is the process that it ran in."""

    id: str = "trusted"
    inline: bool = False
    runs_code: bool = False

    def verify(self, task: Task, text: str) -> Verdict:
        return Verdict.scored(eval(str(int(text))), correct=False, detail=str(os.getpid()))


@dataclass(frozen=True)
class Programs:
    """The text is a program; right where it leaves the task's answer in `answer`. What runs cannot reach the judge."""

    id: str = "programs"
    inline: bool = False
    program: str = "gullible:left_in_answer"

    def question(self, task: Task, text: str) -> JSON:
        return text

    def judge(self, task: Task, text: str, outcome: Outcome) -> Verdict:
        if outcome.status != "ok":
            return Verdict.wrong_format(detail=f"{outcome.status}: {outcome.detail}")
        return Verdict.scored(float(outcome.value == task.answer), correct=outcome.value == task.answer)

    def verify(self, task: Task, text: str) -> Verdict:
        raise NotImplementedError


def left_in_answer(program: Any) -> JSON:
    space: dict[str, Any] = {}
    exec(program, space)
    answer: JSON = space.get("answer")
    return answer


def returned(expression: Any) -> Any:
    return eval(expression)
