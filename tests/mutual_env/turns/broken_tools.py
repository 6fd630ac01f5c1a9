"""A tool that does what it is told, however bad: named as "tests.mutual_env.turns.broken_tools:..."."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from mutual_env import Task, Verdict, VerifierSpec
from mutual_env.confined import Confined
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.types import Reply


class Obedient(Confined):
    max_turns = 3

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._obey(c.text) for c in conversations]

    def _obey(self, text: str) -> Answer:
        match text:
            case "hang":
                time.sleep(3600)
            case "fork":
                while True:
                    os.fork()
            case "flood":
                hoard = []
                while True:
                    hoard.append("x" * (1 << 20))
            case "shout":
                return Reply("x" * (1 << 20))
            case "raise":
                raise RuntimeError("this tool is broken")
            case "exit":
                os._exit(3)
            case "pay":
                return Over(Verdict.scored(1.0, correct=True))
            case "bribe":
                return Reply("here", role="system", reward=5.0)
            case "half a character":
                return Reply("\ud800")
        return Reply(f"heard {text}", role="tool") if text != "7" else Over()


class Vouched(Obedient):
    runs_code = False


class Together(Obedient):
    joint = True


class Unconfined:
    inline, joint, max_turns = False, False, 2

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        sys.exit("this must not run in the env's process")


class Sevens:
    """`tool` names one of the classes above."""

    verifier = VerifierSpec("exact")

    def __init__(self, *, tool: str = "Obedient") -> None:
        self.interaction = InteractionSpec(f"{__name__}:{tool}")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"{round}.{i}", f"task {i}", "7") for i in range(n)]
