"""A tool that runs what it is told: named as "tests.mutual_env.turns.armed_tools:..."."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mutual_env import Task, Verdict, VerifierSpec
from mutual_env.confined import Confined
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.types import Reply


class Armed(Confined):
    """The program that is written may set `answer` or `answers`; otherwise it is answered with "done"."""

    max_turns = 3

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        names: dict[str, Any] = {"Reply": Reply, "Over": Over, "Verdict": Verdict}
        names["answer"] = Reply("done", role="tool")
        exec(conversations[0].text, names)
        answers: list[Answer] = names.get("answers", [names["answer"]])
        return answers


class Vouched(Armed):
    runs_code = False


class Sevens:
    """`tool` names one of the classes above."""

    verifier = VerifierSpec("exact")

    def __init__(self, *, tool: str = "Armed") -> None:
        self.interaction = InteractionSpec(f"{__name__}:{tool}")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"{round}.{i}", f"task {i}", "7") for i in range(n)]
