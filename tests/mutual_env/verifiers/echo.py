"""A verifier that is right where the text is the task's answer, unchanged."""

from __future__ import annotations

from dataclasses import dataclass

from mutual_env.types import Task, Verdict


@dataclass(frozen=True)
class Echo:
    id: str = "echo"
    inline: bool = False

    def verify(self, task: Task, text: str) -> Verdict:
        same = text == task.answer and task.prompt == ({"role": "user", "content": "p"},)
        return Verdict.scored(float(same), correct=same)
