"""Families whose world ends the process, or raises, in the middle of an episode: `AT` is the call at which."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from mutual_env import Task
from mutual_env.interaction import Answer, Conversation, InteractionSpec
from mutual_env.tasks.debate import Debate, DebateTasks
from mutual_env.tasks.retries import RetryTasks, TryAgain
from tests.mutual_env.turns.pile import Pile, PileTasks

KILL_AT = "TEST_KILL_AT"


class EnoughError(Exception):
    pass


class Clock:
    """Calls of `respond` so far, and the one at which it is enough (None: never)."""

    calls = 0
    at: int | None = None


def tick() -> None:
    Clock.calls += 1
    if Clock.at is not None and Clock.calls >= Clock.at:
        raise EnoughError
    if Clock.calls >= int(os.environ.get(KILL_AT, "1000000")):
        os.kill(os.getpid(), signal.SIGKILL)


class MortalTries(TryAgain):
    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        tick()
        return super().respond(task, conversations)


class MortalDebate(Debate):
    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        tick()
        return super().respond(task, conversations)


class MortalPile(Pile):
    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        tick()
        return super().respond(task, conversations)


class MortalPileTasks(PileTasks):
    """`digits` and `modulus` are of the other families: a game has none."""

    def __init__(self, *, digits: int = 1, modulus: int = 4, players: int = 2, split: str = "train") -> None:
        super().__init__(players=players, split=split)
        self.interaction = InteractionSpec(f"{__name__}:MortalPile", self.interaction.kwargs)


class MortalRetryTasks(RetryTasks):
    def __init__(self, **options: Any) -> None:
        super().__init__(family="mutual/arithmetic-v0", turns=3, hint="?", discount=0.5, **options)
        self.interaction = InteractionSpec(f"{__name__}:MortalTries", self.interaction.kwargs)


class MortalDebateTasks(DebateTasks):
    def __init__(self, **options: Any) -> None:
        super().__init__(family="mutual/arithmetic-v0", template="?{answers}=", line="{text}", **options)
        self.interaction = InteractionSpec(f"{__name__}:MortalDebate", self.interaction.kwargs)
