"""Verifiers that break the contract, one way each. The pool's workers import them by name."""

from __future__ import annotations

import os
import random
from itertools import count

from mutual_env.types import Task, Verdict


class Honest:
    id = "honest"
    inline = True

    def verify(self, task: Task, text: str) -> Verdict:
        right = text == task.answer
        return Verdict.scored(float(right), correct=right)


class Boundless(Honest):
    reward_range = (0.0, 0.5)


class Generous(Honest):
    def verify(self, task: Task, text: str) -> Verdict:
        return Verdict.scored(1.0, correct=True)


class Nameless(Honest):
    id = ""


class OtherName(Honest):
    made = count()

    def __init__(self) -> None:
        self.id = f"other-{next(self.made)}"


class Drifting(Honest):
    """Finds nothing right after its first five calls."""

    def __init__(self) -> None:
        self._calls = 0

    def verify(self, task: Task, text: str) -> Verdict:
        self._calls += 1
        right = text == task.answer and self._calls <= 5
        return Verdict.scored(float(right), correct=right)


class Dice(Honest):
    def verify(self, task: Task, text: str) -> Verdict:
        random.random()
        return super().verify(task, text)


class Picky(Honest):
    def verify(self, task: Task, text: str) -> Verdict:
        return super().verify(task, text[:10].encode("ascii").decode())


class Mortal(Honest):
    inline = False

    def verify(self, task: Task, text: str) -> Verdict:
        if "\0" in text:
            os._exit(3)
        return super().verify(task, text)
