"""A taskset of the library verifiers, as somebody might have written it."""

from __future__ import annotations

from collections.abc import Iterable

import verifiers.v1 as vf
from verifiers.v1.configs.taskset import TasksetConfig


class RiddleData(vf.TaskData):
    answer: str


class Riddle(vf.Task[RiddleData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=0.75)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.25)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 10)


class Riddles(vf.Taskset[Riddle, TasksetConfig]):
    def load(self) -> Iterable[Riddle]:
        for i in range(40):
            yield Riddle(RiddleData(prompt=f"twice {i}?", system_prompt="Be brief.", answer=str(2 * i)))


def riddles() -> Riddles:
    return Riddles(TasksetConfig())
