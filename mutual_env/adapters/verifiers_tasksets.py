"""Tasksets of the library `verifiers` (0.4, its v1 API) as a task family, and our families as its tasksets:
`pip install verifiers`.

    name = "mutual_env.adapters.verifiers_tasksets:TasksetTasks"
    mutual_env.register("acme/riddles-v0", name, taskset="acme:riddles")
    taskset = as_taskset("mutual/arithmetic-v0", n=100)          # for an agent of verifiers

Both ways only text goes over, in episodes of one turn: what is scored is the last thing that the model wrote. Tasks
that need a runtime (a container, tools) are scored by what needs none, as `verifiers` does offline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.configs.taskset import TasksetConfig
from verifiers.v1.graph import MessageNode
from verifiers.v1.trace import AgentInfo, Trace, TraceTask
from verifiers.v1.types import AssistantMessage

from mutual_env.catalogue import load
from mutual_env.errors import InvalidInputError
from mutual_env.prompts import messages_of
from mutual_env.registry import source_of
from mutual_env.seeding import generator
from mutual_env.tasks.source import InteractiveSource, check_split, split_of, take_distinct
from mutual_env.types import Message, Prompt, Task, Verdict
from mutual_env.verifiers import VerifierPool, VerifierSpec


class TasksetTasks:
    """`taskset` is the "module:function" that returns a finite `verifiers` taskset; a round draws from it by seed.
    `split`: "train" or "eval", by a hash of the task's key."""

    def __init__(self, *, taskset: str, split: str = "train") -> None:
        check_split(split)
        self._name = taskset
        self._mine = [i for i, task in enumerate(_tasks(taskset)) if split_of(f"{taskset}:{task.key}") == split]
        if not self._mine:
            raise InvalidInputError(f"taskset {taskset!r} has no task in the split {split!r}")

    @property
    def verifier(self) -> VerifierSpec:
        return VerifierSpec(f"{__name__}:TaskScore", {"taskset": self._name})

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        order = generator(seed, "verifiers", self._name, round).permutation(self._mine).tolist()
        return take_distinct((self._task(i) for i in order), n, self._name)

    def _task(self, index: int) -> Task:
        data = _tasks(self._name)[index].data
        return Task(f"{self._name}:{index}", _prompt(data), "", {"index": index})


class TaskScore:
    """What a task of a taskset says of a text: the sum of its weighted rewards; right is at least 1."""

    inline = False

    def __init__(self, *, taskset: str) -> None:
        self.id = f"{__name__}:{taskset}"
        self._taskset = taskset

    def warm(self) -> None:
        _tasks(self._taskset)

    def verify(self, task: Task, text: str) -> Verdict:
        found = _tasks(self._taskset)[int(str(task.metadata["index"]))]
        trace = traced(found, text)
        asyncio.run(found.score(trace, None))
        return Verdict.scored(trace.reward, correct=trace.reward >= 1.0)


def traced(task: vf.Task, text: str) -> Trace:
    """A trace in which the model said this."""
    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    said = MessageNode(message=AssistantMessage(content=text), sampled=True)
    return Trace(task=about, agent=AgentInfo(config=vf.AgentConfig()), nodes=[said])


class FamilyData(vf.TaskData):  # type: ignore[misc]  # verifiers is not checked
    """One of our tasks on the wire."""

    answer: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


def as_taskset(
    family: str, *, n: int, seed: int = 0, pool: VerifierPool | None = None, **options: Any
) -> vf.Taskset[Any, TasksetConfig]:
    """The first `n` tasks of a family of one turn, scored by its verifier (None where there is no verdict: no reward is
    recorded). Without a `pool` it has one of its own, which the interpreter's exit closes."""
    source = source_of(family, **options)
    if isinstance(source, InteractiveSource):
        raise InvalidInputError(f"{family} has several turns: a taskset's task has one prompt, name another family")
    judge = pool or VerifierPool()

    def reward_of(task: Task, text: str) -> float:
        [verdict] = judge.verify(source.verifier, [(task, text)])
        if verdict.reward is None:
            raise vf.TaskError(f"no verdict on {task.id}: {verdict.status} {verdict.detail}")
        return verdict.reward

    return _FamilyTaskset(TasksetConfig(), lambda: source.draw(seed, 0, n), reward_of)


class _FamilyTask(vf.Task[FamilyData, vf.State, vf.TaskConfig]):  # type: ignore[misc]
    score_text: Callable[[Task, str], float]
    ours: Task

    @vf.reward  # type: ignore[untyped-decorator]
    async def reward(self, trace: Trace) -> float:
        return await asyncio.to_thread(self.score_text, self.ours, trace.last_reply)


class _FamilyTaskset(vf.Taskset[_FamilyTask, TasksetConfig]):  # type: ignore[misc]
    def __init__(
        self, config: TasksetConfig, draw: Callable[[], list[Task]], score: Callable[[Task, str], float]
    ) -> None:
        super().__init__(config)
        self._draw, self._score = draw, score

    def load(self) -> Iterable[_FamilyTask]:
        for task in self._draw():
            prompt: Any = task.prompt if isinstance(task.prompt, str) else [dict(m) for m in messages_of(task.prompt)]
            made = _FamilyTask(FamilyData(id=task.id, prompt=prompt, answer=task.answer, metadata=dict(task.metadata)))
            made.ours, made.score_text = task, self._score
            yield made


@cache
def _tasks(taskset: str) -> list[vf.Task]:
    found = load(f"taskset {taskset!r}", taskset)()
    if not isinstance(found, vf.Taskset) or not found.bounded:
        raise InvalidInputError(f"{taskset} must return a finite taskset of verifiers, got {found!r:.100}")
    return list(found)


def _prompt(data: vf.TaskData) -> Prompt:
    """As texts or messages of text; a system prompt stands before it."""
    said: list[Message] = []
    if data.system_prompt:
        said.append({"role": "system", "content": data.system_prompt})
    if isinstance(data.prompt, str) and not said:
        return data.prompt
    if isinstance(data.prompt, str):
        return (*said, {"role": "user", "content": data.prompt})
    for message in data.prompt or []:
        if not isinstance(message.content, str):
            raise InvalidInputError(f"task {data.idx} has a message that is not text: only text is a prompt here")
        said.append({"role": message.role, "content": message.content})
    return tuple(said)
