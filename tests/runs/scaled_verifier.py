"""The numeric verifier on a scale of its own, which it may or may not say."""

from __future__ import annotations

from dataclasses import replace

from mutual_env.types import Task, Verdict
from mutual_env.verifiers import make


class Scaled:
    inline = True

    def __init__(self, wrong: float = -1.0, right: float = 10.0, says: bool = True) -> None:
        self._numeric, self._wrong, self._right = make("numeric"), wrong, right
        self.id = f"scaled {wrong} {right} {says}"
        self.reward_range = (wrong, right) if says else None

    def verify(self, task: Task, text: str) -> Verdict:
        verdict = self._numeric.verify(task, text)
        return replace(verdict, reward=self._right if verdict.correct else self._wrong)
